package tinybird

import (
	"net/http"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// countConfig has pipes with and without limits of their own, and tenants by a claim.
func countConfig() PolicyConfig {
	return PolicyConfig{
		CheckPlaceholder: checkClerk, TokenName: "{clerk.claims.tenant}", RateLimit: &RateSpec{RPS: "50"}, Concurrency: "20",
		Pipes: []PipeConfig{
			{Names: []string{"shared"}, Unrestricted: true},
			{Names: []string{"own_rate", "own_too"}, Unrestricted: true, RateLimit: &RateSpec{RPS: "2"}},
			{Names: []string{"own_concurrency"}, Unrestricted: true, Concurrency: "{few}"},
			{Names: []string{"own_both"}, Unrestricted: true, RateLimit: &RateSpec{RPS: "3"}, Concurrency: "4"},
		},
	}
}

func named(tenant string) subject {
	return subject{values: map[string]any{"clerk.claims.tenant": tenant}}
}

// TestCount: what is a tenant's counts under the tenant, unless a pipe has a limit of its own, which goes for that limit alone.
func TestCount(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, countConfig())
	for pipe, want := range map[string]struct{ name, counter, rate, gate, concurrency string }{
		"shared":          {"acme", "acme", "50", "acme", "20"},
		"own_rate":        {"acme:own_rate", "acme\x00own_rate", "2", "acme", "20"},
		"own_concurrency": {"acme", "acme", "50", "acme\x00own_concurrency", "{few}"},
		"own_both":        {"acme:own_both", "acme\x00own_both", "3", "acme\x00own_both", "4"},
	} {
		g, err := p.Authorize(pipe, "json", named("acme"))
		if err != nil {
			t.Fatal(err)
		}
		if g.TokenName != want.name || g.Counter != want.counter || g.Rate.RPS != want.rate || g.Gate != want.gate || g.Concurrency != want.concurrency {
			t.Errorf("%s: %s, %+v at %s, want %+v", pipe, g.TokenName, g.Count, g.Rate.RPS, want)
		}
	}
	c, err := p.CountEvents(named("acme"))
	if err != nil || c.Counter != "acme\x00/events" || c.Gate != c.Counter || c.Rate.RPS != "50" || c.Concurrency != "20" {
		t.Errorf("events: %+v, %v", c, err)
	}
	_, err = p.CountEvents(subject{})
	wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
}

// Attack: a tenant takes a name under which another one's pipe, or its rows, would be counted, here or at Tinybird: to use
// up the other's rate, or to have two.
func TestAttackTenantsNames(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, countConfig())
	counters, names := map[string]string{}, map[string]string{}
	claim := func(taken map[string]string, what, who string) {
		if other, ok := taken[what]; ok && other != who {
			t.Errorf("%q counts for %s and for %s", what, other, who)
		}
		taken[what] = who
	}
	tenants := []string{"acme", "own_rate", ":", "::"}
	for _, pipe := range []string{"shared", "own_rate", "own_too", "own_concurrency", "/events", "", "x"} {
		tenants = append(tenants, "acme:"+pipe, "acme::"+pipe, ":"+pipe, "acme:"+pipe+":", "acme:"+pipe+":own_rate", "acme/"+pipe, "acme:own_rate:"+pipe)
	}
	for _, tenant := range tenants {
		for _, pipe := range []string{"shared", "own_rate", "own_too"} {
			g, err := p.Authorize(pipe, "json", named(tenant))
			if err != nil {
				t.Fatal(err)
			}
			part := ""
			if pipe != "shared" {
				part = " reading " + pipe
			}
			claim(counters, g.Counter, tenant+part)
			claim(names, g.TokenName, tenant+part)
			if err := checkGrants(g.TokenName, 1, []*Grant{g}); err != nil {
				t.Errorf("%q: %v", g.TokenName, err)
			}
		}
		c, err := p.CountEvents(named(tenant))
		if err != nil {
			t.Fatal(err)
		}
		claim(counters, c.Counter, tenant+" sending rows")
	}
	// The one character that could make two of them one is in no name.
	for _, tenant := range []string{"acme\x00own_rate", "acme\x00", "\x00"} {
		_, err := p.Authorize("shared", "json", named(tenant))
		wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
	}
	if g, _ := p.Authorize("own_rate", "json", named("eu:org_1")); g.TokenName != "eu:org_1:own_rate" {
		t.Errorf("an innocent name became %s", g.TokenName)
	}
}

func FuzzTenantsNames(f *testing.F) {
	f.Add("acme", "acme:own_rate")
	f.Add("a:", "a::own_rate")
	f.Fuzz(func(t *testing.T, one, other string) {
		p, err := NewPolicy(countConfig())
		if err != nil {
			t.Fatal(err)
		}
		type pair struct{ tenant, part string }
		counters, names := map[string]pair{}, map[string]pair{}
		for _, tenant := range []string{one, other} {
			for _, pipe := range []string{"shared", "own_rate", "own_too"} {
				g, err := p.Authorize(pipe, "json", named(tenant))
				if err != nil {
					continue
				}
				part := pair{tenant, strings.TrimPrefix(pipe, "shared")}
				if was, ok := counters[g.Counter]; ok && was != part {
					t.Errorf("counter %q of %v and %v", g.Counter, was, part)
				}
				if was, ok := names[g.TokenName]; ok && was != part {
					t.Errorf("name %q of %v and %v", g.TokenName, was, part)
				}
				counters[g.Counter], names[g.TokenName] = part, part
			}
		}
	})
}

