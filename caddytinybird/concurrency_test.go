package caddytinybird

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// counted1 reads one counter.
func counted1(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// held is requests that Tinybird does not answer before they are let go.
type held struct {
	arrived chan struct{}
	letGo   chan struct{}
	once    sync.Once
}

// hold has Tinybird hold every request with ?hold.
func hold(t testing.TB, stack *devstack.Stack) *held {
	t.Helper()
	h := &held{arrived: make(chan struct{}, 100), letGo: make(chan struct{})}
	stack.API.Fail(func(r *http.Request) *devstack.Fault {
		if r.URL.Query().Has("hold") || strings.HasSuffix(r.URL.Path, "/events") {
			h.arrived <- struct{}{}
			select {
			case <-h.letGo:
			case <-r.Context().Done():
			}
		}
		return nil
	})
	t.Cleanup(h.release)
	return h
}

func (h *held) release() { h.once.Do(func() { close(h.letGo) }) }

// start begins a request and waits until it is at Tinybird. Its answer comes on the channel.
func (h *held) start(t testing.TB, e *edge, r *http.Request) <-chan reply {
	t.Helper()
	answer := make(chan reply, 1)
	go func() {
		defer close(answer)
		resp, err := e.client.Do(r)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- reply{resp, body}
	}()
	select {
	case <-h.arrived:
	case <-time.After(30 * time.Second):
		t.Fatal("the request does not arrive at Tinybird")
	}
	return answer
}

// nobodyInside waits until no request of the edge's workspace is under way.
func (e *edge) nobodyInside(t testing.TB) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		requests, keys := e.limiter.gate.Inside()
		if requests == 0 && keys == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d requests of %d tenants are still counted as under way", requests, keys)
		}
	}
}

// TestConcurrency: as many requests of a tenant are under way as it may have, and one more is refused as one over the rate is. Nobody
// else is held back, and a place that is left is free.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	h := hold(t, stack)
	e := newEdge(t, stack, func(h *Handler) { h.Concurrency = "2" })
	first := h.start(t, e, e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json?hold", nil))
	second := h.start(t, e, e.request(t, "ben", http.MethodPost, "/v0/pipes/top_pages.json?hold", nil))

	limited := newEdge(t, newStack(t, devstack.Options{}), func(h *Handler) { h.RateLimit = &RateLimit{RPS: "1"} })
	limited.get(t, "ada", "/v0/pipes/live_events.json")
	overRate := limited.get(t, "ada", "/v0/pipes/live_events.json")
	busy := e.get(t, "ada", "/v0/pipes/sales_by_day.csv")
	if busy.StatusCode != http.StatusTooManyRequests || string(busy.body) != string(overRate.body) {
		t.Errorf("%d %s, over the rate it is %d %s", busy.StatusCode, busy.body, overRate.StatusCode, overRate.body)
	}
	for name, want := range map[string]string{
		"Retry-After": "1", "X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1",
		"RateLimit": `"concurrency";r=0;t=1`, "RateLimit-Policy": `"concurrency";q=2;qu="concurrent-requests"`, "Cache-Control": "private, no-store",
	} {
		if got := busy.Header.Get(name); got != want || overRate.Header.Get(name) == "" {
			t.Errorf("%s: %q, want %q; over the rate %q", name, got, want, overRate.Header.Get(name))
		}
	}
	if got := e.get(t, "cleo", "/v0/pipes/live_events.json"); got.StatusCode != http.StatusOK {
		t.Errorf("another tenant: %d %s", got.StatusCode, got.body)
	}
	if n := len(stack.API.Requests()); n != 3 {
		t.Errorf("%d requests went up, want the two that are held and the other tenant's", n)
	}
	if got := counted1(t, metrics.busy.WithLabelValues("sales_by_day")); got < 1 {
		t.Error("it is not counted")
	}
	h.release()
	for _, answer := range []<-chan reply{first, second} {
		if got := <-answer; got.Response == nil || got.StatusCode != http.StatusOK {
			t.Error("a request that was under way was not answered")
		}
	}
	e.nobodyInside(t)
	if got := e.get(t, "ada", "/v0/pipes/live_events.json"); got.StatusCode != http.StatusOK || got.Header.Get("X-RateLimit-Limit") != "" {
		t.Errorf("afterwards: %d %v", got.StatusCode, got.Header)
	}
}

// TestConcurrencyOfAPipe: a pipe with a bound of its own is counted apart: it neither takes the places of others nor waits for them.
func TestConcurrencyOfAPipe(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	h := hold(t, stack)
	e := newEdge(t, stack, func(h *Handler) {
		h.Concurrency = "1"
		h.Pipes = append(h.Pipes, Pipe{Names: []string{"monthly_report", "country_flags"}, Concurrency: "1"})
		h.Pipes[0].Names = h.Pipes[0].Names[:3]
	})
	h.start(t, e, e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json?hold", nil))
	h.start(t, e, e.request(t, "ada", http.MethodGet, "/v0/pipes/monthly_report.json?hold", nil))
	for target, want := range map[string]int{"top_pages": 429, "live_events": 429, "monthly_report": 429, "country_flags": 404} {
		if got := e.get(t, "ben", "/v0/pipes/"+target+".json"); got.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", target, got.StatusCode, got.body, want)
		}
	}
	h.release()
	e.nobodyInside(t)
}

