package forward

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// carried are the fields of the client's header that go up, in canonical form. Content-Type is not among them:
// what a body is, is known. Neither is anything that tells who or where the client is.
var carried = [...]string{
	"Accept",
	"If-Modified-Since",
	"If-None-Match",
	"Traceparent",
	"Tracestate",
}

const bearer = "Bearer "

// maxDirectBody is the largest body, in bytes, that is sent in one piece with its request: the server's side of a
// connection takes it at once.
const maxDirectBody = 64 << 10

// texts holds room for requests.
var texts = sync.Pool{New: func() any { return new([]byte) }}

// text writes the request that goes up, for HTTP/1.1. It is the one that request builds.
func (x *exchange) text(b []byte, q *Request) []byte {
	b = append(b, q.Method...)
	b = append(b, ' ')
	b = append(b, x.prefix...)
	b = append(b, q.Path...)
	if q.RawQuery != "" {
		b = append(b, '?')
		b = append(b, q.RawQuery...)
	}
	b = appendField(append(b, " HTTP/1.1\r\n"...), "Host", x.base.Host)
	if v := told(q.Client, "User-Agent"); v != "" {
		b = appendField(b, "User-Agent", v)
	}
	for _, name := range carried {
		if v := told(q.Client, name); v != "" {
			b = appendField(b, name, v)
		}
	}
	b = appendField(b, "Accept-Encoding", encodings(q.Client))
	b = append(b, "Authorization: "+bearer...)
	b = append(append(b, x.token...), "\r\n"...)
	switch {
	case len(q.Body) > 0:
		b = appendField(b, "Content-Type", "application/json")
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(q.Body)), 10), "\r\n"...)
	case q.Method == http.MethodPost:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	return append(append(b, "\r\n"...), q.Body...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// told returns the first value of one of the client's fields, or "". A value that could end its field and begin another does
// not go up: no server hands on such a value, but a config can make one of a placeholder.
func told(client http.Header, name string) string {
	if v := client[name]; len(v) > 0 && httpguts.ValidHeaderFieldValue(v[0]) {
		return v[0]
	}
	return ""
}

// encodings returns what the client takes. Without the field net/http's transport would ask for gzip and unpack it on its own.
func encodings(client http.Header) string {
	if v := told(client, "Accept-Encoding"); v != "" {
		return v
	}
	return "identity"
}

// inOneLine tells whether text can stand in the first line of a request without ending it.
func inOneLine(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] == 0x7f {
			return false
		}
	}
	return true
}

// request builds the request that goes up, for a transport.
func (x *exchange) request(q *Request) *http.Request {
	u := x.base
	u.Path += q.Path
	if u.RawPath != "" {
		u.RawPath += q.Path
	}
	u.RawQuery = q.RawQuery

	r := &http.Request{
		Method: q.Method,
		URL:    &u,
		Host:   u.Host,
		Header: x.header(q),
		Body:   http.NoBody, // with POST, net/http sends Content-Length: 0 for it
	}
	if body := q.Body; len(body) > 0 {
		r.ContentLength = int64(len(body))
		r.Body = io.NopCloser(bytes.NewReader(body))
		// Lets the transport repeat a request that met a connection which was just being closed.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return r
}

func (x *exchange) header(q *Request) http.Header {
	h := make(http.Header, len(carried)+4)
	for _, name := range carried {
		if v := told(q.Client, name); v != "" {
			h[name] = []string{v}
		}
	}
	h["User-Agent"] = []string{told(q.Client, "User-Agent")} // "" keeps net/http from naming itself
	h["Accept-Encoding"] = []string{encodings(q.Client)}
	switch {
	case q.rows:
		h["Content-Type"] = []string{"application/x-ndjson"}
	case len(q.Body) > 0:
		h["Content-Type"] = []string{"application/json"}
	}
	h["Authorization"] = []string{bearer + x.token}
	return h
}
