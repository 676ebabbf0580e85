package caddytinybird

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// newLoggedEdge serves the test config, and keeps what the handler logs from a level on.
func newLoggedEdge(t *testing.T, level zapcore.Level, configure func(*Handler)) (*edge, *observer.ObservedLogs) {
	t.Helper()
	e := newEdge(t, newLiveStack(t), configure)
	core, logged := observer.New(level)
	e.log = zap.New(core)
	return e, logged
}

// decidedLine is the line on the latest request. It stands before the client has all of the answer, or not much later.
func decidedLine(t *testing.T, logged *observer.ObservedLogs, n int) map[string]any {
	t.Helper()
	var lines []observer.LoggedEntry
	await(t, "a line on each request", func() bool {
		lines = logged.FilterMessage(decisionMessage).All()
		return len(lines) >= n
	})
	if len(lines) != n {
		t.Fatalf("%d lines for %d requests", len(lines), n)
	}
	if level := lines[n-1].Level; level != zap.DebugLevel {
		t.Errorf("a line on a request at level %s", level)
	}
	return lines[n-1].ContextMap()
}

// stepsIn are the steps in a line, in the order in which a request passes them.
func stepsIn(t *testing.T, line map[string]any) string {
	t.Helper()
	steps, ok := line["steps_us"].(map[string]any)
	if !ok {
		t.Fatalf("no steps: %v", line)
	}
	var names []string
	sum := 0.0
	for _, name := range []string{"identify", "authorize", "limit", "mint", "build", "forward", "answer", "refuse"} {
		if took, ok := steps[name].(float64); ok {
			names = append(names, name)
			sum += took
		}
	}
	if total, _ := line["total_us"].(float64); len(names) != len(steps) || total <= 0 || sum < total-1 || sum > total+1 {
		t.Errorf("steps %v make %v of %v", steps, sum, line["total_us"])
	}
	return strings.Join(names, " ")
}

// TestDecisionsAreLogged: at debug level there is one line on each request, with what became of it, the names of the parameters by what
// became of each, and the time that each step took.
func TestDecisionsAreLogged(t *testing.T) {
	t.Parallel()
	e, logged := newLoggedEdge(t, zap.DebugLevel, func(h *Handler) {
		h.RateLimit = &RateLimit{RPS: "100"}
		h.TokenEndpoint = endpoint
		h.Pipes[0].Names = h.Pipes[0].Names[1:]
		h.Pipes = append(h.Pipes,
			Pipe{Names: []string{"top_pages"}, RateLimit: &RateLimit{RPS: "1", Burst: 2}, Params: []string{"limit"}},
		)
		cached(h)
	})
	const trace = "0af7651916cd43dd8448eb211c80319c"
	ada, _ := devstack.UserByKey("ada")
	const asked = "identify authorize limit mint build forward"
	requests := 0
	for _, c := range []struct {
		name, user, target, body string
		steps                    string
		want                     map[string]any // nil: there is none
	}{
		{"another tenant's id", "ada", "/v0/pipes/live_events.json?limit=3&organization_id=" + devstack.GlobexID + "&ORGANIZATION_ID=x&token=p.x.y", "", asked, map[string]any{
			"clerk_user": ada.ID, "clerk_org": devstack.AcmeID, "pipe": "live_events", "code": "ok", "status": 200, "trace_id": trace,
			"params_fixed": "[organization_id]", "params_taken": "[limit]", "params_dropped": "[organization_id ORGANIZATION_ID token]",
			"rate_limit": 100, "rate_remaining": 99, "token_cached": false, "cache": "miss", "retry_after_seconds": nil,
		}},
		{"the same again", "ada", "/v0/pipes/live_events.json?limit=3", "", "identify authorize limit mint build answer", map[string]any{
			"params_taken": "[limit]", "params_dropped": "[]", "token_cached": true, "cache": "hit", "status": nil,
		}},
		{"in the query and the body", "ada", "/v0/pipes/my_activity.json?user_id=me", `{"limit":1,"USER_ID":"x","a.b":2,"user_id":"y"}`, asked, map[string]any{
			"params_fixed": "[organization_id user_id]", "params_taken": "[limit]", "params_dropped": "[user_id USER_ID _other]",
		}},
		{"what the config does not list", "ada", "/v0/pipes/top_pages.json?limit=1&days=7", "", asked, map[string]any{
			"pipe": "top_pages", "params_taken": "[limit]", "params_dropped": "[days]", "rate_limit": 1, "rate_remaining": 1,
		}},
		{"a bad query", "ada", "/v0/pipes/top_pages.json?organization_id=x&limit=%zz", "", "identify authorize limit mint refuse", map[string]any{
			"code": "bad_query", "status": 400, "params_fixed": "[organization_id]", "params_taken": nil, "params_dropped": nil,
		}},
		{"over the limit", "ada", "/v0/pipes/top_pages.json", "", "identify authorize refuse", map[string]any{
			"code": "rate_limited", "status": 429, "rate_limit": 1, "rate_remaining": 0, "retry_after_seconds": 1, "token_cached": nil, "params_taken": nil,
		}},
		{"no organization", "dana", "/v0/pipes/top_pages.json", "", "identify refuse", map[string]any{
			"code": "tenant_missing", "status": 403, "clerk_org": "", "params_fixed": nil, "rate_limit": nil,
		}},
		{"no session", "", "/v0/pipes/top_pages.json?days=7", "", "refuse", map[string]any{
			"code": "token_missing", "status": 401, "clerk_user": nil, "clerk_org": nil, "pipe": "top_pages",
		}},
		{"an unlisted pipe", "ada", "/v0/pipes/secret_pipe.json", "", "identify refuse", map[string]any{"pipe": "_other", "code": "not_found", "status": 404}},
		{"a token", "ada", endpoint, "", "identify authorize limit mint answer", map[string]any{"pipe": "_token", "code": "ok", "token_cached": false, "params_fixed": nil}},
	} {
		method, body := http.MethodGet, []byte(nil)
		if c.body != "" {
			method, body = http.MethodPost, []byte(c.body)
		}
		for again := true; again; { // a slow machine gets over no limit with one request
			r := e.request(t, c.user, method, c.target, body)
			r.Header.Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
			again = e.do(t, r).StatusCode == http.StatusOK && c.want["code"] == "rate_limited"
			requests++
		}
		line := decidedLine(t, logged, requests)
		if steps := stepsIn(t, line); steps != c.steps {
			t.Errorf("%s: steps %q, want %q", c.name, steps, c.steps)
		}
		for name, want := range c.want {
			if got := line[name]; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %s is %v, want %v", c.name, name, got, want)
			}
		}
	}
}