// TestConcurrencyIsReleased: a place is free again however its request ends.
func TestConcurrencyIsReleased(t *testing.T) {
	t.Parallel()
	transport := json.RawMessage(`{"protocol":"http","response_header_timeout":"50ms","read_timeout":"50ms"}`)
	for name, fault := range map[string]*devstack.Fault{
		"answered":                   nil,
		"answered in chunks":         {Chunked: true},
		"no headers":                 {Stop: devstack.HangBeforeHeader},
		"no connection":              {Stop: devstack.DropBeforeHeader},
		"half an answer, then hangs": {Stop: devstack.HangInBody},
		"half an answer, then drops": {Stop: devstack.DropInBody}, // the handler panics with http.ErrAbortHandler
		"500":                        {Status: 500},
		"429":                        {Status: 429},
		"403":                        {Status: 403},
		"a redirect":                 {Status: 302, Header: http.Header{"Location": {"http://127.0.0.1:1/"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stack := newStack(t, devstack.Options{})
			stack.API.Fail(func(r *http.Request) *devstack.Fault {
				if r.URL.Query().Has("fault") {
					return fault
				}
				return nil
			})
			e := newEdge(t, stack, func(h *Handler) {
				h.Concurrency, h.TransportRaw = "1", transport
				h.RateLimit = &RateLimit{RPS: "100"}
			})
			for range 3 {
				resp, err := e.client.Do(e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json?fault", nil))
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				e.nobodyInside(t)
			}
			// On a busy machine it may be too late itself, but it is not turned away.
			if got := e.get(t, "ada", "/v0/pipes/live_events.json"); got.StatusCode == http.StatusTooManyRequests {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
		})
	}
}

// TestConcurrencyIsReleasedByRefusals: what is refused on the way holds nothing.
func TestConcurrencyIsReleasedByRefusals(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		withEvents(t, stack)(h)
		h.Concurrency = "1"
		h.RateLimit = &RateLimit{RPS: "20"}
		h.Pipes[1].RateLimit = &RateLimit{RPS: "1"}
	})
	for range 2 {
		for _, r := range []*http.Request{
			e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json?a=%zz", nil),
			e.request(t, "ada", http.MethodPost, "/v0/pipes/live_events.json", []byte("{")),
			e.request(t, "ada", http.MethodGet, "/v0/pipes/my_activity.json", nil),
			e.request(t, "ada", http.MethodPost, "/v0/events?name=events", []byte("no rows")),
			e.request(t, "ada", http.MethodPost, "/v0/events?name=events", []byte(`{"a":1}`)),
			e.request(t, "ada", http.MethodPost, "/v0/events?name=nowhere", []byte(`{"a":1}`)),
		} {
			e.do(t, r)
			e.nobodyInside(t)
		}
	}
}

// TestConcurrencyClientGone: a client that goes away gives its place back, and its request at Tinybird is cancelled: before
// the answer, in the middle of it, and while it takes nothing of it.
func TestConcurrencyClientGone(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	h := hold(t, stack)
	e := newEdge(t, stack, func(h *Handler) { h.Concurrency = "1" })

	ctx, leave := context.WithCancel(t.Context())
	h.start(t, e, e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json?hold", nil).WithContext(ctx))
	if got := e.get(t, "ada", "/v0/pipes/live_events.json"); got.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a second one: %d", got.StatusCode)
	}
	leave()
	e.nobodyInside(t)

	// An endless answer, of which the client reads the first line and then nothing.
	stack.API.Fail(func(*http.Request) *devstack.Fault {
		return &devstack.Fault{Chunked: true, Body: []byte(strings.Repeat("x", 64<<20))}
	})
	for _, read := range []bool{true, false} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET /v0/pipes/live_events.json HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", e.bearer(t, "ada")); err != nil {
			t.Fatal(err)
		}
		if read {
			if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		conn.Close()
		e.nobodyInside(t)
	}
}

// TestConcurrencyOfEvents: rows that are on their way are counted apart from what is read, and are refused before any is taken.
func TestConcurrencyOfEvents(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	h := hold(t, stack)
	e := newEdge(t, stack, func(h *Handler) {
		withEvents(t, stack)(h)
		h.Concurrency = "1"
	})
	rows := []byte(`{"a":1}` + "\n" + `{"a":2}`)
	first := h.start(t, e, e.request(t, "ada", http.MethodPost, "/v0/events?name=events", rows))
	if got := e.do(t, e.request(t, "ben", http.MethodPost, "/v0/events?name=events", rows)); got.StatusCode != http.StatusTooManyRequests ||
		got.code(t) != "rate_limited" || got.Header.Get("Retry-After") != "1" {
		t.Errorf("a second one: %d %s", got.StatusCode, got.body)
	}
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	h.release()
	if got := <-first; got.Response == nil || got.StatusCode != http.StatusAccepted {
		t.Errorf("the first: %+v", got)
	}
	e.nobodyInside(t)
}

// TestConcurrencySurvivesReload: requests of an old config count for the new one, and leave their places there.
func TestConcurrencySurvivesReload(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	h := hold(t, stack)
	bound := func(h *Handler) { h.Concurrency = "1" }
	before := newEdge(t, stack, bound)
	first := h.start(t, before, before.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json?hold", nil))
	after := newEdge(t, stack, bound)
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if got := after.get(t, "ben", "/v0/pipes/live_events.json"); got.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the request of the old config is not counted: %d", got.StatusCode)
	}
	h.release()
	if got := <-first; got.Response == nil || got.StatusCode != http.StatusOK {
		t.Errorf("the request of the old config: %+v", got)
	}
	after.nobodyInside(t)
	onlyTenant(t, after.get(t, "ben", "/v0/pipes/live_events.json"), "acme")
}
