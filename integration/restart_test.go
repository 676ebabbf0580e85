//go:build integration

package integration

import (
	"net/http"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestRestartWhileClerkIsDown: a process that starts while the keys cannot be fetched has those of the process before it,
// out of Caddy's storage. Fetched keys replace them as soon as there are some.
func TestRestartWhileClerkIsDown(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json"))
	before := e.process
	before.terminate(t)
	if err := before.wait(t); err != nil {
		t.Fatal(err)
	}

	e.stack.Issuer.SetDown(true)
	e.run(t, caddyfile("", plainSite))
	// The very first request, cookie and header.
	ownRows(t, "cleo", e.get(t, "cleo", "/v0/pipes/live_events.json"))
	if got := e.do(t, e.request(t, "", http.MethodGet, "/v0/pipes/live_events.json", "")); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d without a session", got.StatusCode)
	}
	// Stored keys can be old ones, so a signature that they do not match is no proof against the session yet.
	forged := func() reply {
		r := e.request(t, "", http.MethodGet, "/v0/pipes/live_events.json", "")
		r.Header.Set("Authorization", "Bearer "+e.token(t, "ada", devstack.ForeignKey()))
		return e.do(t, r)
	}
	got := forged()
	if code, _ := got.refusal(t); got.StatusCode != http.StatusServiceUnavailable || code != "keys_unavailable" || got.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, code %s for another signature while only stored keys are there", got.StatusCode, code)
	}
	e.stack.Issuer.SetDown(false)
	if err := e.stack.Issuer.Rotate(false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new keys are fetched", func() bool {
		return e.get(t, "ada", "/v0/pipes/live_events.json").StatusCode == http.StatusOK
	})
	if code, _ := forged().refusal(t); code != "token_invalid" {
		t.Errorf("code %s for a forged session", code)
	}
}

// TestStartWithNobodyThere: a config loads while neither Clerk nor Tinybird can be reached, and is checked without them.
func TestStartWithNobodyThere(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.setenv("ISSUER", "http://"+freeAddr(t))
	e.setenv("UPSTREAM", "http://"+freeAddr(t))
	e.run(t, caddyfile("", plainSite))
	got := e.get(t, "ada", "/v0/pipes/live_events.json")
	if code, _ := got.refusal(t); code != "keys_unavailable" {
		t.Errorf("status %d, code %s", got.StatusCode, code)
	}
}

// TestOutageKeepsSessions: an outage after a first load turns no valid session away, and an unknown kid into no 503.
func TestOutageKeepsSessions(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json"))
	e.stack.Issuer.SetDown(true)
	ownRows(t, "cleo", e.get(t, "cleo", "/v0/pipes/live_events.json"))
	r := e.request(t, "", http.MethodGet, "/v0/pipes/live_events.json", "")
	r.Header.Set("Authorization", "Bearer "+e.token(t, "ada", devstack.KID("ins_2unknown")))
	if got := e.do(t, r); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d for an unknown kid", got.StatusCode)
	}
	ownRows(t, "ben", e.get(t, "ben", "/v0/pipes/live_events.json"))
}
