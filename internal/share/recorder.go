package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// firstPiece is how much memory is taken for an answer of unknown length at first, in bytes.
const firstPiece = 4 << 10

// recorder is what a fetch writes to. It gathers the answer; as soon as that turns out to be one that cannot be shared, it
// hands what there is and all that follows on to one member of the flight, and holds nothing more.
type recorder struct {
	store   *Store
	flight  *flight
	request Request

	header http.Header
	status int
	at     time.Time
	body   []byte

	out    *io.PipeWriter // set once it hands on
	stream *stream
}

// Header returns the header of the answer.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader takes note of the status, from which and from the header it may be plain that the answer is not shared.
func (r *recorder) WriteHeader(status int) {
	if r.status != 0 || status < http.StatusOK {
		return
	}
	r.status, r.at = status, r.store.now()
	length, err := strconv.ParseInt(r.header.Get("Content-Length"), 10, 64)
	switch {
	case status != http.StatusOK:
		r.handOn(detailStatus)
	case !r.request.Key.Encoding.covers(r.header.Get("Content-Encoding")):
		r.handOn(detailEncoding)
	case err == nil && length > r.store.entrySize:
		r.handOn(detailTooLarge)
	case err == nil && !r.grow(length):
		r.handOn(detailBusy)
	}
}

// Write takes a piece of the body.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	need := int64(len(r.body)) + int64(len(p))
	switch {
	case r.out != nil:
	case need > r.store.entrySize:
		r.handOn(detailTooLarge)
	case need > int64(cap(r.body)) && !r.grow(min(max(need, 2*int64(cap(r.body)), firstPiece), r.store.entrySize)):
		r.handOn(detailBusy)
	}
	if r.out != nil {
		n, err := r.out.Write(p)
		if err != nil {
			return n, fmt.Errorf("hand on the answer: %w", err)
		}
		return n, nil
	}
	r.body = append(r.body, p...)
	return len(p), nil
}

// FlushError has nothing to do: what is gathered stays, and what is handed on is on its way.
func (r *recorder) FlushError() error { return nil }

// grow makes room for a body of the size, if there is memory for it.
func (r *recorder) grow(size int64) bool {
	if !r.store.memory.take(size - int64(cap(r.body))) {
		return false
	}
	r.body = append(make([]byte, 0, size), r.body...)
	return true
}

// handOn lets the flight land with a stream.
func (r *recorder) handOn(detail string) {
	reader, writer := io.Pipe()
	held := int64(cap(r.body))
	st := &stream{
		status: r.status, header: describe(r.header), length: r.header.Get("Content-Length"), detail: detail,
		begun: r.body, rest: reader,
		free: sync.OnceFunc(func() { r.store.memory.give(held) }),
	}
	r.out, r.stream, r.body = writer, st, nil
	context.AfterFunc(r.flight.ctx, func() { reader.CloseWithError(context.Cause(r.flight.ctx)) })
	if detail == detailTooLarge {
		mark := &answer{at: r.at, life: r.request.TTL, tooLarge: true, memory: r.store.memory}
		mark.holders.Store(1)
		r.store.keep(r.flight.key, mark)
		mark.release()
	}
	r.store.land(r.flight, func() { r.flight.stream = st })
}

// finish ends what was handed on.
func (r *recorder) finish(err error) {
	r.stream.free()
	r.out.CloseWithError(err) // nil is the regular end
}

// free gives back the memory of an answer that is no use.
func (r *recorder) free() { r.store.memory.give(int64(cap(r.body))) }

// answer is what was gathered, held by the caller.
func (r *recorder) answer() *answer {
	if spare := cap(r.body) - len(r.body); spare > len(r.body)/4 {
		r.body = append(make([]byte, 0, len(r.body)), r.body...)
		r.store.memory.give(int64(spare))
	}
	a := &answer{at: r.at, life: 2 * r.request.TTL, header: describe(r.header), body: r.body, memory: r.store.memory}
	a.holders.Store(1)
	return a
}

// stream is an answer that one member gets as it comes.
type stream struct {
	status  int
	header  [len(described)]string
	length  string // of the body, or ""
	detail  string
	begun   []byte
	rest    *io.PipeReader
	free    func() // gives back the memory of what has begun
	claimed atomic.Bool
}

// send hands the stream to its client.
func (st *stream) send(ctx context.Context, w http.ResponseWriter, f *flight) error {
	// A client that leaves ends the flight, which ends the reading below.
	defer context.AfterFunc(ctx, func() { f.cancel(errNobody) })()

	h := w.Header()
	setDescription(h, &st.header)
	flush := http.NewResponseController(w).Flush
	if st.length != "" {
		h["Content-Length"] = []string{st.length}
		flush = func() error { return nil }
	}
	w.WriteHeader(st.status)
	err := write(w, flush, st.begun)
	st.begun = nil
	st.free()
	for buf := make([]byte, 32<<10); err == nil; {
		var n int
		n, err = st.rest.Read(buf)
		if n > 0 {
			if werr := write(w, flush, buf[:n]); werr != nil {
				err = werr
			}
		}
	}
	if err == io.EOF { //nolint:errorlint // an error that only wraps it is a connection that was lost
		return nil
	}
	return brokenOff(ctx, err)
}

// write sends a piece of a body, if there is any, and flushes.
func write(w io.Writer, flush func() error, p []byte) error {
	if len(p) > 0 {
		if _, err := w.Write(p); err != nil {
			return fmt.Errorf("to the client: %w", err)
		}
	}
	if err := flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("to the client: %w", err)
	}
	return nil
}
