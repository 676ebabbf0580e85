package storm

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// The codes of several cases.
const (
	tokenInvalid = "token_invalid"
	notFound     = "not_found"
)

// refusedCase is one way to be refused.
type refusedCase struct {
	status int
	code   string
	change func(st *storm, a *ask, token string) error
}

// session has the request come with a token that is made in another way.
func sessionWith(opts ...devstack.TokenOption) func(*storm, *ask, string) error {
	return func(st *storm, a *ask, _ string) error {
		token, err := st.sign(a.session, opts...)
		a.header.Set("Authorization", "Bearer "+token)
		return err
	}
}

// tokenAs has it come with the token in another form.
func tokenAs(form func(token string) string) func(*storm, *ask, string) error {
	return func(_ *storm, a *ask, token string) error {
		a.header.Set("Authorization", "Bearer "+form(token))
		return nil
	}
}

func targetAs(target string) func(*storm, *ask, string) error {
	return func(_ *storm, a *ask, _ string) error {
		a.target = target
		return nil
	}
}

func posting(contentType, body string) func(*storm, *ask, string) error {
	return func(_ *storm, a *ask, _ string) error {
		a.method, a.body = http.MethodPost, body
		a.header.Set("Content-Type", contentType)
		return nil
	}
}

var refusedCases = []refusedCase{
	{401, "token_missing", func(_ *storm, a *ask, _ string) error { a.header.Del("Authorization"); return nil }},
	{401, "token_expired", sessionWith(devstack.IssuedAt(time.Unix(1_700_000_000, 0)))},
	{401, "token_wrong_party", sessionWith(devstack.AZP("https://evil.example"))},
	{401, "token_wrong_issuer", sessionWith(devstack.Claim("iss", "https://clerk.evil.example"))},
	{401, "token_wrong_type", sessionWith(devstack.Template())},
	{401, "session_pending", sessionWith(devstack.Pending())},
	{401, tokenInvalid, sessionWith(devstack.Impersonated("user_2eve"))},
	{401, tokenInvalid, sessionWith(devstack.AlgNone())},
	{401, tokenInvalid, sessionWith(devstack.AlgHS256())},
	{401, tokenInvalid, tokenAs(rig.Tampered)},
	{401, tokenInvalid, tokenAs(rig.OtherKid)},
	{401, tokenInvalid, tokenAs(func(string) string { return strings.Repeat(".", 8000) })},
	{401, tokenInvalid, tokenAs(func(token string) string { return token + strings.Repeat("A", 8192-len(token)) })},
	{403, "tenant_missing", sessionWith(devstack.NoClaim("o"))},
	{403, "tenant_missing", sessionWith(devstack.Claim("o", map[string]any{"id": "", "slg": "x", "rol": admin}))},
	{404, notFound, targetAs("/v0/pipes/unlisted.json")},
	{404, notFound, targetAs("/v0/pipes/narrow.csv")},
	{404, notFound, targetAs("/v0/pipes/t_rows.json")},
	{404, notFound, targetAs("/v0/sql?q=SELECT+1")},
	{405, "method_not_allowed", func(_ *storm, a *ask, _ string) error { a.method = http.MethodDelete; return nil }},
	{400, "bad_query", targetAs("/v0/pipes/rows.json?a=1;b=2")},
	{400, "bad_query", targetAs("/v0/pipes/rows.json?a=%zz")},
	{400, "bad_body", posting("application/json", `{"size":1,"\u0073ize":2}`)},
	{400, "bad_body", posting("application/json", `[1]`)},
	{415, "unsupported_body", posting("text/plain", `SELECT 1`)},
	{413, "body_too_large", posting("application/json", `{"x":"`+strings.Repeat("x", 1<<20)+`"}`)},
	{414, "url_too_long", targetAs("/v0/pipes/rows.json?x=" + strings.Repeat("x", 9000))},
}

// refused is what the edge must turn away by itself.
func (st *storm) refused(rng *rand.Rand, a *ask) error {
	c := refusedCases[rng.IntN(len(refusedCases))]
	token := strings.TrimPrefix(a.header.Get("Authorization"), "Bearer ")
	a.target = "/v0/pipes/rows.json?attempt=" + a.attempt()
	generation := st.weather.keys()
	if err := c.change(st, a, token); err != nil {
		return err
	}
	changed := strings.TrimPrefix(a.header.Get("Authorization"), "Bearer ")
	if changed != token { // made just now
		a.generation = generation
	}
	if len(changed) > 16 && strings.Trim(changed, ".") != "" {
		st.Plant("a refused token", changed)
	}
	a.kind = "refused, " + c.code
	a.right = func(got rig.Answer) error { return refusal(got, c.status, c.code) }
	return nil
}
