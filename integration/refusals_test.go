//go:build integration

package integration

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

func startRefusing(t *testing.T) *edge {
	t.Helper()
	e := newEdge(t, devstack.Options{Issuer: devstack.IssuerOptions{AppOrigin: "https://app.example.com"}})
	serveFaults(e)
	_, port, _ := strings.Cut(e.addr, ":")
	e.setenv("PORT", port)
	return e.run(t, caddyfile("", refusingSites()))
}

func (c refusalCase) ask(t *testing.T, e *edge, host string) reply {
	t.Helper()
	var got reply
	for range max(c.tries, 1) {
		path, method, user := c.path, c.method, c.user
		if path == "" {
			path = "/v0/pipes/live_events.json"
		}
		if method == "" {
			method = http.MethodGet
		}
		if user == "" {
			user = "ada"
		}
		if c.query != "" {
			path += "?" + strings.ReplaceAll(c.query, " ", "+")
		}
		r := e.request(t, "", method, path, c.body)
		r.Host = host + ":" + e.getenv("PORT")
		r.Header.Set("Authorization", "Bearer "+e.token(t, user, c.opts...))
		maps.Copy(r.Header, c.header)
		if got = e.do(t, r); got.StatusCode == c.status {
			break
		}
	}
	return got
}

// check compares an answer's status and headers.
func (c refusalCase) check(t *testing.T, got reply) {
	t.Helper()
	if got.StatusCode != c.status {
		t.Errorf("status %d, want %d: %s", got.StatusCode, c.status, got.body)
	}
	wantPrivate(t, got)
	for name, pattern := range c.headers {
		if v := got.Header.Values(name); len(v) != 1 || !regexp.MustCompile(pattern).MatchString(v[0]) {
			t.Errorf("%s %q, want %s", name, v, pattern)
		}
	}
	for _, name := range []string{"Www-Authenticate", "Allow", "Retry-After", "Ratelimit", "Location", "Set-Cookie"} {
		if _, wanted := c.headers[name]; !wanted && len(got.Header.Values(name)) != 0 {
			t.Errorf("%s %q for nothing", name, got.Header.Values(name))
		}
	}
	if strings.Contains(string(got.body), "eyJ") || strings.Contains(fmt.Sprint(got.Header), "eyJ") {
		t.Errorf("a token in the answer: %s\n%v", got.body, got.Header)
	}
}

// TestRefusals: every status and code, with the headers that belong to it, whoever writes the body. The one code that is
// not here is internal, which no request can cause.
func TestRefusals(t *testing.T) {
	t.Parallel()
	e := startRefusing(t)
	cases := append(append(sessionCases(), requestCases()...), upstreamCases()...)
	seen := make(map[string]bool)
	for _, c := range cases {
		seen[c.code] = true
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			asJSON := c.ask(t, e, jsonHost)
			c.check(t, asJSON)
			byCaddy := c.ask(t, e, caddyHost)
			c.check(t, byCaddy)
			if c.method == http.MethodHead {
				return
			}
			if ct := asJSON.Header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("Content-Type %q", ct)
			}
			code, sentence := asJSON.refusal(t)
			if code != c.code {
				t.Errorf("code %s, want %s: %s", code, c.code, sentence)
			}
			if want := strconv.Itoa(c.status) + "|" + c.code + "|" + sentence; string(byCaddy.body) != want {
				t.Errorf("handle_errors wrote %q, want %q", byCaddy.body, want)
			}
		})
	}
	for _, code := range []string{
		"bad_query", "bad_body", "bad_request", "query_refused",
		"token_missing", "token_expired", "token_not_yet_valid", "token_invalid", "token_wrong_party", "token_wrong_issuer", "token_wrong_type", "session_pending",
		"tenant_missing", "not_allowed", "upstream_refused", "not_found", "method_not_allowed", "body_too_large", "url_too_long", "unsupported_body",
		"rate_limited", "upstream_unreachable", "upstream_timeout",
	} {
		if !seen[code] {
			t.Errorf("no case for %s", code)
		}
	}
}

