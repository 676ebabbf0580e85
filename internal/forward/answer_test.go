package forward

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Attack: an upstream, or who has taken it over, sets cookies, opens CORS or contradicts the edge. The whole
// header is compared, so that nothing can come along unnoticed.
func TestOnlyNamedFieldsComeDown(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		base, _ := rawUpstream(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, strings.Join([]string{
				"HTTP/1.1 200 OK",
				"Content-Length: 2",
				"Content-Type: application/json; charset=UTF-8",
				`ETag: "v1"`,
				"Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT",
				"Retry-After: 3",
				"X-RateLimit-Limit: 20",
				"X-RateLimit-Remaining: 19",
				"X-RateLimit-Reset: 1",
				`RateLimit: "default";r=19;t=1`,
				`RateLimit-Policy: "default";q=20;w=1`,
				"X-DB-Exception-Code: 0",
				"X-DB-Exec-Time: 5",
				"Set-Cookie: a=b",
				"Set-Cookie2: a=b",
				"Access-Control-Allow-Origin: *",
				"Access-Control-Allow-Credentials: true",
				"Cache-Control: public, max-age=3600",
				"Expires: Mon, 02 Jan 2106 15:04:05 GMT",
				"Vary: *",
				"Server: nginx",
				"Via: 1.1 upstream",
				"Strict-Transport-Security: max-age=1",
				"Location: https://elsewhere.example.com",
				"Refresh: 0; url=https://elsewhere.example.com",
				"WWW-Authenticate: Basic",
				"Clear-Site-Data: *",
				"Alt-Svc: h3=\":443\"",
				"X-Request-Id: 1",
				"X-Accel-Redirect: /etc/passwd",
				"Connection: X-DB-Exec-Time, close",
				"Keep-Alive: timeout=5",
				"Trailer: X-DB-Late",
				"", "{}",
			}, "\r\n"))
		})
		w, out, err := ask(t, t.forwarder(base), question())
		if err != nil || out.Err != nil || out.UpstreamStatus != 200 || out.Duration <= 0 {
			t.Fatalf("%+v, %v", out, err)
		}
		want := http.Header{
			"Content-Length":         {"2"},
			"Content-Type":           {"application/json; charset=UTF-8"},
			"Etag":                   {`"v1"`},
			"Last-Modified":          {"Mon, 02 Jan 2006 15:04:05 GMT"},
			"Retry-After":            {"3"},
			"X-Ratelimit-Limit":      {"20"},
			"X-Ratelimit-Remaining":  {"19"},
			"X-Ratelimit-Reset":      {"1"},
			"Ratelimit":              {`"default";r=19;t=1`},
			"Ratelimit-Policy":       {`"default";q=20;w=1`},
			"X-Db-Exception-Code":    {"0"},
			"X-Db-Exec-Time":         {"5"},
			"Cache-Control":          {"private, no-store"},
			"X-Content-Type-Options": {"nosniff"},
		}
		if got := w.Header(); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("came down:\n%v\nwant:\n%v", got, want)
		}
		if got := w.Body.String(); got != "{}" {
			t.Errorf("body %q", got)
		}
	})
}

func TestEdgesOwnLimitsStayOnAnAnswer(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		f := t.forwarder(upstream(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-RateLimit-Limit", "20")
			w.Header().Set("X-RateLimit-Other", "1")
			w.Header().Set("RateLimit", `"upstream";r=1`)
		}))
		w := httptest.NewRecorder()
		w.Header().Set("X-RateLimit-Limit", "5")
		if _, err := f.Forward(t.Context(), w, question()); err != nil {
			t.Fatal(err)
		}
		h := w.Header()
		if h.Get("X-RateLimit-Limit") != "5" || h.Get("X-RateLimit-Other") != "" || h.Get("RateLimit") != "" {
			t.Errorf("the two limits are mixed: %v", h)
		}
	})
}

func TestContentTypeIsNotGuessed(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		base, _ := rawUpstream(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
		})
		front, _ := edge(t, t.forwarder(base), question())
		resp, err := get(t.Context(), t, front)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, ok := resp.Header["Content-Type"]; ok {
			t.Errorf("Content-Type %q, want none", got)
		}
	})
}

func TestNotModifiedAndNoContent(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNotModified, http.StatusNoContent} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *way) {
				f := t.forwarder(upstream(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("ETag", r.Header.Get("If-None-Match"))
					w.WriteHeader(status)
				}))
				front, ended := edge(t, f, question())
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("If-None-Match", `"v1"`)
				resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if err := receive(t, ended); err != nil {
					t.Error(err)
				}
				if resp.StatusCode != status || resp.Header.Get("ETag") != `"v1"` || resp.Header.Get("Cache-Control") != "private, no-store" {
					t.Errorf("%d %v", resp.StatusCode, resp.Header)
				}
				w, _, err := ask(t, f, question())
				if got, ok := w.Header()["Content-Length"]; ok || err != nil {
					t.Errorf("Content-Length %q for an answer without a body, %v", got, err)
				}
			})
		})
	}
}

