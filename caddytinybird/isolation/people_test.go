package isolation_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// person is somebody with a session. nil stands for a claim that is not there.
type person struct {
	user   string
	org    any
	slug   string
	role   string
	claims map[string]any // team_id, teams, level, flag, meta

	token  string // of the session
	cookie string // a whole Cookie header
}

// lookalikes are organizations that something could take for one another: by letter case, spaces, prefixes, Unicode, or the marks
// that names, queries, lists and templates are put together with.
var lookalikes = []string{
	"org_A", "org_a", "ORG_A", "org_A ", " org_A", "org_", "org_A1", "org_AA", "org_B", "org_A:", "org_A:sales", "org_A:Sales",
	"org_A::sales", "org_A/events", "org_A,org_B", "org_A, org_B", "org_A;org_B", "org_\u00c1", "org_A\u0301", "org_\uff21", "org_A\u200b",
	"org_\u212a", "org_K", "org_k", "org_\u017f", "org_s", "org_A%20", "org_A+", "org_A&organization_id=org_B", `org_A"`, `org_A"}`, `org_A\`,
	"org_A' OR '1'='1", "{clerk.org.id}", "{clerk.user.id}", "{env.PATH}", "user_1", "1", "1.0", "01", "true", "null", "undefined",
	"_", ":", "::", strings.Repeat("x", 1024), strings.Repeat("x", 1023), "org_A|user_1", "org_A:user_1",
}

// unusable are no organizations: who has one of these reads nothing that is fixed to it.
var unusable = []any{nil, "", " ", "\t", "\u00a0", "org_A\x00", "org_A\norg_B", "org_\ufffd", strings.Repeat("x", 1025), 7, true, []any{"org_A"}, map[string]any{"id": "org_A"}}

var users = []string{"user_1", "user_2", "User_1", "user_1 ", "org_A", "user_1:sales", "user_", "user_11"}

// newPeople signs all of them in.
func newPeople(t testing.TB, issuer *devstack.Issuer) []*person {
	t.Helper()
	var people []*person
	for n, org := range lookalikes {
		people = append(people, &person{user: users[n%len(users)], org: org, claims: custom(n)})
	}
	for n, org := range unusable {
		people = append(people, &person{user: users[n%len(users)], org: org, claims: custom(n)})
	}
	for n, user := range users { // the same organization, several users
		people = append(people, &person{user: user, org: "org_A", claims: custom(n + 1)})
	}
	for n, p := range people {
		p.slug = []string{"a", "A", "org_A", "b"}[n%4]
		if id, _ := p.org.(string); id != "" { // a role is one in an organization
			p.role = []string{"org:admin", "org:member", "org:Admin", "org:admi"}[n/2%4]
		}
		p.sign(t, issuer)
	}
	return people
}

// custom are the claims of a session that an operator adds.
func custom(n int) map[string]any {
	pick := func(of ...any) any { return of[n%len(of)] }
	return map[string]any{
		"team_id": pick("team_1", "team_2", "TEAM_1", nil, "", "team_1,team_2", 5, "team_1"),
		"teams":   pick([]any{"team_1"}, []any{"team_1", "team_2"}, []any{}, nil, []any{"team_1,team_2"}, []any{"team_1", ""}, "team_1", []any{[]any{"x"}}, []any{1, true}),
		"level":   pick(1, 2, json.Number("1.0"), json.Number("1e0"), "1", " 1", nil, json.Number("12345678901234567890"), true, []any{1}),
		"flag":    pick(true, false, "true", "True", nil, 1, []any{true}),
		"meta":    pick(map[string]any{"tenant": "org_A"}, map[string]any{"tenant": "org_a"}, nil, "org_A", map[string]any{"tenant": nil}),
	}
}

func (p *person) sign(t testing.TB, issuer *devstack.Issuer) {
	t.Helper()
	o := map[string]any{"slg": p.slug, "rol": strings.TrimPrefix(cmp.Or(p.role, "org:admin"), "org:")}
	if p.org != nil {
		o["id"] = p.org
	}
	// Dated back, so that a second that ends meanwhile makes no session older than its sign-in.
	opts := []devstack.TokenOption{
		devstack.IssuedAt(time.Now().Add(-time.Minute)), devstack.Lifetime(12 * time.Hour), devstack.Claim("sub", p.user), devstack.Claim("o", o),
	}
	for name, value := range p.claims {
		opts = append(opts, devstack.Claim(name, value))
		if value == nil {
			opts = append(opts, devstack.NoClaim(name))
		}
	}
	var err error
	if p.token, err = issuer.Token("ada", opts...); err != nil {
		t.Fatal(err)
	}
	suffix := issuer.CookieSuffix()
	uat := time.Now().Add(-time.Hour).Unix()
	p.cookie = fmt.Sprintf("__session=%s; __session_%s=%s; __client_uat=%d; __client_uat_%s=%d; __clerk_db_jwt=dvb_1; __clerk_db_jwt_%s=dvb_1",
		p.token, suffix, p.token, uat, suffix, uat, suffix)
}

// badTokens are what somebody could forge who knows the victim: none of them is anybody's session.
func badTokens(t testing.TB, issuer *devstack.Issuer, people []*person) []string {
	t.Helper()
	victim := func(more ...devstack.TokenOption) []devstack.TokenOption {
		return append([]devstack.TokenOption{devstack.Claim("o", map[string]any{"id": "org_A", "rol": "admin"}), devstack.Lifetime(time.Hour)}, more...)
	}
	list := []string{"", "x", "Bearer", "null", "a.b.c", "..", people[0].token + ".", people[0].token[:len(people[0].token)-2], people[0].token + "A"}
	for _, opts := range [][]devstack.TokenOption{
		victim(devstack.Expired()), victim(devstack.ForeignKey()), victim(devstack.AlgNone()), victim(devstack.AlgHS256()), victim(devstack.Pending()),
		victim(devstack.Impersonated("user_x")), victim(devstack.Template()), victim(devstack.M2M()), victim(devstack.OAuth()), victim(devstack.KID("ins_x")),
		victim(devstack.Header("crit", []string{"exp"})), victim(devstack.Claim("iss", "https://clerk.example.com")), victim(devstack.NoClaim("exp")),
	} {
		token, err := issuer.Token("ada", opts...)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, token)
	}
	// One's header and signature around another's claims.
	a, b := strings.Split(people[0].token, "."), strings.Split(people[8].token, ".")
	return append(list, a[0]+"."+b[1]+"."+a[2], strings.ToUpper(people[0].token))
}

// claim is what a session says where a placeholder is written.
func (p *person) claim(placeholder string) any {
	switch placeholder {
	case "clerk.org.id":
		if id, ok := p.org.(string); ok {
			return id
		}
		return nil
	case "clerk.org.slug":
		return p.slug
	case "clerk.user.id":
		return p.user
	case "clerk.claims.meta.tenant":
		meta, _ := p.claims["meta"].(map[string]any)
		return meta["tenant"]
	default:
		return p.claims[strings.TrimPrefix(placeholder, "clerk.claims.")]
	}
}

// part is literal text or, in braces, a placeholder.
type part = string

// fixed is a parameter or a field that the config sets.
type fixed struct {
	name  string
	parts []part
	typ   string // "", number or boolean
}

// of is the value that p reads under; false: it has none, so that nothing may be read.
func (f fixed) of(p *person) (any, bool) {
	text, ok := resolve(f.parts, p, f.typ == "")
	if !ok {
		return nil, false
	}
	switch f.typ {
	case "number":
		n := json.Number(text)
		return n, json.Valid([]byte(text)) && strings.Trim(text, "0123456789.eE+-") == ""
	case "boolean":
		return text == "true", text == "true" || text == "false"
	default:
		return text, true
	}
}

func resolve(parts []part, p *person, lists bool) (string, bool) {
	var b strings.Builder
	for _, part := range parts {
		if !strings.HasPrefix(part, "{") {
			b.WriteString(part)
			continue
		}
		text, ok := textOf(p.claim(strings.Trim(part, "{}")), lists)
		if !ok {
			return "", false
		}
		b.WriteString(text)
	}
	return b.String(), usable(b.String())
}

func textOf(v any, lists bool) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, usable(v)
	case json.Number:
		return v.String(), true
	case int, bool:
		return fmt.Sprint(v), true
	case []any:
		var elements []string
		for _, e := range v {
			text, ok := textOf(e, false)
			if !ok || strings.Contains(text, ",") {
				return "", false
			}
			elements = append(elements, text)
		}
		return strings.Join(elements, ","), lists && len(v) > 0
	default:
		return "", false
	}
}

// usable tells whether text can name a tenant.
func usable(text string) bool {
	return strings.TrimSpace(text) != "" && len(text) <= 1024 && !strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}
