//go:build integration

package integration

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestWhereTheDirectiveStands: the plugin under every directive that groups others, without an order line, and beside a
// reverse_proxy and other handlers of the same site.
func TestWhereTheDirectiveStands(t *testing.T) {
	t.Parallel()
	const block = "{\n" + credentials + allPipes + "}"
	e := newEdge(t, devstack.Options{})
	_, port, _ := strings.Cut(e.addr, ":")
	e.setenv("PORT", port)
	e.setenv("BACKEND", strings.TrimPrefix(e.stack.IssuerURL, "http://"))
	sites := map[string]string{
		"plain.test":  "tinybird " + block,
		"match.test":  "tinybird /v0/pipes/* " + block + "\n reverse_proxy {$BACKEND}",
		"named.test":  "@pipes path /v0/pipes/*\n tinybird @pipes " + block + "\n respond @other other\n @other not path /v0/pipes/*",
		"handle.test": "handle /v0/pipes/* {\n tinybird " + block + "\n}\n handle {\n respond other\n}",
		"route.test":  "route {\n tinybird /v0/pipes/* " + block + "\n respond other\n}",
		"path.test":   "handle_path /a/b/* {\n tinybird " + block + "\n}\n respond other",
		"strip.test":  "uri strip_prefix /a/b\n tinybird " + block,
		"encode.test": "encode gzip\n log\n header X-Site yes\n tinybird " + block,
		"vars.test":   "vars a b\n request_header X-Added yes\n tinybird " + block,
	}
	var config strings.Builder
	for host, body := range sites {
		config.WriteString("http://" + host + ":{$PORT} {\n bind 127.0.0.1\n " + body + "\n}\n")
	}
	e.run(t, caddyfile("", config.String()))

	ask := func(t *testing.T, host, target string, header http.Header) reply {
		t.Helper()
		r := e.request(t, "ada", http.MethodGet, target, "")
		r.Host = host + ":" + port
		maps.Copy(r.Header, header)
		return e.do(t, r)
	}
	for host := range sites {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			prefix := ""
			if host == "path.test" || host == "strip.test" {
				prefix = "/a/b"
			}
			ownRows(t, "ada", ask(t, host, prefix+livePath, nil))
			wantPrivate(t, ask(t, host, prefix+livePath+"?a=%zz", nil))
		})
	}
	for host, want := range map[string]string{"match.test": `"keys"`, "named.test": "other", "handle.test": "other", "route.test": "other", "path.test": "other"} {
		if got := ask(t, host, "/.well-known/jwks.json", nil); !strings.Contains(string(got.body), want) {
			t.Errorf("%s: status %d: %s", host, got.StatusCode, got.body)
		}
	}
	// A prefix is stripped once, and what is left is not decoded again.
	for _, target := range []string{"/a/b/a/b" + livePath, "/a/b/%2e%2e" + livePath, "/a/b/v0%2fpipes/live_events.json", "/a/b/v0/pipes/live_events%2ejson"} {
		if got := ask(t, "path.test", target, nil); strings.Contains(string(got.body), "/acme/") {
			t.Errorf("%s was served", target)
		}
	}
	zipped := ask(t, "encode.test", livePath+"?limit=1000", http.Header{"Accept-Encoding": {"gzip"}})
	if zipped.Header.Get("Content-Encoding") != "gzip" || zipped.Header.Get("X-Site") != "yes" {
		t.Errorf("behind encode: %v", zipped.Header)
	}
}

// planSite limits by the plan, shows the identity in a header and in the log, and hides behind handle_errors.
const planSite = `
http://{$EDGE} {
	log
	log_append org {clerk.org.id}
	log_append plan {clerk.plan}
	header >X-Organization {clerk.org.id}
	header >X-Role "{clerk.org.slug} {clerk.org.role} {clerk.user.id} {clerk.session.id} {clerk.claims.team_id}"
	map {clerk.plan} {rps} {
		o:pro 40
		o:broken none
		o:zero 0
		o:free_org 2
	}
	tinybird {
		` + credentials + `
		fixed_param organization_id {clerk.org.id}
		pipe live_events
		pipe top_pages {
			rate_limit {rps} burst 3
		}
		pipe sales_by_day {
			rate_limit {rps}
		}
	}
}
`

