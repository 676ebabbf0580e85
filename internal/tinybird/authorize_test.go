package tinybird

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

func TestAuthorize(t *testing.T) {
	t.Parallel()
	g := tenantGrant(t)
	want := []FixedValue{{"User_Id", "user_1"}, {"organization_id", "org_acme"}}
	if !reflect.DeepEqual(g.Fixed, want) {
		t.Errorf("Fixed = %v, want %v", g.Fixed, want)
	}
	if g.Pipe != "top_pages" || g.Format != "json" || g.TokenName != "org_acme" || g.Rate != nil {
		t.Errorf("grant %+v", g)
	}
}

func TestAuthorizeAnswersAllUnknownAlike(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.Pipes[0].Formats = []string{"json"}
	c.Pipes[0].Require = []Requirement{{Kind: KindRole, Values: []string{"org:admin"}}}
	p := newPolicy(t, c)
	var bodies []string
	for _, ask := range [][2]string{{"nope", "json"}, {"top_pages", "csv"}, {"Top_Pages", "json"}, {"", ""}, {"top_pages", "JSON"}} {
		_, err := p.Authorize(ask[0], ask[1], acme())
		bodies = append(bodies, string(wantRefusal(t, err, http.StatusNotFound, apierr.NotFound).Body()))
	}
	for _, b := range bodies {
		if b != bodies[0] {
			t.Errorf("answers differ: %s and %s", bodies[0], b)
		}
	}
}

func TestAuthorizeRequirements(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.Pipes[0].Require = []Requirement{
		{Kind: KindRole, Values: []string{"org:admin", "org:owner"}},
		{Kind: KindPermission, Values: []string{"org:reports:read"}},
		{Kind: KindFeature, Values: []string{"dashboard"}},
		{Kind: KindPlan, Values: []string{"pro"}},
	}
	p := newPolicy(t, c)
	full := func() subject {
		s := acme()
		s.roles, s.permissions = []string{"org:owner"}, []string{"org:reports:read"}
		s.features, s.plans = []string{"dashboard"}, []string{"pro"}
		return s
	}
	tests := []struct {
		name   string
		change func(*subject)
		ok     bool
	}{
		{"all hold", func(*subject) {}, true},
		{"role missing", func(s *subject) { s.roles = []string{"org:member"} }, false},
		{"permission missing", func(s *subject) { s.permissions = nil }, false},
		{"feature missing", func(s *subject) { s.features = nil }, false},
		{"plan missing", func(s *subject) { s.plans = []string{"free"} }, false},
		// Attack: a value of one kind offered as another.
		{"kinds are apart", func(s *subject) { s.roles, s.plans = []string{"pro"}, []string{"org:owner", "pro"} }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := full()
			tt.change(&s)
			_, err := p.Authorize("top_pages", "json", s)
			if tt.ok && err != nil {
				t.Fatal(err)
			}
			if !tt.ok {
				wantRefusal(t, err, http.StatusForbidden, apierr.NotAllowed)
			}
		})
	}
}

// P2: a fixed parameter without a usable value is 403, never a token without it.
func TestP2FixedParamWithoutValueIsRefused(t *testing.T) {
	t.Parallel()
	deep := map[string]any{"a": "b"}
	values := map[string]any{
		"null":                            nil, // what Clerk's templates emit without an active organization
		"empty":                           "",
		"blank":                           " \t ",
		"object":                          deep,
		"empty list":                      []any{}, // to a pipe it looks like no filter
		"list with null":                  []any{"a", nil},
		"list with empty":                 []any{"a", ""},
		"list with object":                []any{deep},
		"list in list":                    []any{[]any{"a"}},
		"element that becomes two":        []any{"a,b"},
		"newline":                         "org_1\norg_2",
		"NUL":                             "org_1\x00",
		"C1 control":                      "org_1\u0085",
		"broken UTF-8":                    "org_\xff",
		"replaced UTF-8":                  "org_\ufffd", // what decoders make of two different broken values
		"too long":                        strings.Repeat("x", 1025),
		"list too long":                   []any{strings.Repeat("x", 600), strings.Repeat("y", 600)},
		"number that is none":             json.Number("1;2"),
		"number with space":               json.Number("1 "),
		"number that is a word":           json.Number("NaN"),
		"number out of range":             json.Number("1e999"),
		"a kind that JSON has not":        float64(1),
		"another kind that JSON has not":  []string{"a"},
		"a list of a kind JSON has not":   []any{1},
		"a pointer, which is not a value": new("x"),
	}
	p := newPolicy(t, tenantConfig())
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := acme()
			s.values["clerk.org.id"] = v
			g, err := p.Authorize("top_pages", "json", s)
			e := wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
			if g != nil {
				t.Error("there is a grant")
			}
			if !strings.Contains(e.Error(), "fixed_param organization_id: clerk.org.id: ") {
				t.Errorf("the operator is not told which: %v", e)
			}
			if text := fmt.Sprint(v); len(text) > 4 && strings.Contains(e.Error()+e.Message, text) {
				t.Errorf("the value is in the error: %v", e)
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		t.Parallel()
		s := acme()
		delete(s.values, "clerk.org.id")
		_, err := p.Authorize("top_pages", "json", s)
		wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
	})
}

