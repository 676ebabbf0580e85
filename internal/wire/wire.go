// Package wire asks one server questions over HTTP/1.1, each on the goroutine that asks.
//
// net/http's Transport gives every connection two goroutines of its own, and hands each request and each answer from one to
// another. For a proxy with one upstream that is most of what a request costs. Here the caller writes its request in one
// piece and reads the answer itself; how an answer is read is left to net/http all the same (http.ReadResponse), so
// that headers, lengths, chunks and trailers are understood as they are everywhere else.
//
// It is made for queries: a GET that meets a connection which the server has just closed is sent again on another. Large bodies, rows to be
// stored, HTTP/2 and proxies are for net/http's Transport.
package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// The bounds that hold when Options leave them out.
const (
	DefaultTimeout     = 35 * time.Second
	DefaultIdleTimeout = 90 * time.Second
	DefaultMaxIdle     = 256
	DefaultMaxHeader   = 10 << 20
)

const (
	// maxStale is how many connections that turn out to be closed one request may meet before it gets a new one. Nearly all of them are
	// found to be closed before they are used.
	maxStale = 1
	// staleWithin is how soon it turns out. A server that took longer has begun to answer, and would do it twice.
	staleWithin = time.Second
	// maxInterim is how many interim answers (1xx) may come before the answer.
	maxInterim = 5
)

var (
	errHeaderSize = errors.New("the answer's header is too large")
	errInterim    = errors.New("too many interim answers")
	errSwitch     = errors.New("the server switched protocols, which nobody asked for")
)

// Options configure a Client.
type Options struct {
	// Addr is host and port of the server. Required.
	Addr string
	// Dial makes a connection. Required.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS makes it a secure one; nil means plain. Its ServerName is used as it is.
	TLS *tls.Config
	// HandshakeTimeout bounds the TLS handshake; 0 means that only HeaderTimeout does.
	HandshakeTimeout time.Duration
	// HeaderTimeout bounds the time from the start until the answer's header is there, connecting included; 0 means
	// DefaultTimeout.
	HeaderTimeout time.Duration
	// BodyTimeout bounds each wait for more of the answer's body; 0 means DefaultTimeout.
	BodyTimeout time.Duration
	// MaxHeader bounds the header of an answer, in bytes; 0 means DefaultMaxHeader.
	MaxHeader int64
	// MaxIdle is how many connections are kept for later; 0 means DefaultMaxIdle.
	MaxIdle int
	// IdleTimeout is for how long; 0 means DefaultIdleTimeout.
	IdleTimeout time.Duration
}

// Client asks one server. Its methods may be called concurrently.
type Client struct {
	Options

	idle pool
}

// New returns a Client. Close it in the end.
func New(o Options) *Client {
	orDuration := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	orDuration(&o.HeaderTimeout, DefaultTimeout)
	orDuration(&o.BodyTimeout, DefaultTimeout)
	orDuration(&o.IdleTimeout, DefaultIdleTimeout)
	if o.MaxHeader <= 0 {
		o.MaxHeader = DefaultMaxHeader
	}
	if o.MaxIdle <= 0 {
		o.MaxIdle = DefaultMaxIdle
	}
	c := &Client{Options: o}
	c.idle.max, c.idle.timeout = o.MaxIdle, o.IdleTimeout
	return c
}

// Close closes the connections that are not in use, and each other one when its request is over. Requests that come later
// are answered still, on connections of their own.
func (c *Client) Close() { c.idle.close() }

// Do sends a whole request of HTTP/1.1 and returns the answer once its header is there. It must not be HEAD. A GET may be sent twice;
// any other is sent again only if it could not be written. The answer's body has to be closed, by the goroutine that reads it; read to its end, it
// leaves the connection to the next request.
//
// Errors are those of the network: a net.Error whose Timeout is true after a timeout, and the context's own after its end.
func (c *Client) Do(ctx context.Context, request []byte) (*http.Response, error) {
	deadline, safe := time.Now().Add(c.HeaderTimeout), bytes.HasPrefix(request, []byte("GET "))
	for stale := 0; ; stale++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		cn, err := c.take(ctx, deadline, stale < maxStale)
		if err == nil {
			var resp *http.Response
			if resp, err = cn.ask(ctx, request, deadline); err == nil {
				return resp, nil
			}
		}
		if ctx.Err() == nil && (cn == nil || !cn.stale(deadline, safe)) {
			return nil, err
		}
	}
}

// take returns a connection that is idle, or a new one.
func (c *Client) take(ctx context.Context, deadline time.Time, idle bool) (*conn, error) {
	if idle {
		if cn := c.idle.get(); cn != nil {
			cn.reused = true
			return cn, nil
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	nc, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return newConn(c, nc), nil
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	nc, err := c.Dial(ctx, "tcp", c.Addr)
	if err != nil || c.TLS == nil {
		return nc, err
	}
	if c.HandshakeTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.HandshakeTimeout)
		defer cancel()
	}
	secure := tls.Client(&records{Conn: nc}, c.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("tls handshake: %w", err)
	}
	return secure, nil
}
