package caddytinybird

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

const endpoint = "/tinybird/token"

func withTokenEndpoint(h *Handler) {
	h.TokenEndpoint = endpoint
	h.Pipes = append(h.Pipes, Pipe{Names: []string{"for_admins"}, Require: []Requirement{{Kind: "role", Values: []string{"org:nobody"}}}})
}

// handed is what the token endpoint answered.
type handed struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
	API       string    `json:"api"`
}

func (r reply) handed(t testing.TB) handed {
	t.Helper()
	var out handed
	if err := json.Unmarshal(r.body, &out); err != nil || r.StatusCode != http.StatusOK || out.Token == "" {
		t.Fatalf("status %d: %v", r.StatusCode, err)
	}
	return out
}

// direct asks Tinybird itself.
func (e *edge) direct(t testing.TB, token, target, body string) reply {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	r := e.request(t, "", method, target, []byte(body))
	at, err := r.URL.Parse(e.stack.APIURL + target)
	if err != nil {
		t.Fatal(err)
	}
	r.URL, r.Host = at, at.Host
	r.Header.Set("Authorization", "Bearer "+token)
	return e.do(t, r)
}

// scopesOf is the pipes of the token that Tinybird saw last.
func (e *edge) scopesOf(t testing.TB) []string {
	t.Helper()
	up := e.stack.API.Requests()
	scopes, _ := up[len(up)-1].Claims["scopes"].([]any)
	pipes := make([]string, 0, len(scopes))
	for _, s := range scopes {
		scope, _ := s.(map[string]any)
		pipe, _ := scope["resource"].(string)
		if scope["type"] != "PIPES:READ" {
			t.Errorf("scope of type %v", scope["type"])
		}
		pipes = append(pipes, pipe)
	}
	return pipes
}

// TestTokenEndpointReadsOnlyTheTenant: the token works at Tinybird, for each pipe that the user may read, and whatever its
// holder adds to the URL the rows are the tenant's own.
func TestTokenEndpointReadsOnlyTheTenant(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withTokenEndpoint)
	for user, slug := range map[string]string{"ada": "acme", "cleo": "globex"} {
		u, _ := devstack.UserByKey(user)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			got := e.do(t, e.request(t, user, method, endpoint, nil))
			out := got.handed(t)
			if out.API != stack.APIURL || got.Header.Get("Content-Type") != "application/json" ||
				got.Header.Get("Cache-Control") != "private, no-store" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: api %s, %v", method, out.API, got.Header)
			}
			if left := time.Until(out.ExpiresAt); left <= 0 || left > 62*time.Second || out.ExpiresAt.Location() != time.UTC {
				t.Errorf("expires at %v", out.ExpiresAt)
			}
			for _, target := range []string{
				"/v0/pipes/live_events.json",
				"/v0/pipes/live_events.json?organization_id=" + devstack.AcmeID,
				"/v0/pipes/live_events.json?organization_id=" + devstack.GlobexID + "&organization_id=" + devstack.AcmeID,
				"/v0/pipes/live_events.json?organization_id=&ORGANIZATION_ID=" + devstack.GlobexID,
			} {
				onlyTenant(t, e.direct(t, out.Token, target, ""), slug)
				onlyTenant(t, e.direct(t, out.Token, target, `{"organization_id":"`+devstack.GlobexID+`","limit":5}`), slug)
			}
			pipes := e.scopesOf(t)
			if !slices.IsSorted(pipes) || len(slices.Compact(slices.Clone(pipes))) != len(pipes) || len(pipes) != 8 {
				t.Errorf("scopes %v", pipes)
			}
			if slices.Contains(pipes, "for_admins") {
				t.Error("a scope for a pipe whose requirement does not hold")
			}
			claims := stack.API.Requests()[len(stack.API.Requests())-1].Claims
			if claims["name"] != u.Organization.ID {
				t.Errorf("counted under %v", claims["name"])
			}
			if r := e.direct(t, out.Token, "/v0/pipes/for_admins.json", ""); r.StatusCode != http.StatusForbidden {
				t.Errorf("a pipe that is not in it: %d", r.StatusCode)
			}
		}
	}
}

