//go:build unix

package wire

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// One connection serves requests that come one after the other, whatever the form of the answers.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		answers := []string{
			answer("rows"),
			answer(""),
			answer(string(make([]byte, 100_000))),
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nro\r\n2;ext=1\r\nws\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nrows\r\n0\r\nX-Sum: 1\r\n\r\n",
			"HTTP/1.1 204 No Content\r\n\r\n",
			"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
			"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}",
			"HTTP/1.1 100 Continue\r\n\r\n" + answer("after it"),
			"HTTP/1.1 200 OK\nContent-Length: 4\n\nrows",
		}
		s := serveTCP(t, t.config, func(p *peer) {
			for path := p.request(); path != ""; path = p.request() {
				i, err := strconv.Atoi(path[1:])
				if err != nil {
					t.Errorf("asked for %s", path)
					return
				}
				p.send(answers[i])
			}
		})
		c := client(t, s, t.change)
		for range 3 {
			for i := range answers {
				if _, err := get(t.Context(), c, "/"+strconv.Itoa(i)); err != nil {
					t.Fatalf("answer %d: %v", i, err)
				}
				wantIdle(t, c, 1)
			}
		}
		if got := s.accepted.Load(); got != 1 {
			t.Errorf("%d connections were made", got)
		}
	})
}

// The connection that was used last is used first, so that those which are not needed grow old.
func TestLastUsedFirst(t *testing.T) {
	t.Parallel()
	var s stack
	if s.pop() != nil {
		t.Error("an empty stack has something")
	}
	a, b, c := new(conn), new(conn), new(conn)
	s.push(a)
	s.push(b)
	if s.pop() != b {
		t.Error("not the last one")
	}
	s.push(c)
	if s.pop() != c || s.pop() != a || s.pop() != nil {
		t.Error("not in their order")
	}
}

// parkedRequests has n requests in flight at once, each on a connection of its own, and returns how to let them be answered.
func parkedRequests(t testing.TB, c *Client, n int, answerAll chan<- struct{}, arrived <-chan string) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if body, err := get(t.Context(), c, "/"+strconv.Itoa(i)); err != nil || body != "/"+strconv.Itoa(i) {
				t.Errorf("request %d: %q, %v", i, body, err)
			}
		})
	}
	for range n {
		receive(t, arrived)
	}
	close(answerAll)
	wg.Wait()
}

func TestMaxIdle(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan string, 16), make(chan struct{})
	s := serveTCP(t, nil, func(p *peer) {
		for path := p.request(); path != ""; path = p.request() {
			arrived <- path
			<-proceed
			p.send(answer(path))
		}
	})
	c := client(t, s, func(o *Options) { o.MaxIdle = 3 })
	parkedRequests(t, c, 8, proceed, arrived)
	if s.accepted.Load() != 8 {
		t.Errorf("%d connections for 8 requests at once", s.accepted.Load())
	}
	wantIdle(t, c, 3)
	for range 5 { // the others are closed
		receive(t, s.closed)
	}
	for i := range 3 {
		mustGet(t, c, "/again"+strconv.Itoa(i))
	}
	if s.accepted.Load() != 8 {
		t.Errorf("%d connections, want no more than 8", s.accepted.Load())
	}
}

// Close takes nothing away from a request that is being answered, and what it leaves is not kept.
func TestCloseWhileInUse(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		closed := make(chan struct{})
		s := serveTCP(t, t.config, func(p *peer) {
			for path := p.request(); path != ""; path = p.request() {
				if path == "/slow" {
					p.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n/s")
					<-closed
					p.send("low")
					continue
				}
				p.send(answer(path))
			}
		})
		c := client(t, s, t.change)
		mustGet(t, c, "/first")
		wantIdle(t, c, 1)
		resp, err := c.Do(t.Context(), text("/slow"))
		if err != nil {
			t.Fatal(err)
		}
		wantIdle(t, c, 0)
		c.Close()
		close(closed)
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "/slow" {
			t.Errorf("%q, %v", body, err)
		}
		wantIdle(t, c, 0)
		receive(t, s.closed)
		mustGet(t, c, "/later") // on a connection of its own
		wantIdle(t, c, 0)
		receive(t, s.closed)
		c.Close()
	})
}

