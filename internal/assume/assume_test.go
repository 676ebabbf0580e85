package assume

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// TestIdentity holds that an assumed session is the one that a token with these claims would be.
func TestIdentity(t *testing.T) {
	t.Parallel()
	id, err := (&Session{
		User: "user_2a", ID: "sess_2a", Org: "org_2a", Slug: "acme", Role: "org:admin", Plan: "o:pro",
		Features: []string{"o:reports", "u:beta"}, Permissions: []string{"org:reports:read"},
		Claims: []string{"team_id=sales", "teams=[\"a\",\"b\"]", "meta.region=eu=1", "meta.n=12345678901234567890", "zip=01234", "yes=true", `quoted="7"`, "empty="},
	}).Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"clerk.user.id": "user_2a", "clerk.session.id": "sess_2a", "clerk.org.id": "org_2a", "clerk.org.slug": "acme", "clerk.org.role": "org:admin",
		"clerk.plan": "o:pro", "clerk.claims.team_id": "sales", "clerk.claims.teams": []any{"a", "b"}, "clerk.claims.meta.region": "eu=1",
		"clerk.claims.meta.n": json.Number("12345678901234567890"), "clerk.claims.zip": "01234", "clerk.claims.yes": true, "clerk.claims.quoted": "7",
		"clerk.claims.sub": "user_2a", "clerk.claims.o.id": "org_2a",
	} {
		if got, ok := id.Lookup(name); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
	if _, ok := id.Lookup("clerk.claims.empty"); ok {
		t.Error("an empty claim has a value")
	}
	if !id.HasRole("org:admin") || !id.HasPermission("org:reports:read") || !id.HasFeature("reports") || !id.HasFeature("u:beta") || !id.HasPlan("pro") || id.HasPlan("u:pro") {
		t.Errorf("%+v", id)
	}
}

// TestNobody holds that what is not said is not there.
func TestNobody(t *testing.T) {
	t.Parallel()
	id, err := new(Session).Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"clerk.user.id", "clerk.session.id", "clerk.org.id", "clerk.org.slug", "clerk.org.role", "clerk.plan", "clerk.claims.sub", "clerk.claims.o"} {
		if v, ok := id.Lookup(name); ok {
			t.Errorf("%s is %v", name, v)
		}
	}
}

// TestSpelling holds that what a token could never say is refused with the way to write it.
func TestSpelling(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]Session{
		"--org":            {Role: "org:admin"},
		"org:admin":        {Org: "o", Role: "admin"},
		"o:pro for one":    {Plan: "pro"},
		"o:reports":        {Features: []string{"reports"}},
		"org:reports:read": {Org: "o", Permissions: []string{"reports:read"}},
		"<path>=<value>":   {Claims: []string{"team"}},
		"metadata.team":    {Claims: []string{".team=1"}},
		"no object":        {Claims: []string{"a=1", "a.b=2"}},
	} {
		if _, err := s.Identity(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
