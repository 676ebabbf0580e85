package caddytinybird

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// slowSite is a site with a pipe and a data source, whose tinybird has little patience.
func slowSite(t *testing.T, stack *devstack.Stack, patience time.Duration) *site {
	t.Helper()
	s := newSite(t, stack, "tinybird {\nclerk {pk} {\nissuer {issuer}\n}\nsigning_key "+secretFile(t, stack.API.SigningKey())+
		"\nworkspace_id "+stack.API.WorkspaceID()+"\nupstream "+stack.APIURL+
		"\npipe top_pages {\nfixed_param organization_id {clerk.org.id}\n}\nevents analytics_events {\nappend_token "+secretFile(t, stack.API.AppendToken())+
		"\nstamp organization_id {clerk.org.id}\n}\n}")
	tinybirdIn(s.server.Routes).patience = patience
	return s
}

// tinybirdIn finds the tinybird in routes, nil for none.
func tinybirdIn(routes caddyhttp.RouteList) *Handler {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *caddyhttp.Subroute:
				if found := tinybirdIn(h.Routes); found != nil {
					return found
				}
			case *Handler:
				return h
			}
		}
	}
	return nil
}

// TestAttackSlowBody: a client that sends a byte of its body from time to time, which Caddy would wait for without end, does not hold what it
// has sent for as long as it likes.
func TestAttackSlowBody(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	for name, tt := range map[string]struct{ target, header, first, piece string }{
		"of a pipe":            {"/v0/pipes/top_pages.json", "Content-Length: 16000", `{"a":"`, "x"},
		"of a pipe, in chunks": {"/v0/pipes/top_pages.json", "Transfer-Encoding: chunked", "6\r\n{\"a\":\"\r\n", "1\r\nx\r\n"},
		"of rows":              {"/v0/events?name=analytics_events", "Content-Length: 16000", "{}\n", " "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			patience := 200 * time.Millisecond
			if strings.Contains(tt.header, "chunked") { // of which the size is not known
				patience -= 64 * time.Second // what the largest body of a pipe may take besides
			}
			s := slowSite(t, stack, patience)
			token, err := stack.Issuer.Token("ada") // now: the body of a request that is refused is waited for in another way
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, "POST "+tt.target+" HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer "+token+
				"\r\nContent-Type: application/json\r\n"+tt.header+"\r\n\r\n"+tt.first); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for range tick.C {
					if _, err := io.WriteString(conn, tt.piece); err != nil {
						return
					}
				}
			}()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("still waited for: %v", err)
			}
			defer resp.Body.Close()
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), `"bad_body"`) {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
			conn.Close()
			<-done
		})
	}
}

// TestPatienceIsWithBodiesOnly: what bounds a body does not bound the answer to it.
func TestPatienceIsWithBodiesOnly(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	const patience = 200 * time.Millisecond
	s := slowSite(t, stack, patience)
	stack.API.Fail(func(*http.Request) *devstack.Fault {
		<-time.After(3 * patience) // Tinybird is slow
		return nil
	})
	for target, body := range map[string]string{"/v0/pipes/top_pages.json": `{"a":1}`, "/v0/events?name=analytics_events": `{}`} {
		got := s.send(t, http.MethodPost, target, []byte(body), all(s.as(t, "ada"), func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }))
		if got.StatusCode > http.StatusAccepted {
			t.Errorf("%s: status %d: %s", target, got.StatusCode, got.body)
		}
	}
}

// deadlines records until when a body has to be there.
type deadlines struct {
	*httptest.ResponseRecorder

	mu  sync.Mutex
	set []time.Time
}

func (d *deadlines) SetReadDeadline(until time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set = append(d.set, until)
	return nil
}

func (d *deadlines) last() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.set[len(d.set)-1]
}

// TestPatienceIsNotForTinybird: the time that Tinybird takes for some of the rows is none that the client takes over the rest, which may have
// come long ago. When all of the body is there, no deadline is left that would be one for the connection.
func TestPatienceIsNotForTinybird(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withEvents(t, stack))
	rows := strings.Repeat(`{"a":"`+strings.Repeat("x", 1000)+"\"}\n", 3<<10) // three batches and a bit
	r := httptest.NewRequest(http.MethodPost, "/v0/events?name=events", strings.NewReader(rows))
	r.Header.Set("Authorization", "Bearer "+e.bearer(t, "ada"))
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	body := &caddyhttp.IdleTimeoutReader{
		ReadCloser: r.Body, Ctrl: http.NewResponseController(w), Logger: zap.NewNop(), Deadline: caddyhttp.IdleDeadline{Timeout: 24 * time.Hour},
	}
	r.Body = body
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
	r = r.WithContext(caddyhttp.ContextWithIdleTimeouts(r.Context(), body, nil))
	batches := 0
	stack.API.Fail(func(*http.Request) *devstack.Fault {
		batches++
		if until := w.last(); !until.IsZero() {
			t.Errorf("batch %d: the rest of the body has to be there %s from now", batches, time.Until(until))
		}
		return nil
	})
	if err := e.ServeHTTP(w, r, nil); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusAccepted || batches < 3 {
		t.Fatalf("status %d after %d batches: %s", w.Code, batches, w.Body)
	}
	if end := w.last(); !end.IsZero() {
		t.Errorf("a deadline is left: %s from now", time.Until(end))
	}
	if latest := slices.MaxFunc(w.set, time.Time.Compare); !latest.After(w.set[0]) {
		t.Error("the time of the client is not made longer")
	}
}
