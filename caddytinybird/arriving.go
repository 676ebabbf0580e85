package caddytinybird

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

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
	if err != nil && (clientLost(err) || a.ctx.Err() != nil && !errors.Is(err, io.EOF)) {
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
