package caddytinybird

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// TestP6MemoryIsBounded: whatever is sent, what is kept stays under its bound, and what is too large is refused
// before it is read. The bounds of the caches are tested where the caches are.
func TestP6MemoryIsBounded(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		h.RateLimit = &RateLimit{RPS: "5"}
		h.Token = &Token{Name: "{clerk.claims.tenant}"}
		h.Limits = &Limits{Counters: ratelimit.MinMaxKeys, Tokens: 16, URLSize: 500, BodySize: 1000}
		h.Clerk.Limits = &ClerkLimits{Identities: 16, TokenSize: 4000}
	})
	for n := range ratelimit.MinMaxKeys + 150 {
		e.do(t, withToken(t, e, "/v0/pipes/live_events.json", devstack.Claim("tenant", fmt.Sprint("tenant-", n))))
	}
	if n := e.limiter.Len(); n > ratelimit.MinMaxKeys {
		t.Errorf("%d counters, the bound is %d", n, ratelimit.MinMaxKeys)
	}

	long := e.get(t, "ada", "/v0/pipes/live_events.json?x="+strings.Repeat("a", 500))
	if long.StatusCode != http.StatusRequestURITooLong || long.code(t) != "url_too_long" {
		t.Errorf("long URL: status %d, %s", long.StatusCode, long.body)
	}
	large := e.do(t, e.request(t, "ben", http.MethodPost, "/v0/pipes/live_events.json", []byte(`{"x":"`+strings.Repeat("a", 1000)+`"}`)))
	if large.StatusCode != http.StatusRequestEntityTooLarge || large.code(t) != "body_too_large" {
		t.Errorf("large body: status %d, %s", large.StatusCode, large.body)
	}
	endless := e.request(t, "cleo", http.MethodPost, "/v0/pipes/live_events.json", nil)
	endless.Header.Set("Content-Type", "application/json")
	endless.Body = io.NopCloser(io.LimitReader(io.MultiReader(strings.NewReader(`{"x":"`), repeat('a')), 1<<20))
	if got := e.do(t, endless); got.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("endless body: status %d, %s", got.StatusCode, got.body)
	}
	huge := withToken(t, e, "/v0/pipes/live_events.json", devstack.Claim("tenant", strings.Repeat("a", 4000)))
	if got := e.do(t, huge); got.StatusCode != http.StatusUnauthorized || got.code(t) != "token_invalid" {
		t.Errorf("huge token: status %d, %s", got.StatusCode, got.body)
	}
	for _, up := range stack.API.Requests() {
		if bytes.Contains(up.Body, []byte("aaaa")) || strings.Contains(up.RawQuery, "aaaa") {
			t.Error("what was too large went up")
		}
	}
}

// repeat reads as one byte for ever.
type repeat byte

func (b repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}
