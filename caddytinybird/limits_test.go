package caddytinybird

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// Attack: many users and sessions of one tenant, by every way in which rows can be read, to have more than one rate.
func TestAttackManySessionsOfOneTenant(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	const burst = 5
	e := newEdge(t, stack, func(h *Handler) {
		acceptTemplates(h)
		h.RateLimit = &RateLimit{RPS: "1", Burst: burst}
	})
	begin := time.Now()
	for n := range 12 {
		pipe := []string{"live_events", "top_pages", "sales_by_day", "org_metrics"}[n%4]
		format := []string{"json", "csv", "ndjson"}[n%3]
		r := e.request(t, "", []string{http.MethodGet, http.MethodPost}[n%2], fmt.Sprintf("/v0/pipes/%s.%s?n=%d", pipe, format, n), nil)
		switch n % 3 {
		case 0: // a new session each time
			r.Header.Set("Authorization", "Bearer "+e.bearer(t, []string{"ada", "ben"}[n%2], devstack.Claim("sid", "sess_"+strconv.Itoa(n))))
		case 1:
			cookies, err := stack.Issuer.Cookies("ben", devstack.Claim("sid", "sess_"+strconv.Itoa(n)))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cookies {
				r.AddCookie(c)
			}
		default:
			r.Header.Set("Authorization", "Bearer "+templateToken(t, stack, claims{
				"sub": "user_" + strconv.Itoa(n), "scopes": []any{templateScope(pipe, claims{"organization_id": devstack.AcmeID})},
			}))
		}
		e.do(t, r)
	}
	up := len(stack.API.Requests())
	if most := burst + int(time.Since(begin).Seconds()) + 1; up < burst || up > most {
		t.Errorf("%d requests went up, the burst is %d", up, burst)
	}
	if got := e.get(t, "cleo", "/v0/pipes/live_events.json"); got.StatusCode != http.StatusOK {
		t.Errorf("another tenant: %d", got.StatusCode)
	}
}

// planSite turns plans into limits, as docs/limits.md does it.
const planSite = `
	map {clerk.plan} {rps} {few} {
		o:pro 40 2
		o:free 3 1
		o:broken none few
	}
`

// TestLimitsByPlan: the rate of the edge, of its headers and of the minted token are one, for each request anew; and a tenant whose
// plan changes has the new rate with the next request, on the counter that it had.
func TestLimitsByPlan(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, planSite+strings.Replace(tinybirdOf(t, stack, "rate_limit {rps}\nconcurrency {few}\nclerk {pk} {\nissuer {issuer}\n}"), "tinybird /v0/*", "tinybird", 1))
	const target = "/v0/pipes/live_events.json"
	ask := func(plan string) reply { return s.ask(t, target, s.as(t, "ada", devstack.Claim("pla", plan))) }
	left := 40
	for n, plan := range []string{"o:pro", "o:pro", "o:free", "o:pro", "o:free"} {
		got := ask(plan)
		want := map[string]string{"o:pro": "40", "o:free": "3"}[plan]
		if limit := got.Header.Get("X-RateLimit-Limit"); limit != want {
			t.Errorf("%d: limit %s, want %s", n, limit, want)
		}
		if got.StatusCode == http.StatusTooManyRequests {
			if n < 3 {
				t.Errorf("%d: refused", n)
			}
			continue
		}
		up := stack.API.Requests()
		if _, rps := nameAndRate(up[len(up)-1]); rps != want {
			t.Errorf("%d: the token says %s, the edge %s", n, rps, want)
		}
		left--
	}
	if up := stack.API.Requests(); len(up) < 3 {
		t.Errorf("only %d requests went up", len(up))
	}
	for _, plan := range []string{"o:broken", "o:unknown"} {
		if got := ask(plan); got.StatusCode != http.StatusForbidden || got.code(t) != "not_allowed" {
			t.Errorf("%s: %d %s", plan, got.StatusCode, got.body)
		}
	}
}

