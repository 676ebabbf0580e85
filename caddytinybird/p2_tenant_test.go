package caddytinybird

import (
	"net/http"
	"net/url"
	"reflect"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestP2FixedParamsCannotBeSet: no spelling of a fixed parameter in query or body reaches Tinybird, and the rows
// are the caller's own even when Tinybird lets a body win over the token.
func TestP2FixedParamsCannotBeSet(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{API: devstack.APIOptions{BodyBeatsFixed: true}})
	e := newEdge(t, stack, nil)
	victim := devstack.GlobexID

	for name, attack := range map[string]struct{ query, body string }{
		"query":                 {query: "organization_id=" + victim},
		"query, twice":          {query: "organization_id=" + victim + "&organization_id=" + victim},
		"query, upper case":     {query: "ORGANIZATION_ID=" + victim},
		"query, encoded":        {query: "%6frganization_id=" + victim},
		"query, encoded twice":  {query: "%256frganization_id=" + victim},
		"query, plus":           {query: "organization_id+=" + victim},
		"query, array":          {query: "organization_id[]=" + victim + "&organization_id[0]=" + victim},
		"query, long s":         {query: url.QueryEscape("organiſation_id") + "=" + victim},
		"query, kelvin sign":    {query: url.QueryEscape("toKen") + "=" + victim},
		"body":                  {body: `{"organization_id":"` + victim + `"}`},
		"body, upper case":      {body: `{"Organization_Id":"` + victim + `"}`},
		"body, escaped":         {body: `{"\u006frganization_id":"` + victim + `"}`},
		"body, array value":     {body: `{"organization_id":["` + victim + `"]}`},
		"query and body":        {query: "organization_id=" + victim, body: `{"limit":5,"organization_id":"` + victim + `"}`},
		"sql in the query":      {query: "q=select+*+from+_"},
		"sql in the body":       {body: `{"q":"select * from _"}`},
		"pipeline":              {query: "pipeline=x", body: `{"pipeline":"x"}`},
		"instructions":          {query: "explain=true&debug=select&template_parameters=%7B%22organization_id%22%3A%22" + victim + "%22%7D", body: `{"template_parameters":{"organization_id":"` + victim + `"}}`},
		"deployment":            {query: "__tb__deployment=staging", body: `{"__TB__semver":"1"}`},
		"empty":                 {query: "organization_id=&organization_id"},
		"null":                  {body: `{"organization_id":null}`},
		"case of another param": {query: "Limit=1"},
	} {
		t.Run(name, func(t *testing.T) {
			method, body := http.MethodGet, []byte(nil)
			if attack.body != "" {
				method, body = http.MethodPost, []byte(attack.body)
			}
			stack.API.Reset()
			onlyTenant(t, e.do(t, e.request(t, "ada", method, "/v0/pipes/live_events.json?"+attack.query, body)), "acme")
			for _, up := range stack.API.Requests() {
				if mentions(up, victim) || mentions(up, "organization_id") || mentions(up, "__tb__") || mentions(up, "select") || mentions(up, "pipeline") {
					t.Errorf("the client's value went up: %s ? %s: %s", up.Path, up.RawQuery, up.Body)
				}
			}
		})
	}
}

// TestP2DoubledParamsAreRefused: what two readers could read in two ways is refused, and nothing goes up.
func TestP2DoubledParamsAreRefused(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	for name, attack := range map[string]struct{ query, body, code string }{
		"semicolon":           {query: "limit=1;organization_id=" + devstack.GlobexID, code: "bad_query"},
		"bad escape":          {query: "limit=%zz", code: "bad_query"},
		"cut escape":          {query: "limit=%6", code: "bad_query"},
		"body, member twice":  {body: `{"limit":1,"limit":2}`, code: "bad_body"},
		"body, escaped twice": {body: `{"limit":1,"\u006cimit":2}`, code: "bad_body"},
		"body, array":         {body: `[{"organization_id":"x"}]`, code: "bad_body"},
		"body, trailing":      {body: `{"limit":1}{"organization_id":"x"}`, code: "bad_body"},
		"body, no JSON":       {body: `select * from events`, code: "bad_body"},
	} {
		t.Run(name, func(t *testing.T) {
			method, body := http.MethodGet, []byte(nil)
			if attack.body != "" {
				method, body = http.MethodPost, []byte(attack.body)
			}
			stack.API.Reset()
			got := e.do(t, e.request(t, "ada", method, "/v0/pipes/live_events.json?"+attack.query, body))
			if got.StatusCode != http.StatusBadRequest || got.code(t) != attack.code {
				t.Errorf("status %d, %s", got.StatusCode, got.body)
			}
			if up := stack.API.Requests(); len(up) != 0 {
				t.Errorf("%d requests went up", len(up))
			}
		})
	}
}

