package forward

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/wire"
)

// asked is a request as a server reads it.
type asked struct {
	method, target, host, proto, body string
	length                            int64
	header                            http.Header
}

func (a *asked) equal(b *asked) bool {
	return a.method == b.method && a.target == b.target && a.host == b.host && a.proto == b.proto && a.body == b.body && a.length == b.length &&
		maps.EqualFunc(a.header, b.header, slices.Equal)
}

// read reads exactly one request.
func read(t testing.TB, text []byte) *asked {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(text))
	req, err := http.ReadRequest(r)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if n := r.Buffered(); n > 0 {
		t.Errorf("%q: %d bytes after the request", text, n)
	}
	return &asked{req.Method, req.RequestURI, req.Host, req.Proto, string(body), req.ContentLength, req.Header}
}

// sameEitherWay fails unless both ways send the same request, and returns it.
func sameEitherWay(t testing.TB, f *Forwarder, q *Request) *asked {
	t.Helper()
	x := &exchange{Forwarder: f, token: q.Token}
	ours := read(t, x.text(nil, q))
	var b bytes.Buffer
	if err := x.request(q).Write(&b); err != nil {
		t.Fatalf("net/http refuses what goes directly: %v", err)
	}
	if theirs := read(t, b.Bytes()); !ours.equal(theirs) {
		t.Errorf("directly:\n%+v\nby the transport:\n%+v", ours, theirs)
	}
	return ours
}

// hostileValues are what a field's value must not be, or could be misread as.
var hostileValues = []string{
	"", " ", "\t", "a\r\nX-Evil: b", "a\nX-Evil: b", "a\rX-Evil: b", "\r\n\r\nGET /v0/sql HTTP/1.1\r\nHost: a\r\n\r\n", "a\x00b", "a\x7fb", "\x1b[2J",
	"a\r\n folded", " spaces around ", "\ttabs\t", "ü", "\xff\xfe", "a, b; c=\"d\"", "a: b", strings.Repeat("x", 5000),
}

// Attack: request splitting. Whatever is in the client's header, one request goes up, the same one either way, with no field that is
// not named.
func TestAttackSplitRequest(t *testing.T) {
	t.Parallel()
	f := forwarder(t, "http://tinybird.internal:7181/base")
	for _, name := range append([]string{"User-Agent", "Accept-Encoding", "Cookie"}, carried[:]...) {
		for _, value := range hostileValues {
			q := question()
			q.RawQuery = "limit=10"
			q.Client = http.Header{name: {value, "second"}}
			got := sameEitherWay(t, f, &q)
			for field, v := range got.header {
				if field == "X-Evil" || len(v) != 1 || strings.ContainsAny(v[0], "\r\n\x00") {
					t.Errorf("%s: %q: %s: %q went up", name, value, field, v)
				}
			}
			if got.target != "/base/v0/pipes/top_pages.json?limit=10" || got.header.Get("Authorization") != "Bearer "+token {
				t.Errorf("%s: %q: %+v", name, value, got)
			}
		}
	}
}

// Attack: the same by the path or the query. They are encoded before they come here; if ever one is not, nothing goes up.
func TestAttackSplitTarget(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		base, requests := rawUpstream(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, okAnswer) })
		f := t.forwarder(base)
		for _, bad := range []string{"a b", "a\r\nX: y", "a\nb", "a\x00", "a\x7f", "\t", "a HTTP/1.1\r\nHost: x\r\n\r\nGET /"} {
			for _, q := range []Request{
				{Method: http.MethodGet, Path: "/v0/pipes/a.json", RawQuery: "q=" + bad, Token: token},
				{Method: http.MethodGet, Path: "/v0/pipes/" + bad, Token: token},
			} {
				w, _, err := ask(t, f, q)
				wantRefusal(t, err, 502, apierr.UpstreamUnreachable)
				if w.Body.Len() != 0 {
					t.Errorf("answered %q", w.Body)
				}
			}
		}
		select {
		case r := <-requests:
			t.Errorf("went up: %q", r)
		default:
		}
	})
}

