package devstack

import (
	"context"
	"maps"
	"net/http"
	"strconv"
)

// Stop is the place where a faulty answer stops.
type Stop int

// The places. Hanging lasts until the client has gone or the server is closed.
const (
	StopNowhere      Stop = iota // the whole answer is sent
	HangBeforeHeader             // nothing is sent, the connection stays open
	DropBeforeHeader             // nothing is sent, the connection is closed
	HangInBody                   // the header and half of the body are sent, the connection stays open
	DropInBody                   // the header and half of the body are sent, the connection is closed
)

// Fault is something that goes wrong with one answer. What is left zero stays as it would have been.
type Fault struct {
	Status  int         // 408, 503, 302, ...
	Header  http.Header // set over the answer's own, such as Location or Retry-After
	Body    []byte      // nil: the answer's own body
	Chunked bool        // no Content-Length
	Stop    Stop

	// Step, when set, sends the body in pieces of Piece bytes (0 is 1), each after one receive from Step; closing
	// it lets the rest through. That is how a test plays a slow answer without a clock.
	Step  <-chan struct{}
	Piece int
}

// answer is a whole response before it is written.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// deliver writes a, spoiled by f, which may be nil. It panics with http.ErrAbortHandler to break a connection,
// as net/http asks of a handler.
func deliver(w http.ResponseWriter, r *http.Request, a answer, f *Fault, closed <-chan struct{}) {
	if f == nil {
		f = &Fault{}
	}
	switch f.Stop {
	case HangBeforeHeader:
		hang(r.Context(), closed)
		panic(http.ErrAbortHandler)
	case DropBeforeHeader:
		panic(http.ErrAbortHandler)
	case StopNowhere, HangInBody, DropInBody:
	}
	a = spoil(a, f)
	maps.Copy(w.Header(), a.header)
	if !f.Chunked && a.status != http.StatusNotModified && a.status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	rc := http.NewResponseController(w)
	switch f.Stop {
	case HangInBody, DropInBody:
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = rc.Flush()
		if f.Stop == HangInBody {
			hang(r.Context(), closed)
		}
		panic(http.ErrAbortHandler)
	case StopNowhere, HangBeforeHeader, DropBeforeHeader:
	}
	if f.Step != nil {
		drip(w, r, a.body, f, closed)
		return
	}
	_, _ = w.Write(a.body)
}

func spoil(a answer, f *Fault) answer {
	if f.Status != 0 {
		a.status = f.Status
	}
	if f.Body != nil {
		a.body = f.Body
	}
	a.header = a.header.Clone()
	if a.header == nil {
		a.header = http.Header{}
	}
	maps.Copy(a.header, f.Header)
	return a
}

func drip(w http.ResponseWriter, r *http.Request, body []byte, f *Fault, closed <-chan struct{}) {
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	for len(body) > 0 {
		select {
		case <-f.Step:
		case <-closed:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
		n := min(max(f.Piece, 1), len(body))
		_, _ = w.Write(body[:n])
		_ = rc.Flush()
		body = body[n:]
	}
}

func hang(ctx context.Context, closed <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-closed:
	}
}