// TestP2NoValueNoToken: without a value for a fixed parameter there is no token and no request, whatever the pipe
// would do with an undefined parameter.
func TestP2NoValueNoToken(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	for name, r := range map[string]*http.Request{
		"no organization":      e.request(t, "dana", http.MethodGet, "/v0/pipes/leaky_report.json", nil),
		"no team":              withToken(t, e, "/v0/pipes/team_activity.json", devstack.NoClaim("team_id")),
		"null team":            withToken(t, e, "/v0/pipes/team_activity.json", devstack.Claim("team_id", nil)),
		"empty team":           withToken(t, e, "/v0/pipes/team_activity.json", devstack.Claim("team_id", "")),
		"object":               withToken(t, e, "/v0/pipes/team_activity.json", devstack.Claim("team_id", map[string]any{"a": 1})),
		"empty list":           withToken(t, e, "/v0/pipes/team_activity.json", devstack.Claim("team_id", []string{})),
		"comma in a list":      withToken(t, e, "/v0/pipes/team_activity.json", devstack.Claim("team_id", []string{"a,b"})),
		"control character":    withToken(t, e, "/v0/pipes/team_activity.json", devstack.Claim("team_id", "a\nb")),
		"empty organization":   withToken(t, e, "/v0/pipes/top_pages.json", devstack.Claim("o", map[string]any{"id": ""})),
		"organization, number": withToken(t, e, "/v0/pipes/top_pages.json", devstack.Claim("o", map[string]any{"id": []any{}})),
	} {
		t.Run(name, func(t *testing.T) {
			stack.API.Reset()
			got := e.do(t, r)
			if got.StatusCode != http.StatusForbidden || got.code(t) != "tenant_missing" {
				t.Errorf("status %d, %s", got.StatusCode, got.body)
			}
			if up := stack.API.Requests(); len(up) != 0 {
				t.Errorf("%d requests went up", len(up))
			}
		})
	}
}

// TestP2ValuesAreNotExpandedAgain: a value from a token that looks like a placeholder stays text.
func TestP2ValuesAreNotExpandedAgain(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	const planted = "{env.PATH}{file./etc/passwd}{clerk.user.id}"
	e.do(t, withToken(t, e, "/v0/pipes/team_activity.json", devstack.Claim("team_id", planted)))
	up := stack.API.Requests()
	if len(up) != 1 {
		t.Fatalf("%d requests went up", len(up))
	}
	scopes, _ := up[0].Claims["scopes"].([]any)
	scope, _ := scopes[0].(map[string]any)
	fixed, _ := scope["fixed_params"].(map[string]any)
	if fixed["team_id"] != planted {
		t.Errorf("team_id became %v", fixed["team_id"])
	}
}

func withToken(t *testing.T, e *edge, target string, opts ...devstack.TokenOption) *http.Request {
	t.Helper()
	r := e.request(t, "", http.MethodGet, target, nil)
	r.Header.Set("Authorization", "Bearer "+e.bearer(t, "ada", opts...))
	return r
}

// TestP2EachPipeItsOwn: user- and team-level pipes are fixed to the user and the team as well, in a token for that one pipe.
func TestP2EachPipeItsOwn(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	for _, user := range []string{"ada", "ben", "cleo"} {
		u, _ := devstack.UserByKey(user)
		for pipe, want := range map[string]map[string]any{
			"live_events":   {"organization_id": u.Organization.ID},
			"my_activity":   {"organization_id": u.Organization.ID, "user_id": u.ID},
			"team_activity": {"organization_id": u.Organization.ID, "team_id": u.TeamID},
		} {
			stack.API.Reset()
			got := e.get(t, user, "/v0/pipes/"+pipe+".json?user_id=x&team_id=x&organization_id=x")
			if got.StatusCode != http.StatusOK {
				t.Fatalf("%s, %s: status %d, %s", user, pipe, got.StatusCode, got.body)
			}
			claims := stack.API.Requests()[0].Claims
			scopes, _ := claims["scopes"].([]any)
			if len(scopes) != 1 {
				t.Fatalf("%d scopes", len(scopes))
			}
			scope, _ := scopes[0].(map[string]any)
			if scope["resource"] != pipe || scope["type"] != "PIPES:READ" || !reflect.DeepEqual(scope["fixed_params"], want) {
				t.Errorf("%s, %s: scope %v", user, pipe, scope)
			}
			if claims["name"] != u.Organization.ID {
				t.Errorf("counted under %v", claims["name"])
			}
		}
	}
}
