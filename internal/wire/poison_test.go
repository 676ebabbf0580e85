//go:build unix

package wire

import (
	"io"
	"strconv"
	"sync"
	"testing"
)

// poison is an answer that nobody asked for.
var poison = answer("another tenant's rows")

// wantUnpoisoned asks for more over a client whose connection may have been poisoned, and fails if that is used again.
func wantUnpoisoned(t testing.TB, c *Client, s *server) {
	t.Helper()
	for i := range 2 {
		mustGet(t, c, "/after"+strconv.Itoa(i))
	}
	if got := receive(t, s.closed); got != 1 {
		t.Errorf("connection %d was closed first", got)
	}
	if got := s.accepted.Load(); got != 2 {
		t.Errorf("%d connections, want the poisoned one and another", got)
	}
}

// once does something special with the first request of the first connection, waits for the end of that, and echoes on others.
func once(special func(p *peer, path string)) func(p *peer) {
	return func(p *peer) {
		if p.number > 1 {
			echo(p)
			return
		}
		special(p, p.request())
		if path := p.request(); path != "" {
			p.send(answer(path)) // with the poison before it
		}
	}
}

// Attack: response queue poisoning. An answer is followed by a second one in the same segment (after a split request, or what a server
// between takes for a part of the body), and the next request, of another tenant, is answered with it.
func TestAttackPoisonInTheSameSegment(t *testing.T) {
	t.Parallel()
	const chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, first := range map[string]string{
		"after a length":       answer("/first"),
		"after a long body":    answer("/first" + string(make([]byte, 3*bufferSize))),
		"after chunks":         chunks + "6\r\n/first\r\n0\r\n\r\n",
		"after trailers":       chunks + "6\r\n/first\r\n0\r\nX-A: b\r\n\r\n",
		"after an empty body":  answer(""),
		"after a 204":          "HTTP/1.1 204 No Content\r\n\r\n",
		"after a 304":          "HTTP/1.1 304 Not Modified\r\n\r\n",
		"as a body of a 204":   "HTTP/1.1 204 No Content\r\nContent-Length: " + strconv.Itoa(len(poison)) + "\r\n\r\n",
		"as a body of a 304":   "HTTP/1.1 304 Not Modified\r\nContent-Length: " + strconv.Itoa(len(poison)) + "\r\n\r\n",
		"after a line break":   answer("/first") + "\r\n",
		"both lengths, chunks": "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(16+len(poison)) + "\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n/first\r\n0\r\n\r\n",
	} {
		for _, piece := range []int{1, 100, 2 * bufferSize} {
			t.Run(name+", read by "+strconv.Itoa(piece), func(t *testing.T) {
				t.Parallel()
				eachWay(t, func(t *way) {
					s := serveTCP(t, t.config, once(func(p *peer, _ string) { p.send(first + poison) }))
					c := client(t, s, t.change)
					resp, err := c.Do(t.Context(), text("/first"))
					if err != nil {
						t.Fatal(err)
					}
					if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{resp.Body}, make([]byte, piece)); err != nil {
						t.Fatal(err)
					}
					_ = resp.Body.Close()
					wantUnpoisoned(t, c, s)
				})
			})
		}
	}
}

// Attack: the same, with a single byte: any beginning of an answer makes another one of what follows.
func TestAttackPoisonOfOneByte(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		s := serveTCP(t, t.config, once(func(p *peer, path string) { p.send(answer(path) + "H") }))
		c := client(t, s, t.change)
		mustGet(t, c, "/first")
		wantUnpoisoned(t, c, s)
	})
}

// Attack: the second answer comes while the connection is idle.
func TestAttackPoisonWhileIdle(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]string{"an answer": poison, "a byte": "H", "a timeout": "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *way) {
				read := make(chan struct{})
				s := serveTCP(t, t.config, once(func(p *peer, path string) {
					p.send(answer(path))
					<-read
					p.send(late)
				}))
				c := client(t, s, t.change)
				mustGet(t, c, "/first")
				cn := wantIdle(t, c, 1)[0]
				close(read)
				awaitArrival(t, cn)
				wantUnpoisoned(t, c, s)
			})
		})
	}
}

