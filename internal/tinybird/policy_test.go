package tinybird

import (
	"slices"
	"strings"
	"testing"
)

func TestNewPolicyErrorsNameTheFix(t *testing.T) {
	t.Parallel()
	org := FixedParam{Name: "organization_id", Value: "{clerk.org.id}"}
	pipeOf := func(change func(*PipeConfig)) PolicyConfig {
		p := PipeConfig{Names: []string{"a"}, FixedParams: []FixedParam{org}}
		change(&p)
		return PolicyConfig{CheckPlaceholder: checkClerk, Pipes: []PipeConfig{p}}
	}
	fixed := func(name, value string, typ ParamType) PolicyConfig {
		return pipeOf(func(p *PipeConfig) { p.FixedParams = []FixedParam{{Name: name, Value: value, Type: typ}} })
	}
	tests := []struct {
		name string
		c    PolicyConfig
		want []string // parts of the error
	}{
		{"reserved fixed param", fixed("token", "x", ""), []string{"pipe a: fixed_param token is reserved: "}},
		{"reserved fixed param, other case", fixed("Pipeline", "x", ""), []string{"fixed_param Pipeline is reserved: "}},
		{"reserved prefix", fixed("__TB__deployment", "x", ""), []string{"fixed_param __TB__deployment is reserved: "}},
		{"fixed param name", fixed("a-b", "x", ""), []string{`fixed_param: the name "a-b" is not usable`, "underscores"}},
		{"fixed param without value", fixed("a", "", ""), []string{"fixed_param a: the value is empty: write a string"}},
		{"fixed param type", fixed("a", "x", "int"), []string{`the type "int" is unknown: write string, number or boolean`}},
		{"literal is no number", fixed("a", "07", TypeNumber), []string{"fixed_param a: the value is not a number: write a number"}},
		{"literal is no boolean", fixed("a", "yes", TypeBoolean), []string{"not true or false: write a boolean"}},
		// Attack: the operator fixes a parameter to something the client sends, believing it is checked.
		{"client's query", fixed("a", "{query.org}", ""), []string{`fixed_param a: the placeholder "query.org" cannot be used here`}},
		{"client's header", fixed("a", "x{http.request.header.X}", ""), []string{`"http.request.header.X" cannot be used here`}},
		{"unbalanced", fixed("a", "{clerk.org.id", ""), []string{`fixed_param a: a "{" is not closed`}},
		{"control characters", fixed("a", "x\n{clerk.org.id}", ""), []string{"fixed_param a: the value holds control characters"}},
		{
			"fixed twice", pipeOf(func(p *PipeConfig) { p.FixedParams = []FixedParam{org, org} }),
			[]string{"fixed_param organization_id is given twice"},
		},
		{"fixed twice by case", pipeOf(func(p *PipeConfig) {
			p.FixedParams = []FixedParam{org, {Name: "Organization_ID", Value: "x"}}
		}), []string{"fixed_param Organization_ID is given twice (letter case does not count)"}},
		{
			"shared twice",
			PolicyConfig{CheckPlaceholder: checkClerk, FixedParams: []FixedParam{org, org}},
			[]string{"fixed_param organization_id is given twice"},
		},
		{"override in another case", func() PolicyConfig {
			c := pipeOf(func(p *PipeConfig) { p.FixedParams[0].Name = "ORGANIZATION_id" })
			c.FixedParams = []FixedParam{org}
			return c
		}(), []string{"differs from the shared fixed_param organization_id only in letter case", "spell them alike"}},
		{
			"no fixed param", pipeOf(func(p *PipeConfig) { p.FixedParams = nil }),
			[]string{"pipe a: no fixed_param", "`unrestricted`"},
		},
		{
			"unrestricted with fixed param", pipeOf(func(p *PipeConfig) { p.Unrestricted = true }),
			[]string{"unrestricted contradicts fixed_param organization_id: remove one"},
		},
		{"no name", pipeOf(func(p *PipeConfig) { p.Names = nil }), []string{"pipe has no name"}},
		{"bad name", pipeOf(func(p *PipeConfig) { p.Names = []string{"a.json"} }), []string{`pipe: the name "a.json" is not usable`}},
		{"long name", pipeOf(func(p *PipeConfig) { p.Names = []string{strings.Repeat("a", 129)} }), []string{"at most 128"}},
		{
			"listed twice in one block", pipeOf(func(p *PipeConfig) { p.Names = []string{"a", "b", "a"} }),
			[]string{"pipe a is listed twice"},
		},
		{
			"listed twice",
			PolicyConfig{
				CheckPlaceholder: checkClerk, FixedParams: []FixedParam{org},
				Pipes: []PipeConfig{{Names: []string{"a"}}, {Names: []string{"a"}, Unrestricted: true}},
			},
			[]string{"pipe a is listed twice"},
		},
		{
			"rate 0", pipeOf(func(p *PipeConfig) { p.RateLimit = &RateSpec{RPS: "0"} }),
			[]string{`pipe a: rate_limit "0": the requests per second are not a whole number from 1`, "remove rate_limit"},
		},
		{"shared rate 0", PolicyConfig{RateLimit: &RateSpec{RPS: "0"}}, []string{`rate_limit "0"`}},
		{"burst", pipeOf(func(p *PipeConfig) { p.RateLimit = &RateSpec{RPS: "5", Burst: -1} }), []string{"burst must be"}},
		{"format", pipeOf(func(p *PipeConfig) { p.Formats = []string{"JSON"} }), []string{`formats: "JSON" is unknown: write one of json, csv`}},
		{"format twice", pipeOf(func(p *PipeConfig) { p.Formats = []string{"csv", "csv"} }), []string{"formats: csv is listed twice"}},
		{"no format", pipeOf(func(p *PipeConfig) { p.Formats = []string{} }), []string{"formats lists none"}},
		{
			"requirement kind", pipeOf(func(p *PipeConfig) { p.Require = []Requirement{{Kind: "org", Values: []string{"x"}}} }),
			[]string{`require "org" is unknown: write role, permission, feature or plan`},
		},
		{
			"requirement without values", pipeOf(func(p *PipeConfig) { p.Require = []Requirement{{Kind: KindPlan}} }),
			[]string{"require plan lists no value"},
		},
		{
			"empty requirement", pipeOf(func(p *PipeConfig) { p.Require = []Requirement{{Kind: KindRole, Values: []string{""}}} }),
			[]string{"require role: the value"},
		},
		{"placeholder in requirement", pipeOf(func(p *PipeConfig) {
			p.Require = []Requirement{{Kind: KindRole, Values: []string{"{clerk.org.role}"}}}
		}), []string{"require role: the value"}},
		{"params reserved", pipeOf(func(p *PipeConfig) { p.Params = []string{"Q"} }), []string{"params Q is reserved"}},
		{
			"params fixed", pipeOf(func(p *PipeConfig) { p.Params = []string{"Organization_Id"} }),
			[]string{"params Organization_Id is a fixed parameter"},
		},
		{"params twice", pipeOf(func(p *PipeConfig) { p.Params = []string{"x", "x"} }), []string{"params x is listed twice"}},
		{"params name", pipeOf(func(p *PipeConfig) { p.Params = []string{"x[]"} }), []string{`params: the name "x[]"`}},
		{"params empty", pipeOf(func(p *PipeConfig) { p.Params = []string{} }), []string{"params lists no name"}},
		{
			"token name placeholder",
			PolicyConfig{CheckPlaceholder: checkClerk, TokenName: "{http.request.remote.host}"},
			[]string{`token name: the placeholder "http.request.remote.host" cannot be used here`},
		},
		{"token name blank", PolicyConfig{TokenName: "  "}, []string{"token name: the value is empty"}},
		{"no checker", PolicyConfig{FixedParams: []FixedParam{org}}, []string{"cannot be used here"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewPolicy(tt.c)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not hold %q", err, want)
				}
			}
		})
	}
}

