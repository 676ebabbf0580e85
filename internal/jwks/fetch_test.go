package jwks

import (
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/egress"
)

// These tests use real connections, so that what net/http does by itself is seen too.

// observed starts a set for a handler and returns the first event.
func observed(t *testing.T, o Options, h http.Handler) (*Set, Event) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	first := make(chan Event, 1)
	o.URL = srv.URL + "/jwks.json"
	o.Observe = func(e Event) {
		select {
		case first <- e:
		default:
		}
	}
	s := New(o)
	s.Start()
	t.Cleanup(s.Close)
	return s, <-first
}

func TestFetchOverTheNetwork(t *testing.T) {
	t.Parallel()
	var got *http.Request
	s, e := observed(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		_, _ = io.WriteString(w, doc(key("a", "1")))
	}))
	if e.Err != nil || e.Keys != 1 {
		t.Fatalf("event %+v", e)
	}
	mustRead(t, s, "a")
	if got.Method != http.MethodGet || got.URL.Path != "/jwks.json" || got.ContentLength != 0 {
		t.Errorf("request %v", got)
	}
	if a := got.Header.Get("Accept"); !strings.Contains(a, "application/json") {
		t.Errorf("Accept: %q", a)
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		if v := got.Header.Get(name); v != "" {
			t.Errorf("%s is sent", name)
		}
	}
}

// Attack: a redirect, planted or by a captive portal, to keys of somebody else's choice.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var visited atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		visited.Store(true)
		_, _ = io.WriteString(w, doc(key("evil", "6")))
	}))
	t.Cleanup(elsewhere.Close)
	for name, client := range map[string]*http.Client{
		"own client":   nil,
		"given client": {Transport: &http.Transport{DisableKeepAlives: true}},
		"given client that wants to": {
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return nil },
		},
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			s, e := observed(t, Options{Client: client}, http.RedirectHandler(elsewhere.URL, status))
			if e.Err == nil || visited.Load() {
				t.Errorf("%s, %d: event %+v, followed %v", name, status, e, visited.Load())
			}
			if _, ok := s.Peek("evil"); ok {
				t.Errorf("%s, %d: the key is trusted", name, status)
			}
		}
	}
}

func TestGivenClientIsNotChanged(t *testing.T) {
	t.Parallel()
	c := &http.Client{Transport: newIssuer(doc(key("a", "1")))}
	New(Options{URL: testURL, Client: c}).Close()
	if c.CheckRedirect != nil {
		t.Fatal("the caller's client was changed")
	}
}

// Attack: a document that is small on the wire and fills the memory when unpacked.
func TestBodyIsBoundedAfterDecompression(t *testing.T) {
	t.Parallel()
	s, e := observed(t, Options{MaxBody: 64 << 10}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, doc(key("a", "1"))+strings.Repeat(" ", 1<<20))
		_ = z.Close()
	}))
	if e.Err == nil || !strings.Contains(e.Err.Error(), "larger than 65536 bytes") {
		t.Fatalf("event %+v", e)
	}
	if _, ok := s.Peek("a"); ok {
		t.Fatal("the key is trusted")
	}
}

func TestBodyOfExactlyTheLimit(t *testing.T) {
	t.Parallel()
	body := doc(key("a", "1"))
	serve := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, body)
	})
	if _, e := observed(t, Options{MaxBody: int64(len(body))}, serve); e.Err != nil {
		t.Errorf("at the limit: %v", e.Err)
	}
	if _, e := observed(t, Options{MaxBody: int64(len(body)) - 1}, serve); e.Err == nil {
		t.Error("over the limit: no error")
	}
}

func TestBodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	_, e := observed(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, doc(key("a", "1")))
	}))
	if e.Err == nil {
		t.Fatal("a document cut short is accepted")
	}
}

// Servers that accept and then hang, before the header or in the middle of the body.
func TestCloseAbortsAHungServer(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{"before the header": "", "in the body": `{"keys":[`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reached, gone := make(chan struct{}), make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if before != "" {
					_, _ = io.WriteString(w, before)
					_ = http.NewResponseController(w).Flush()
				}
				close(reached)
				<-r.Context().Done()
				close(gone)
			}))
			defer srv.Close()
			s := New(Options{URL: srv.URL, MaxWait: time.Millisecond})
			s.Start()
			<-reached
			wantNoKeys(t, s, "a")
			s.Close()
			<-gone
		})
	}
}

func TestNothingListens(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	first := make(chan Event, 16)
	s := New(Options{URL: "http://" + addr, MaxWait: time.Millisecond, Observe: func(e Event) { first <- e }})
	s.Start()
	defer s.Close()
	if e := <-first; e.Err == nil || !strings.Contains(e.Err.Error(), "refused") {
		t.Fatalf("event %+v", e)
	}
	wantNoKeys(t, s, "a")
}

// Attack: what listens at the address of the keys echoes what it is sent, net/http quotes that, and a credential in the address is in
// the log.
func TestAttackEchoOfTheAddress(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 "+r.URL.RequestURI()+"\r\n\r\n")
		_ = conn.Close()
	}))
	defer srv.Close()
	_, err := Fetch(t.Context(), Options{URL: srv.URL + "/jwks?key=marked-secret"})
	if err == nil || strings.Contains(err.Error(), "marked") {
		t.Error(err)
	}
}

// Attack: the same, of a part of the address, or of one that the error has with escapes.
func TestAttackEchoOfAPartOfTheAddress(t *testing.T) {
	t.Parallel()
	for query, echo := range map[string]string{
		"key=marked-secret":       "HTTP/1.1 marked-secret\r\n\r\n",
		"a=b&key=marked-secret&c": "marked-secret\r\n\r\n",
		"key=marked%2Dsecret":     "HTTP/1.1 marked-secret\r\n\r\n",
		`key=marked"secret\`:      "HTTP/1.1 /?" + `key=marked"secret\` + "\r\n\r\n",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, echo)
			_ = conn.Close()
		}))
		_, err := Fetch(t.Context(), Options{URL: srv.URL + "/jwks?" + query})
		srv.Close()
		if err == nil || strings.Contains(err.Error(), "marked") {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// Attack: a proxy of the environment answers a request without TLS, which is for this machine or network, with keys of its own.
func TestAttackProxyWithoutTLS(t *testing.T) {
	t.Parallel()
	proxy := egress.Tunnel(func(*http.Request) (*url.URL, error) { return url.Parse("http://proxy.example.com:3128") })
	for address, want := range map[string]bool{"https://clerk.example.com/jwks": true, "http://10.0.0.1:4000/jwks": false, "http://clerk.internal/jwks": false} {
		if u, err := proxy(httptest.NewRequest(http.MethodGet, address, http.NoBody)); err != nil || (u != nil) != want {
			t.Errorf("%s: proxy %v, %v", address, u, err)
		}
	}
	client, _ := newClient(nil)
	if tr, ok := client.Transport.(*http.Transport); !ok || tr.Proxy == nil {
		t.Error("the proxy of the environment is not used")
	}
}
