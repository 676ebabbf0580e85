package rig

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Patience is how long an answer may take before somebody hangs.
const Patience = 30 * time.Second

// ErrUnanswered says that a connection ended before the first byte of an answer.
var ErrUnanswered = errors.New("no byte of an answer")

// Answer is what came back. Err says that its body broke off.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Err    error
}

// Conn speaks HTTP/1.1 over one connection. Unlike net/http's client it repeats nothing on its own.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects to the address, over TLS unless secure is nil.
func Dial(ctx context.Context, addr string, secure *tls.Config) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	var (
		c   net.Conn
		err error
	)
	if secure == nil {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
	} else {
		c, err = (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &Conn{conn: c, in: bufio.NewReaderSize(c, 16<<10)}, nil
}

// Close ends the connection, if there is one.
func (c *Conn) Close() {
	if c != nil {
		_ = c.conn.Close()
	}
}

// Send writes bytes and waits for nothing.
func (c *Conn) Send(raw []byte) error {
	_ = c.conn.SetDeadline(time.Now().Add(Patience))
	if _, err := c.conn.Write(raw); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Do sends a request and reads the answer. keep says whether the connection can be used again. The error is ErrUnanswered if nothing
// came back at all.
func (c *Conn) Do(raw []byte) (got Answer, keep bool, err error) {
	sent := c.Send(raw)
	if _, err := c.in.Peek(1); err != nil {
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
			return got, false, fmt.Errorf("after %s: %w", Patience, err)
		}
		return got, false, errors.Join(ErrUnanswered, sent, err)
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return got, false, fmt.Errorf("read the answer: %w", err)
	}
	defer resp.Body.Close()
	got = Answer{Status: resp.StatusCode, Header: resp.Header}
	got.Body, got.Err = io.ReadAll(resp.Body)
	return got, sent == nil && got.Err == nil && !resp.Close, nil
}