// TestUpstreamTexts: a client sees Tinybird's own text only where the operator says so, and never one that is about the
// edge's credential or holds one.
func TestUpstreamTexts(t *testing.T) {
	t.Parallel()
	e := startRefusing(t)
	for _, c := range []struct {
		fault  string
		passes string
	}{
		{"quotes SQL", "DB error near SELECT quoted FROM events"},
		{"quotes the token", ""},
		{"no envelope", ""},
		{"401", ""},
		{"403", ""},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			_, hidden := refusalCase{query: "fault=" + c.fault}.ask(t, e, jsonHost).refusal(t)
			_, passed := refusalCase{query: "fault=" + c.fault}.ask(t, e, passHost).refusal(t)
			if strings.Contains(hidden, "quoted") || strings.Contains(hidden, "token") {
				t.Errorf("hide shows %q", hidden)
			}
			switch {
			case c.passes == "" && passed != hidden:
				t.Errorf("pass shows %q", passed)
			case c.passes != "" && passed != c.passes:
				t.Errorf("pass shows %q, want %q", passed, c.passes)
			}
		})
	}
}

// TestUpstreamAway: nobody listens where Tinybird should be.
func TestUpstreamAway(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.setenv("UPSTREAM", "http://"+freeAddr(t))
	e.run(t, caddyfile("", plainSite))
	got := e.get(t, "ada", "/v0/pipes/live_events.json")
	if code, _ := got.refusal(t); got.StatusCode != http.StatusBadGateway || code != "upstream_unreachable" {
		t.Errorf("status %d, code %s", got.StatusCode, code)
	}
	wantPrivate(t, got)
}

// TestKeysUnavailable: while no key was ever had, it says nothing against the session. Once there is one, it is used.
func TestKeysUnavailable(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.stack.Issuer.SetDown(true)
	e.run(t, caddyfile("", plainSite))
	got := e.get(t, "ada", "/v0/pipes/live_events.json")
	code, _ := got.refusal(t)
	if got.StatusCode != http.StatusServiceUnavailable || code != "keys_unavailable" {
		t.Fatalf("status %d, code %s", got.StatusCode, code)
	}
	if wait, err := strconv.Atoi(got.Header.Get("Retry-After")); err != nil || wait < 1 {
		t.Errorf("Retry-After %q", got.Header.Get("Retry-After"))
	}
	if v := got.Header.Values("Www-Authenticate"); len(v) != 0 {
		t.Errorf("WWW-Authenticate %q", v)
	}
	wantPrivate(t, got)
	e.stack.Issuer.SetDown(false)
	eventually(t, "the keys are fetched", func() bool {
		return e.get(t, "ada", "/v0/pipes/live_events.json").StatusCode == http.StatusOK
	})
}

// TestRefusedStaysCheap: a request that is refused for its session asks nobody upstream.
func TestRefusedStaysCheap(t *testing.T) {
	t.Parallel()
	e := startRefusing(t)
	for _, c := range append(sessionCases(), requestCases()...) {
		if c.code == "rate_limited" {
			continue
		}
		c.ask(t, e, jsonHost)
	}
	if n := len(e.stack.API.Requests()); n != 0 {
		t.Errorf("%d requests went up", n)
	}
}

// TestNotFoundTellsNothing: a pipe that is not listed, one that does not exist, a format that is not allowed, and another path
// are one answer, so that nobody finds out what there is.
func TestNotFoundTellsNothing(t *testing.T) {
	t.Parallel()
	e := startRefusing(t)
	seen := make(map[string]string)
	for _, path := range []string{
		"/v0/pipes/my_activity.json", "/v0/pipes/no_such_pipe.json", "/v0/pipes/t_live0events.json", "/v0/pipes/live_events.csv",
		"/v0/pipes/live_events.nosuch", "/v0/pipes/sales_by_day.nosuch", "/v0/sql", "/",
	} {
		got := refusalCase{path: path}.ask(t, e, jsonHost)
		got.Header.Del("Date")
		seen[fmt.Sprint(got.StatusCode, got.Header, string(got.body))] = path
	}
	if len(seen) != 1 {
		t.Errorf("%d different answers: %v", len(seen), seen)
	}
}
