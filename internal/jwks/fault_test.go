package jwks

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// wired is an issuer behind a network in memory, so that net/http's and TLS's own behaviour is seen without waiting for it.
// How it answers a connection is exchanged by the test.
type wired struct {
	roots *x509.CertPool
	good  tls.Certificate
	quit  chan struct{} // closed at the end of the test: what hangs lets go
	srv   *http.Server
	conns chan net.Conn

	mu    sync.Mutex
	doc   string
	dials int
	fault fault
}

// fault is what goes wrong; the zero value is nothing.
type fault struct {
	dial func(ctx context.Context) error // cannot connect
	raw  func(w *wired, c net.Conn)      // instead of TLS and HTTP
	cert *tls.Certificate                // instead of the good one
	says func(w *wired, c net.Conn)      // over TLS, instead of HTTP, when the request was read
	doc  string                          // instead of the key set
}

func newWired(t *testing.T) *wired {
	t.Helper()
	w := &wired{quit: make(chan struct{}), conns: make(chan net.Conn), roots: x509.NewCertPool(), doc: doc(key("a", "1"))}
	w.good = certificate(t, "clerk.example.com", time.Now().Add(24*time.Hour))
	w.roots.AddCert(w.good.Leaf)
	w.srv = &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), Handler: http.HandlerFunc(w.answer)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.srv.Serve(w) })
	t.Cleanup(func() {
		close(w.quit)
		_ = w.srv.Close()
		wg.Wait()
	})
	return w
}

// certificate is one that signs itself.
func certificate(t *testing.T, name string, until time.Time) tls.Certificate {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv, Leaf: leaf}
}

// Accept, Close and Addr make it a net.Listener.
func (w *wired) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.quit:
		return nil, net.ErrClosed
	}
}

func (*wired) Close() error   { return nil }
func (*wired) Addr() net.Addr { return &net.TCPAddr{} }

func (w *wired) answer(rw http.ResponseWriter, _ *http.Request) {
	w.mu.Lock()
	text := w.doc
	if w.fault.doc != "" {
		text = w.fault.doc
	}
	w.mu.Unlock()
	_, _ = io.WriteString(rw, text)
}

func (w *wired) now(f fault, doc string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault, w.doc = f, doc
}

// hang waits for the end of the test, or until the other side has closed the connection.
func (w *wired) hang(c net.Conn) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, c)
	}()
	select {
	case <-w.quit:
	case <-gone:
	}
	_ = c.Close()
	<-gone
}

func (w *wired) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	w.mu.Lock()
	w.dials++
	f := w.fault
	w.mu.Unlock()
	if f.dial != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: f.dial(ctx)}
	}
	ours, theirs := net.Pipe()
	go w.serve(theirs, f)
	return ours, nil
}

func (w *wired) serve(c net.Conn, f fault) {
	if f.raw != nil {
		f.raw(w, c)
		return
	}
	o := &tls.Config{Certificates: []tls.Certificate{w.good}, NextProtos: []string{"h2", "http/1.1"}}
	if f.cert != nil {
		o.Certificates[0] = *f.cert
	}
	if f.says == nil {
		select {
		case w.conns <- tls.Server(c, o):
		case <-w.quit:
			_ = c.Close()
		}
		return
	}
	o.NextProtos = []string{"http/1.1"}
	secure := tls.Server(c, o)
	if _, err := secure.Read(make([]byte, 4<<10)); err == nil {
		f.says(w, secure)
	}
	_ = c.Close()
}