func TestBothWaysSendTheSame(t *testing.T) {
	t.Parallel()
	bases := []string{"http://tinybird.internal:7181", "https://api.tinybird.co", "https://api.tinybird.co:443/", "http://[::1]:7181/a/b/", "http://127.0.0.1/a_b-c"}
	requests := map[string]func(q *Request){
		"plain":         func(*Request) {},
		"a query":       func(q *Request) { q.RawQuery = "from=2026-01-01&q=%C3%BC%20%26&a=1&a=2" },
		"an odd query":  func(q *Request) { q.RawQuery = "a=b?c/d:e@f|\"<>{}[]^`\\" },
		"POST":          func(q *Request) { q.Method, q.Body = http.MethodPost, []byte(`{"limit":10}`) },
		"POST, nothing": func(q *Request) { q.Method = http.MethodPost },
		"POST, much":    func(q *Request) { q.Method, q.Body = http.MethodPost, noise(maxDirectBody) },
		"POST, a request within": func(q *Request) {
			q.Method, q.Body = http.MethodPost, []byte("\r\n\r\nGET /v0/sql HTTP/1.1\r\nHost: a\r\n\r\n")
		},
		"all fields": func(q *Request) {
			for _, name := range append([]string{"User-Agent", "Accept-Encoding", "Cookie", "Content-Type", "Content-Length", "Transfer-Encoding", "Connection"}, carried[:]...) {
				q.Client[name] = []string{"of " + name, "another"}
			}
		},
		"empty lists": func(q *Request) {
			q.Client["Accept"], q.Client["User-Agent"], q.Client["Accept-Encoding"] = nil, []string{}, nil
		},
		"no header": func(q *Request) { q.Client = nil },
	}
	for _, base := range bases {
		for name, change := range requests {
			t.Run(base+" "+name, func(t *testing.T) {
				t.Parallel()
				q := question()
				change(&q)
				sameEitherWay(t, forwarder(t, base), &q)
			})
		}
	}
}

// FuzzBothWays: whatever the client's fields and the parts of the question are, one request goes up, the same one either way.
func FuzzBothWays(f *testing.F) {
	for _, v := range hostileValues {
		f.Add(v, v, v, "a=b", []byte(v), true)
	}
	f.Add("a", "gzip", "*/*", "a=b&c=d", []byte(`{}`), false)
	fw := forwarder(f, "http://tinybird.internal:7181/base")
	f.Fuzz(func(t *testing.T, agent, encoding, field, query string, body []byte, post bool) {
		if !inOneLine(query) {
			return // refused before
		}
		q := question()
		q.RawQuery = query
		q.Client = http.Header{"User-Agent": {agent}, "Accept-Encoding": {encoding}}
		for _, name := range carried {
			q.Client[name] = []string{field}
		}
		if post {
			q.Method, q.Body = http.MethodPost, body
		}
		got := sameEitherWay(t, fw, &q)
		if len(got.header) > len(carried)+5 || got.length > 0 && got.body != string(body) {
			t.Errorf("%+v", got)
		}
	})
}

