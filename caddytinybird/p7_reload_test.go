package caddytinybird

import (
	"net/http"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// TestP7LoadsWithoutNetworkAndKeepsState: a config loads while Clerk and Tinybird cannot be reached, and a reload keeps
// the keys and the counts, whatever rejected configs came in between.
func TestP7LoadsWithoutNetworkAndKeepsState(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	limit := func(h *Handler) { h.RateLimit = &RateLimit{RPS: "1", Burst: 1000} }
	before := newEdge(t, stack, limit)
	onlyTenant(t, before.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	onlyTenant(t, before.get(t, "cleo", "/v0/pipes/live_events.json"), "globex")
	// What is counted here takes 900 seconds to run out.
	for range 900 {
		if _, err := before.limiter.Allow(devstack.AcmeID, ratelimit.Limit{RPS: 1, Burst: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	fetches := stack.Issuer.Fetches()
	stack.Issuer.SetDown(true)

	// Rejected configs must give back only what they took.
	for range 20 {
		h := testHandler(t, stack)
		limit(h)
		h.Pipes = append(h.Pipes, Pipe{Names: []string{"top_pages"}})
		if err := provision(t, newContext(t, t.TempDir()), h); err == nil {
			t.Fatal("a pipe listed twice was accepted")
		}
	}
	after := newEdge(t, stack, limit)
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	// Asked of the limiter, because the header of an answer may be Tinybird's.
	left, err := after.limiter.Allow(devstack.AcmeID, ratelimit.Limit{RPS: 1, Burst: 1000})
	if err != nil || left.Remaining > 500 {
		t.Errorf("%d requests left after the reload: the count was lost (%v)", left.Remaining, err)
	}
	if got := after.get(t, "ben", "/v0/pipes/live_events.json"); got.StatusCode == http.StatusUnauthorized {
		t.Errorf("the keys were lost: %s", got.body)
	}
	if n := stack.Issuer.Fetches(); n != fetches {
		t.Errorf("%d key fetches during the reload", n-fetches)
	}
	// A request of the old config that Caddy had accepted is still answered.
	if got := before.get(t, "ben", "/v0/pipes/live_events.json"); got.StatusCode >= http.StatusInternalServerError || got.StatusCode == http.StatusUnauthorized {
		t.Errorf("a request of the old config: status %d, %s", got.StatusCode, got.body)
	}
}

// TestP7ChangedSettingKeepsKeys: a reload that changes how often keys are fetched finds the keys there were.
func TestP7ChangedSettingKeepsKeys(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	before := newEdge(t, stack, nil)
	onlyTenant(t, before.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	stack.Issuer.SetDown(true)
	after := newEdge(t, stack, func(h *Handler) { h.Clerk.JWKSRefresh = 7200e9 })
	onlyTenant(t, after.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
}

// TestP7ProvisionNeedsNoNetwork: nothing answers at any address of the config, and it loads all the same.
func TestP7ProvisionNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	stack.Issuer.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Stop: devstack.HangBeforeHeader} })
	h := testHandler(t, stack)
	h.Upstream = "http://127.0.0.1:1"
	done := make(chan error, 1)
	go func() { done <- provision(t, newContext(t, t.TempDir()), h) }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("loading a config waits for the network")
	}
}