// Attack: the same on one of several idle connections. Whichever is chosen, no request gets the wrong answer.
func TestAttackPoisonOnSomeIdleConnections(t *testing.T) {
	t.Parallel()
	arrived, proceed, read := make(chan string, 16), make(chan struct{}), make(chan struct{})
	poisoned := make(chan string, 16)
	s := serveTCP(t, nil, func(p *peer) {
		if p.number > 8 {
			echo(p)
			return
		}
		path := p.request()
		arrived <- path
		<-proceed
		p.send(answer(path))
		<-read
		if p.number%2 == 0 {
			p.send(poison)
			poisoned <- p.RemoteAddr().String()
		}
		echo(p)
	})
	c := client(t, s)
	parkedRequests(t, c, 8, proceed, arrived)
	conns := map[string]*conn{}
	for _, cn := range wantIdle(t, c, 8) {
		conns[cn.nc.LocalAddr().String()] = cn
	}
	close(read)
	for range 4 {
		awaitArrival(t, conns[receive(t, poisoned)])
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { mustGetAsync(t, c, "/after"+strconv.Itoa(i)) })
	}
	wg.Wait()
}

// Attack: the second answer is in the same TLS record as the first one, or in a record of its own that came with it, as a whole or in
// part. TLS has read it from the network then, and the system has nothing to tell.
func TestAttackPoisonInTLSRecords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		size int // of the body before it
		send func(p *peer, first string, read <-chan struct{})
	}{
		{"the same record", 10, func(p *peer, first string, _ <-chan struct{}) { p.send(first + poison) }},
		{"a second record", 10, func(p *peer, first string, _ <-chan struct{}) {
			p.sendRaw(p.gather(func() {
				p.send(first)
				p.send(poison)
			}))
		}},
		{"an empty record before it", 10, func(p *peer, first string, _ <-chan struct{}) {
			p.sendRaw(p.gather(func() {
				p.send(first)
				_, _ = p.Write(nil)
				p.send(poison)
			}))
		}},
		{"a byte of a second record", 10, part(1)},
		{"a header of a second record", 10, part(headSize)},
		{"a half of a second record", 10, part(headSize + 20)},
		{"almost a second record", 10, part(-1)},
		{"almost a second record, after a long one", 3 * bufferSize, part(-1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			read := make(chan struct{})
			s := serveTCP(t, serverTLS(), once(func(p *peer, _ string) { c.send(p, answer(string(make([]byte, c.size))), read) }))
			rest := sync.OnceFunc(func() { close(read) })
			t.Cleanup(rest)
			cl := client(t, s, secure, func(o *Options) { o.HeaderTimeout = patience / 10 })
			if body, err := get(t.Context(), cl, "/first"); err != nil || len(body) != c.size {
				t.Fatalf("%d bytes, %v", len(body), err)
			}
			// What follows is asked for before the rest of a part has come: it is sent only when that request is there.
			mustGet(t, cl, "/second")
			rest()
			wantUnpoisoned(t, cl, s)
		})
	}
}

// part sends an answer and so many bytes of a record with the next one; the rest after the client had time to ask again. A
// negative number is that many less than all.
func part(n int) func(p *peer, first string, read <-chan struct{}) {
	return func(p *peer, first string, read <-chan struct{}) {
		one := p.gather(func() { p.send(first) })
		two := p.gather(func() { p.send(poison) })
		n := n
		if n < 0 {
			n += len(two)
		}
		p.sendRaw(append(one, two[:n]...))
		<-read
		p.sendRaw(two[n:])
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	stream := []byte{23, 3, 3, 0, 3, 'a', 'b', 'c', 23, 3, 3, 0, 0, 21, 3, 3, 1, 0}
	stream = append(stream, make([]byte, 256)...)
	ends := map[int]bool{0: true, 8: true, 13: true, 18 + 256: true}
	for step := 1; step <= len(stream); step++ {
		var r records
		for at := 0; at < len(stream); at += step {
			if r.whole() != ends[at] {
				t.Fatalf("by %d: at %d, whole is %v", step, at, r.whole())
			}
			r.follow(stream[at:min(at+step, len(stream))])
		}
		if !r.whole() {
			t.Fatalf("by %d: not whole at the end", step)
		}
	}
}