// set is one whose network this is.
func (w *wired) set(t *testing.T) *Set {
	t.Helper()
	s := New(Options{URL: testURL})
	tr, ok := s.client.Transport.(*http.Transport)
	if !ok {
		t.Fatal("another transport")
	}
	tr.DialContext, tr.TLSClientConfig.RootCAs, tr.Proxy = w.dial, w.roots, nil
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// says is a peer that says so and then nothing, or closes the connection.
func says(text string, hangs bool) func(*wired, net.Conn) {
	return func(w *wired, c net.Conn) {
		_, _ = io.WriteString(c, text)
		if hangs {
			w.hang(c)
		}
	}
}

// endless is a peer that never stops to say so.
func endless(first, again string) func(*wired, net.Conn) {
	return func(_ *wired, c net.Conn) {
		_, err := io.WriteString(c, first)
		for err == nil {
			_, err = io.WriteString(c, again)
		}
	}
}

// issuerFaults are what can be wrong with an issuer, and what the operator reads about it: how far it got, and why no further.
func issuerFaults(t *testing.T) map[string]struct {
	fault

	cause string
} {
	t.Helper()
	other := certificate(t, "other.example.com", time.Now().Add(time.Hour))
	expired := certificate(t, "clerk.example.com", time.Now().Add(-time.Hour))
	const (
		late     = "no complete answer within 10s"
		noTLS    = "connected, but TLS failed: "
		noHead   = "an answer began, but its header could not be read: "
		noBody   = "answered with status 200, but not with the whole document: "
		unusable = `the answer is complete \(status 200\), but of no use: `
	)
	return map[string]struct {
		fault

		cause string
	}{
		"its name is gone": {fault{dial: func(context.Context) error {
			return &net.DNSError{Err: "no such host", Name: "clerk.example.com", IsNotFound: true}
		}}, "^fetch key set: DNS gave no address of the host: .*no such host"},
		"nobody listens":   {fault{dial: func(context.Context) error { return syscall.ECONNREFUSED }}, "could not connect: .*connection refused"},
		"no file is left":  {fault{dial: func(context.Context) error { return syscall.EMFILE }}, "could not connect: .*too many open files"},
		"connecting hangs": {fault{dial: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, "could not connect: " + late},
		"half-open":        {fault{raw: (*wired).hang}, noTLS + late + "|" + noTLS + ".*TLS handshake timeout"},
		"not TLS": {fault{raw: func(w *wired, c net.Conn) {
			_, _ = c.Read(make([]byte, 4<<10))
			says("HTTP/1.1 400 Bad Request\r\n\r\n", false)(w, c)
			_ = c.Close()
		}}, noTLS + ".*HTTP response to HTTPS client"},
		"closes": {fault{raw: func(_ *wired, c net.Conn) {
			_, _ = c.Read(make([]byte, 4<<10))
			_ = c.Close()
		}}, noTLS + ".*EOF"},
		"another's name":    {fault{cert: &other}, noTLS + ".*certificate is valid for other.example.com"},
		"expired":           {fault{cert: &expired}, noTLS + ".*certificate has expired"},
		"silent":            {fault{says: (*wired).hang}, "connected, but no answer came: " + late},
		"hangs in the head": {fault{says: says("HTTP/1.1 200 OK\r\nContent-Le", true)}, noHead + late},
		"hangs in the body": {fault{says: says("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"keys\":[", true)}, noBody + late},
		"a byte a second": {fault{says: func(w *wired, c net.Conn) {
			go w.hang(c)
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
			for err == nil {
				elapse(time.Second)
				_, err = io.WriteString(c, " ")
			}
		}}, noBody + late},
		"cut off":           {fault{says: says("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"keys\":[", false)}, noBody + "unexpected EOF"},
		"cut off in chunks": {fault{says: says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"keys\":[\r\n", false)}, noBody + "unexpected EOF"},
		"only interim":      {fault{says: endless("", "HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("a", 4000)+"\r\n\r\n")}, noHead + ".*(1xx|headers exceeded)"},
		"endless head":      {fault{says: endless("HTTP/1.1 200 OK\r\n", "A: "+strings.Repeat("a", 1000)+"\r\n")}, noHead + ".*headers exceeded"},
		"endless body":      {fault{says: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "10000\r\n"+strings.Repeat(" ", 1<<16)+"\r\n")}, "larger than"},
		"redirects":         {fault{says: says("HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n", false)}, "answered with status 302, and redirects are not followed"},
		"is down":           {fault{says: says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false)}, "answered with status 503 instead of 200"},
		"no HTTP":           {fault{says: says("SSH-2.0-OpenSSH_10.0\r\n", false)}, noHead + ".*malformed HTTP"},
		"asks for login":    {fault{doc: "<!doctype html><title>Log in to the wi-fi</title>"}, `complete \(status 200\), but a page of HTML: not a JWK set`},
		"an empty set":      {fault{doc: doc()}, unusable + "no key in the set"},
		"half of a set":     {fault{doc: doc(key("a", "1"))[:200]}, unusable + "not a JWK set: .*JSON is broken at byte"},
	}
}

// TestIssuerFaults: whatever is wrong with the issuer, a set keeps the keys that it has, holds nobody up for long, tells the
// operator why, and has new keys when the fault is over, without anybody's help.
func TestIssuerFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range issuerFaults(t) {
			w := newWired(t)
			s := w.set(t)
			mustRead(t, s, "a")

			w.now(tt.fault, doc(key("a", "1"), key("b", "2")))
			begin := time.Now()
			wantUnknown(t, s, "b")
			if d := time.Since(begin); d > DefaultMaxWait {
				t.Errorf("%s: a request was held for %v", name, d)
			}
			if _, ok := s.Peek("a"); !ok {
				t.Errorf("%s: the keys are gone", name)
			}
			elapse(fetchTimeout + time.Second)
			if st := s.Status(); st.Failures == 0 || st.Err == nil || !regexp.MustCompile(tt.cause).MatchString(st.Err.Error()) {
				t.Errorf("%s: the operator reads %v, which does not say %q", name, st.Err, tt.cause)
			}

			w.now(fault{}, doc(key("a", "1"), key("b", "2")))
			elapse(refreshRetry + fetchTimeout)
			mustRead(t, s, "b")
			if t.Failed() {
				t.Fatalf("after %s", name)
			}
			s.Close()
		}
	})
}