// TestCountersByPlan: where the plans of an organization's users differ, a token name that holds the plan gives each plan a counter
// of its own, here and at Tinybird, so that nobody is held to the rate of another plan.
func TestCountersByPlan(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, `
	map {clerk.plan} {rps} {
		u:pro 30
		default 1
	}
`+strings.Replace(tinybirdOf(t, stack, "rate_limit {rps}\ntoken {\nname {clerk.org.id}-{clerk.plan}\n}\nclerk {pk} {\nissuer {issuer}\n}"), "tinybird /v0/*", "tinybird", 1))
	for range 20 {
		if got := s.ask(t, "/v0/pipes/live_events.json", s.as(t, "ada", devstack.Claim("pla", "u:pro"))); got.StatusCode != http.StatusOK {
			t.Fatalf("the fast plan: %d %s", got.StatusCode, got.body)
		}
	}
	if got := s.ask(t, "/v0/pipes/live_events.json", s.as(t, "ben", devstack.Claim("pla", "u:free"))); got.StatusCode != http.StatusOK {
		t.Errorf("the slow plan waits for the fast one: %d %s", got.StatusCode, got.body)
	}
	up := stack.API.Requests()
	for _, r := range []devstack.Recorded{up[0], up[len(up)-1]} {
		name, rps := nameAndRate(r)
		if want := map[string]string{"30": devstack.AcmeID + "-u:pro", "1": devstack.AcmeID + "-u:free"}[rps]; name != want {
			t.Errorf("counted under %s at %s", name, rps)
		}
	}
}

// TestRefusedRateIsTrue: a client that waits as long as it is told to is let in by the edge.
func TestRefusedRateIsTrue(t *testing.T) {
	t.Parallel()
	e := newEdge(t, newStack(t, devstack.Options{}), func(h *Handler) { h.RateLimit = &RateLimit{RPS: "1", Burst: 1} })
	e.get(t, "ada", "/v0/pipes/live_events.json")
	got := e.get(t, "ada", "/v0/pipes/live_events.json")
	if got.StatusCode != http.StatusTooManyRequests || got.Header.Get("RateLimit") != `"default";r=0;t=1` || got.Header.Get("RateLimit-Policy") != `"default";q=1;w=1` {
		t.Fatalf("%d %v", got.StatusCode, got.Header)
	}
	seconds, err := strconv.Atoi(got.Header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		t.Fatalf("Retry-After %q", got.Header.Get("Retry-After"))
	}
	<-time.After(time.Duration(seconds) * time.Second) // the edge's clock is the machine's
	if got := e.get(t, "ada", "/v0/pipes/live_events.json?again"); got.Header.Get("RateLimit") != `"default";r=0;t=1` || got.Header.Get("Retry-After") != "" {
		t.Errorf("after %d seconds: %d %v", seconds, got.StatusCode, got.Header)
	}
}

// TestChangedRateAppliesAtOnce: a reload that changes the rate changes it for the next request, and what was counted stays counted.
func TestChangedRateAppliesAtOnce(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	rate := func(rps string, burst int) func(*Handler) {
		return func(h *Handler) { h.RateLimit = &RateLimit{RPS: rps, Burst: burst} }
	}
	before := newEdge(t, stack, rate("1", 100))
	for range 50 {
		if _, err := before.limiter.Allow(devstack.AcmeID, ratelimit.Limit{RPS: 1, Burst: 100}); err != nil {
			t.Fatal(err)
		}
	}
	lower := newEdge(t, stack, rate("1", 10))
	if got := lower.get(t, "ada", "/v0/pipes/live_events.json"); got.StatusCode != http.StatusTooManyRequests || got.Header.Get("X-RateLimit-Limit") != "10" {
		t.Errorf("lowered below what was counted: %d %v", got.StatusCode, got.Header)
	}
	higher := newEdge(t, stack, rate("200", 200))
	got := higher.get(t, "ben", "/v0/pipes/live_events.json")
	if left, _ := strconv.Atoi(got.Header.Get("X-RateLimit-Remaining")); got.StatusCode != http.StatusOK || left < 149 {
		t.Errorf("raised: %d %v", got.StatusCode, got.Header)
	}
	up := stack.API.Requests()
	if _, rps := nameAndRate(up[len(up)-1]); rps != "200" {
		t.Errorf("the token says %s", rps)
	}
}

