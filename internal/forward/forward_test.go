package forward

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// token has the form of a minted one, with a signature that no other text holds.
	token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ3b3Jrc3BhY2VfaWQiOiJ3In0.c2lnbmF0dXJlLW9mLXRoZS1taW50ZWQtdG9rZW4"
	// patience is how long a test waits for what must happen.
	patience = 10 * time.Second
	// brief is a time limit that is meant to run out.
	brief = 50 * time.Millisecond
)

// forwarder returns a Forwarder to base with a transport of its own.
func forwarder(t testing.TB, base string, change ...func(*Options)) *Forwarder {
	t.Helper()
	return New(options(t, base, change))
}

func options(t testing.TB, base string, change []func(*Options)) Options {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	o := Options{Base: u, Transport: tr, HeaderTimeout: patience, IdleTimeout: patience}
	for _, f := range change {
		f(&o)
	}
	return o
}

// direct returns a Forwarder that asks over connections of its own, as its transport's settings have it, and whose transport is
// not to be used.
func direct(t testing.TB, base string, change ...func(*Options)) *Forwarder {
	t.Helper()
	o := options(t, base, change)
	tr := o.Transport.(*http.Transport)
	w := wire.Options{
		Addr: o.Base.Host, Dial: tr.DialContext, HeaderTimeout: o.HeaderTimeout, BodyTimeout: o.IdleTimeout, MaxHeader: tr.MaxResponseHeaderBytes,
	}
	if w.Dial == nil {
		w.Dial = new(net.Dialer).DialContext
	}
	if tr.ResponseHeaderTimeout > 0 {
		w.HeaderTimeout = tr.ResponseHeaderTimeout
	}
	if o.Base.Scheme == "https" {
		w.TLS = &tls.Config{ServerName: o.Base.Hostname()}
	}
	o.Direct = wire.New(w)
	t.Cleanup(o.Direct.Close)
	o.Transport = tripper(func(r *http.Request) (*http.Response, error) {
		t.Errorf("%s goes by the transport", r.URL)
		return nil, errors.ErrUnsupported
	})
	return New(o)
}

// way is a test of one of the ways to Tinybird.
type way struct {
	*testing.T

	direct bool
}

// forwarder returns a Forwarder that goes this way.
func (w *way) forwarder(base string, change ...func(*Options)) *Forwarder {
	w.Helper()
	if w.direct {
		return direct(w, base, change...)
	}
	return forwarder(w, base, change...)
}

// bothWays runs a test over net/http's transport, and over connections of our own.
func bothWays(t *testing.T, test func(*way)) {
	t.Helper()
	t.Run("transport", func(t *testing.T) {
		t.Parallel()
		test(&way{t, false})
	})
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		test(&way{t, true})
	})
}

// upstream starts a server that answers with h.
func upstream(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// rawUpstream starts a server that hands each connection, with its first request read, to serve and closes it
// when serve returns. The text of each request is sent on the channel.
func rawUpstream(t testing.TB, serve func(c *net.TCPConn)) (base string, requests <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			func() {
				defer c.Close()
				text, err := readRequest(c)
				if err != nil {
					return
				}
				seen <- text
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "http://" + l.Addr().String(), seen
}

// readRequest reads one request as text.
func readRequest(c net.Conn) (string, error) {
	var text strings.Builder
	r := bufio.NewReader(io.TeeReader(c, &text))
	req, err := http.ReadRequest(r)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return text.String(), err
}

// untilClosed waits until the other side has closed the connection.
func untilClosed(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// edge starts a server that answers with f as the product does, and reports how each call ended.
func edge(t testing.TB, f *Forwarder, q Request) (base string, results <-chan error) {
	t.Helper()
	ended := make(chan error, 16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := q
		q.Client = r.Header
		_, err := f.Forward(r.Context(), w, q)
		ended <- err
		var refusal *apierr.Error
		switch {
		case errors.As(err, &refusal):
			_ = refusal.Write(w)
		case errors.Is(err, ErrAborted):
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, ended
}

// get asks for u over a connection of its own.
func get(ctx context.Context, t testing.TB, u string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	return tr.RoundTrip(req)
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

func question() Request {
	return Request{Method: http.MethodGet, Path: "/v0/pipes/top_pages.json", Client: http.Header{}, Token: token}
}

// ask forwards q and returns what a client would see.
func ask(t testing.TB, f *Forwarder, q Request) (*httptest.ResponseRecorder, Outcome, error) {
	t.Helper()
	w := httptest.NewRecorder()
	out, err := f.Forward(t.Context(), w, q)
	noToken(t, err)
	noToken(t, out.Err)
	return w, out, err
}

// noToken fails if the text of err, or of its message, holds a part of the token.
func noToken(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	text := err.Error()
	if refusal := (*apierr.Error)(nil); errors.As(err, &refusal) {
		text += string(refusal.Body())
	}
	for part := range strings.SplitSeq(token, ".") {
		if strings.Contains(text, part) {
			t.Errorf("a part of the token is in %q", text)
		}
	}
}

// wantRefusal fails if err is not the refusal with this status and code.
func wantRefusal(t testing.TB, err error, status int, code apierr.Code) *apierr.Error {
	t.Helper()
	var refusal *apierr.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("error %v, want a refusal %d %s", err, status, code)
	}
	if refusal.Status != status || refusal.Code != code || refusal.Message == "" {
		t.Fatalf("refused with %d %s %q, want %d %s", refusal.Status, refusal.Code, refusal.Message, status, code)
	}
	return refusal
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	f := New(Options{Base: &url.URL{Scheme: "https", Host: "api.tinybird.co", Path: "/"}, HeaderTimeout: -1})
	if f.transport.headers != DefaultTimeout || f.transport.bytes != DefaultTimeout || f.base.Path != "" {
		t.Errorf("%+v", f)
	}
}
