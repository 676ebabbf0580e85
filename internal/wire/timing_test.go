//go:build unix

package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// These tests run on a clock that only waiting moves, over connections of memory.

const (
	headerLimit = 32 * time.Second
	bodyLimit   = 16 * time.Second
	// slackOfBoth is what allow may add to each of them: twice a second.
	slackOfBoth = 2 * time.Second
)

// inMemory returns a client of a server in memory, which is closed at the end of the test.
func inMemory(tb testing.TB, config *tls.Config, serve func(p *peer), change ...func(*Options)) *Client {
	tb.Helper()
	o := Options{Addr: "a:80", HeaderTimeout: headerLimit, BodyTimeout: bodyLimit, IdleTimeout: time.Hour}
	o.Dial = memory(tb, func(p *peer) {
		if config != nil {
			p = &peer{Conn: tls.Server(p.Conn, config), number: p.number}
			p.in = bufio.NewReader(p.Conn)
		}
		serve(p)
	})
	for _, f := range change {
		f(&o)
	}
	c := New(o)
	tb.Cleanup(c.Close)
	return c
}

// eachWayInBubble runs a test in a bubble, with and without TLS.
func eachWayInBubble(t *testing.T, test func(*way)) {
	t.Helper()
	eachWay(t, func(w *way) {
		synctest.Test(w.T, func(t *testing.T) { test(&way{t, w.config, w.change}) })
	})
}

// took fails unless the time since start is at least want, and no more than slack beyond it.
func took(t testing.TB, start time.Time, want, slack time.Duration) {
	t.Helper()
	if got := time.Since(start); got < want || got > want+slack {
		t.Errorf("took %v, want %v, or up to %v more", got, want, slack)
	}
}

func wantTimeout(t testing.TB, err error) {
	t.Helper()
	var late net.Error
	if !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("error %v, want a timeout", err)
	}
}

func TestHeaderTimeout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		begun string
		reads bool
	}{"no answer": {"", true}, "a part of a header": {"HTTP/1.1 200 OK\r\nContent-Le", true}, "announcements only": {"HTTP/1.1 103 Early Hints\r\n\r\n", true}, "nobody reads": {"", false}} {
		for _, fresh := range []bool{true, false} {
			t.Run(name+", fresh: "+strconv.FormatBool(fresh), func(t *testing.T) {
				t.Parallel()
				eachWayInBubble(t, func(t *way) {
					done := make(chan struct{})
					client := inMemory(t, t.config, func(p *peer) {
						if !fresh {
							p.send(answer(p.request()))
						}
						if h, ok := p.Conn.(*tls.Conn); ok && h.Handshake() != nil {
							return
						}
						if c.reads {
							p.request()
							p.send(c.begun)
							p.untilClosed()
						}
						<-done
					}, t.change)
					defer close(done)
					if !fresh {
						mustGet(t, client, "/first")
						<-time.After(10 * headerLimit)
					}
					start := time.Now()
					_, err := client.Do(t.Context(), text("/"))
					wantTimeout(t, err)
					took(t, start, headerLimit, slackOfBoth)
					wantIdle(t, client, 0)
				})
			})
		}
	}
}

// The time to the header is one for all that is tried until then.
func TestHeaderTimeoutIsForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var requests int
		c := inMemory(t, nil, func(p *peer) {
			path := p.request()
			for path == "/first" {
				p.send(answer(path))
				path = p.request()
			}
			if path != "" {
				requests++
				<-time.After(staleWithin / 2) // and closed without an answer, the first time
			}
			if p.number > 1 {
				p.untilClosed()
			}
		})
		mustGet(t, c, "/first")
		start := time.Now()
		if _, err := c.Do(t.Context(), text("/second")); err == nil {
			t.Error("answered")
		}
		took(t, start, headerLimit, slackOfBoth)
		if requests != 2 {
			t.Errorf("tried %d times", requests)
		}
	})
}

