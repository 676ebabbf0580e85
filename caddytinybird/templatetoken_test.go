package caddytinybird

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

type claims = map[string]any

// templateClaims are those of Clerk's Tinybird template for a member of acme, with the claims that Clerk adds.
func templateClaims(stack *devstack.Stack, more claims) claims {
	now := time.Now().Unix()
	c := claims{
		"iss": stack.IssuerURL, "sub": "user_template", "azp": "https://app.example.com", "jti": "template",
		"iat": now, "nbf": now - 5, "exp": now + 60,
		"workspace_id": stack.API.WorkspaceID(), "name": "frontend", "limits": claims{"rps": 10},
		"scopes": []any{templateScope("top_pages", claims{"organization_id": devstack.AcmeID}), templateScope("live_events", claims{"organization_id": devstack.AcmeID})},
	}
	maps.Copy(c, more)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func templateScope(pipe string, fixed any) claims {
	return claims{"type": "PIPES:READ", "resource": pipe, "fixed_params": fixed}
}

func templateToken(t testing.TB, stack *devstack.Stack, more claims) string {
	t.Helper()
	token, err := devstack.SignToken(stack.API.SigningKey(), templateClaims(stack, more))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func acceptTemplates(h *Handler) {
	h.AcceptTemplateTokens = true
	h.Clerk.TokenFrom = []TokenSource{{Source: "header"}, {Source: "cookie"}, {Source: "query", Name: "token"}}
	h.Pipes = append(h.Pipes, Pipe{Names: []string{"for_admins"}, Require: []Requirement{{Kind: "role", Values: []string{"org:admin"}}}})
}

func (e *edge) show(t testing.TB, token, target string) reply {
	t.Helper()
	r := e.request(t, "", http.MethodGet, target, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return e.do(t, r)
}

// TestTemplateTokenReadsItsTenant: the front end of Clerk's template works as it is, from the header and, as Tinybird's charts send
// it, from the query. What goes up is minted anew.
func TestTemplateTokenReadsItsTenant(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, acceptTemplates)
	token := templateToken(t, stack, nil)
	const target = "/v0/pipes/live_events.json"
	onlyTenant(t, e.show(t, token, target), "acme")
	onlyTenant(t, e.get(t, "", target+"?token="+url.QueryEscape(token)), "acme")
	onlyTenant(t, e.get(t, "cleo", target), "globex") // a session goes on working
	for _, up := range stack.API.Requests() {
		if mentions(up, token) || len(up.Tokens) != 1 || up.TokenFrom != "header" || up.Claims["iss"] != nil || up.Claims["limits"] != nil {
			t.Errorf("the template's token, or a part of it, went up: %+v", up.Claims)
		}
	}
}

// TestTemplateTokenIsOffByDefault: the same token is no session.
func TestTemplateTokenIsOffByDefault(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	got := e.show(t, templateToken(t, stack, nil), "/v0/pipes/live_events.json")
	if got.StatusCode != http.StatusUnauthorized || got.code(t) != "token_invalid" {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

// TestAttackTemplateToken: a token that the template did not make for this pipe and one tenant reads nothing. Tinybird is not
// asked.
func TestAttackTemplateToken(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, acceptTemplates)
	fixed := func(fixed any) claims { return claims{"scopes": []any{templateScope("live_events", fixed)}} }
	now := time.Now().Unix()
	for name, attack := range map[string]struct {
		more   claims
		status int
		code   string
	}{
		"a token of the edge itself":    {claims{"iss": nil, "sub": nil, "azp": nil}, 401, "token_invalid"},
		"no issuer":                     {claims{"iss": nil}, 401, "token_wrong_issuer"},
		"another instance":              {claims{"iss": "https://clerk.evil.example"}, 401, "token_wrong_issuer"},
		"no user":                       {claims{"sub": nil}, 401, "token_invalid"},
		"a machine":                     {claims{"sub": "mch_2machine"}, 401, "token_wrong_type"},
		"impersonated":                  {claims{"act": claims{"sub": "user_staff"}}, 401, "token_invalid"},
		"a pending session":             {claims{"sts": "pending"}, 401, "session_pending"},
		"a session of another state":    {claims{"sts": 1}, 401, "token_invalid"},
		"expired":                       {claims{"exp": now - 60}, 401, "token_expired"},
		"no expiry":                     {claims{"exp": nil}, 401, "token_invalid"},
		"for thirty days":               {claims{"exp": now + 30*24*3600}, 401, "token_invalid"},
		"not valid yet":                 {claims{"nbf": now + 600}, 401, "token_not_yet_valid"},
		"another workspace":             {claims{"workspace_id": newUUID()}, 401, "token_invalid"},
		"no workspace":                  {claims{"workspace_id": nil}, 401, "token_invalid"},
		"no scopes":                     {claims{"scopes": nil}, 403, "not_allowed"},
		"scopes that are no list":       {claims{"scopes": templateScope("live_events", claims{"organization_id": devstack.AcmeID})}, 403, "not_allowed"},
		"another pipe":                  {claims{"scopes": []any{templateScope("top_pages", claims{"organization_id": devstack.AcmeID})}}, 403, "not_allowed"},
		"two scopes for the pipe":       {claims{"scopes": []any{templateScope("live_events", claims{"organization_id": devstack.AcmeID}), templateScope("live_events", nil)}}, 403, "not_allowed"},
		"a scope to read a data source": {claims{"scopes": []any{claims{"type": "DATASOURCES:READ", "resource": "live_events", "fixed_params": claims{"organization_id": devstack.AcmeID}}}}, 403, "not_allowed"},
		"an admin's scope":              {claims{"scopes": []any{claims{"type": "ADMIN"}}}, 403, "not_allowed"},
		"a filter that is not known":    {claims{"scopes": []any{claims{"type": "PIPES:READ", "resource": "live_events", "filter": "1=1", "fixed_params": claims{"organization_id": devstack.AcmeID}}}}, 403, "not_allowed"},
		"no fixed parameter":            {fixed(nil), 403, "tenant_missing"},
		"null, as without organization": {fixed(claims{"organization_id": nil}), 403, "tenant_missing"},
		"empty":                         {fixed(claims{"organization_id": " "}), 403, "tenant_missing"},
		"a list":                        {fixed(claims{"organization_id": []string{devstack.AcmeID, devstack.GlobexID}}), 403, "tenant_missing"},
		"an object":                     {fixed(claims{"organization_id": claims{"a": 1}}), 403, "tenant_missing"},
		"a further one that is null":    {fixed(claims{"organization_id": devstack.AcmeID, "user_id": nil}), 403, "tenant_missing"},
		"another letter case":           {fixed(claims{"organization_id": devstack.AcmeID, "Organization_ID": devstack.GlobexID}), 403, "not_allowed"},
		"a further one named token":     {fixed(claims{"organization_id": devstack.AcmeID, "token": "x"}), 403, "not_allowed"},
		"a further one that is no name": {fixed(claims{"organization_id": devstack.AcmeID, "a b": "x"}), 403, "not_allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(stack.API.Requests())
			got := e.show(t, templateToken(t, stack, attack.more), "/v0/pipes/live_events.json")
			if got.StatusCode != attack.status || got.code(t) != attack.code {
				t.Errorf("%d %s, want %d %s", got.StatusCode, got.body, attack.status, attack.code)
			}
			if len(stack.API.Requests()) != before {
				t.Error("Tinybird was asked")
			}
		})
	}
	for target, want := range map[string]string{
		"/v0/pipes/for_admins.json":       "not_allowed",
		"/v0/pipes/everyones_secret.json": "not_found",
		"/v0/pipes/live_events.exe":       "not_found",
	} {
		scopes := claims{"scopes": []any{templateScope("for_admins", claims{"organization_id": devstack.AcmeID}), templateScope("everyones_secret", nil)}}
		if got := e.show(t, templateToken(t, stack, scopes), target); got.code(t) != want {
			t.Errorf("%s: %d %s, want %s", target, got.StatusCode, got.body, want)
		}
	}
}

// TestAttackTemplateTokenAlgorithms: the signing key verifies HS256 and nothing else, Clerk's keys verify none of it, and
// the header's word for it does not matter.
func TestAttackTemplateTokenAlgorithms(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, acceptTemplates)
	key := []byte(stack.API.SigningKey())
	sign := func(method jwt.SigningMethod, with any, header claims) string {
		token := jwt.NewWithClaims(method, jwt.MapClaims(templateClaims(stack, nil)))
		maps.Copy(token.Header, header)
		text, err := token.SignedString(with)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good := templateToken(t, stack, nil)
	for name, token := range map[string]string{
		"another key":                sign(jwt.SigningMethodHS256, []byte(strings.Repeat("k", 64)), nil),
		"HS512":                      sign(jwt.SigningMethodHS512, key, nil),
		"none":                       sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil),
		"HS256 that says RS256":      sign(jwt.SigningMethodHS256, key, claims{"alg": "RS256"}),
		"HS256 that says hs256":      sign(jwt.SigningMethodHS256, key, claims{"alg": "hs256"}),
		"crit":                       sign(jwt.SigningMethodHS256, key, claims{"crit": []string{"exp"}}),
		"another typ":                sign(jwt.SigningMethodHS256, key, claims{"typ": "at+jwt"}),
		"a session's category":       sign(jwt.SigningMethodHS256, key, claims{"cat": "cl_B7d4PD111AAA"}),
		"a session that says HS256":  e.bearer(t, "ada", devstack.Header("alg", "HS256")),
		"no signature":               good[:strings.LastIndexByte(good, '.')+1],
		"a changed signature":        good[:len(good)-4] + "AAAA",
		"the signing key as a token": stack.API.SigningKey(),
		"a claim twice":              twice(t, stack),
		"too large":                  templateToken(t, stack, claims{"x": strings.Repeat("x", 9<<10)}),
	} {
		got := e.show(t, token, "/v0/pipes/live_events.json")
		if got.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
}

// twice signs a token in which the scopes are given twice.
func twice(t testing.TB, stack *devstack.Stack) string {
	t.Helper()
	parts := strings.Split(templateToken(t, stack, nil), ".")
	raw, err := jwt.NewParser().DecodeSegment(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	body := strings.TrimSuffix(string(raw), "}") + `,"scopes":[{"type":"PIPES:READ","resource":"live_events"}]}`
	input := parts[0] + "." + (&jwt.Token{}).EncodeSegment([]byte(body))
	sig, err := jwt.SigningMethodHS256.Sign(input, []byte(stack.API.SigningKey()))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + (&jwt.Token{}).EncodeSegment(sig)
}

// TestAttackTemplateTokenBesideSession: the first place that holds a token decides, and a bad one there is no reason to look
// further. Cookies never hold a template's token.
func TestAttackTemplateTokenBesideSession(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, acceptTemplates)
	good := templateToken(t, stack, nil)
	bad := templateToken(t, stack, claims{"exp": time.Now().Unix() - 600})
	const target = "/v0/pipes/live_events.json"

	if got := e.show(t, bad, target+"?token="+good); got.code(t) != "token_expired" {
		t.Errorf("a bad token in the header, a good one in the query: %d %s", got.StatusCode, got.body)
	}
	cookies, err := stack.Issuer.Cookies("cleo")
	if err != nil {
		t.Fatal(err)
	}
	r := e.request(t, "", http.MethodGet, target+"?token="+good, nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	onlyTenant(t, e.do(t, r), "globex") // cookies come before the query
	r = e.request(t, "", http.MethodGet, target, nil)
	r.Header.Set("Cookie", "__client_uat=1; __session="+good)
	if got := e.do(t, r); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("in a cookie: %d %s", got.StatusCode, got.body)
	}
}

// TestAttackTemplateTokenParameters: what the token fixes besides the config's parameters stays fixed, and the client sets none of
// it.
func TestAttackTemplateTokenParameters(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		acceptTemplates(h)
		h.Pipes[0].FixedParams = []FixedParam{{Name: "limit", Value: "3", Type: "number"}}
	})
	token := templateToken(t, stack, claims{"scopes": []any{templateScope("live_events", claims{"organization_id": devstack.AcmeID, "country": "DE"})}})
	got := e.show(t, token, "/v0/pipes/live_events.json?organization_id="+devstack.GlobexID+"&Country=FR&country=FR&limit=100&days=7")
	onlyTenant(t, got, "acme")
	up := stack.API.Requests()
	last := up[len(up)-1]
	if last.RawQuery != "days=7" {
		t.Errorf("went up: %s", last.RawQuery)
	}
	if n := len(got.rows(t)); n > 3 {
		t.Errorf("%d rows, the config fixes the limit to 3", n)
	}
	other := templateToken(t, stack, claims{"scopes": []any{templateScope("live_events", claims{"organization_id": devstack.AcmeID, "limit": 1000})}})
	if got := e.show(t, other, "/v0/pipes/live_events.json"); got.code(t) != "not_allowed" {
		t.Errorf("a token that contradicts the config: %d %s", got.StatusCode, got.body)
	}
}