func TestCloseClosesWhatIsIdle(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan string, 16), make(chan struct{})
	s := serveTCP(t, nil, func(p *peer) {
		path := p.request()
		arrived <- path
		<-proceed
		p.send(answer(path))
		p.untilClosed()
	})
	c := client(t, s)
	parkedRequests(t, c, 5, proceed, arrived)
	wantIdle(t, c, 5)
	c.Close()
	wantIdle(t, c, 0)
	for range 5 {
		receive(t, s.closed)
	}
}

// Connections that come back while the pool is closing are closed: none is left behind.
func TestCloseRacesWithUse(t *testing.T) {
	t.Parallel()
	s := serveTCP(t, nil, echo)
	for range 20 {
		c := client(t, s)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 5 {
					mustGetAsync(t, c, "/"+strconv.Itoa(i*10+j))
				}
			})
		}
		wg.Go(c.Close)
		wg.Wait()
		wantIdle(t, c, 0)
	}
	for range s.accepted.Load() {
		receive(t, s.closed)
	}
}

// mustGetAsync is mustGet for other goroutines than the test's.
func mustGetAsync(t testing.TB, c *Client, path string) {
	t.Helper()
	if body, err := get(t.Context(), c, path); err != nil || body != path {
		t.Errorf("%s: %q, %v", path, body, err)
	}
}

// A server may close an idle connection at any time. Nobody notices.
func TestServerClosesIdleConnection(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		var requests atomic.Int64
		s := serveTCP(t, t.config, func(p *peer) {
			path := p.request()
			requests.Add(1)
			p.send(answer(path))
			// Closed without "Connection: close".
			if c, ok := p.Conn.(*tls.Conn); ok {
				_ = c.CloseWrite()
			}
		})
		c := client(t, s, t.change)
		for i := range 5 {
			mustGet(t, c, "/"+strconv.Itoa(i))
			if idle := c.idle.idle(); len(idle) == 1 { // else the end came together with the answer
				awaitArrival(t, idle[0])
			}
		}
		if requests.Load() != 5 || s.accepted.Load() != 5 {
			t.Errorf("%d requests over %d connections, want 5 each", requests.Load(), s.accepted.Load())
		}
	})
}

// A server may also close a connection just as a request is sent to it. Such a request is sent again, on up to maxStale connections
// and then on a new one.
func TestStaleConnections(t *testing.T) {
	t.Parallel()
	for _, idle := range []int{1, maxStale + 1, maxStale + 4} {
		t.Run(strconv.Itoa(idle), func(t *testing.T) {
			t.Parallel()
			arrived, proceed := make(chan string, 16), make(chan struct{})
			var dropped atomic.Int64
			s := serveTCP(t, nil, func(p *peer) {
				path := p.request()
				arrived <- path
				<-proceed
				p.send(answer(path))
				if p.number > idle {
					p.untilClosed()
					return
				}
				if path := p.request(); path == "/last" {
					dropped.Add(1) // it is read, and the connection closed without a word
				}
			})
			c := client(t, s)
			parkedRequests(t, c, idle, proceed, arrived)
			wantIdle(t, c, idle)
			mustGet(t, c, "/last")
			if got := int(dropped.Load()); got != min(idle, maxStale) {
				t.Errorf("met %d closed connections, want %d", got, min(idle, maxStale))
			}
			if got := int(s.accepted.Load()); got != idle+1 {
				t.Errorf("%d connections, want one more than %d", got, idle)
			}
		})
	}
}