// Whatever the waits between and within requests, none is cut short while it keeps its limits, and all go over one connection, idle
// for longer than the limits or not.
func TestNeverEarly(t *testing.T) {
	t.Parallel()
	eachWayInBubble(t, func(t *way) {
		here, there := waits(1), waits(2)
		connections := 0
		c := inMemory(t, t.config, func(p *peer) {
			connections++
			for path := p.request(); path != ""; path = p.request() {
				<-time.After(there(headerLimit))
				p.send("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(path)) + "\r\n\r\n")
				for i := range len(path) {
					<-time.After(there(bodyLimit))
					p.send(path[i : i+1])
				}
			}
		}, t.change)
		for i := range 300 {
			path := "/" + strconv.Itoa(i)
			resp, err := c.Do(t.Context(), text(path))
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			body := make([]byte, 0, 8)
			for err == nil {
				<-time.After(here(3 * bodyLimit)) // whoever reads may be slow
				var n int
				n, err = resp.Body.Read(body[len(body):cap(body)])
				body = body[:len(body)+n]
			}
			if err != io.EOF || string(body) != path { //nolint:errorlint // it must be bare
				t.Fatalf("%s: %q, %v", path, body, err)
			}
			<-time.After(here(3 * headerLimit))
		}
		if connections != 1 {
			t.Errorf("%d connections", connections)
		}
	})
}

// waits returns random waits that keep a limit, often just so.
func waits(seed uint64) func(limit time.Duration) time.Duration {
	random := rand.New(rand.NewPCG(seed, seed))
	return func(limit time.Duration) time.Duration {
		switch random.IntN(4) {
		case 0:
			return 0
		case 1:
			return limit - 1
		default:
			return time.Duration(random.Int64N(int64(limit)))
		}
	}
}

func TestBodyTimeout(t *testing.T) {
	t.Parallel()
	for name, begun := range map[string]string{
		"a length":        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
		"chunks":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"between chunks":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
		"before its end":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0",
		"before trailers": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
		"within trailers": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-A: b\r\nX",
		"without any end": "HTTP/1.1 200 OK\r\n\r\nab",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWayInBubble(t, func(t *way) {
				c := inMemory(t, t.config, func(p *peer) {
					p.request()
					<-time.After(headerLimit - 1)
					p.send(begun)
					p.untilClosed()
				}, t.change)
				resp, err := c.Do(t.Context(), text("/"))
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				body, err := io.ReadAll(resp.Body)
				wantTimeout(t, err)
				if string(body) != "ab" {
					t.Errorf("body %q", body)
				}
				took(t, start, bodyLimit, slackOfBoth)
				wantIdle(t, c, 0)
			})
		})
	}
}

// GiveUpAfter is to the moment, whether it is more or less than the limit for each wait, and for all that is left: pieces that
// come do not put it off.
func TestGiveUpAfter(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{time.Second + time.Millisecond, bodyLimit / 2, 3 * bodyLimit} {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			eachWayInBubble(t, func(t *way) {
				c := inMemory(t, t.config, func(p *peer) {
					p.request()
					p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
					for p.send("1\r\na\r\n") {
						<-time.After(time.Second)
					}
				}, t.change)
				resp, err := c.Do(t.Context(), text("/"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(resp.Body, make([]byte, 3)); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				resp.Body.(*Answer).GiveUpAfter(d)
				body, err := io.ReadAll(resp.Body)
				wantTimeout(t, err)
				took(t, start, d, 0)
				if want := int(d / time.Second); len(body) != want && len(body) != want-1 {
					t.Errorf("%d pieces in %v", len(body), d)
				}
				wantIdle(t, c, 0)
			})
		})
	}
}

// What was set for the rest of one answer does not hold for the next.
func TestGiveUpAfterIsForOneAnswer(t *testing.T) {
	t.Parallel()
	eachWayInBubble(t, func(t *way) {
		connections := 0
		c := inMemory(t, t.config, func(p *peer) {
			connections++
			for path := p.request(); path != ""; path = p.request() {
				<-time.After(headerLimit - 1)
				p.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
				<-time.After(bodyLimit - 1)
				p.send("x")
			}
		}, t.change)
		for i := range 6 {
			resp, err := c.Do(t.Context(), text("/"))
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				resp.Body.(*Answer).GiveUpAfter(bodyLimit)
			}
			if _, err := io.ReadAll(resp.Body); err != nil {
				t.Fatal(err)
			}
		}
		if connections != 1 {
			t.Errorf("%d connections", connections)
		}
	})
}

