package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// contender is what a round measures.
type contender struct {
	name    string
	addr    string
	process *rig.Process // nil for the upstream alone
	once    bool         // each request is sent once, however long that takes
}

// measurement is one contender in one round.
type measurement struct {
	requests int
	elapsed  time.Duration
	cpu      time.Duration // of the proxy's process
	p50, p99 time.Duration
	rss      int64 // bytes, at the end
}

// source hands out requests in turn: until the time is over, or each one once.
type source struct {
	requests [][]byte
	next     atomic.Int64
	once     bool
	deadline time.Time
}

func (s *source) take() ([]byte, bool) {
	n := s.next.Add(1) - 1
	if s.once {
		if n >= int64(len(s.requests)) {
			return nil, false
		}
		return s.requests[n], true
	}
	// Looked at now and then: reading the clock costs something, too.
	if n%16 == 0 && time.Now().After(s.deadline) {
		return nil, false
	}
	return s.requests[n%int64(len(s.requests))], true
}

// client sends requests over one connection.
type client interface {
	do(request []byte) error
	close()
}

// load sends what s hands out over connections at once, and returns how long each request took.
func load(ctx context.Context, connections int, dial func(context.Context) (client, error), s *source) ([]time.Duration, error) {
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		all   []time.Duration
		fails error
	)
	for range connections {
		wait.Go(func() {
			took, err := loadOne(ctx, dial, s)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			fails = errors.Join(fails, err)
		})
	}
	wait.Wait()
	return all, fails
}

func loadOne(ctx context.Context, dial func(context.Context) (client, error), s *source) ([]time.Duration, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	took := make([]time.Duration, 0, 8<<10)
	for {
		request, ok := s.take()
		if !ok || ctx.Err() != nil {
			return took, ctx.Err()
		}
		start := time.Now()
		if err := c.do(request); err != nil {
			return took, err
		}
		took = append(took, time.Since(start))
	}
}

// plainClient speaks HTTP/1.1 with prepared requests.
type plainClient struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialPlain(addr string) func(context.Context) (client, error) {
	return func(ctx context.Context) (client, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
		return &plainClient{conn: c, in: bufio.NewReaderSize(c, 16<<10)}, nil
	}
}

func (c *plainClient) close() { _ = c.conn.Close() }

func (c *plainClient) do(request []byte) error {
	if _, err := c.conn.Write(request); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("load: answered %q", status)
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		if len(line) <= 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return fmt.Errorf("load: %w", err)
			}
		}
	}
	if length != len(payload) {
		return fmt.Errorf("load: an answer of %d bytes", length)
	}
	if _, err := c.in.Discard(length); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}

// secureClient speaks HTTP/2 over a TLS connection of its own.
type secureClient struct {
	transport *http.Transport
	addr      string
}

func dialSecure(addr string, roots *tls.Config) func(context.Context) (client, error) {
	return func(context.Context) (client, error) {
		return &secureClient{addr: addr, transport: &http.Transport{
			TLSClientConfig: roots.Clone(), ForceAttemptHTTP2: true, DisableCompression: true,
		}}, nil
	}
}

func (c *secureClient) close() { c.transport.CloseIdleConnections() }

func (c *secureClient) do(request []byte) error {
	target, authorization := split(request)
	r, err := http.NewRequest(http.MethodGet, "https://"+c.addr+target, http.NoBody) //nolint:noctx // it ends with the server
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	r.Header.Set("Authorization", authorization)
	resp, err := c.transport.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || n != int64(len(payload)) {
		return fmt.Errorf("load: answered %s with %d bytes over %s", resp.Status, n, resp.Proto)
	}
	return nil
}

const target = "/v0/pipes/top_pages.json?days=7"

// prepare makes the bytes of a request.
func prepare(token string) []byte {
	return []byte("GET " + target + " HTTP/1.1\r\nHost: edge.localhost\r\nUser-Agent: bench\r\nAccept: application/json\r\nAuthorization: Bearer " + token + "\r\n\r\n")
}

// split takes it apart again.
func split(request []byte) (path, authorization string) {
	_, rest, _ := strings.Cut(string(request), "Authorization: ")
	authorization, _, _ = strings.Cut(rest, "\r\n")
	return target, authorization
}

func measured(took []time.Duration, elapsed time.Duration) measurement {
	slices.Sort(took)
	return measurement{requests: len(took), elapsed: elapsed, p50: rig.Quantile(took, 0.5), p99: rig.Quantile(took, 0.99)}
}