// TestTokenEndpointLeavesOutWhatHasNoValue: a pipe with a fixed parameter that the session has no value for is not in the
// token, and never in it without that parameter. With none left there is no token.
func TestTokenEndpointLeavesOutWhatHasNoValue(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withTokenEndpoint)
	for _, team := range []any{nil, "", []string{}, map[string]any{"a": 1}} {
		out := e.do(t, withToken(t, e, endpoint, devstack.Claim("team_id", team))).handed(t)
		e.direct(t, out.Token, "/v0/pipes/live_events.json", "")
		if pipes := e.scopesOf(t); slices.Contains(pipes, "team_activity") || len(pipes) != 7 {
			t.Errorf("team %v: scopes %v", team, pipes)
		}
	}
	if got := e.get(t, "dana", endpoint); got.StatusCode != http.StatusForbidden || got.code(t) != "tenant_missing" {
		t.Errorf("no organization: %d %s", got.StatusCode, got.body)
	}
	e = newEdge(t, stack, func(h *Handler) {
		withTokenEndpoint(h)
		h.Pipes = h.Pipes[len(h.Pipes)-1:]
	})
	if got := e.get(t, "ada", endpoint); got.StatusCode != http.StatusForbidden || got.code(t) != "not_allowed" {
		t.Errorf("no requirement holds: %d %s", got.StatusCode, got.body)
	}
}

// TestTokenEndpointRefuses: nobody gets a token without a session, and a session gets it at the one path, spelled so.
func TestTokenEndpointRefuses(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		h.TokenEndpoint = endpoint
		acceptTemplates(h)
	})
	for name, tt := range map[string]struct {
		opts []devstack.TokenOption
		code string
	}{
		"expired":    {[]devstack.TokenOption{devstack.Expired()}, "token_expired"},
		"foreign":    {[]devstack.TokenOption{devstack.ForeignKey()}, "token_invalid"},
		"unsigned":   {[]devstack.TokenOption{devstack.AlgNone()}, "token_invalid"},
		"pending":    {[]devstack.TokenOption{devstack.Pending()}, "session_pending"},
		"a template": {[]devstack.TokenOption{devstack.Template()}, "token_wrong_type"},
	} {
		got := e.do(t, withToken(t, e, endpoint, tt.opts...))
		if got.StatusCode != http.StatusUnauthorized || got.code(t) != tt.code {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	if got := e.get(t, "", endpoint); got.code(t) != "token_missing" || got.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("nobody: %d %s", got.StatusCode, got.body)
	}
	// Attack: a template's token, or one from here, exchanged for ever newer ones after its user signed out.
	for name, token := range map[string]string{
		"a template's token": templateToken(t, stack, nil),
		"its own":            e.get(t, "ada", endpoint).handed(t).Token,
		"the signing key":    stack.API.SigningKey(),
	} {
		if got := e.show(t, token, endpoint); got.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got.StatusCode)
		}
		if name == "its own" {
			if got := e.show(t, token, "/v0/pipes/live_events.json"); got.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s, for a pipe: %d", name, got.StatusCode)
			}
		}
	}
	for _, path := range []string{
		"/tinybird/token/", "/tinybird//token", "//tinybird/token", "/Tinybird/Token", "/tinybird/%74oken", "/tinybird%2ftoken", "/tinybird/token.json",
		"/tinybird/token;x", "/x/../tinybird/token", "/tinybird/./token", "/tinybird/token%00", "/tinybird/token%20", "/tinybird",
	} {
		if got := e.get(t, "ada", path); got.StatusCode != http.StatusNotFound || got.code(t) != "not_found" {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch} {
		if got := e.do(t, e.request(t, "ada", method, endpoint, nil)); got.StatusCode != http.StatusMethodNotAllowed || got.Header.Get("Allow") != "GET, POST" {
			t.Errorf("%s: %d, Allow %q", method, got.StatusCode, got.Header.Get("Allow"))
		}
	}
	if up := stack.API.Requests(); len(up) != 0 {
		t.Errorf("%d requests went up", len(up))
	}
}

// TestTokenEndpointFromAnotherSite: a page of another site can make its visitor's browser ask for a token, with cookies, and
// cannot read it: it has no permission, and as a script the answer is a syntax error of a type that no browser runs.
func TestTokenEndpointFromAnotherSite(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		withTokenEndpoint(h)
		withCORS(h)
	})
	cookies, err := stack.Issuer.Cookies("ada")
	if err != nil {
		t.Fatal(err)
	}
	for _, origin := range []string{"https://evil.example", "null", ownSite} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			r := e.request(t, "", method, endpoint, nil)
			for _, c := range cookies {
				r.AddCookie(c)
			}
			r.Header.Set("Origin", origin)
			got := e.do(t, r)
			if allowed := got.Header.Get("Access-Control-Allow-Origin"); (origin == ownSite) != (allowed == origin) || origin != ownSite && len(corsHeaders(got.Header)) != 0 {
				t.Errorf("%s: allowed %q", origin, allowed)
			}
			if got.Header.Get("X-Content-Type-Options") != "nosniff" || got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: %v", origin, got.Header)
			}
		}
	}
}