// A key pasted where a name or number belongs must not be printed (promise P4).
func TestErrorsHideWhatLooksLikeAToken(t *testing.T) {
	t.Parallel()
	key := "p.eyJ1IjoiMTIzIn0.c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
	errs := []error{
		CheckName(key),
		CheckFormats([]string{key}),
		CheckRequirement(Requirement{Kind: key}),
		CheckRequirement(Requirement{Kind: KindRole, Values: []string{key + " "}}),
		CheckRate(RateSpec{RPS: key}),
		CheckFixedParam(FixedParam{Name: "a", Value: "{" + key + "}"}, nil),
		CheckFixedParam(FixedParam{Name: "a", Value: "x", Type: ParamType(key)}, nil),
		CheckWorkspaceID(key),
	}
	for _, err := range errs {
		if err == nil {
			t.Error("got no error")
		} else if strings.Contains(err.Error(), "eyJ") || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

func TestPolicyIsACopyOfItsConfig(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.Pipes[0].RateLimit = &RateSpec{RPS: "5"}
	c.Pipes[0].Formats = []string{"json"}
	c.Pipes[0].Require = []Requirement{{Kind: KindRole, Values: []string{"org:admin"}}}
	p := newPolicy(t, c)
	c.Pipes[0].RateLimit.RPS = "500"
	c.Pipes[0].Formats[0] = "csv"
	c.Pipes[0].Require[0].Values[0] = "org:member"
	s := acme()
	s.roles = []string{"org:admin"}
	g, err := p.Authorize("top_pages", "json", s)
	if err != nil {
		t.Fatal(err)
	}
	if g.Rate.RPS != "5" {
		t.Errorf("rate changed to %s", g.Rate.RPS)
	}
}

func TestPolicyLists(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.Pipes = append(c.Pipes, PipeConfig{Names: []string{"b", "a"}, Unrestricted: true})
	p := newPolicy(t, c)
	if got := p.Pipes(); !slices.Equal(got, []string{"a", "b", "top_pages"}) {
		t.Errorf("Pipes() = %v", got)
	}
	if !p.Listed("a") || p.Listed("A") || p.Listed("") {
		t.Error("Listed is not exact")
	}
}

func TestCheckRate(t *testing.T) {
	t.Parallel()
	for _, ok := range []RateSpec{{RPS: "1"}, {RPS: "1000000", Burst: 1_000_000}, {RPS: "{rps}"}, {RPS: "{map.rps}0", Burst: 5}} {
		if err := CheckRate(ok); err != nil {
			t.Errorf("CheckRate(%+v) = %v", ok, err)
		}
	}
	for _, bad := range []RateSpec{{}, {RPS: "-1"}, {RPS: "{rps"}, {RPS: "rps}"}, {RPS: "{}"}, {RPS: "5", Burst: 1_000_001}} {
		if CheckRate(bad) == nil {
			t.Errorf("CheckRate(%+v) passes", bad)
		}
	}
}

// Tinybird takes a limit of 0 or less for none, so a rate that resolves to nonsense must be an error.
func TestParseRPS(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"1": 1, "50": 50, "999999": 999999, "1000000": 1000000} {
		if got, err := ParseRPS(text); err != nil || got != want {
			t.Errorf("ParseRPS(%q) = %d, %v", text, got, err)
		}
	}
	for _, bad := range []string{
		"", "0", "00", "-1", "+1", "01", "1.5", "1e3", " 1", "1 ", "1000001", "99999999999999999999", "٣", "0x10", "1_0", "{rps}", "NaN",
	} {
		if got, err := ParseRPS(bad); err == nil || got != 0 {
			t.Errorf("ParseRPS(%q) = %d, %v", bad, got, err)
		}
	}
}
