//go:build unix

package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

var errReason = errors.New("the client left")

// A request whose context has ended already is not sent, and takes no connection from others.
func TestContextEndedBefore(t *testing.T) {
	t.Parallel()
	s := serveTCP(t, nil, echo)
	c := client(t, s)
	mustGet(t, c, "/first")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errReason)
	if _, err := c.Do(ctx, text("/never")); !errors.Is(err, errReason) {
		t.Errorf("ended with %v", err)
	}
	wantIdle(t, c, 1)
	mustGet(t, c, "/second")
	if got := s.accepted.Load(); got != 1 {
		t.Errorf("%d connections", got)
	}
}

// Wherever a request stands when its context ends, it ends for that reason, and its connection is closed.
func TestContextEndsWithin(t *testing.T) {
	t.Parallel()
	large := append(text("/large")[:len(text("/large"))-2], []byte("Content-Length: 67108864\r\n\r\n"+strings.Repeat("x", 64<<20))...)
	for name, c := range map[string]struct {
		request []byte
		serve   func(p *peer, here func())
		body    bool // there is an answer
	}{
		// Nobody reads any more, so that the network's buffers fill up.
		"while writing": {request: large, serve: func(p *peer, here func()) {
			_, _ = io.ReadFull(p.in, make([]byte, 100))
			here()
		}},
		"before the header": {request: text("/"), serve: func(p *peer, here func()) {
			p.request()
			here()
		}},
		"within the header": {request: text("/"), serve: func(p *peer, here func()) {
			p.request()
			p.send("HTTP/1.1 200 OK\r\nContent-Le")
			here()
		}},
		"after an announcement": {request: text("/"), serve: func(p *peer, here func()) {
			p.request()
			p.send("HTTP/1.1 103 Early Hints\r\n\r\n")
			here()
		}},
		"before the body": {body: true, request: text("/"), serve: func(p *peer, here func()) {
			p.request()
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
			here()
		}},
		"within the body": {body: true, request: text("/"), serve: func(p *peer, here func()) {
			p.request()
			p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc")
			here()
		}},
		"before the trailers": {body: true, request: text("/"), serve: func(p *peer, here func()) {
			p.request()
			p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
			here()
		}},
		"in a body without an end": {body: true, request: text("/"), serve: func(p *peer, here func()) {
			p.request()
			p.send("HTTP/1.1 200 OK\r\n\r\nabc")
			here()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *way) {
				here := make(chan struct{})
				gone := make(chan struct{})
				s := serveTCP(t, t.config, func(p *peer) {
					c.serve(p, func() { close(here) })
					<-gone
					p.untilClosed()
				})
				cl := client(t, s, t.change)
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() {
					<-here
					cancel(errReason)
				}()
				resp, err := cl.Do(ctx, c.request)
				close(gone)
				if c.body {
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						if n, again := resp.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(again, errReason) {
							t.Errorf("read again: %d, %v", n, again)
						}
						_ = resp.Body.Close()
					}
				} else if err == nil {
					t.Fatalf("answered with %d", resp.StatusCode)
				}
				if !errors.Is(err, errReason) {
					t.Errorf("ended with %v", err)
				}
				wantIdle(t, cl, 0)
				receive(t, s.closed)
			})
		})
	}
}

// A context that ends while a connection is made ends the request too, for its own reason.
func TestContextEndsWhileConnecting(t *testing.T) {
	t.Parallel()
	dialing := make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	c := New(Options{Addr: "a:80", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		close(dialing)
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}})
	defer c.Close()
	go func() {
		<-dialing
		cancel(errReason)
	}()
	if _, err := c.Do(ctx, text("/")); !errors.Is(err, errReason) {
		t.Errorf("ended with %v", err)
	}
}

func TestContextEndsInHandshake(t *testing.T) {
	t.Parallel()
	shaking := make(chan struct{})
	s := serveTCP(t, nil, func(p *peer) {
		_, _ = p.in.ReadByte()
		close(shaking)
		p.untilClosed()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-shaking
		cancel(errReason)
	}()
	if _, err := client(t, s, secure).Do(ctx, text("/")); !errors.Is(err, errReason) {
		t.Errorf("ended with %v", err)
	}
	receive(t, s.closed)
}

// Attack: a client leaves just when its answer ends, over and over. Its connection is closed or belongs to the next request, never both:
// that one is answered, with its own answer, and sent only once.
func TestAttackCancelAtTheEnd(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		var mu sync.Mutex
		seen := map[string]int{}
		s := serveTCP(t, t.config, func(p *peer) {
			for path := p.request(); path != ""; path = p.request() {
				mu.Lock()
				seen[path]++
				mu.Unlock()
				switch {
				case strings.HasPrefix(path, "/empty"):
					p.send("HTTP/1.1 204 No Content\r\n\r\n")
				case strings.HasPrefix(path, "/chunked"):
					p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(path), path))
				default:
					p.send(answer(path))
				}
			}
		})
		c := client(t, s, t.change)
		var wg sync.WaitGroup
		for worker := range 4 {
			wg.Go(func() {
				for i := range 250 {
					kind := [...]string{"/empty", "/chunked", "/length"}[i%3]
					cancelAtTheEnd(t, c, fmt.Sprintf("%s/%d/%d", kind, worker, i))
					mustGetAsync(t, c, fmt.Sprintf("/next/%d/%d", worker, i))
				}
			})
		}
		wg.Wait()
		for path, n := range seen {
			if n != 1 && strings.HasPrefix(path, "/next") {
				t.Errorf("%s was sent %d times: its connection was closed under it", path, n)
			}
		}
	})
}

// cancelAtTheEnd asks for a path and leaves at about the time at which the answer is there.
func cancelAtTheEnd(t testing.TB, c *Client, path string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := c.Do(ctx, text(path))
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	left := make(chan struct{})
	spins := rand.IntN(40)
	go func() {
		for range spins {
			runtime.Gosched()
		}
		cancel()
		close(left)
	}()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.HasPrefix(path, "/empty") && string(body) != path || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%s: %q, %v", path, body, err)
	}
	if spins%2 == 0 {
		<-left // the next request comes after it, and else at the same time
	}
	_ = resp.Body.Close()
}

// The same for the header: a client leaves at about the time at which it comes.
func TestAttackCancelAtTheHeader(t *testing.T) {
	t.Parallel()
	s := serveTCP(t, nil, echo)
	c := client(t, s)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 250 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(400))*time.Microsecond)
				path := fmt.Sprintf("/left/%d/%d", worker, i)
				body, err := get(ctx, c, path)
				var late net.Error // a dialer that has the deadline can notice it first
				if err == nil && body != path || err != nil && (!errors.As(err, &late) || !late.Timeout()) {
					t.Errorf("%s: %q, %v", path, body, err)
				}
				cancel()
				mustGetAsync(t, c, fmt.Sprintf("/next/%d/%d", worker, i))
			}
		})
	}
	wg.Wait()
}
