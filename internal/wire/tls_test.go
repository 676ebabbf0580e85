//go:build unix

package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// A server that is not the one that was meant, or that nobody vouches for, gets no request.
func TestWrongCertificate(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*tls.Config){
		"another name": func(c *tls.Config) { c.ServerName = "api.tinybird.co" },
		"nobody":       func(c *tls.Config) { c.RootCAs = x509.NewCertPool() },
		"a policy": func(c *tls.Config) {
			c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("not this one") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveTCP(t, serverTLS(), func(p *peer) {
				if path := p.request(); path != "" {
					t.Errorf("was sent %s", path)
				}
			})
			c := client(t, s, secure, func(o *Options) { change(o.TLS) })
			if _, err := c.Do(t.Context(), text("/")); err == nil {
				t.Error("answered")
			}
			receive(t, s.closed)
			wantIdle(t, c, 0)
		})
	}
}

// Where TLS is wanted nothing is sent without it, and a server without it is none.
func TestPlainServer(t *testing.T) {
	t.Parallel()
	s := serveTCP(t, nil, func(p *peer) {
		b, _ := p.in.Peek(1)
		if len(b) == 1 && b[0] != 22 { // a handshake
			t.Errorf("was sent %q in the clear", b)
		}
		p.send(answer("/"))
		p.untilClosed()
	})
	if _, err := client(t, s, secure).Do(t.Context(), text("/")); err == nil {
		t.Error("answered")
	}
}

// countingCache counts the session tickets that a client gets.
type countingCache struct{ puts atomic.Int64 }

func (c *countingCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func (c *countingCache) Put(string, *tls.ClientSessionState) { c.puts.Add(1) }

// TLS 1.3 sends session tickets after the handshake, in records of their own. They are no reason to give a connection up.
func TestSessionTickets(t *testing.T) {
	t.Parallel()
	for version, name := range map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveTCP(t, serverTLS(), echo)
			cache := new(countingCache)
			c := client(t, s, secure, func(o *Options) {
				o.TLS.ClientSessionCache, o.TLS.MinVersion, o.TLS.MaxVersion = cache, version, version
			})
			for i := range 5 {
				mustGet(t, c, "/"+strconv.Itoa(i))
			}
			if cache.puts.Load() == 0 {
				t.Error("there was no ticket")
			}
			if got := s.accepted.Load(); got != 1 {
				t.Errorf("%d connections", got)
			}
		})
	}
}

// A server may want other keys at any time (RFC 8446, section 4.6.3). If it says so after an answer, the client notices when it
// looks at the idle connection, and has to write then.
func TestKeyUpdate(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*conn){
		"in time": func(*conn) {},
		// The time limit of the last request is over. What is written then is cut short, and the connection is lost with it; not the
		// request that comes next.
		"later": func(cn *conn) {
			cn.until = time.Now().Add(-time.Second)
			_ = cn.nc.SetDeadline(cn.until)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testKeyUpdate(t, spoil, name == "in time")
		})
	}
}

func testKeyUpdate(t *testing.T, spoil func(*conn), kept bool) {
	t.Helper()
	updated := make(chan bool, 16)
	s := serveTCP(t, nil, func(p *peer) {
		k, err := newKeyedServer(p.Conn)
		if err != nil {
			t.Error(err)
			return
		}
		for i := range 3 {
			kind, b, err := k.read()
			if err != nil {
				return // the client gave the connection up
			}
			if i > 0 {
				updated <- kind == typeHandshake
				k.in.update()
				if kind, b, err = k.read(); err != nil {
					return
				}
			}
			if kind != typeData {
				t.Errorf("got a record of the type %d: %x", kind, b)
				return
			}
			path := pathOf(b)
			// The answer, and in the same segment the wish for other keys.
			_, _ = p.Write(append(k.seal(typeData, []byte(answer(path))), k.seal(typeHandshake, []byte{24, 0, 0, 1, 1})...))
			k.out.update()
		}
	})
	c := client(t, s, secure)
	for i := range 3 {
		path := "/" + strconv.Itoa(i)
		mustGet(t, c, path)
		for _, cn := range c.idle.idle() {
			spoil(cn)
		}
	}
	if kept != (s.accepted.Load() == 1) {
		t.Errorf("%d connections", s.accepted.Load())
	}
	for i := 0; kept && i < 2; i++ {
		if !receive(t, updated) {
			t.Error("the client did not take other keys")
		}
	}
}

// Above all a connection that TLS has given up is not used: a record that was tampered with, or of an unknown kind.
func TestBrokenRecordsWhileIdle(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"tampered": {23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
		"unknown":  {99, 3, 3, 0, 1, 1},
		"an alert": {21, 3, 3, 0, 2, 2, 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveTCP(t, serverTLS(), once(func(p *peer, path string) {
				p.sendRaw(append(p.gather(func() { p.send(answer(path)) }), b...))
			}))
			c := client(t, s, secure)
			if _, err := get(t.Context(), c, "/first"); err != nil {
				t.Fatal(err)
			}
			wantUnpoisoned(t, c, s)
		})
	}
}

// A dialer that makes secure connections of its own is possible; they are not known well enough to be used again.
func TestSecureDialer(t *testing.T) {
	t.Parallel()
	s := serveTCP(t, serverTLS(), echo)
	_, pool := certificate()
	d := &tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: serverName}}
	c := client(t, s, func(o *Options) {
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return d.DialContext(ctx, network, addr)
		}
	})
	for i := range 3 {
		mustGet(t, c, "/"+strconv.Itoa(i))
	}
	if got := s.accepted.Load(); got != 3 {
		t.Errorf("%d connections for 3 requests", got)
	}
}