// TestTemplateTokensNeedClerk: a clerk_auth that decides alone would refuse them, so the config says so.
func TestTemplateTokensNeedClerk(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	ctx := newContext(t, storageDir(t))
	siteOf(ctx).guarded = true
	h := testHandler(t, stack)
	h.Clerk, h.AcceptTemplateTokens = nil, true
	if err := provision(t, ctx, h); err == nil || !strings.Contains(err.Error(), "accept_template_tokens needs") {
		t.Errorf("error %v", err)
	}
}

// TestAttackTemplateTokenClaims: claims that a template has of its own are not those of a session, though they have their names:
// they may come from what users say of themselves.
func TestAttackTemplateTokenClaims(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		acceptTemplates(h)
		h.FixedParams[0].Value = "{clerk.claims.tenant}"
		h.Token = &Token{Name: "{clerk.claims.bucket}"}
	})
	more := claims{
		"tenant": devstack.GlobexID, "bucket": "of_my_own", "o": claims{"id": devstack.GlobexID}, "org_id": devstack.GlobexID, "v": 2,
		"scopes": []any{templateScope("live_events", nil)},
	}
	if got := e.show(t, templateToken(t, stack, more), "/v0/pipes/live_events.json"); got.code(t) != "tenant_missing" {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	more["scopes"] = []any{templateScope("live_events", claims{"organization_id": devstack.AcmeID})}
	onlyTenant(t, e.show(t, templateToken(t, stack, more), "/v0/pipes/live_events.json"), "acme")
	if name := stack.API.Requests()[0].Claims["name"]; name != "user_template" {
		t.Errorf("counted under %v", name)
	}
}

