package caddytinybird

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// ends are the ways in which a client ends a request in the middle of its body, and what becomes of it.
var ends = map[string]struct {
	head  string // how the body is framed
	body  string
	gone  bool // the client goes: there is nobody to tell
	reset bool
}{
	"leaves":               {"Content-Length: 1000", `{"date_from":`, true, false},
	"leaves in a chunk":    {"Transfer-Encoding: chunked", "100\r\n{\"date_from\":", true, false},
	"leaves after a chunk": {"Transfer-Encoding: chunked", "2\r\n{}\r\n", true, false},
	"resets":               {"Content-Length: 1000", `{"date_from":`, true, true},
	"sends nonsense":       {"Transfer-Encoding: chunked", "no size\r\n", false, false},
	"packs half of it":     {"Content-Encoding: gzip\r\nContent-Length: 4", "\x1f\x8b\x08\x00", false, false},
}

// TestClientLeavesInItsBody: a client that goes away in the middle of its body is no fault of the client's request, in the access log and
// the metrics: it is client_closed with status 499, as Caddy has it for its own proxy. Nothing goes up, and a body that is
// bad stays 400.
func TestClientLeavesInItsBody(t *testing.T) {
	t.Parallel()
	for name, tt := range ends {
		for what, target := range map[string]string{"a pipe": liveEvents, "rows": "/v0/events?name=events"} {
			if what == "a pipe" && strings.Contains(tt.head, "gzip") {
				continue // is 415
			}
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				e, _, logged := faultyEdge(t, newStack(t, devstack.Options{}), `{"protocol":"http"}`)
				c, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s\r\n\r\n%s",
					target, e.bearer(t, "ada"), tt.head, tt.body); err != nil {
					t.Fatal(err)
				}
				if !tt.gone {
					resp, err := http.ReadResponse(bufio.NewReader(c), nil)
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 400 || !strings.Contains(string(body), `"bad_body"`) {
						t.Errorf("status %d: %s, %v", resp.StatusCode, body, err)
					}
					return
				}
				if tcp, ok := c.(*net.TCPConn); ok && tt.reset {
					_ = tcp.SetLinger(0)
				}
				_ = c.Close()
				closedByClient(t, e, logged)
			})
		}
	}
}

// closedByClient fails the test unless the one request of the edge ended with its client, and nothing went up.
func closedByClient(t *testing.T, e *edge, logged *observer.ObservedLogs) {
	t.Helper()
	select {
	case err := <-e.fell:
		if status := (caddyhttp.HandlerError{}); !errors.As(err, &status) || status.StatusCode != 499 {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the request goes on")
	}
	lines := logged.FilterMessage("request not answered").All()
	if len(lines) != 1 || lines[0].Level != zap.DebugLevel || lines[0].ContextMap()["code"] != "client_closed" {
		t.Errorf("logged %v", logged.All())
	}
	if n := len(e.stack.API.Requests()); n != 0 {
		t.Errorf("%d requests went up", n)
	}
}

// TestClientLeavesInItsBodyOverHTTP2: the same for a stream that is reset and for a connection that is lost.
func TestClientLeavesInItsBodyOverHTTP2(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"the stream": false, "the connection": true} {
		for what, target := range map[string]string{"a pipe": liveEvents, "rows": "/v0/events?name=events"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				e, _, logged := faultyEdge(t, newStack(t, devstack.Options{}), `{"protocol":"http"}`)
				arrived := make(chan struct{})
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(arrived)
					r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
					e.fell <- e.ServeHTTP(w, r, nil)
				}))
				srv.EnableHTTP2 = true
				srv.StartTLS()
				t.Cleanup(srv.Close)
				body, feed := io.Pipe()
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+target, body)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+e.bearer(t, "ada"))
				r.Header.Set("Content-Type", "application/json")
				done := make(chan struct{})
				go func() {
					defer close(done)
					if resp, err := srv.Client().Do(r); err == nil {
						_ = resp.Body.Close()
					}
				}()
				if _, err := io.WriteString(feed, `{"date_from":`); err != nil {
					t.Fatal(err)
				}
				<-arrived
				if lost {
					srv.CloseClientConnections()
				} else {
					_ = feed.CloseWithError(errors.New("gone"))
				}
				closedByClient(t, e, logged)
				_ = feed.Close()
				<-done
			})
		}
	}
}

