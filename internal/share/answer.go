package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// described are the fields that tell what a body is and how to treat it. What Tinybird says of the query that made it (X-DB-*)
// or of the limit that it counted against (X-RateLimit-*) is of no use to those who did not ask.
var described = [...]string{"Cache-Control", "Content-Encoding", "Content-Type", "Etag", "Last-Modified", "X-Content-Type-Options"}

// overhead is about what an entry takes besides its body, in bytes.
const overhead = 1 << 10

// answer is a whole answer with status 200. Nothing of it is modified.
type answer struct {
	at       time.Time     // when it began to arrive
	life     time.Duration // how long it may be served
	header   [len(described)]string
	body     []byte
	tooLarge bool // there is no body to share, and the next should not be gathered in vain

	// The bytes are given back when the last holder is done: the store, the flight, or a client that is being sent to.
	holders atomic.Int32
	memory  *budget
}

func (a *answer) weight() uint32 { return uint32(cap(a.body)) + overhead } //nolint:gosec // at most EntrySize, which is checked

// acquire makes the caller a holder, unless there is none any more.
func (a *answer) acquire() bool {
	for {
		n := a.holders.Load()
		if n == 0 {
			return false
		}
		if a.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (a *answer) release() {
	if a.holders.Add(-1) == 0 {
		a.memory.give(int64(cap(a.body)))
	}
}

// send answers one client.
func (a *answer) send(ctx context.Context, w http.ResponseWriter, client http.Header) error {
	h := w.Header()
	setDescription(h, &a.header)
	if a.known(client) {
		h.Del("Content-Type")
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	w.WriteHeader(http.StatusOK)
	if _, err := w.Write(a.body); err != nil {
		return brokenOff(ctx, fmt.Errorf("to the client: %w", err))
	}
	return nil
}

// setDescription puts fields on h, each in a slice of its own: what comes after this handler may change them in place.
func setDescription(h http.Header, fields *[len(described)]string) {
	h["Content-Type"] = nil // keeps net/http from guessing one
	for i, name := range described {
		if v := fields[i]; v != "" {
			h[name] = []string{v}
		}
	}
}

// describe picks these fields.
func describe(h http.Header) (fields [len(described)]string) {
	for i, name := range described {
		fields[i] = h.Get(name)
	}
	return fields
}

// known reports whether the client has this very answer, by net/http's own reading of its conditions.
func (a *answer) known(client http.Header) bool {
	cond := make(http.Header, len(conditions))
	for _, name := range conditions {
		if v := client[name]; len(v) > 0 {
			cond[name] = v
		}
	}
	if len(cond) == 0 {
		return false
	}
	p := probe{header: make(http.Header)}
	setDescription(p.header, &a.header)
	modified, _ := http.ParseTime(p.header.Get("Last-Modified"))
	http.ServeContent(&p, &http.Request{Method: http.MethodGet, Header: cond}, "", modified, bytes.NewReader(nil))
	return p.status == http.StatusNotModified
}

// conditions are the client's fields that are read.
var conditions = [...]string{"If-None-Match", "If-Modified-Since"}

// Conditional reports whether a client asks for an answer only if it does not have it.
func Conditional(h http.Header) bool {
	for _, name := range conditions {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}

// probe is a response of which only the status is of interest.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header            { return p.header }
func (p *probe) WriteHeader(status int)         { p.status = status }
func (p *probe) Write(part []byte) (int, error) { return len(part), nil }

// brokenOff is the error for an answer of which the client has a part.
func brokenOff(ctx context.Context, cause error) error {
	switch err := ctx.Err(); {
	case errors.Is(err, context.Canceled):
		cause = fmt.Errorf("the client went away: %w", err)
	case err != nil:
		cause = err
	case errors.Is(cause, forward.ErrAborted):
		return cause
	}
	return fmt.Errorf("%w: %w", forward.ErrAborted, cause)
}

// budget is memory that is shared out.
type budget struct {
	size int64
	left atomic.Int64
}

func newBudget(size int64) *budget {
	b := &budget{size: size}
	b.left.Store(size)
	return b
}

func (b *budget) take(n int64) bool {
	if b.left.Add(-n) < 0 {
		b.left.Add(n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.left.Add(n) }

func (b *budget) used() int64 { return b.size - b.left.Load() }