// P2: in mixed text every placeholder must have a value; "team-" is not a tenant.
func TestP2MixedTextNeedsEveryPlaceholder(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.FixedParams[0].Value = "{clerk.org.slug}-{clerk.claims.team}-x"
	p := newPolicy(t, c)
	s := acme()
	for _, v := range []any{nil, "", map[string]any{}} {
		s.values["clerk.claims.team"] = v
		_, err := p.Authorize("top_pages", "json", s)
		wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
	}
	s.values["clerk.claims.team"] = "red"
	g, err := p.Authorize("top_pages", "json", s)
	if err != nil {
		t.Fatal(err)
	}
	if got := g.Fixed[1].Value; got != "acme-red-x" {
		t.Errorf("value %v", got)
	}
}

// Attack: a user-writable claim holds a placeholder, hoping that it is expanded a second time.
func TestValuesAreNotExpandedAgain(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.TokenName = "{clerk.org.slug}"
	p := newPolicy(t, c)
	s := acme()
	s.values["clerk.org.id"] = "{clerk.org.slug}"
	s.values["clerk.org.slug"] = `\{{clerk.user.id}`
	g, err := p.Authorize("top_pages", "json", s)
	if err != nil {
		t.Fatal(err)
	}
	if g.Fixed[1].Value != "{clerk.org.slug}" || g.TokenName != `\{{clerk.user.id}` {
		t.Errorf("grant %+v", g)
	}
}

func TestFixedParamTypes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		value string
		typ   ParamType
		claim any
		want  any // nil: refused
	}{
		{"string of string", "{clerk.claims.x}", "", "a", "a"},
		{"string of number keeps digits", "{clerk.claims.x}", TypeString, json.Number("90071992547409931"), "90071992547409931"},
		{"string of boolean", "{clerk.claims.x}", "", false, "false"},
		{"string of list", "{clerk.claims.x}", "", []any{"a", json.Number("1.50"), true}, "a,1.50,true"},
		{"number of number keeps digits", "{clerk.claims.x}", TypeNumber, json.Number("90071992547409931"), json.Number("90071992547409931")},
		{"number of text", "{clerk.claims.x}", TypeNumber, "-1.5e3", json.Number("-1.5e3")},
		{"number of mixed text", "1{clerk.claims.x}", TypeNumber, json.Number("0"), json.Number("10")},
		{"number of a word", "{clerk.claims.x}", TypeNumber, "ten", nil},
		{"number of padded text", "{clerk.claims.x}", TypeNumber, " 1", nil},
		{"number of hex", "{clerk.claims.x}", TypeNumber, "0x10", nil},
		{"number of leading zero", "{clerk.claims.x}", TypeNumber, "010", nil},
		{"number of infinity", "{clerk.claims.x}", TypeNumber, "1e999", nil},
		{"number of boolean", "{clerk.claims.x}", TypeNumber, true, nil},
		{"number of a list of one", "{clerk.claims.x}", TypeNumber, []any{json.Number("7")}, nil},
		{"boolean of boolean", "{clerk.claims.x}", TypeBoolean, false, false},
		{"boolean of text", "{clerk.claims.x}", TypeBoolean, "true", true},
		{"boolean of other text", "{clerk.claims.x}", TypeBoolean, "True", nil},
		{"boolean of number", "{clerk.claims.x}", TypeBoolean, json.Number("1"), nil},
		{"constant number", "7.0", TypeNumber, nil, json.Number("7.0")},
		{"constant boolean", "false", TypeBoolean, nil, false},
		{"constant braces", `\{a\}`, TypeString, nil, "{a}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPolicy(t, PolicyConfig{CheckPlaceholder: checkClerk, Pipes: []PipeConfig{{
				Names: []string{"a"}, FixedParams: []FixedParam{{"x", tt.value, tt.typ}},
			}}})
			s := acme()
			s.values["clerk.claims.x"] = tt.claim
			g, err := p.Authorize("a", "json", s)
			if tt.want == nil {
				wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(g.Fixed, []FixedValue{{"x", tt.want}}) {
				t.Errorf("Fixed = %#v, want %#v", g.Fixed, tt.want)
			}
		})
	}
}

