package tinybird

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// subject is an identity made of plain values.
type subject struct {
	values                              map[string]any
	roles, permissions, features, plans []string
}

var _ Subject = subject{}

func (s subject) Lookup(name string) (any, bool) {
	v, ok := s.values[name]
	return v, ok
}
func (s subject) HasRole(v string) bool       { return slices.Contains(s.roles, v) }
func (s subject) HasPermission(v string) bool { return slices.Contains(s.permissions, v) }
func (s subject) HasFeature(v string) bool    { return slices.Contains(s.features, v) }
func (s subject) HasPlan(v string) bool       { return slices.Contains(s.plans, v) }

// acme is a member of an organization.
func acme() subject {
	return subject{values: map[string]any{
		"clerk.user.id": "user_1", "clerk.org.id": "org_acme", "clerk.org.slug": "acme",
		"clerk.claims.days": json.Number("90071992547409931"), "clerk.claims.beta": true,
		"clerk.claims.teams": []any{"red", "blue", json.Number("7"), true},
	}}
}

// checkClerk knows the placeholders that come from the verified identity, and no others.
func checkClerk(name string) error {
	known := []string{"clerk.user.id", "clerk.org.id", "clerk.org.slug", "clerk.org.role", "clerk.session.id", "clerk.plan"}
	if slices.Contains(known, name) || strings.HasPrefix(name, "clerk.claims.") {
		return nil
	}
	return errors.New("unknown placeholder")
}

// tenantConfig is one pipe fixed to the organization and, in another spelling of a name, to the user.
func tenantConfig() PolicyConfig {
	return PolicyConfig{
		CheckPlaceholder: checkClerk,
		FixedParams:      []FixedParam{{Name: "organization_id", Value: "{clerk.org.id}"}},
		Pipes: []PipeConfig{{
			Names:       []string{"top_pages"},
			FixedParams: []FixedParam{{Name: "User_Id", Value: "{clerk.user.id}"}},
		}},
	}
}

func newPolicy(t testing.TB, c PolicyConfig) *Policy {
	t.Helper()
	p, err := NewPolicy(c)
	if err != nil {
		t.Fatalf("NewPolicy: %v", err)
	}
	return p
}

// tenantGrant is what acme gets under tenantConfig.
func tenantGrant(t testing.TB) *Grant {
	t.Helper()
	g, err := newPolicy(t, tenantConfig()).Authorize("top_pages", "json", acme())
	if err != nil {
		t.Fatalf("Authorize: %v", err)
	}
	return g
}

// wantRefusal fails unless err is an *apierr.Error with that status and code.
func wantRefusal(t testing.TB, err error, status int, code apierr.Code) *apierr.Error {
	t.Helper()
	e, ok := errors.AsType[*apierr.Error](err)
	if !ok {
		t.Fatalf("got error %v, want a refusal %s", err, code)
	}
	if e.Status != status || e.Code != code {
		t.Fatalf("got %d %s (%v), want %d %s", e.Status, e.Code, err, status, code)
	}
	return e
}

// forbidden reports whether a decoded name is one that must never go up next to tenantGrant's token.
func forbidden(name string) bool {
	lower := strings.ToLower(name)
	return slices.Contains([]string{"token", "q", "pipeline", "organization_id", "user_id", "debug", "debug_source_tables", "explain", "finalize_aggregations", "playground", "query_id", "release_replacements", "template_parameters"}, lower) ||
		strings.HasPrefix(lower, "__tb__")
}
