package forward

import (
	"bytes"
	"io"
	"net/http"
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

// request builds the request that goes up.
func (x *exchange) request(q Request) *http.Request {
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
	if len(q.Body) > 0 {
		r.ContentLength = int64(len(q.Body))
		r.Body = io.NopCloser(bytes.NewReader(q.Body))
		// Lets the transport repeat a request that met a connection which was just being closed.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(q.Body)), nil }
	}
	return r.WithContext(x.ctx)
}

func (x *exchange) header(q Request) http.Header {
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
