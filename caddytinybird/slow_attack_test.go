package caddytinybird

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

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
	token, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
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

// TestPatienceIsNotWithTinybird: the time in which Tinybird takes a part of the rows is not the client's. A body that is packed is small, and
// what is in it can be many batches.
func TestPatienceIsNotWithTinybird(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	rows := new(strings.Builder)
	for range 40 { // more than two batches
		fmt.Fprintf(rows, "{\"url\":\"/%s\",\"n\":\"", strings.Repeat("a/page/", 4<<10))
		for range 1 << 10 {
			fmt.Fprintf(rows, "%016x", rand.Uint64())
		}
		rows.WriteString("\"}\n")
	}
	packed := new(bytes.Buffer)
	z := gzip.NewWriter(packed)
	if _, err := io.WriteString(z, rows.String()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	const patience = 2 * time.Second
	s := slowSite(t, stack, patience-time.Duration(packed.Len()/bodyRate)*time.Second) // what the body may take besides
	slow := make(chan struct{}, 1)
	slow <- struct{}{}
	stack.API.Fail(func(*http.Request) *devstack.Fault {
		select {
		case <-slow:
			<-time.After(patience + patience/2)
		default:
		}
		return nil
	})
	got := s.send(t, http.MethodPost, "/v0/events?name=analytics_events", packed.Bytes(), all(s.as(t, "ada"), func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-ndjson")
		r.Header.Set("Content-Encoding", "gzip")
	}))
	if batches := len(stack.API.Requests()); got.StatusCode > http.StatusAccepted || batches < 2 {
		t.Errorf("%d batches, status %d: %s", batches, got.StatusCode, got.body)
	}
}