// TestLimitsByPlan: Caddy's map turns the plan into the rate; a plan without a rate is refused and logged, never
// unlimited.
func TestLimitsByPlan(t *testing.T) {
	t.Parallel()
	e := startEdge(t, planSite)
	for user, want := range map[string]string{"ada": "40", "cleo": "2"} {
		got := e.get(t, user, "/v0/pipes/sales_by_day.json")
		if limit := got.Header.Get("X-Ratelimit-Limit"); got.StatusCode != http.StatusOK || limit != want {
			t.Errorf("%s: status %d, limit %q, want %s", user, got.StatusCode, limit, want)
		}
		if limit := e.get(t, user, "/v0/pipes/top_pages.json").Header.Get("X-Ratelimit-Limit"); limit != "3" {
			t.Errorf("%s: burst %q", user, limit)
		}
	}
	for _, plan := range []string{"o:broken", "o:zero", "o:unknown", "", "{env.TINYBIRD_SIGNING_KEY}", "{http.request.uri.query.rps}"} {
		r := e.request(t, "", http.MethodGet, "/v0/pipes/sales_by_day.json?rps=1000", "")
		r.Header.Set("Authorization", "Bearer "+e.token(t, "ada", devstack.Claim("pla", plan)))
		got := e.do(t, r)
		if code, _ := got.refusal(t); got.StatusCode != http.StatusForbidden || code != "not_allowed" {
			t.Errorf("plan %q: status %d, code %s", plan, got.StatusCode, code)
		}
	}
	if !strings.Contains(e.log.String(), "rate_limit does not resolve") {
		t.Error("a plan without a rate is not logged")
	}
	for _, up := range e.stack.API.Requests() {
		limits, _ := up.Claims["limits"].(map[string]any)
		if limits["rps"] == nil {
			t.Errorf("a token without a limit: %v", up.Claims)
		}
	}
}

// TestPlaceholders: the identity is there for what Caddy expands after the plugin, and empty for what it expands before, or
// without a session. The texts of a token are never expanded themselves.
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	e := startEdge(t, planSite)
	got := e.get(t, "ada", "/v0/pipes/live_events.json")
	u, _ := devstack.UserByKey("ada")
	for name, want := range map[string]string{
		"X-Organization": devstack.AcmeID,
		"X-Role":         strings.Join([]string{"acme", "org:admin", u.ID, u.SessionID, u.TeamID}, " "),
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s %q, want %q", name, v, want)
		}
	}
	if v := e.get(t, "", "/v0/pipes/live_events.json").Header.Get("X-Organization"); v != "" {
		t.Errorf("an organization without a session: %q", v)
	}
	r := e.request(t, "", http.MethodGet, "/v0/pipes/live_events.json", "")
	r.Header.Set("Authorization", "Bearer "+e.token(t, "ada", devstack.Claim("team_id", "{env.TINYBIRD_SIGNING_KEY}")))
	if v := e.do(t, r).Header.Get("X-Role"); !strings.HasSuffix(v, " {env.TINYBIRD_SIGNING_KEY}") {
		t.Errorf("a claim was expanded: %q", v)
	}
	e.terminate(t)
	if err := e.wait(t); err != nil {
		t.Error(err)
	}
	log := e.log.String()
	for _, want := range []string{
		`"org":"` + devstack.AcmeID + `"`, `"plan":"o:pro"`, `"clerk_org":"` + devstack.AcmeID + `"`, `"clerk_user":"` + u.ID + `"`,
		`"tinybird_pipe":"live_events"`, `"tinybird_outcome":"ok"`, `"tinybird_outcome":"token_missing"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in the log\n%s", want, log)
		}
	}
}

// TestMetrics: what was refused and answered is counted under the labels that the documentation names, and under no other.
func TestMetrics(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	for n := range 3 {
		ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json?token=x&a="+strconv.Itoa(n)))
		e.get(t, "ada", "/v0/pipes/unlisted_"+strconv.Itoa(n)+".json")
		e.get(t, "", "/v0/pipes/live_events.json")
	}
	_, text := e.ask(t, http.MethodGet, "/metrics", "", "")
	for _, want := range []string{
		`caddy_tinybird_requests_total{code="ok",pipe="live_events"} 3`,
		`caddy_tinybird_requests_total{code="not_found",pipe="_other"} 3`,
		`caddy_tinybird_requests_total{code="token_missing",pipe="live_events"} 3`,
		`caddy_tinybird_params_dropped_total{pipe="live_events"} 3`,
		`caddy_clerk_verifications_total{result="token_missing"} 3`,
		`caddy_tinybird_upstream_seconds_count{pipe="live_events",status_class="2xx"} 3`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, "unlisted_") || strings.Contains(line, "org_2") || strings.Contains(line, "user_2") {
			t.Errorf("a label that a client makes: %s", line)
		}
	}
}