// TestTokenEndpointIsCounted: asking for tokens counts against the tenant's rate, whatever they are for, and the token carries that
// rate under the tenant's name.
func TestTokenEndpointIsCounted(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		withTokenEndpoint(h)
		h.RateLimit = &RateLimit{RPS: "1", Burst: 3}
		h.Pipes[1].RateLimit = &RateLimit{RPS: "3"}
	})
	out := e.get(t, "ada", endpoint).handed(t)
	e.direct(t, out.Token, "/v0/pipes/live_events.json", "")
	if name, rps := nameAndRate(stack.API.Requests()[0]); rps != "1" || name != devstack.AcmeID {
		t.Errorf("counted under %s at %s", name, rps)
	}
	e.get(t, "ada", endpoint+"?pipe=my_activity").handed(t)
	e.get(t, "ada", "/v0/pipes/live_events.json") // counts for the same tenant
	got := e.get(t, "ben", endpoint)              // of the same organization
	if got.StatusCode != http.StatusTooManyRequests || got.code(t) != "rate_limited" || got.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %s, %v", got.StatusCode, got.body, got.Header)
	}
	e.get(t, "cleo", endpoint).handed(t)

	// A rate that does not resolve is never no rate.
	for _, configure := range []func(*Handler){
		func(h *Handler) { h.RateLimit = &RateLimit{RPS: "{nowhere}"} },
		func(h *Handler) { h.Pipes[1].RateLimit = &RateLimit{RPS: "{nowhere}"} },
	} {
		e = newEdge(t, stack, func(h *Handler) {
			withTokenEndpoint(h)
			configure(h)
		})
		if got := e.get(t, "ada", endpoint+"?pipe=my_activity"); got.StatusCode != http.StatusForbidden || got.code(t) != "not_allowed" {
			t.Errorf("%d %s", got.StatusCode, got.body)
		}
	}
}

// nameAndRate is what Tinybird counts a request under, and at which rate.
func nameAndRate(up devstack.Recorded) (name, rps string) {
	name, _ = up.Claims["name"].(string)
	limits, _ := up.Claims["limits"].(map[string]any)
	n, _ := limits["rps"].(json.Number)
	return name, n.String()
}

// TestTokenEndpointForOnePipe: a pipe with a rate of its own is in no token but its own, which has that rate.
func TestTokenEndpointForOnePipe(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		withTokenEndpoint(h)
		h.Pipes[1].RateLimit = &RateLimit{RPS: "3"}
	})
	all := e.get(t, "ada", endpoint).handed(t)
	if got := e.direct(t, all.Token, "/v0/pipes/my_activity.json", ""); got.StatusCode != http.StatusForbidden {
		t.Errorf("the token for all pipes reads one with a rate of its own: %d", got.StatusCode)
	}
	if pipes := e.scopesOf(t); slices.Contains(pipes, "my_activity") || len(pipes) != 7 {
		t.Errorf("scopes %v", pipes)
	}
	for pipe, want := range map[string][2]string{"my_activity": {devstack.AcmeID + ":my_activity", "3"}, "live_events": {devstack.AcmeID, ""}} {
		alone := e.get(t, "ada", endpoint+"?pipe="+pipe+"&token=x").handed(t)
		if got := e.direct(t, alone.Token, "/v0/pipes/"+pipe+".json", ""); got.StatusCode != http.StatusOK || len(got.rows(t)) == 0 {
			t.Errorf("%s: %d", pipe, got.StatusCode)
		}
		up := stack.API.Requests()
		name, rps := nameAndRate(up[len(up)-1])
		if pipes := e.scopesOf(t); len(pipes) != 1 || pipes[0] != pipe || name != want[0] || rps != want[1] {
			t.Errorf("%s: scopes %v, counted under %s at %q", pipe, pipes, name, rps)
		}
		if got := e.direct(t, alone.Token, "/v0/pipes/top_pages.json", ""); got.StatusCode != http.StatusForbidden {
			t.Errorf("%s: it reads another pipe: %d", pipe, got.StatusCode)
		}
	}
	for query, want := range map[string]struct {
		status int
		code   string
	}{
		"pipe=nowhere":                 {404, "not_found"},
		"pipe=t_live0events":           {404, "not_found"},
		"pipe=Live_Events":             {404, "not_found"},
		"pipe=for_admins":              {403, "not_allowed"},
		"pipe=":                        {400, "bad_query"},
		"pipe":                         {400, "bad_query"},
		"pipe=live_events&pipe=x":      {400, "bad_query"},
		"pipe=live_events;pipe=x":      {400, "bad_query"},
		"pipe=%zz":                     {400, "bad_query"},
		"pipe=live_events%00":          {404, "not_found"},
		"pipe=live_events,my_activity": {404, "not_found"},
	} {
		if got := e.get(t, "ada", endpoint+"?"+query); got.StatusCode != want.status || got.code(t) != want.code {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.body)
		}
	}
	e = newEdge(t, stack, func(h *Handler) {
		h.TokenEndpoint = endpoint
		for i := range h.Pipes {
			h.Pipes[i].RateLimit = &RateLimit{RPS: "3"}
		}
	})
	if got := e.get(t, "ada", endpoint); got.StatusCode != http.StatusBadRequest || got.code(t) != "bad_query" || !strings.Contains(string(got.body), "?pipe=") {
		t.Errorf("each apart: %d %s", got.StatusCode, got.body)
	}
}