// Large questions and rows go by the transport, which may take its time to write them.
func TestWhatGoesDirectly(t *testing.T) {
	t.Parallel()
	var byTransport int
	served := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"successful_rows":1,"quarantined_rows":0}`)
	})
	base, err := url.Parse(served)
	if err != nil {
		t.Fatal(err)
	}
	tr := new(http.Transport)
	t.Cleanup(tr.CloseIdleConnections)
	c := wire.New(wire.Options{Addr: base.Host, Dial: new(net.Dialer).DialContext})
	t.Cleanup(c.Close)
	f := New(Options{Base: base, Direct: c, Transport: tripper(func(r *http.Request) (*http.Response, error) {
		byTransport++
		return tr.RoundTrip(r)
	})})
	for _, tt := range []struct {
		size, want int
	}{{0, 0}, {1, 0}, {maxDirectBody, 0}, {maxDirectBody + 1, 1}} {
		q := question()
		q.Method, q.Body = http.MethodPost, make([]byte, tt.size)
		byTransport = 0
		if _, _, err := ask(t, f, q); err != nil || byTransport != tt.want {
			t.Errorf("%d bytes: %d by the transport, %v", tt.size, byTransport, err)
		}
	}
	byTransport = 0
	if _, _, err := f.Append(t.Context(), http.Header{}, batch()); err != nil || byTransport != 1 {
		t.Errorf("rows: %d by the transport, %v", byTransport, err)
	}
}

// The time limits of our own connections, as a client meets them, on a clock that only waiting moves. They may be up to a
// second or two longer, never shorter.
func TestTimeLimitsDirectly(t *testing.T) {
	t.Parallel()
	const s, slack = time.Second, 2 * time.Second
	for _, c := range []struct {
		name    string
		headers time.Duration
		status  int // of the upstream
		pieces  []time.Duration
		client  time.Duration
		refused int // 0: it breaks off
		after   time.Duration
	}{
		{name: "no headers", headers: 100 * s, refused: 504, after: 35 * s},
		{name: "late headers, no body", headers: 35*s - 1, status: 200, refused: 504, after: 70 * s},
		{name: "pieces that are just in time", headers: s, status: 200, pieces: []time.Duration{35*s - 1, 35*s - 1, 35*s - 1}, after: 141 * s},
		{name: "a slow client", headers: s, status: 200, pieces: []time.Duration{s, s}, client: 300 * s, after: 636 * s},
		{name: "an error without its text", headers: s, status: 400, refused: 400, after: s + errorBodyTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := wire.New(wire.Options{Addr: "a:80", Dial: func(context.Context, string, string) (net.Conn, error) {
					near, far := net.Pipe()
					go func() {
						defer far.Close()
						if _, err := readRequest(far); err != nil {
							return
						}
						<-time.After(c.headers)
						_, err := io.WriteString(far, "HTTP/1.1 "+strconv.Itoa(c.status)+" X\r\nTransfer-Encoding: chunked\r\n\r\n")
						for _, wait := range c.pieces {
							<-time.After(wait)
							_, err = io.WriteString(far, "1\r\nx\r\n")
						}
						if err == nil {
							untilClosed(far)
						}
					}()
					return near, nil
				}})
				defer w.Close()
				f := New(Options{Base: &url.URL{Scheme: "http", Host: "a"}, Direct: w, PassErrors: true})
				rec := slowWriter{httptest.NewRecorder(), c.client}
				start := time.Now()
				_, err := f.Forward(t.Context(), rec, question())
				if got := time.Since(start); got < c.after-time.Duration(len(c.pieces)) || got > c.after+slack {
					t.Errorf("took %v, want %v", got, c.after)
				}
				if c.refused != 0 {
					code := apierr.UpstreamTimeout
					if c.refused == 400 {
						code = apierr.QueryRefused
					}
					wantRefusal(t, err, c.refused, code)
				} else if rec.Body.Len() != len(c.pieces) {
					t.Errorf("%d pieces reached the client, %v", rec.Body.Len(), err)
				}
				<-time.After(200 * s) // until the server's side has ended
			})
		})
	}
}

// A caller's own deadline is a timeout wherever the answer stands.
func TestCallersDeadlineInTheBody(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		base, _ := rawUpstream(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
			untilClosed(c)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 4*brief)
		defer cancel()
		_, err := t.forwarder(base).Forward(ctx, httptest.NewRecorder(), question())
		wantRefusal(t, err, 504, apierr.UpstreamTimeout)
	})
}

// Attack: the answers of two tenants are swapped. Many ask at once, over connections that are used again, and each gets its own.
func TestEveryAnswerIsItsOwn(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		f := t.forwarder(upstream(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(r.URL.Query().Get("id")+"\n", 100))
		}))
		done := make(chan string, 32)
		for worker := range 32 {
			go func() {
				for i := range 20 {
					id := strconv.Itoa(worker*1000 + i)
					q := question()
					q.RawQuery = "id=" + id
					rec := httptest.NewRecorder()
					if _, err := f.Forward(t.Context(), rec, q); err != nil || rec.Body.String() != strings.Repeat(id+"\n", 100) {
						done <- id + " was answered with " + rec.Body.String()
						return
					}
				}
				done <- ""
			}()
		}
		for range 32 {
			if failed := receive(t, done); failed != "" {
				t.Error(failed)
			}
		}
	})
}