// noise returns n bytes that do not repeat.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestBodiesArriveWhole(t *testing.T) {
	t.Parallel()
	body := noise(3*pieceSize + 17)
	for _, c := range []struct {
		name  string
		start func(http.Handler) *httptest.Server
		known bool
		way   *way
	}{
		{"http/1.1, known length", httptest.NewServer, true, new(way)},
		{"http/1.1, chunked", httptest.NewServer, false, new(way)},
		{"http/1.1, directly, known length", httptest.NewServer, true, &way{direct: true}},
		{"http/1.1, directly, chunked", httptest.NewServer, false, &way{direct: true}},
		{"http/2, known length", startHTTP2, true, new(way)},
		{"http/2, unknown length", startHTTP2, false, new(way)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.known {
					w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				}
				_, _ = w.Write(body)
			}))
			t.Cleanup(s.Close)
			c.way.T = t
			f := c.way.forwarder(s.URL, func(o *Options) { o.Transport = s.Client().Transport })
			front, _ := edge(t, f, question())
			var wg sync.WaitGroup
			for range 8 { // together, so that a piece which two answers share would show
				wg.Go(func() {
					resp, err := get(t.Context(), t, front)
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					got, err := io.ReadAll(resp.Body)
					if err != nil || !bytes.Equal(got, body) {
						t.Errorf("%d bytes, %v, want the %d that were sent", len(got), err, len(body))
					}
					if c.known != (resp.ContentLength == int64(len(body))) {
						t.Errorf("Content-Length %d", resp.ContentLength)
					}
				})
			}
			wg.Wait()
		})
	}
}

func startHTTP2(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	return s
}

func TestPackedBodyIsNotTouched(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(bytes.Repeat([]byte(`{"rows":1}`), 1000))
		_ = z.Close()
		f := t.forwarder(upstream(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed.Bytes())
		}))
		for _, accept := range []string{"gzip", "", "br;q=1, gzip"} {
			q := question()
			if accept != "" {
				q.Client.Set("Accept-Encoding", accept)
			}
			w, _, err := ask(t, f, q)
			if err != nil {
				t.Fatal(err)
			}
			if w.Header().Get("Content-Encoding") != "gzip" || !bytes.Equal(w.Body.Bytes(), packed.Bytes()) {
				t.Errorf("Accept-Encoding %q: the body was changed: %v", accept, w.Header())
			}
		}
	})
}

// The upstream sends the second piece only after the client has had the first.
func TestChunksArriveAsTheyAreSent(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		had := make(chan struct{})
		f := t.forwarder(upstream(t, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			for _, piece := range []string{"one\n", "two\n", "three\n"} {
				_, _ = io.WriteString(w, piece)
				_ = rc.Flush()
				select {
				case <-had:
				case <-r.Context().Done():
				}
			}
		}))
		front, ended := edge(t, f, question())
		resp, err := get(t.Context(), t, front)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for _, want := range []string{"one\n", "two\n", "three\n"} {
			piece := make([]byte, len(want))
			if _, err := io.ReadFull(resp.Body, piece); err != nil || string(piece) != want {
				t.Fatalf("%q, %v, want %q", piece, err, want)
			}
			had <- struct{}{}
		}
		if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d more bytes, %v", n, err)
		}
		if err := receive(t, ended); err != nil {
			t.Error(err)
		}
	})
}

func TestInformationalAnswersAreIgnored(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		base, _ := rawUpstream(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"+
				"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: a=b\r\n\r\n"+okAnswer)
		})
		front, _ := edge(t, t.forwarder(base), question())
		c, err := net.Dial("tcp", strings.TrimPrefix(front, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		text, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(text); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\n{}") ||
			strings.Contains(got, "103") || strings.Contains(got, "Link") {
			t.Errorf("the client saw %q", got)
		}
	})
}

// brokenWriter is a client that takes nothing.
type brokenWriter struct{ http.ResponseWriter }

var errBroken = errors.New("broken pipe")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

// unflushable is a client's side that can write but not flush, and counts the attempts.
type unflushable struct {
	http.ResponseWriter

	tries int
}

func (u *unflushable) FlushError() error {
	u.tries++
	return http.ErrNotSupported
}

type flushFails struct{ http.ResponseWriter }

func (flushFails) FlushError() error { return errBroken }

func TestClientSideFailures(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		f := t.forwarder(upstream(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(noise(2 * pieceSize))
		}))
		if _, err := f.Forward(t.Context(), brokenWriter{httptest.NewRecorder()}, question()); !errors.Is(err, ErrAborted) || !errors.Is(err, errBroken) {
			t.Errorf("a client that takes nothing: %v", err)
		}
		if _, err := f.Forward(t.Context(), flushFails{httptest.NewRecorder()}, question()); !errors.Is(err, ErrAborted) || !errors.Is(err, errBroken) {
			t.Errorf("a client that is gone when flushing: %v", err)
		}
		rec := httptest.NewRecorder()
		u := &unflushable{ResponseWriter: rec}
		if _, err := f.Forward(t.Context(), u, question()); err != nil || rec.Body.Len() != 2*pieceSize || u.tries != 1 {
			t.Errorf("without flushing: %d bytes, %d tries, %v", rec.Body.Len(), u.tries, err)
		}
	})
}