// TestIssuerFaultsFromTheStart: the same for a set that has no keys yet. Nobody is told that their session is bad.
func TestIssuerFaultsFromTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range issuerFaults(t) {
			w := newWired(t)
			w.now(tt.fault, doc(key("a", "1")))
			s := w.set(t)
			for range 3 {
				begin := time.Now()
				wantNoKeys(t, s, "a")
				if d := time.Since(begin); d > DefaultMaxWait {
					t.Errorf("%s: a request was held for %v", name, d)
				}
				elapse(5 * time.Second)
			}
			w.now(fault{}, doc(key("a", "1")))
			elapse(firstLoadRetryMax + fetchTimeout + time.Second)
			mustRead(t, s, "a")
			if t.Failed() {
				t.Fatalf("after %s", name)
			}
			s.Close()
		}
	})
}

// TestSlowIssuer: nine seconds are slow, but no fault. Requests do not wait for it, and have the key afterwards.
func TestSlowIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWired(t)
		s := w.set(t)
		mustRead(t, s, "a")
		set := doc(key("b", "2"))
		w.now(fault{says: func(_ *wired, c net.Conn) {
			elapse(9 * time.Second)
			says("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+set, false)(w, c)
		}}, set)
		wantUnknown(t, s, "b")
		elapse(9 * time.Second)
		mustRead(t, s, "b")
		if st := s.Status(); st.Err != nil {
			t.Error(st.Err)
		}
	})
}

// TestDeadConnectionIsNotAskedAgain: a connection that died without a word, as behind a firewall that forgot it, is not kept for
// the next fetch. With HTTP/2, net/http would ask it again and again.
func TestDeadConnectionIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWired(t)
		s := New(Options{URL: testURL})
		tr, ok := s.client.Transport.(*http.Transport)
		if !ok {
			t.Fatal("another transport")
		}
		var (
			mu   sync.Mutex
			last *dying
		)
		tr.TLSClientConfig.RootCAs, tr.Proxy = w.roots, nil
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := w.dial(ctx, network, addr)
			mu.Lock()
			defer mu.Unlock()
			last = &dying{Conn: c, dead: make(chan struct{}), closed: make(chan struct{})}
			return last, err
		}
		s.Start()
		t.Cleanup(s.Close)
		mustRead(t, s, "a")
		mu.Lock()
		close(last.dead)
		mu.Unlock()

		w.now(fault{}, doc(key("b", "2")))
		for range 3 { // each of them within the time that a connection would be kept
			elapse(DefaultCooldown)
			s.Refresh(t.Context())
		}
		mustRead(t, s, "b")
	})
}