// TestDecisionsAreNotLoggedUnasked: at any other level there is no line, and no clock is read for one.
func TestDecisionsAreNotLoggedUnasked(t *testing.T) {
	t.Parallel()
	e, logged := newLoggedEdge(t, zap.InfoLevel, nil)
	if d := e.newDecision(); d != nil {
		t.Error("a request is watched though nobody looks")
	}
	if got := e.get(t, "ada", "/v0/pipes/top_pages.json"); got.StatusCode != http.StatusOK {
		t.Fatalf("status %d", got.StatusCode)
	}
	if n := logged.Len(); n != 0 {
		t.Errorf("%d lines", n)
	}
}

// TestP4DecisionsHoldNoSecret: whatever a client sends as the name or the value of a parameter, no token and no value is in the lines.
func TestP4DecisionsHoldNoSecret(t *testing.T) {
	t.Parallel()
	e, logged := newLoggedEdge(t, zap.DebugLevel, nil)
	token := e.bearer(t, "ada")
	long := strings.Repeat("planted_", 4) // as long as the shortest key that a config may have
	targets := []string{
		"?days=planted_value&token=planted_value", "?" + token + "=1", "?" + e.stack.API.SigningKey() + "=1", "?" + long + "=1", "?planted.name=1", "?organization_id=planted_value",
	}
	for _, target := range targets {
		r := e.request(t, "", http.MethodGet, "/v0/pipes/live_events.json"+target, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Traceparent", "planted")
		e.do(t, r)
	}
	body := fmt.Sprintf(`{%q:1,%q:1,%q:"planted_value"}`, token, long, "days")
	e.do(t, e.request(t, "ada", http.MethodPost, "/v0/pipes/live_events.json", []byte(body)))
	decidedLine(t, logged, len(targets)+1)
	var text strings.Builder
	for _, entry := range logged.All() {
		fmt.Fprintln(&text, entry.Message, entry.ContextMap())
	}
	secrets := []string{token, e.stack.API.SigningKey(), "planted", "eyJ"}
	for _, up := range e.stack.API.Requests() {
		secrets = append(secrets, up.Tokens...)
	}
	for _, secret := range secrets {
		if strings.Contains(text.String(), secret) {
			t.Errorf("%q is in the lines:\n%s", secret, text.String())
		}
	}
	if !strings.Contains(text.String(), "_other") || !strings.Contains(text.String(), "days") {
		t.Errorf("no name was told, so the test shows nothing:\n%s", text.String())
	}
}
