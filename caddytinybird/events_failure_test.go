package caddytinybird

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// bigBody is rows of about four batches.
func bigBody(rows int) []byte {
	var b bytes.Buffer
	for n := range rows {
		fmt.Fprintf(&b, "{\"n\":%d,\"text\":%q}\n", n, strings.Repeat("x", 900))
	}
	return b.Bytes()
}

// TestEventsLaterFailure: when Tinybird fails in the middle, the client learns what was taken, and is not invited to send that again.
func TestEventsLaterFailure(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault   devstack.Fault
		unknown bool
	}{
		"429":              {devstack.Fault{Status: 429, Header: http.Header{"Retry-After": {"9"}}}, false},
		"500":              {devstack.Fault{Status: 500}, true},
		"drops":            {devstack.Fault{Stop: devstack.DropBeforeHeader}, true},
		"hangs":            {devstack.Fault{Stop: devstack.HangBeforeHeader}, true},
		"unreadable":       {devstack.Fault{Body: []byte("<html>")}, true},
		"breaks off":       {devstack.Fault{Stop: devstack.DropInBody}, true},
		"hangs in its end": {devstack.Fault{Stop: devstack.HangInBody}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stack := newStack(t, devstack.Options{})
			with := withEvents(t, stack)
			e := newEdge(t, stack, func(h *Handler) {
				with(h)
				if strings.HasPrefix(name, "hangs") { // long enough for the batches before on a machine that is busy
					h.TransportRaw = json.RawMessage(`{"protocol":"http","response_header_timeout":"5s","read_timeout":"5s"}`)
				}
			})
			var calls atomic.Int32
			stack.API.Fail(func(*http.Request) *devstack.Fault {
				if calls.Add(1) == 3 {
					return &tt.fault
				}
				return nil
			})
			got := e.do(t, e.request(t, "ada", http.MethodPost, "/v0/events?name=events", bigBody(4000)))
			c := got.counted(t)
			if got.StatusCode != http.StatusConflict || c.Code != "events_incomplete" || c.Row != *c.Successful+1 || *c.Successful < 2000 || tt.unknown != (c.Unknown > 0) {
				t.Errorf("status %d: %s", got.StatusCode, got.body)
			}
			if calls.Load() != 3 {
				t.Errorf("%d requests went up", calls.Load())
			}
			if name == "429" && got.Header.Get("Retry-After") != "9" {
				t.Errorf("header %v", got.Header)
			}
		})
	}
}

// TestEventsFirstFailure: before any row was taken, a failure looks as for a pipe.
func TestEventsFirstFailure(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withEvents(t, stack))
	for upstream, want := range map[int]int{400: 400, 403: 403, 429: 429, 500: 502, 503: 503} {
		stack.API.Fail(func(r *http.Request) *devstack.Fault {
			return &devstack.Fault{Status: upstream, Body: []byte(`{"error":"` + r.Header.Get("Authorization") + `"}`)}
		})
		got := e.do(t, e.request(t, "ada", http.MethodPost, "/v0/events?name=events", []byte(`{}`)))
		if c := got.counted(t); got.StatusCode != want || *c.Successful != 0 || (c.Unknown == 1) != (upstream >= 500) || strings.Contains(string(got.body), stack.API.AppendToken()) {
			t.Errorf("%d: status %d: %s", upstream, got.StatusCode, got.body)
		}
	}
}

// slow is a body that ends when the test says so.
type slow struct {
	first io.Reader
	end   <-chan struct{}
}

func (s *slow) Read(p []byte) (int, error) {
	if n, err := s.first.Read(p); n > 0 || err == nil {
		return n, nil
	}
	<-s.end
	return 0, io.EOF
}

// TestEventsSlowClient: while a client takes its time, no request to Tinybird waits with it.
func TestEventsSlowClient(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withEvents(t, stack))
	end := make(chan struct{})
	r := e.request(t, "ada", http.MethodPost, "/v0/events?name=events", nil)
	r.Body, r.ContentLength = io.NopCloser(&slow{strings.NewReader("{\"a\":1}\n{\"a\":2}\n"), end}), -1
	answered := make(chan reply, 1)
	go func() { answered <- e.do(t, r) }()
	if got := e.do(t, e.request(t, "ben", http.MethodPost, "/v0/events?name=events", []byte(`{}`))); got.StatusCode != 202 {
		t.Errorf("status %d: %s", got.StatusCode, got.body)
	}
	if n := len(stack.API.Requests()); n != 1 {
		t.Errorf("%d requests went up", n)
	}
	close(end)
	if got := <-answered; got.StatusCode != 202 {
		t.Errorf("status %d: %s", got.StatusCode, got.body)
	}
}

// TestEventsClientGone: a client that goes away takes the request to Tinybird with it.
func TestEventsClientGone(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withEvents(t, stack))
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	stack.API.Fail(func(r *http.Request) *devstack.Fault {
		close(arrived)
		<-r.Context().Done()
		close(cancelled)
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-arrived
		cancel()
	}()
	resp, err := e.client.Do(e.request(t, "ada", http.MethodPost, "/v0/events?name=events", []byte(`{}`)).WithContext(ctx))
	if err == nil {
		_ = resp.Body.Close()
		t.Fatalf("status %d", resp.StatusCode)
	}
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Fatal("the request to Tinybird goes on")
	}
}
