package caddytinybird

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// quickAnswer is what quickUpstream says: two kilobytes of rows.
var quickAnswer = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Wed, 25 Nov 2026 22:00:00 GMT\r\n" +
	"X-Db-Exec: 0.001\r\nContent-Length: 2000\r\n\r\n" + strings.Repeat("x", 2000))

// quickUpstream answers every request with the same bytes, and allocates nothing for it.
func quickUpstream(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for have := 0; ; {
					n, err := c.Read(buf[have:])
					if err != nil {
						return
					}
					have += n
					if bytes.HasSuffix(buf[:have], []byte("\r\n\r\n")) {
						have = 0
						if _, err := c.Write(quickAnswer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// sinkWriter is a client that takes everything and costs nothing.
type sinkWriter struct {
	header http.Header
	status int
	bytes  int
}

func (s *sinkWriter) Header() http.Header { return s.header }

func (s *sinkWriter) WriteHeader(status int) { s.status = status }

func (s *sinkWriter) Write(p []byte) (int, error) {
	s.bytes += len(p)
	return len(p), nil
}

// warmEdge is a handler that has seen the session before, and a request of that session.
type warmEdge struct {
	*Handler

	ctx    context.Context
	url    url.URL
	header http.Header
	w      sinkWriter
	server caddyhttp.Server
}

func newWarmEdge(t testing.TB) *warmEdge {
	t.Helper()
	stack := newStack(t, devstack.Options{})
	h := testHandler(t, stack)
	h.Upstream = quickUpstream(t)
	h.RateLimit = &RateLimit{RPS: "1000000"}
	if err := provision(t, newContext(t, storageDir(t)), h); err != nil {
		t.Fatal(err)
	}
	token, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	e := &warmEdge{Handler: h, ctx: ctx, url: url.URL{Path: "/v0/pipes/top_pages.json", RawQuery: "days=7"}}
	e.header = http.Header{"Accept": {"application/json"}, "User-Agent": {"bench"}, "Authorization": {"Bearer " + token}}
	e.w.header = make(http.Header)
	e.serve(t)
	return e
}

// prepare makes a request as Caddy's server does.
func (e *warmEdge) prepare() *http.Request {
	u := e.url
	r := (&http.Request{Method: http.MethodGet, URL: &u, Host: "edge.example.com", RemoteAddr: "192.0.2.1:1", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: e.header}).WithContext(e.ctx)
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), &e.w, &e.server)
}

func (e *warmEdge) serve(t testing.TB) {
	t.Helper()
	clear(e.w.header)
	e.w.status, e.w.bytes = 0, 0
	if err := e.ServeHTTP(&e.w, e.prepare(), nil); err != nil || e.w.status != http.StatusOK || strconv.Itoa(e.w.bytes) != e.w.header.Get("Content-Length") {
		t.Fatalf("%d, %d bytes, %v", e.w.status, e.w.bytes, err)
	}
}

// A warm request allocates at most a dozen times beyond what Caddy does for any request and net/http for any answer.
func TestWarmAllocations(t *testing.T) { //nolint:paralleltest // AllocsPerRun must not run beside other tests
	const most = 12
	e := newWarmEdge(t)
	caddys := testing.AllocsPerRun(500, func() { e.prepare() })
	in := bufio.NewReader(nil)
	standard := testing.AllocsPerRun(500, func() {
		in.Reset(bytes.NewReader(quickAnswer))
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}) - 1 // the reader
	all := testing.AllocsPerRun(500, func() { e.serve(t) })
	if own := all - caddys - standard; own > most+poolForgets {
		t.Errorf("%v allocations, want at most %d; Caddy's %v, net/http's %v", own, most, caddys, standard)
	} else {
		t.Logf("%v allocations; Caddy's %v, net/http's %v", own, caddys, standard)
	}
}

func BenchmarkServeHTTP(b *testing.B) {
	e := newWarmEdge(b)
	b.Run("prepare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.prepare()
		}
	})
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.serve(b)
		}
	})
}
