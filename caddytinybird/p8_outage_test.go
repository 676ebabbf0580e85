package caddytinybird

import (
	"io"
	"net/http"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestP8OutagesAreNot401: while Clerk's keys cannot be fetched, valid sessions stay valid; without any key ever the
// answer is 503, never 401.
func TestP8OutagesAreNot401(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	stack.Issuer.SetDown(true)
	for range 3 {
		// A new session, so nothing is answered from a cache.
		onlyTenant(t, e.get(t, "cleo", "/v0/pipes/live_events.json"), "globex")
	}
	unknown := withToken(t, e, "/v0/pipes/live_events.json", devstack.KID("ins_2unknown"))
	if got := e.do(t, unknown); got.StatusCode != http.StatusUnauthorized || got.code(t) != "token_invalid" {
		t.Errorf("unknown kid during an outage: status %d, %s", got.StatusCode, got.body)
	}
}

// TestP8NoKeysEver: an edge that never had a key answers 503 with Retry-After, also to what would be invalid.
func TestP8NoKeysEver(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	stack.Issuer.SetDown(true)
	e := newEdge(t, stack, nil)
	got := e.get(t, "ada", "/v0/pipes/live_events.json")
	if got.StatusCode != http.StatusServiceUnavailable || got.code(t) != "keys_unavailable" || got.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, %s, Retry-After %q", got.StatusCode, got.body, got.Header.Get("Retry-After"))
	}
}

// TestP8RestartDuringOutage: a new process finds the keys in Caddy's storage.
func TestP8RestartDuringOutage(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	storage := storageDir(t)
	e := newEdgeIn(t, stack, storage, nil)
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	awaitSaved(t, storage, stack.Issuer)
	// The last config that uses the keys ends, and with it all that the process knew of them.
	if err := e.Cleanup(); err != nil {
		t.Fatal(err)
	}
	stack.Issuer.SetDown(true)
	onlyTenant(t, newEdgeIn(t, stack, storage, nil).get(t, "ada", "/v0/pipes/live_events.json"), "acme")
}

// TestP8TinybirdHangs: a Tinybird that does not answer, or stops in the middle, holds a connection no longer than
// the timeouts.
func TestP8TinybirdHangs(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		h.TransportRaw = []byte(`{"protocol":"http","response_header_timeout":"50ms","read_timeout":"50ms"}`)
	})
	stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Stop: devstack.HangBeforeHeader} })
	if got := e.get(t, "ada", "/v0/pipes/live_events.json"); got.StatusCode != http.StatusGatewayTimeout || got.code(t) != "upstream_timeout" {
		t.Errorf("status %d, %s", got.StatusCode, got.body)
	}
	stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Stop: devstack.HangInBody} })
	// What is answered is a refusal, if nothing of the body had arrived yet, or visibly broken.
	resp, err := e.client.Do(e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", nil))
	if err != nil {
		return // broken before the first byte reached us: not a whole answer either
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil && resp.StatusCode != http.StatusGatewayTimeout {
		t.Error("half an answer looks like a whole one")
	}
}