// TestAttackQueryThatClosesItsConnection: a server that closes a kept connection over a request which it took does not get that
// again: it would work on it twice, for one that was counted, and with a token that may have run out meanwhile.
func TestAttackQueryThatClosesItsConnection(t *testing.T) {
	t.Parallel()
	post := []byte("POST /q HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
	for name, tt := range map[string]struct {
		request []byte
		before  bool          // it is closed before the request comes
		after   time.Duration // until it is closed
		times   int
	}{
		"at once":             {text("/q"), false, 0, 2},
		"soon":                {text("/q"), false, staleWithin - 1, 2},
		"later":               {text("/q"), false, staleWithin, 1},
		"before":              {text("/q"), true, 0, 1},
		"with a body":         {post, false, 0, 1},
		"with a body, later":  {post, false, staleWithin, 1},
		"with a body, before": {post, true, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				times := 0
				c := inMemory(t, nil, func(p *peer) {
					if p.number == 1 {
						p.send(answer(p.request()))
					}
					if (p.number > 1 || !tt.before) && p.request() != "" {
						times++
						<-time.After(tt.after)
					}
				})
				mustGet(t, c, "/first")
				if resp, err := c.Do(t.Context(), tt.request); err == nil {
					t.Errorf("answered with %d", resp.StatusCode)
				}
				if times != tt.times {
					t.Errorf("taken %d times, want %d", times, tt.times)
				}
			})
		})
	}
}

// On a connection of its own a request that is not answered is not sent again: the server may have had its reason.
func TestFreshConnectionIsNotTriedTwice(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		var requests atomic.Int64
		s := serveTCP(t, t.config, func(p *peer) {
			if p.request() != "" {
				requests.Add(1)
			}
		})
		if body, err := get(t.Context(), client(t, s, t.change), "/"); err == nil {
			t.Errorf("answered with %q", body)
		}
		if requests.Load() != 1 || s.accepted.Load() != 1 {
			t.Errorf("%d requests over %d connections", requests.Load(), s.accepted.Load())
		}
	})
}

// A connection that is lost after the answer began was not closed before the request came.
func TestBrokenAnswerIsNotTriedTwice(t *testing.T) {
	t.Parallel()
	for name, begun := range map[string]string{
		"a byte":           "H",
		"the header":       "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
		"an announcement":  "HTTP/1.1 103 Early Hints\r\n\r\n",
		"nonsense":         "nonsense\r\n",
		"a part of a body": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			s := serveTCP(t, nil, func(p *peer) {
				p.send(answer(p.request()))
				if p.request() != "" {
					requests.Add(1)
				}
				p.send(begun)
			})
			c := client(t, s)
			mustGet(t, c, "/first")
			if body, err := get(t.Context(), c, "/second"); err == nil {
				t.Errorf("answered with %q", body)
			}
			if requests.Load() != 1 || s.accepted.Load() != 1 {
				t.Errorf("sent %d times over %d connections", requests.Load(), s.accepted.Load())
			}
			wantIdle(t, c, 0)
		})
	}
}

// A connection of which the system cannot be asked whether anything has come is not used again.
func TestConnectionThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	s := serveTCP(t, nil, echo)
	c := client(t, s, func(o *Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			return struct{ net.Conn }{c}, err
		}
	})
	for i := range 3 {
		mustGet(t, c, "/"+strconv.Itoa(i))
	}
	if s.accepted.Load() != 3 {
		t.Errorf("%d connections for 3 requests", s.accepted.Load())
	}
}

// One client's options are not another's, and what is left out has its default.
func TestDefaults(t *testing.T) {
	t.Parallel()
	c := New(Options{HeaderTimeout: -1, MaxIdle: -1})
	if c.HeaderTimeout != DefaultTimeout || c.BodyTimeout != DefaultTimeout || c.IdleTimeout != DefaultIdleTimeout ||
		c.MaxIdle != DefaultMaxIdle || c.MaxHeader != DefaultMaxHeader || c.idle.max != DefaultMaxIdle || c.idle.timeout != DefaultIdleTimeout {
		t.Errorf("%+v", c.Options)
	}
}