// TestLimitsOfTinybird: a 429 of Tinybird's passes with its own wait and its own headers, for it knows how much is left there.
func TestLimitsOfTinybird(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) { h.RateLimit = &RateLimit{RPS: "50"} })
	for retry, want := range map[string]string{"7": "7", "0": "1", "": "1", "soon": "1"} {
		stack.API.Fail(func(*http.Request) *devstack.Fault {
			return &devstack.Fault{Status: 429, Header: http.Header{"Retry-After": {retry}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"1"}}}
		})
		got := e.get(t, "ada", "/v0/pipes/live_events.json")
		if got.StatusCode != 429 || got.code(t) != "rate_limited" || got.Header.Get("Retry-After") != want ||
			got.Header.Get("X-RateLimit-Remaining") != "0" || got.Header.Get("RateLimit") != "" {
			t.Errorf("%q: %d %v", retry, got.StatusCode, got.Header)
		}
	}
}

// TestEvictedCountersAreCounted: a tenant that loses what was counted shows in the metric.
func TestEvictedCountersAreCounted(t *testing.T) {
	t.Parallel()
	e := newEdge(t, newStack(t, devstack.Options{}), func(h *Handler) {
		h.RateLimit = &RateLimit{RPS: "1", Burst: 100}
		h.Limits = &Limits{Counters: 1}
	})
	before := counted1(t, metrics.evicted)
	for n := range 2 * ratelimit.MinMaxKeys {
		if _, err := e.limiter.Allow("tenant"+strconv.Itoa(n), ratelimit.Limit{RPS: 1, Burst: 100}); err != nil {
			t.Fatal(err)
		}
	}
	// Other tests may add to it.
	if got := counted1(t, metrics.evicted) - before; got < float64(e.limiter.Evicted()) || e.limiter.Evicted() == 0 {
		t.Errorf("%v counted, %d evicted", got, e.limiter.Evicted())
	}
}

// TestEmptyTenantIsRefused: a session that names nobody to count for is refused, and an empty name counts for nobody.
func TestEmptyTenantIsRefused(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		h.RateLimit = &RateLimit{RPS: "1"}
		h.Token = &Token{Name: "{clerk.claims.tenant}"}
	})
	for _, tenant := range []any{"", " ", "\x00", "a\nb", nil, []string{}, claims{"a": 1}} {
		// The name falls back to the organization, so these all count together.
		e.do(t, withToken(t, e, "/v0/pipes/live_events.json", devstack.Claim("tenant", tenant)))
	}
	for _, up := range stack.API.Requests() {
		if name, rps := nameAndRate(up); name != devstack.AcmeID || rps != "1" {
			t.Errorf("counted under %q at %s", name, rps)
		}
	}
	if n := len(stack.API.Requests()); n == 0 || n > 5 {
		t.Errorf("%d requests went up", n)
	}
	if _, err := e.limiter.Allow("", ratelimit.Limit{RPS: 1}); err == nil {
		t.Error("nobody was counted")
	}
	if _, ok, err := e.limiter.gate.Enter("", 1); ok || err == nil {
		t.Error("nobody was let in")
	}
}

func TestRateInJSONIsText(t *testing.T) {
	t.Parallel()
	var h Handler
	if err := json.Unmarshal([]byte(`{"rate_limit":{"rps":"5"},"concurrency":"{few}","pipes":[{"names":["a"],"concurrency":"3"}]}`), &h); err != nil {
		t.Fatal(err)
	}
	if h.Concurrency != "{few}" || h.Pipes[0].Concurrency != "3" {
		t.Errorf("%+v", h)
	}
}