// Attack: a pipe with a rate of its own is read through the edge and, with a token of the endpoint, at Tinybird, to have its rate
// twice.
func TestAttackTwoRatesForOnePipe(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	stack := newStack(t, devstack.Options{API: devstack.APIOptions{Now: func() time.Time { return begin }}})
	e := newEdge(t, stack, func(h *Handler) {
		withTokenEndpoint(h)
		h.Pipes[1].RateLimit = &RateLimit{RPS: "4", Burst: 1000}
	})
	answered := 0
	tokens := []string{e.get(t, "ada", endpoint).handed(t).Token, e.get(t, "ada", endpoint+"?pipe=my_activity").handed(t).Token}
	for range 5 {
		for _, got := range []reply{
			e.get(t, "ada", "/v0/pipes/my_activity.json"),
			e.direct(t, tokens[0], "/v0/pipes/my_activity.json", ""),
			e.direct(t, tokens[1], "/v0/pipes/my_activity.json", ""),
		} {
			if got.StatusCode == http.StatusOK {
				answered++
			}
		}
	}
	if answered != 4 {
		t.Errorf("%d requests of a second were answered, the rate is 4", answered)
	}
}

// TestTokenEndpointPath: a path that means something else here, or that can be spelled in two ways, is refused when the config loads.
func TestTokenEndpointPath(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"", "/", "token", "/token/", "//token", "/a//b", "/a/../b", "/a/./b", "/.", "/..", "/%74oken", "/to ken", "/token?x", "/token#x", "/t*", "/{env.PATH}",
		"https://a.example/token", "/tökén", "/a;b", "/a\\b", "/v0/pipes/top_pages.json", "/v0/pipes/x", "/v0/events", "/v0/sql", "/api/tracking",
		"p.eyJ1IjoicGxhbnRlZCJ9",
	} {
		if err := checkTokenEndpoint(path); err == nil || strings.Contains(err.Error(), "eyJ1") {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, path := range []string{endpoint, "/token", "/a.b/c_d~e-f", "/V0/token"} {
		if err := checkTokenEndpoint(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	stack := newStack(t, devstack.Options{})
	h := testHandler(t, stack)
	h.TokenEndpoint = "/v0/events"
	if err := provision(t, newContext(t, storageDir(t)), h); err == nil {
		t.Error("accepted from JSON")
	}
}

// TestTokenEndpointIsOffByDefault: without the option no path hands out a token.
func TestTokenEndpointIsOffByDefault(t *testing.T) {
	t.Parallel()
	e := newEdge(t, newStack(t, devstack.Options{}), nil)
	for _, path := range []string{endpoint, "/", ""} {
		if got := e.get(t, "ada", path); got.StatusCode != http.StatusNotFound {
			t.Errorf("%q: %d", path, got.StatusCode)
		}
	}
}

// TestTokenEndpointAfterClerkAuth: the token is for whom clerk_auth found.
func TestTokenEndpointAfterClerkAuth(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	lines := strings.Replace(tinybirdOf(t, stack, "token_endpoint "+endpoint), "tinybird /v0/*", "tinybird", 1)
	s := newSite(t, stack, strings.Replace(auth, "issuer", "token_from query access\nissuer", 1)+lines)
	token, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	s.ask(t, endpoint+"?access="+token, nil).handed(t)
	if got := s.ask(t, endpoint, s.as(t, "ada")); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("tinybird found a token for itself: %d", got.StatusCode)
	}
}
