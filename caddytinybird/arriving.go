package caddytinybird

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	// bodyPatience is how long the largest body may take, next to what its size needs at bodyRate.
	bodyPatience = time.Minute
	// bodyRate is how much of a body has to arrive in a second, in bytes, when all of it is looked at. It is that of a poor
	// mobile network.
	bodyRate = 16 << 10
)

// deadline is until when the body of a request may take its time. The zero value is none.
type deadline struct {
	body  *caddyhttp.IdleTimeoutReader
	until time.Time
}

// hurry bounds the time that a body of at most so many bytes may take. What has arrived of it is held in memory, and for a client that
// sends a byte from time to time Caddy waits for ever. Nothing is made longer by it than the config of the server says; where that
// says that clients may take any time, because a proxy gathers the bodies, they may.
func (h *Handler) hurry(r *http.Request, most int64) (d deadline) {
	body, _ := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if body == nil || r.ContentLength == 0 {
		return d
	}
	if r.ContentLength > 0 {
		most = min(most, r.ContentLength)
	}
	seconds := min(most/bodyRate, math.MaxInt32)
	d = deadline{body, time.Now().Add(cmp.Or(h.patience, bodyPatience) + time.Duration(seconds)*time.Second)}
	// Where there are no deadlines, such as in tests, there is none.
	_ = body.SetReadDeadline(d.until)
	return d
}

// pause begins a time that is not the client's: nothing is read of the body until resume is called.
func (d *deadline) pause() (resume func()) {
	if d.body == nil {
		return func() {}
	}
	began := time.Now()
	_ = d.body.SetReadDeadline(time.Time{}) // over HTTP/2 a body whose time ends is lost even while nobody reads
	return func() {
		d.until = d.until.Add(time.Since(began))
		_ = d.body.SetReadDeadline(d.until)
	}
}

// arriving is the body of a request whose client may go away in the middle of it. That is no bad body: there is nobody to tell.
type arriving struct {
	io.ReadCloser

	ctx context.Context //nolint:containedctx // a body lives as long as its request
}

// watchBody tells a client that went away from one that sent nonsense.
func watchBody(r *http.Request) {
	if r.Body != nil && r.ContentLength != 0 {
		r.Body = &arriving{r.Body, r.Context()}
	}
}

// Read reads more of the body. Once the client is gone the error is context.Canceled, as it is everywhere else.
func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	late := errors.Is(err, os.ErrDeadlineExceeded) // net/http ends the request's context then, but the client is still there
	if err != nil && !late && (clientLost(err) || a.ctx.Err() != nil && !errors.Is(err, io.EOF)) {
		err = fmt.Errorf("the client went away within its body: %w: %w", context.Canceled, err)
	}
	return n, err
}

// clientLost tells whether err is the end of a connection before that of the body. A client that is only too slow for the server's
// read timeout is still there.
func clientLost(err error) bool {
	op := (*net.OpError)(nil)
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}
