package caddytinybird

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/share"
)

func TestShareNoFailure(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t, func(h *Handler) { h.RateLimit = &RateLimit{RPS: "1000"} })
	for name, c := range map[string]struct {
		fault  devstack.Fault
		status int
		code   string
	}{
		"400":            {devstack.Fault{Status: 400}, 400, "query_refused"},
		"403":            {devstack.Fault{Status: 403}, 403, "upstream_refused"},
		"404":            {devstack.Fault{Status: 404}, 404, "not_found"},
		"429":            {devstack.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}, "X-Ratelimit-Limit": {"3"}}}, 429, "rate_limited"},
		"500":            {devstack.Fault{Status: 500}, 502, "upstream_unreachable"},
		"503":            {devstack.Fault{Status: 503, Header: http.Header{"Retry-After": {"9"}}}, 503, "upstream_unreachable"},
		"redirect":       {devstack.Fault{Status: 302}, 502, "upstream_unreachable"},
		"lost":           {devstack.Fault{Stop: devstack.DropBeforeHeader}, 502, "upstream_unreachable"},
		"broken off":     {devstack.Fault{Stop: devstack.DropInBody}, 502, "upstream_unreachable"},
		"chunks, broken": {devstack.Fault{Stop: devstack.DropInBody, Chunked: true}, 502, "upstream_unreachable"},
	} {
		e.stack.API.Fail(func(*http.Request) *devstack.Fault { return &c.fault })
		got := e.get(t, "ada", liveEvents)
		if got.StatusCode != c.status || got.code(t) != c.code || got.Header.Get("Age") != "" {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
		got.cacheStatus(t, "fwd=miss")
		if c.status == http.StatusTooManyRequests && (got.Header.Get("Retry-After") != "7" || got.Header.Get("X-RateLimit-Limit") != "3" || got.Header.Get("RateLimit") != "") {
			t.Errorf("the two limits are mixed: %v", got.Header)
		}
		if c.status == http.StatusServiceUnavailable && got.Header.Get("Retry-After") != "9" {
			t.Errorf("Retry-After %q", got.Header.Get("Retry-After"))
		}
		if c.fault.Stop != devstack.DropBeforeHeader { // net/http itself asks again over a connection that was open before
			e.asked(t, 1)
		}
		e.stack.API.Reset()
	}
	e.stack.API.Fail(nil)
	onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
	e.asked(t, 1)
}

func TestShareNoLargeAnswer(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t, func(h *Handler) { h.Limits = &Limits{CacheEntrySize: 1000} })
	body := `{"data":["` + strings.Repeat("a", 100_000) + `"]}`
	for _, chunked := range []bool{true, false} {
		e.stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Body: []byte(body), Chunked: chunked} })
		target := fmt.Sprint(liveEvents, "?a=", chunked)
		first := e.get(t, "ada", target)
		first.cacheStatus(t, "fwd=miss", "detail=answer-size")
		second := e.get(t, "ben", target)
		second.cacheStatus(t, "fwd=bypass", "detail=answer-size")
		if string(first.body) != body || string(second.body) != body || (first.ContentLength < 0) != chunked {
			t.Errorf("%d bytes and %d of %d, Content-Length %d", len(first.body), len(second.body), len(body), first.ContentLength)
		}
		e.asked(t, 2)
	}
	e.stack.API.Fail(func(*http.Request) *devstack.Fault {
		return &devstack.Fault{Body: []byte(body), Stop: devstack.DropInBody}
	})
	if resp, err := e.client.Do(e.request(t, "ada", http.MethodGet, liveEvents+"?a=broken", nil)); err == nil {
		var got bytes.Buffer
		if _, err = got.ReadFrom(resp.Body); err == nil {
			t.Errorf("%d bytes of %d look whole", got.Len(), len(body))
		}
		resp.Body.Close()
	}
}

func TestShareRefresh(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t)
	var ahead atomic.Int64
	e.sharing.store.Close()
	store, err := share.New(share.Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	e.sharing.store = store
	core, logged := observer.New(zap.WarnLevel)
	e.log = zap.New(core)

	fails := make(chan bool, 2)
	done := make(chan struct{}, 2)
	e.stack.API.Fail(func(*http.Request) *devstack.Fault {
		defer func() { done <- struct{}{} }()
		if <-fails {
			return &devstack.Fault{Status: http.StatusInternalServerError}
		}
		return nil
	})
	fails <- false
	first := e.get(t, "ada", liveEvents)
	onlyTenant(t, first, "acme")
	<-done
	ahead.Store(int64(90 * time.Minute))
	stale := e.get(t, "ben", liveEvents)
	stale.cacheStatus(t, "hit", "ttl=-1800")
	if age, _ := strconv.Atoi(stale.Header.Get("Age")); age < 5400 || !bytes.Equal(stale.body, first.body) {
		t.Errorf("Age %d\n%s", age, stale.body)
	}
	fails <- true
	<-done
	await(t, "the failure in the log", func() bool { return logged.FilterMessage("an answer was not refreshed").Len() == 1 })
	entry := logged.FilterMessage("an answer was not refreshed").All()[0].ContextMap()
	if entry["pipe"] != "live_events" || entry["error"] != "upstream_unreachable: tinybird answered 500" || entry["upstream_status"] != int64(500) || !strings.HasSuffix(entry["help"].(string), "#upstream_unreachable") {
		t.Errorf("%v", entry)
	}
	fails <- false
	onlyTenant(t, e.get(t, "ben", liveEvents), "acme")
	<-done
	await(t, "a fresh answer", func() bool { return e.get(t, "ada", liveEvents).Header.Get("Age") == "0" })
	e.asked(t, 3)
}

// await asks again until it is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !so() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestShareReload(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	before := newEdge(t, stack, cached)
	onlyTenant(t, before.get(t, "ada", liveEvents), "acme")
	after := newEdge(t, stack, cached)
	before.asked(t, 1)
	onlyTenant(t, after.get(t, "ada", liveEvents), "acme")
	after.asked(t, 1)
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if answers, size := before.sharing.store.Usage(); answers != 0 || size != 0 {
		t.Errorf("%d answers with %d bytes are left of the old config", answers, size)
	}
	late := before.get(t, "ada", liveEvents)
	onlyTenant(t, late, "acme")
	late.cacheStatus(t, "fwd=bypass")
	after.asked(t, 1)
}

// TestShareOverTLS: Caddy's transport resolves placeholders with what is in a request's context, on goroutines of its own, where a
// panic would end the process. A request that belongs to nobody has it, too.
func TestShareOverTLS(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	names := make(chan string, 1)
	upstream := httptest.NewUnstartedServer(stack.API)
	upstream.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- hello.ServerName
		return nil, nil //nolint:nilnil // the server's own
	}}
	upstream.StartTLS()
	t.Cleanup(upstream.Close)
	e := newEdge(t, stack, func(h *Handler) {
		cached(h)
		h.Upstream = upstream.URL
		h.TransportRaw = []byte(`{"protocol":"http","tls":{"insecure_skip_verify":true,"server_name":"{system.os}.example.com"}}`)
	})
	onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
	if name := <-names; name != runtime.GOOS+".example.com" {
		t.Errorf("TLS for %q", name)
	}
	e.get(t, "ada", liveEvents).cacheStatus(t, "hit")
}
