package storm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// speaker sends requests in one version of HTTP, over a connection of its own. The error is rig.ErrUnanswered if nothing came back.
type speaker interface {
	do(ctx context.Context, a *ask) (rig.Answer, error)
	close()
}

type overHTTP1 struct {
	st   *storm
	conn *rig.Conn
}

func (c *overHTTP1) close() { c.conn.Close() }

func (c *overHTTP1) do(ctx context.Context, a *ask) (rig.Answer, error) {
	if c.conn == nil {
		var err error
		if c.conn, err = c.st.dial(ctx); err != nil {
			return rig.Answer{}, errors.Join(rig.ErrUnanswered, err)
		}
	}
	bytes := raw(a.method, a.target, a.header, a.body)
	if a.leaves {
		err := c.conn.Send(bytes)
		c.conn.Close()
		c.conn = nil
		return rig.Answer{}, err
	}
	got, keep, err := c.conn.Do(bytes)
	if !keep {
		c.conn.Close()
		c.conn = nil
	}
	return got, err
}

type overHTTP2 struct {
	transport *http.Transport
	addr      string
}

func newOverHTTP2(roots *x509.CertPool, addr string) *overHTTP2 {
	return &overHTTP2{addr: addr, transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, DisableCompression: true,
	}}
}

func (c *overHTTP2) close() { c.transport.CloseIdleConnections() }

func (c *overHTTP2) do(ctx context.Context, a *ask) (rig.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, rig.Patience)
	defer cancel()
	if a.leaves {
		time.AfterFunc(5*time.Millisecond, cancel)
	}
	var body io.Reader
	if a.body != "" {
		body = strings.NewReader(a.body)
	}
	r, err := http.NewRequestWithContext(ctx, a.method, "https://"+c.addr+a.target, body)
	if err != nil {
		return rig.Answer{}, fmt.Errorf("a request: %w", err)
	}
	r.Header = a.header.Clone()
	resp, err := c.transport.RoundTrip(r)
	if late := net.Error(nil); err != nil && (ctx.Err() != nil || errors.As(err, &late) && late.Timeout()) {
		return rig.Answer{}, fmt.Errorf("after %s: %w", rig.Patience, err)
	}
	if err != nil {
		return rig.Answer{}, errors.Join(rig.ErrUnanswered, err)
	}
	defer resp.Body.Close()
	got := rig.Answer{Status: resp.StatusCode, Header: resp.Header}
	got.Body, got.Err = io.ReadAll(resp.Body)
	if resp.ProtoMajor != 2 {
		return got, fmt.Errorf("answered over %s", resp.Proto)
	}
	return got, nil
}
