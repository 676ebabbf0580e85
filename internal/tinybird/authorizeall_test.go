package tinybird

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// allConfig is a pipe for everybody in an organization, one for users, one for admins, and one that nobody has the claim for.
func allConfig() PolicyConfig {
	c := tenantConfig()
	c.RateLimit = &RateSpec{RPS: "50"}
	c.Pipes = append(c.Pipes,
		PipeConfig{Names: []string{"b_second"}, Concurrency: "3"},
		PipeConfig{Names: []string{"admins"}, Require: []Requirement{{Kind: KindRole, Values: []string{"org:admin"}}}},
		PipeConfig{Names: []string{"team"}, FixedParams: []FixedParam{{Name: "team", Value: "{clerk.claims.nowhere}"}}},
		PipeConfig{Names: []string{"slow", "z_last"}, RateLimit: &RateSpec{RPS: "2"}},
	)
	return c
}

// TestAuthorizeAll: one grant for each pipe that may be read at the shared rate, in order, fixed as Authorize fixes it, under the
// tenant's own name. Those with a rate of their own are left out: no token may be worth more than one rate.
func TestAuthorizeAll(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, allConfig())
	set, err := p.AuthorizeAll(acme())
	if err != nil {
		t.Fatal(err)
	}
	pipes := make([]string, 0, len(set.Grants))
	for _, g := range set.Grants {
		pipes = append(pipes, g.Pipe)
		if len(g.Fixed) == 0 || g.Fixed[len(g.Fixed)-1] != (FixedValue{"organization_id", "org_acme"}) {
			t.Errorf("%s: fixed %v", g.Pipe, g.Fixed)
		}
	}
	if got := strings.Join(pipes, " "); got != "b_second top_pages" {
		t.Errorf("pipes %s", got)
	}
	if set.TokenName != "org_acme" || set.Rate == nil || set.Rate.RPS != "50" || set.Asking.Counter != "org_acme" || set.Asking.Rate != set.Rate {
		t.Errorf("counted under %s at %v, asking under %+v", set.TokenName, set.Rate, set.Asking)
	}
}

// TestAuthorizeAlone: a pipe with a rate of its own has a token of its own, with the name and the rate that requests
// through the edge have, so that Tinybird counts both together.
func TestAuthorizeAlone(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, allConfig())
	for _, pipe := range []string{"slow", "top_pages"} {
		set, err := p.AuthorizeAlone(pipe, acme())
		if err != nil {
			t.Fatal(err)
		}
		g, err := p.Authorize(pipe, "json", acme())
		if err != nil {
			t.Fatal(err)
		}
		if set.TokenName != g.TokenName || set.Rate != g.Rate || len(set.Grants) != 1 || set.Grants[0].Pipe != pipe ||
			!reflect.DeepEqual(set.Grants[0].Fixed, g.Fixed) || set.Asking.Counter != "org_acme" || set.Asking.Rate.RPS != "50" {
			t.Errorf("%s: %+v, through the edge %+v", pipe, set, g)
		}
	}
	_, err := p.AuthorizeAlone("nowhere", acme())
	wantRefusal(t, err, http.StatusNotFound, apierr.NotFound)
	_, err = p.AuthorizeAlone("admins", acme())
	wantRefusal(t, err, http.StatusForbidden, apierr.NotAllowed)
	_, err = p.AuthorizeAlone("team", acme())
	wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
	_, err = newPolicy(t, PolicyConfig{Pipes: []PipeConfig{{Names: []string{"a"}, Unrestricted: true}}}).AuthorizeAlone("a", subject{})
	wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
}

// TestAuthorizeAllOfNothing: with nothing to read the code says whether a missing value had a part in it, or that each pipe has
// a token of its own.
func TestAuthorizeAllOfNothing(t *testing.T) {
	t.Parallel()
	_, err := newPolicy(t, allConfig()).AuthorizeAll(subject{values: map[string]any{"clerk.user.id": "user_1"}})
	wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
	c := allConfig()
	c.Pipes = c.Pipes[2:4] // the pipe without a value comes last
	_, err = newPolicy(t, c).AuthorizeAll(acme())
	wantRefusal(t, err, http.StatusForbidden, apierr.TenantMissing)
	c.Pipes = c.Pipes[:1]
	_, err = newPolicy(t, c).AuthorizeAll(acme())
	wantRefusal(t, err, http.StatusForbidden, apierr.NotAllowed)
	c = allConfig()
	c.Pipes = c.Pipes[2:]
	_, err = newPolicy(t, c).AuthorizeAll(acme())
	wantRefusal(t, err, http.StatusBadRequest, apierr.BadQuery)
	_, err = newPolicy(t, PolicyConfig{}).AuthorizeAll(acme())
	wantRefusal(t, err, http.StatusNotFound, apierr.NotFound)
}

// TestMintAll: one scope for each pipe, never two, never without a limit where there is one; kept as single tokens are, and told
// apart from all that say something else.
func TestMintAll(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, allConfig())
	set, err := p.AuthorizeAll(acme())
	if err != nil {
		t.Fatal(err)
	}
	m, clock := newMinter(t, MinterOptions{})
	token, expires, cached, err := m.MintAll(set, 2)
	if err != nil || cached || expires.Sub(clock.Now()) != DefaultTTL {
		t.Fatalf("%v, cached %t, expires %v", err, cached, expires)
	}
	_, claims := payload(t, token)
	if n := strings.Count(claims, `"type":"PIPES:READ"`); n != len(set.Grants) || strings.Count(claims, `"org_acme"`) != n+1 || !strings.Contains(claims, `"limits":{"rps":2}`) {
		t.Errorf("claims %s", claims)
	}
	if again, _, cached, _ := m.MintAll(set, 2); !cached || again != token {
		t.Error("minted anew")
	}
	if other, _, cached, _ := m.MintAll(set, 3); cached || other == token {
		t.Error("another rate, the same token")
	}
	fewer := &GrantSet{TokenName: set.TokenName, Rate: set.Rate, Grants: set.Grants[:1]}
	if other, _, cached, _ := m.MintAll(fewer, 2); cached || other == token {
		t.Error("fewer pipes, the same token")
	}
	clock.Add(DefaultTTL * 3 / 4)
	if again, later, cached, _ := m.MintAll(set, 2); cached || again == token || !later.After(expires) {
		t.Error("a token near its end was handed out")
	}

	g := set.Grants
	for name, bad := range map[string]*GrantSet{
		"nothing":            {TokenName: "x"},
		"nil":                nil,
		"a nil grant":        {TokenName: "x", Grants: []*Grant{nil}},
		"no name":            {Grants: g},
		"a pipe twice":       {TokenName: "x", Grants: []*Grant{g[0], g[0]}},
		"in the wrong order": {TokenName: "x", Grants: []*Grant{g[1], g[0]}},
	} {
		if token, _, _, err := m.MintAll(bad, 2); err == nil || token != "" {
			t.Errorf("%s: signed", name)
		}
	}
	if _, _, _, err := m.MintAll(set, 0); err == nil {
		t.Error("signed without the limit")
	}
}