// TestTemplateTokenAfterClerkAuth: whom a clerk_auth has decided about, a template's token does not make somebody else, or anybody.
func TestTemplateTokenAfterClerkAuth(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, "global clerk {pk} {\nglobal issuer {issuer}\nglobal }\n"+
		strings.Replace(auth, "issuer", "optional\ntoken_from cookie\nissuer", 1)+tinybirdOf(t, stack, "accept_template_tokens"))
	show := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+templateToken(t, stack, nil)) }
	if got := s.ask(t, "/v0/pipes/live_events.json", show); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	onlyTenant(t, s.ask(t, "/v0/pipes/live_events.json", func(r *http.Request) {
		s.withCookies(t, "cleo")(r)
		show(r)
	}), "globex")
}

// TestTemplateTokenCountsForItsTenant: while both kinds of token work, an organization has one rate, however its users come.
func TestTemplateTokenCountsForItsTenant(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		acceptTemplates(h)
		h.RateLimit = &RateLimit{RPS: "1", Burst: 4}
	})
	begin := time.Now()
	for n := range 8 {
		if n%2 == 0 {
			e.get(t, "ada", "/v0/pipes/live_events.json")
			continue
		}
		e.show(t, templateToken(t, stack, claims{"sub": "user_" + string(rune('a'+n))}), "/v0/pipes/live_events.json")
	}
	up := stack.API.Requests()
	if most := 4 + int(time.Since(begin).Seconds()) + 1; len(up) > most || len(up) < 4 {
		t.Errorf("%d requests were let through, the burst is 4", len(up))
	}
	for _, r := range up {
		if name, rps := nameAndRate(r); name != devstack.AcmeID || rps != "1" {
			t.Errorf("counted under %s at %s", name, rps)
		}
	}
}