// TestClientLeavesAfterRows: the batches that went up before a client left are stored and counted, and the rest is not.
func TestClientLeavesAfterRows(t *testing.T) {
	t.Parallel()
	e, _, logged := faultyEdge(t, newStack(t, devstack.Options{}), `{"protocol":"http"}`)
	rows := bigBody(2000) // of which a batch and a half are sent
	c, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "POST /v0/events?name=events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 9000000\r\n\r\n%s",
		e.bearer(t, "ada"), rows); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	select {
	case <-e.fell:
	case <-time.After(30 * time.Second):
		t.Fatal("the request goes on")
	}
	if n := len(e.stack.API.Requests()); n != 1 {
		t.Errorf("%d batches went up", n)
	}
	if n := len(e.stack.API.Events("events")); n == 0 || n >= 2000 {
		t.Errorf("%d rows are stored", n)
	}
	if n := logged.FilterMessage("request not answered").Len(); n != 1 {
		t.Errorf("logged %v", logged.All())
	}
}

// TestClientLeavesBeforeTheAnswer: the request to Tinybird is cancelled, by either way, and its connection given up.
func TestClientLeavesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	for kind, transport := range map[string]string{"directly": `{"protocol":"http"}`, "by the transport": `{"protocol":"http","write_timeout":"1m"}`} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e, w, logged := faultyEdge(t, newStack(t, devstack.Options{}), transport)
			arrived := make(chan struct{})
			w.instead(func(c *net.TCPConn, r *http.Request) {
				close(arrived)
				hangs("")(c, r)
			})
			c, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", liveEvents, e.bearer(t, "ada")); err != nil {
				t.Fatal(err)
			}
			<-arrived
			_ = c.Close()
			closedByClient(t, e, logged)
			w.awaitNone(t)
			w.instead(nil)
			onlyTenant(t, e.get(t, "cleo", liveEvents), "globex")
		})
	}
}

// TestIssuerFaultsAtTheEdge: a valid session is served, and an unknown key is 401, while an issuer that the edge had keys of answers
// nonsense, or nothing; before there were any keys everybody gets 503. What else can be wrong with an issuer is in internal/jwks.
func TestIssuerFaultsAtTheEdge(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]devstack.Fault{
		"hangs":          {Stop: devstack.HangBeforeHeader},
		"hangs within":   {Stop: devstack.HangInBody},
		"drops":          {Stop: devstack.DropInBody},
		"asks for login": {Body: []byte("<!doctype html><title>Log in</title>"), Header: http.Header{"Content-Type": {"text/html"}}},
		"an empty set":   {Body: []byte(`{"keys":[]}`)},
		"redirects":      {Status: 302, Header: http.Header{"Location": {"https://evil.example/"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stack := newStack(t, devstack.Options{})
			e := newEdge(t, stack, nil)
			onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
			fault := func(*http.Request) *devstack.Fault { return &f }
			stack.Issuer.Fail(fault)
			if got := e.do(t, withToken(t, e, liveEvents, devstack.KID("ins_2unknown"))); got.StatusCode != 401 || got.code(t) != "token_invalid" {
				t.Errorf("an unknown key: status %d: %s", got.StatusCode, got.body)
			}
			onlyTenant(t, e.get(t, "cleo", liveEvents), "globex")

			other := newStack(t, devstack.Options{})
			other.Issuer.Fail(fault)
			first := newEdge(t, other, nil)
			if got := first.get(t, "ada", liveEvents); got.StatusCode != 503 || got.code(t) != "keys_unavailable" || got.Header.Get("Retry-After") == "" {
				t.Errorf("without keys: status %d: %s", got.StatusCode, got.body)
			}
		})
	}
}