// TestNarrowCountsForTheTenant: a template's token counts for whom it reads, where what it reads says so, and for its user where
// that is not sure, or where the limits depend on the session.
func TestNarrowCountsForTheTenant(t *testing.T) {
	t.Parallel()
	scope := func(fixed string) string {
		return `[{"type":"PIPES:READ","resource":"top_pages","fixed_params":{` + fixed + `}}]`
	}
	org := FixedParam{Name: "organization_id", Value: "{clerk.org.id}"}
	for name, tt := range map[string]struct {
		change func(*PolicyConfig)
		scopes string
		want   string
	}{
		"the organization":        {func(*PolicyConfig) {}, scope(`"organization_id":"org_acme"`), "org_acme"},
		"by its name":             {func(c *PolicyConfig) { c.TokenName = "eu-{clerk.org.id}" }, scope(`"organization_id":"org_acme"`), "eu-org_acme"},
		"one rate for everybody":  {func(c *PolicyConfig) { c.RateLimit = &RateSpec{RPS: "5"}; c.Concurrency = "2" }, scope(`"organization_id":"org_acme"`), "org_acme"},
		"a rate by plan":          {func(c *PolicyConfig) { c.RateLimit = &RateSpec{RPS: "{rps}"} }, scope(`"organization_id":"org_acme"`), "user_1"},
		"a bound by plan":         {func(c *PolicyConfig) { c.Concurrency = "{few}" }, scope(`"organization_id":"org_acme"`), "user_1"},
		"the pipe's rate by plan": {func(c *PolicyConfig) { c.Pipes[0].RateLimit = &RateSpec{RPS: "{rps}"} }, scope(`"organization_id":"org_acme"`), "user_1:top_pages"},
		"a part of a value": {func(c *PolicyConfig) {
			c.FixedParams = []FixedParam{{Name: "organization_id", Value: "eu-{clerk.org.id}"}}
		}, scope(`"organization_id":"eu-org_acme"`), "user_1"},
		"a number": {func(c *PolicyConfig) {
			c.FixedParams = []FixedParam{{Name: "organization_id", Value: "{clerk.org.id}", Type: TypeNumber}}
		}, scope(`"organization_id":7`), "user_1"},
		"another placeholder": {func(c *PolicyConfig) {
			c.FixedParams = []FixedParam{{Name: "team", Value: "{clerk.claims.team}"}}
		}, scope(`"team":"org_acme"`), "user_1"},
		"a value that nobody asked for": {func(c *PolicyConfig) {
			c.FixedParams = []FixedParam{{Name: "team", Value: "{clerk.claims.team}"}}
		}, scope(`"team":"red","organization_id":"org_acme"`), "user_1"},
		"two that disagree": {func(c *PolicyConfig) {
			c.FixedParams = []FixedParam{org, {Name: "owner", Value: "{clerk.org.id}"}}
		}, scope(`"organization_id":"org_acme","owner":"org_globex"`), "user_1"},
		"two that agree": {func(c *PolicyConfig) {
			c.FixedParams = []FixedParam{org, {Name: "owner", Value: "{clerk.org.id}"}}
		}, scope(`"organization_id":"org_acme","owner":"org_acme"`), "org_acme"},
		"another user": {func(c *PolicyConfig) {
			c.TokenName = "{clerk.user.id}"
		}, scope(`"organization_id":"org_acme","User_Id":"user_1"`), "user_1"},
	} {
		c := tenantConfig()
		tt.change(&c)
		g, err := narrow(newPolicy(t, c), tt.scopes)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if g.TokenName != tt.want || !strings.HasPrefix(g.Counter, strings.TrimSuffix(tt.want, ":top_pages")) {
			t.Errorf("%s: counted under %s and %q, want %s", name, g.TokenName, g.Counter, tt.want)
		}
	}
}

func TestConcurrencyIsChecked(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"0", "-1", "1.5", "01", "1000001", "99999999999999999999", "many", " 5", "{", "{}"} {
		c := countConfig()
		c.Concurrency = text
		if _, err := NewPolicy(c); err == nil || !strings.Contains(err.Error(), "concurrency") {
			t.Errorf("%q: %v", text, err)
		}
		c = countConfig()
		c.Pipes[0].Concurrency = text
		if _, err := NewPolicy(c); err == nil || !strings.Contains(err.Error(), "pipe shared: concurrency") {
			t.Errorf("%q at a pipe: %v", text, err)
		}
	}
	for text, want := range map[string]int{"1": 1, "1000000": 1000000, "": 0, "0": 0, "1e3": 0, "+5": 0} {
		if n, err := ParseConcurrency(text); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}
