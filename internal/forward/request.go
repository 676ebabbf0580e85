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
	if v := q.Client["User-Agent"]; len(v) > 0 {
		b = appendField(b, "User-Agent", v[0])
	}
	for _, name := range carried {
		if v := q.Client[name]; len(v) > 0 {
			b = appendField(b, name, v[0])
		}
	}
	encoding := "identity"
	if v := q.Client["Accept-Encoding"]; len(v) > 0 && v[0] != "" {
		encoding = v[0]
	}
	b = appendField(b, "Accept-Encoding", encoding)
	b = append(b, "Authorization: Bearer "...)
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

// appendField adds a field, unless its value could end it and begin another: no server hands on such a value, and
// none goes up.
func appendField(b []byte, name, value string) []byte {
	if !httpguts.ValidHeaderFieldValue(value) {
		return b
	}
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
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
		if v := q.Client[name]; len(v) > 0 {
			h[name] = v[:1:1]
		}
	}
	// "" keeps net/http from naming itself.
	h["User-Agent"] = []string{q.Client.Get("User-Agent")}
	// Without this field the transport would ask for gzip and unpack it on its own.
	h["Accept-Encoding"] = []string{"identity"}
	if v := q.Client.Get("Accept-Encoding"); v != "" {
		h["Accept-Encoding"][0] = v
	}
	switch {
	case q.rows:
		h["Content-Type"] = []string{"application/x-ndjson"}
	case len(q.Body) > 0:
		h["Content-Type"] = []string{"application/json"}
	}
	h["Authorization"] = []string{"Bearer " + x.token}
	return h
}
