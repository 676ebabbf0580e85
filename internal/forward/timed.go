package forward

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/wire"
)

// timed is a transport that gives up in time.
type timed struct {
	http.RoundTripper

	headers, bytes time.Duration
}

// send sends the request and waits for the header of the answer, whose body has to be closed.
func (t *timed) send(ctx context.Context, r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(t.headers, func() { cancel(errHeaderTimeout) })
	resp, err := t.RoundTrip(r.WithContext(ctx))
	inTime := timer.Stop()
	if err == nil && !inTime {
		// Too late by a hair: the body cannot be read any more.
		_ = resp.Body.Close()
		err = errHeaderTimeout
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &timedBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, wait: t.bytes}
	return resp, nil
}

// timedBody is a body of which each piece comes in time, or not at all.
type timedBody struct {
	io.ReadCloser

	ctx    context.Context //nolint:containedctx // of the request that the body belongs to
	cancel context.CancelCauseFunc
	wait   time.Duration
	timer  *time.Timer
	bound  bool // the timer runs for all that is left
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	if !b.bound {
		b.start(b.wait)
	}
	n, err := b.ReadCloser.Read(p)
	if !b.bound {
		b.timer.Stop() // a slow client is not a slow Tinybird
	}
	if err != nil && !ended(err) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

// Close implements io.Closer. It ends the request.
func (b *timedBody) Close() error {
	if b.timer != nil {
		b.timer.Stop()
	}
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// GiveUpAfter bounds the time for all that is left.
func (b *timedBody) GiveUpAfter(d time.Duration) {
	b.start(d)
	b.bound = true
}

func (b *timedBody) start(d time.Duration) {
	if b.timer == nil {
		b.timer = time.AfterFunc(d, func() { b.cancel(errIdleTimeout) })
		return
	}
	b.timer.Reset(d)
}

// bounded is a body that can be given a time for all that is left of it.
type bounded interface{ GiveUpAfter(d time.Duration) }

// giveUpAfter bounds the time for what is left of an answer.
func giveUpAfter(resp *http.Response, d time.Duration) {
	if b, ok := resp.Body.(bounded); ok {
		b.GiveUpAfter(d)
	}
}

// Interface guards.
var (
	_ bounded = (*timedBody)(nil)
	_ bounded = (*wire.Answer)(nil)
)