// Connections that are idle for IdleTimeout are closed, at the latest after half as long again, and never used.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	eachWayInBubble(t, func(t *way) {
		const limit = time.Minute
		ended := make(chan time.Time, 16)
		connections := 0
		c := inMemory(t, t.config, func(p *peer) {
			connections++
			echo(p)
			ended <- time.Now()
		}, t.change, func(o *Options) { o.IdleTimeout = limit })
		mustGet(t, c, "/first")
		<-time.After(limit - 1)
		mustGet(t, c, "/just-in-time")
		if connections != 1 {
			t.Errorf("%d connections", connections)
		}
		start := time.Now()
		at := <-ended
		if idle := at.Sub(start); idle < limit || idle > limit*3/2 {
			t.Errorf("closed after %v", idle)
		}
		wantIdle(t, c, 0)

		// The sweep goes on with what comes later.
		mustGet(t, c, "/third")
		start = time.Now()
		if idle := (<-ended).Sub(start); idle < limit || idle > limit*3/2 {
			t.Errorf("closed after %v", idle)
		}
	})
}

// A connection that is too old is not used, even if the sweep has not come by.
func TestTooOldIsNotUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = time.Minute
		connections := 0
		c := inMemory(t, nil, func(p *peer) {
			connections++
			echo(p)
		}, func(o *Options) { o.IdleTimeout = limit })
		c.idle.sweeps.Store(true) // none will come
		mustGet(t, c, "/first")
		<-time.After(limit)
		mustGet(t, c, "/second")
		if connections != 2 {
			t.Errorf("%d connections", connections)
		}
	})
}

// A sweep takes what the server has closed or written to, too, and leaves the others.
func TestSweep(t *testing.T) {
	t.Parallel()
	arrived, proceed, read := make(chan string, 16), make(chan struct{}), make(chan struct{})
	special := make(chan string, 16)
	s := serveTCP(t, nil, func(p *peer) {
		path := p.request()
		arrived <- path
		<-proceed
		p.send(answer(path))
		<-read
		switch p.number % 3 {
		case 0:
			p.send("x")
		case 1:
			_ = p.Conn.(*net.TCPConn).CloseWrite()
		default:
			echo(p)
			return
		}
		special <- p.RemoteAddr().String()
		p.untilClosed()
	})
	c := client(t, s)
	parkedRequests(t, c, 9, proceed, arrived)
	conns := map[string]*conn{}
	for _, cn := range wantIdle(t, c, 9) {
		conns[cn.nc.LocalAddr().String()] = cn
	}
	close(read)
	for range 6 {
		awaitArrival(t, conns[receive(t, special)])
	}
	c.idle.sweep()
	wantIdle(t, c, 3)
	for range 6 {
		receive(t, s.closed)
	}
	mustGet(t, c, "/after")
	if got := s.accepted.Load(); got != 9 {
		t.Errorf("%d connections", got)
	}
}

// Connecting counts, and how it failed can be told.
func TestConnectingTakesTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Addr: "a:80", HeaderTimeout: headerLimit, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		}})
		start := time.Now()
		_, err := c.Do(t.Context(), text("/"))
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" || !op.Timeout() {
			t.Errorf("ended with %v", err)
		}
		took(t, start, headerLimit, 0)
	})
}

func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ limit, want time.Duration }{"its own": {5 * time.Second, 5 * time.Second}, "the header's": {0, headerLimit}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c2 := inMemory(t, nil, func(p *peer) { p.untilClosed() }, secure, func(o *Options) { o.HandshakeTimeout = c.limit })
				start := time.Now()
				_, err := c2.Do(t.Context(), text("/"))
				wantTimeout(t, err)
				if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" || !strings.Contains(err.Error(), "handshake") {
					t.Errorf("ended with %v", err)
				}
				took(t, start, c.want, 0)
			})
		})
	}
}

// Nobody listens: an error of dialing, which is none of asking.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	c := New(Options{Addr: l.Addr().String(), Dial: new(net.Dialer).DialContext})
	_, err = c.Do(t.Context(), text("/"))
	if op := (*net.OpError)(nil); !errors.As(err, &op) || op.Op != "dial" || op.Timeout() {
		t.Errorf("ended with %v", err)
	}
}
