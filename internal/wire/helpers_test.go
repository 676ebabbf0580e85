//go:build unix

package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// patience is how long a test waits for what must happen.
	patience = 30 * time.Second

	serverName = "tinybird.test"
)

// peer is the server's side of one connection.
type peer struct {
	net.Conn

	number int // 1 is the first connection
	in     *bufio.Reader
}

// request reads one request and returns its path and query, or "" at the end of the connection.
func (p *peer) request() string {
	r, err := http.ReadRequest(p.in)
	if err != nil {
		return ""
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return ""
	}
	return r.RequestURI
}

// send sends text, and tells whether the client still takes it.
func (p *peer) send(text string) bool {
	_, err := io.WriteString(p.Conn, text)
	return err == nil
}

// untilClosed waits until the client has closed the connection.
func (p *peer) untilClosed() { _, _ = io.Copy(io.Discard, p.in) }

// server is a server on loopback that does with each connection what serve says, and closes it then.
type server struct {
	addr     string
	accepted atomic.Int64
	closed   chan int // the numbers of the connections that are over
}

// serveTCP starts a server. With a config its connections are secure, and serve gets them after the handshake.
func serveTCP(t testing.TB, secure *tls.Config, serve func(p *peer)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), closed: make(chan int, 1<<16)}
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			number := int(s.accepted.Add(1))
			mu.Lock()
			conns[nc] = true
			mu.Unlock()
			wg.Go(func() {
				defer func() {
					_ = nc.Close()
					mu.Lock()
					delete(conns, nc)
					mu.Unlock()
					s.closed <- number
				}()
				c := nc
				if secure != nil {
					c = tls.Server(gathering(nc), secure)
				}
				serve(&peer{Conn: c, number: number, in: bufio.NewReader(c)})
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for nc := range conns {
			_ = nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

// gatherer is the network below a server's TLS. While it holds, what is written is kept, so that a test can send records
// together, or in parts.
type gatherer struct {
	net.Conn

	mu   sync.Mutex
	hold bool
	kept bytes.Buffer
}

func gathering(c net.Conn) *gatherer { return &gatherer{Conn: c} }

func (g *gatherer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold {
		return g.kept.Write(p)
	}
	return g.Conn.Write(p)
}

// gather runs write and returns what it wrote, without sending it.
func (p *peer) gather(write func()) []byte {
	g := p.Conn.(*tls.Conn).NetConn().(*gatherer)
	g.mu.Lock()
	g.hold = true
	g.mu.Unlock()
	write()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = false
	defer g.kept.Reset()
	return bytes.Clone(g.kept.Bytes())
}

// sendRaw sends bytes below TLS.
func (p *peer) sendRaw(b []byte) {
	_, _ = p.Conn.(*tls.Conn).NetConn().(*gatherer).Conn.Write(b)
}

// answer is an answer with a body.
func answer(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// echo answers every request with its own path.
func echo(p *peer) {
	for path := p.request(); path != ""; path = p.request() {
		p.send(answer(path))
	}
}

// client returns a client of s, which tells when it does not reach the server.
func client(t testing.TB, s *server, change ...func(*Options)) *Client {
	t.Helper()
	o := Options{Addr: s.addr, Dial: new(net.Dialer).DialContext, HeaderTimeout: patience, BodyTimeout: patience}
	for _, f := range change {
		f(&o)
	}
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

func text(path string) []byte { return []byte("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n") }

// get asks for a path and returns the whole body.
func get(ctx context.Context, c *Client, path string) (string, error) {
	resp, err := c.Do(ctx, text(path))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// mustGet asks for a path of a server that echoes it.
func mustGet(t testing.TB, c *Client, path string) {
	t.Helper()
	if body, err := get(t.Context(), c, path); err != nil || body != path {
		t.Fatalf("%s: %q, %v", path, body, err)
	}
}

// idle returns the connections that are idle.
func (p *pool) idle() []*conn {
	var all []*conn
	for i := range p.stacks {
		s := &p.stacks[i]
		s.mu.Lock()
		all = append(all, s.conns...)
		s.mu.Unlock()
	}
	return all
}

// wantIdle fails unless so many connections are idle.
func wantIdle(t testing.TB, c *Client, want int) []*conn {
	t.Helper()
	all := c.idle.idle()
	if len(all) != want || c.idle.size.Load() != int64(want) {
		t.Fatalf("%d connections are idle, counted as %d, want %d", len(all), c.idle.size.Load(), want)
	}
	return all
}

// awaitArrival waits until something has come on an idle connection, be it its end, without taking it.
func awaitArrival(t testing.TB, cn *conn) {
	t.Helper()
	if err := cn.under.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	err := cn.raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return !errors.Is(err, syscall.EAGAIN)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cn.under.SetReadDeadline(cn.until); err != nil {
		t.Fatal(err)
	}
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

// certificate makes a certificate that vouches for itself, and who trusts it.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: serverName}, DNSNames: []string{serverName},
		// A bubble of testing/synctest begins in the year 2000.
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
})

func serverTLS() *tls.Config {
	cert, _ := certificate()
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// secure makes a client use TLS.
func secure(o *Options) {
	_, pool := certificate()
	o.TLS = &tls.Config{RootCAs: pool, ServerName: serverName}
}

// way is a test with or without TLS.
type way struct {
	*testing.T

	config *tls.Config    // the server's; nil without TLS
	change func(*Options) // the client's
}

// eachWay runs a test with and without TLS.
func eachWay(t *testing.T, test func(*way)) {
	t.Helper()
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		test(&way{t, nil, func(*Options) {}})
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		test(&way{t, serverTLS(), secure})
	})
}

// memory makes connections of memory, for a bubble of testing/synctest, and hands their other sides to serve. The test waits in the
// end until all of that has returned.
func memory(t testing.TB, serve func(p *peer)) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	var number atomic.Int64
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		p := &peer{Conn: far, number: int(number.Add(1)), in: bufio.NewReader(far)}
		wg.Go(func() {
			defer far.Close()
			serve(p)
		})
		return askable{near}, nil
	}
}

// askable is a connection of memory of which the system can be asked: it says that nothing has come.
type askable struct{ net.Conn }

func (askable) SyscallConn() (syscall.RawConn, error) { return silentRaw{}, nil }

type silentRaw struct{}

// silentFD is the end of a pipe in which nothing comes.
var silentFD = sync.OnceValue(func() int {
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil {
		panic(err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		panic(err)
	}
	return fds[0]
})

func (silentRaw) Read(f func(uintptr) bool) error {
	f(uintptr(silentFD()))
	return nil
}

func (silentRaw) Control(func(uintptr)) error    { return errors.ErrUnsupported }
func (silentRaw) Write(func(uintptr) bool) error { return errors.ErrUnsupported }