// dying is a connection whose packets go nowhere once it is dead.
type dying struct {
	net.Conn

	dead, closed chan struct{}
	once         sync.Once
}

func (d *dying) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	select {
	case <-d.dead:
		<-d.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (d *dying) Write(p []byte) (int, error) {
	select {
	case <-d.dead:
		return len(p), nil
	default:
		return d.Conn.Write(p)
	}
}

func (d *dying) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Conn.Close()
}

// TestQuestionDuringAFetchIsAskedAgain: a fetch that was under way when the issuer rotated brings the keys of before. Whoever waited
// for it with a token of the new key is not refused for that, if another fetch may be had: by a new id, or under the old one.
func TestQuestionDuringAFetchIsAskedAgain(t *testing.T) {
	t.Parallel()
	for name, sameID := range map[string]bool{"a new id": false, "the old id": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i := &aging{issuer: newIssuer(doc(key("a", "1")))}
				s := New(Options{URL: testURL, Client: &http.Client{Transport: i}, Refresh: time.Minute})
				s.Start()
				t.Cleanup(s.Close)
				synctest.Wait()
				i.slow(3 * time.Second / 2)
				for i.fetches() == 1 { // until a scheduled fetch, which takes the keys of before with it
					elapse(100 * time.Millisecond)
				}
				i.slow(0)
				i.serve(200, doc(key("b", "2")))
				if sameID {
					i.serve(200, doc(key("a", "2")))
				}
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						if sameID {
							if !s.Refresh(t.Context()) {
								t.Error("the new key was not found")
							}
							return
						}
						mustRead(t, s, "b")
					})
				}
				wg.Wait()
				wantFetches(t, i.issuer, 3)
			})
		})
	}
}

// aging is an issuer whose answers are as old as they took.
type aging struct {
	*issuer

	slower struct {
		sync.Mutex

		by time.Duration
	}
}

func (a *aging) slow(by time.Duration) {
	a.slower.Lock()
	defer a.slower.Unlock()
	a.slower.by = by
}

func (a *aging) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.issuer.RoundTrip(r)
	a.slower.Lock()
	by := a.slower.by
	a.slower.Unlock()
	elapse(by)
	return resp, err
}

// TestRotationEverySecond: for ten minutes the issuer has a new key every second, and next to it the one before. Somebody shows a
// session of each ten times a second. None is refused whose key is among those at hand, nor one of a key that was there at the
// last chance to fetch; and there are no more fetches than the schedule and the cooldown allow.
func TestRotationEverySecond(t *testing.T) {
	t.Parallel()
	for name, refresh := range map[string]time.Duration{"by default": DefaultRefresh, "looked for every second": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				kid := func(n int) string { return "ins_" + time.Duration(n).String() }
				both := func(n int) string { return doc(key(kid(n-1), kid(n-1)), key(kid(n), kid(n))) }
				i := newIssuer(both(1))
				s := started(t, i, Options{Refresh: refresh})
				const rounds = 600
				served := 0
				for n := 2; n < rounds+2; n++ {
					i.serve(200, both(n))
					for range 10 {
						for _, k := range []string{kid(n - 1), kid(n)} {
							_, had := s.Peek(k)
							s.mu.Lock()
							may := !s.cooling()
							s.mu.Unlock()
							_, err := s.KeyRead(t.Context(), k)
							if err == nil {
								served++
							} else if had || may || errors.Is(err, ErrNoKeys) {
								t.Fatalf("second %d, key %s (at hand: %v, a fetch allowed: %v): %v", n, k, had, may, err)
							}
						}
						elapse(100 * time.Millisecond)
					}
				}
				least := rounds / int(DefaultCooldown/time.Second) * 20 // once in a cooldown, for both keys and a second at least
				most := 2 + rounds/int(DefaultCooldown/time.Second)
				if refresh == time.Second {
					least, most = 2*rounds*10*7/10, most+rounds*10/9
				}
				if n := i.fetches(); n > most || served < least {
					t.Errorf("%d fetches (at most %d), %d answers (at least %d)", n, most, served, least)
				}
			})
		})
	}
}
