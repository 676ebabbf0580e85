package caddytinybird

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// TestConfiguredSites: which handlers a config has, and whose sessions each accepts: its own, those of the clerk_auth before it, or
// those of the global option.
func TestConfiguredSites(t *testing.T) {
	t.Parallel()
	own := "clerk {\n issuer https://own.example.com\n}\n"
	tb := func(clerk string) string {
		return "tinybird {\n " + clerk + " signing_key {env.KEY}\n pipe p {\n fixed_param o {clerk.org.id}\n }\n}\n"
	}
	const guard = "clerk_auth {\n issuer https://guard.example.com\n}\n"
	const global = "{\n clerk {\n issuer https://global.example.com\n }\n}\n"
	for name, tt := range map[string]struct {
		text string
		want []string // hosts, directives and issuer
	}{
		"own":              {global + "a.example.com {\n" + guard + tb(own) + "}\n", []string{"a.example.com clerk_auth guard", "a.example.com tinybird own"}},
		"guarded":          {global + "a.example.com {\n" + guard + tb("") + "}\n", []string{"a.example.com clerk_auth+tinybird guard"}},
		"global":           {global + "a.example.com {\n" + tb("") + "}\n", []string{"a.example.com tinybird global"}},
		"global guard":     {global + "a.example.com {\n clerk_auth\n" + tb("") + "}\n", []string{"a.example.com clerk_auth+tinybird global"}},
		"nothing":          {"a.example.com {\n" + tb("") + "}\n", []string{"a.example.com tinybird none"}},
		"guard elsewhere":  {global + "a.example.com {\n" + guard + " respond ok\n}\nb.example.com {\n" + tb("") + "}\n", []string{"a.example.com clerk_auth guard", "b.example.com tinybird global"}},
		"guard of errors":  {global + "a.example.com {\n handle_errors {\n" + guard + " respond no\n }\n" + tb("") + "}\n", []string{"a.example.com clerk_auth guard", "a.example.com tinybird global"}},
		"deep":             {global + "a.example.com {\n handle_path /x/* {\n route {\n" + guard + tb("") + "}\n}\n}\n", []string{"a.example.com clerk_auth+tinybird guard"}},
		"satellite":        {"a.example.com {\n clerk_auth {\n publishable_key pk_live_Y2xlcmsuZXhhbXBsZS5jb20k\n satellite s.example.com\n }\n}\n", []string{"a.example.com clerk_auth clerk.s"}},
		"one for two":      {global + "a.example.com {\n" + guard + " handle /x/* {\n" + tb("") + "}\n handle {\n" + tb("") + "}\n}\n", []string{"a.example.com clerk_auth+tinybird guard", "a.example.com clerk_auth+tinybird guard"}},
		"nothing of these": {"a.example.com {\n respond ok\n}\n", nil},
	} {
		adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(tt.text), map[string]any{"filename": "Caddyfile"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sites, err := configuredSites(adapted)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []string
		for _, s := range sites {
			var directives []string
			if s.auth != nil {
				directives = append(directives, "clerk_auth")
			}
			if s.handler != nil {
				directives = append(directives, "tinybird")
			}
			issuer := "none"
			if c, err := s.resolvedClerk(caddy.Log()); err == nil {
				issuer = strings.TrimSuffix(strings.TrimPrefix(c.issuers[0], "https://"), ".example.com")
			}
			got = append(got, fmt.Sprintf("%s %s %s", s.name(), strings.Join(directives, "+"), issuer))
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	// Caddy's own handler with the provider.
	sites, err := configuredSites([]byte(`{"apps":{"http":{"servers":{"s":{"routes":[{"handle":[{"handler":"authentication","providers":{"clerk":{"issuers":["https://p.example.com"]}}}]}]}}}}}`))
	if err != nil || len(sites) != 1 || sites[0].clerk.Issuers[0] != "https://p.example.com" || sites[0].name() != "any host" {
		t.Errorf("%+v %v", sites, err)
	}
	for _, broken := range []string{"", "[]", `{"apps":{"clerk":{"nope":1}}}`, `{"apps":{"http":{"servers":{"s":{"routes":[{"handle":[{"handler":"tinybird","nope":1}]}]}}}}}`} {
		if _, err := configuredSites([]byte(broken)); err == nil {
			t.Errorf("%q is a config", broken)
		}
	}
}