func TestPipeFixedParamOverridesShared(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.Pipes = []PipeConfig{
		{Names: []string{"mine"}, FixedParams: []FixedParam{{Name: "organization_id", Value: "{clerk.user.id}"}}},
		{Names: []string{"ours"}},
		{Names: []string{"everyones"}, Unrestricted: true},
	}
	p := newPolicy(t, c)
	for pipe, want := range map[string][]FixedValue{
		"mine": {{"organization_id", "user_1"}}, "ours": {{"organization_id", "org_acme"}}, "everyones": nil,
	} {
		g, err := p.Authorize(pipe, "json", acme())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(g.Fixed, want) {
			t.Errorf("%s: Fixed = %v, want %v", pipe, g.Fixed, want)
		}
	}
}

func TestTokenName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		change     func(map[string]any)
		want       string // empty: refused
	}{
		{"organization", "", nil, "org_acme"},
		{"user without organization", "", func(v map[string]any) { delete(v, "clerk.org.id") }, "user_1"},
		{"null organization", "", func(v map[string]any) { v["clerk.org.id"] = nil }, "user_1"},
		{"operator's", "team-{clerk.claims.team}", func(v map[string]any) { v["clerk.claims.team"] = "red" }, "team-red"},
		{"operator's without value", "team-{clerk.claims.team}", nil, "org_acme"},
		{"operator's too long", "{clerk.claims.team}", func(v map[string]any) {
			v["clerk.claims.team"] = strings.Repeat("x", 2000)
		}, "org_acme"},
		{"operator's with control", "{clerk.claims.team}", func(v map[string]any) { v["clerk.claims.team"] = "a\nb" }, "org_acme"},
		{"constant", "everyone", nil, "everyone"},
		{"nobody", "", func(v map[string]any) { clear(v) }, ""},
		{"nobody with text", "{clerk.claims.team}", func(v map[string]any) { clear(v) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPolicy(t, PolicyConfig{
				CheckPlaceholder: checkClerk, TokenName: tt.text, RateLimit: &RateSpec{RPS: "50"},
				Pipes: []PipeConfig{
					{Names: []string{"a"}, Unrestricted: true},
					{Names: []string{"b"}, Unrestricted: true, RateLimit: &RateSpec{RPS: "{rps}", Burst: 9}},
				},
			})
			s := acme()
			if tt.change != nil {
				tt.change(s.values)
			}
			a, err := p.Authorize("a", "csv", s)
			if tt.want == "" {
				wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := p.Authorize("b", "csv", s)
			if err != nil {
				t.Fatal(err)
			}
			if a.TokenName != tt.want || *a.Rate != (RateSpec{RPS: "50"}) {
				t.Errorf("shared rate: %q %v", a.TokenName, a.Rate)
			}
			if b.TokenName != tt.want+":b" || *b.Rate != (RateSpec{RPS: "{rps}", Burst: 9}) {
				t.Errorf("own rate: %q %v", b.TokenName, b.Rate)
			}
		})
	}
}
