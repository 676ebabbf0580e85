package clerk

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func identityOf(t *testing.T, doc string) *Identity {
	t.Helper()
	c, err := decodeObject([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return newIdentity(c)
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	id, err := newVerifier(t, Config{}).Verify(t.Context(), sign(t, keyA(), testHeader(nil), testClaims(object{
		"pla": "o:pro", "fea": "o:dashboard,o:teams,u:beta",
		"o": object{"id": "org_1", "slg": "acme", "rol": "admin", "per": "manage,read", "fpm": "3,2"},
	})))
	if err != nil {
		t.Fatal(err)
	}
	id.Claims, id.values = nil, nil
	want := &Identity{
		UserID: "user_1", SessionID: "sess_1", OrgID: "org_1", OrgSlug: "acme", OrgRole: "org:admin",
		Permissions: []string{"org:dashboard:manage", "org:dashboard:read", "org:teams:read"},
		Features:    []string{"o:dashboard", "o:teams", "u:beta"}, Plan: "o:pro", Status: "active",
		Issuer: testIssuer, AuthorizedParty: "https://app.example.com",
		IssuedAt: testNow, ExpiresAt: testNow.Add(60e9),
	}
	if !reflect.DeepEqual(id, want) {
		t.Errorf("%+v\nwant %+v", id, want)
	}
}

// Whatever is absent or of a wrong type grants nothing.
func TestOrganization(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		doc            string
		id, slug, role string
		permissions    []string
	}{
		"version 1": {
			`{"org_id":"org_1","org_slug":"acme","org_role":"org:admin","org_permissions":["org:a:read",7,"","org:a:write"]}`,
			"org_1", "acme", "org:admin",
			[]string{"org:a:read", "org:a:write"},
		},
		"version 1, no org":          {`{"org_role":"org:admin","org_permissions":["org:a:read"]}`, "", "", "org:admin", []string{"org:a:read"}},
		"version 1, odd types":       {`{"org_id":"org_1","org_slug":1,"org_role":["org:admin"],"org_permissions":"org:a:read"}`, "org_1", "", "", nil},
		"version 1, org a number":    {`{"org_id":1,"org_role":"org:admin"}`, "", "", "org:admin", nil},
		"version 1, o is ignored":    {`{"o":{"id":"org_2","rol":"admin"}}`, "", "", "", nil},
		"version 2, v1 is ignored":   {`{"v":2,"org_id":"org_1","org_role":"org:admin"}`, "", "", "", nil},
		"version 2 as a float":       {`{"v":2.0,"o":{"id":"org_1"}}`, "org_1", "", "", nil},
		"version a string":           {`{"v":"2","o":{"id":"org_2","rol":"admin"},"org_id":"org_1"}`, "org_1", "", "", nil},
		"version 3":                  {`{"v":3,"o":{"id":"org_2","rol":"admin"},"org_id":"org_1"}`, "org_1", "", "", nil},
		"version 2, o without id":    {`{"v":2,"fea":"o:a","o":{"rol":"admin","per":"read","fpm":"1"}}`, "", "", "org:admin", []string{"org:a:read"}},
		"version 2, id a number":     {`{"v":2,"o":{"id":7,"rol":"admin"}}`, "", "", "org:admin", nil},
		"version 2, o a list":        {`{"v":2,"o":["org_1"]}`, "", "", "", nil},
		"version 2, no role":         {`{"v":2,"o":{"id":"org_1"}}`, "org_1", "", "", nil},
		"version 2, prefixed role":   {`{"v":2,"o":{"id":"org_1","rol":"org:admin"}}`, "org_1", "", "org:org:admin", nil},
		"version 2, masks as a list": {`{"v":2,"fea":"o:a","o":{"id":"org_1","per":"read","fpm":[1]}}`, "org_1", "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := identityOf(t, c.doc)
			if id.OrgID != c.id || id.OrgSlug != c.slug || id.OrgRole != c.role || !slices.Equal(id.Permissions, c.permissions) {
				t.Errorf("%+v", id)
			}
			// The SDK shows a role without an organization. It is worth nothing.
			if id.OrgID == "" && (id.HasRole("org:admin") || id.HasPermission("org:a:read")) {
				t.Error("a role in no organization is granted")
			}
		})
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	many := make([]string, 66)
	for i := range many {
		many[i] = "p" + string(rune('A'+i%26)) + string(rune('a'+i/26))
	}
	for name, c := range map[string]struct {
		fea, per, fpm string
		want          []string
	}{
		"two features":              {"o:a,o:b", "read,manage", "1,3", []string{"org:a:read", "org:b:read", "org:b:manage"}},
		"fewer masks":               {"o:a,o:b,o:c", "read,manage", "1,2", []string{"org:a:read", "org:b:manage"}},
		"more masks":                {"o:a", "read", "1,1,1", []string{"org:a:read"}},
		"bits beyond the names":     {"o:a", "read", "7", []string{"org:a:read"}},
		"a mask of 66 bits":         {"o:f", strings.Join(many, ","), "36893488147419103233", []string{"org:f:" + many[0], "org:f:" + many[65]}},
		"masks that are no numbers": {"o:a,o:b,o:c,o:d,o:e,o:f", "read,manage", "0x3,-1,1.5,1e1,+3,", nil},
		"an odd mask keeps a place": {"o:a,o:b", "read", "x,1", []string{"org:b:read"}},
		"spaces":                    {"o:a, o:b", "read, manage", "1, 3", []string{"org:a:read", "org:b:read", "org:b:manage"}},
		"no names":                  {"o:a", "", "1", nil},
		"an empty name":             {"o:a", ",read", "3", []string{"org:a:read"}},
		"an empty feature":          {"o:,o:b", "read", "1,1", []string{"org:b:read"}},
		"no colon":                  {"dashboard", "read", "1", nil},
		"both scopes":               {"uo:a,ou:b", "read,manage", "1,2", []string{"org:a:read", "org:b:manage"}},
		// Clerk's SDK and its documentation count differently here: what both grant is granted.
		"user's feature first":            {"u:x,o:a", "read,manage", "0,3", nil},
		"user's feature first, both read": {"u:x,o:a", "read,manage", "1,3", []string{"org:a:read"}},
		"user's feature last":             {"o:a,u:x", "read,manage", "3,0", []string{"org:a:read", "org:a:manage"}},
		"unknown scope first":             {"z:a,o:b", "read,manage", "1,2", []string{"org:b:read"}},
		"no colon first":                  {"x,o:b", "read", "1,0", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := permissions(c.fea, c.per, c.fpm); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestHas(t *testing.T) {
	t.Parallel()
	id := identityOf(t, `{"v":2,"pla":"o:pro","fea":"o:dashboard,u:beta,uo:both,z:odd,bare,o:",
		"o":{"id":"org_1","rol":"admin","per":"read","fpm":"1"}}`)
	for _, c := range []struct {
		name  string
		has   func(string) bool
		value string
		want  bool
	}{
		{"role", id.HasRole, "org:admin", true},
		{"role", id.HasRole, "admin", false},
		{"role", id.HasRole, "org:Admin", false},
		{"role", id.HasRole, "", false},
		{"role of nobody", new(Identity).HasRole, "", false},
		{"permission", id.HasPermission, "org:dashboard:read", true},
		{"permission", id.HasPermission, "dashboard:read", false},
		{"permission", id.HasPermission, "", false},
		{"feature", id.HasFeature, "dashboard", true},
		{"feature", id.HasFeature, "o:dashboard", true},
		{"feature", id.HasFeature, "u:dashboard", false},
		{"feature", id.HasFeature, "beta", true},
		{"feature", id.HasFeature, "u:beta", true},
		{"feature", id.HasFeature, "o:beta", false},
		{"feature", id.HasFeature, "o:both", true},
		{"feature", id.HasFeature, "u:both", true},
		{"feature", id.HasFeature, "odd", false},
		{"feature", id.HasFeature, "z:odd", false},
		{"feature", id.HasFeature, "bare", false},
		{"feature", id.HasFeature, "", false},
		{"feature", id.HasFeature, "o:", false},
		{"feature", id.HasFeature, ":dashboard", false},
		{"plan", id.HasPlan, "pro", true},
		{"plan", id.HasPlan, "o:pro", true},
		{"plan", id.HasPlan, "u:pro", false},
		{"plan", id.HasPlan, "", false},
		{"plan of nobody", new(Identity).HasPlan, "free", false},
	} {
		if got := c.has(c.value); got != c.want {
			t.Errorf("%s %q: %v", c.name, c.value, got)
		}
	}
	if v1 := identityOf(t, `{"pla":"o:pro","fea":"o:dashboard"}`); v1.HasPlan("pro") || v1.HasFeature("dashboard") {
		t.Error("custom claims of a version 1 token are taken for plan and features")
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	id := identityOf(t, `{"v":2,"sub":"user_1","sid":"sess_1","pla":"o:pro","o":{"id":"org_1","slg":"acme","rol":"admin"},
		"team":{"id":12345678901234567890,"name":"","tags":["a","b"],"deep":{"x":false}},"none":null,"zero":0,"a.b":"dotted"}`)
	for name, want := range map[string]any{
		"clerk.user.id": "user_1", "clerk.session.id": "sess_1", "clerk.plan": "o:pro",
		"clerk.org.id": "org_1", "clerk.org.slug": "acme", "clerk.org.role": "org:admin",
		"clerk.claims.sub": "user_1", "clerk.claims.o.id": "org_1", "clerk.claims.team.id": json.Number("12345678901234567890"),
		"clerk.claims.team.tags": []any{"a", "b"}, "clerk.claims.team.deep.x": false, "clerk.claims.team.deep": map[string]any{"x": false},
		"clerk.claims.none": nil, "clerk.claims.zero": json.Number("0"),
	} {
		if got, ok := id.Lookup(name); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
		if err := CheckPlaceholder(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{
		"clerk.claims.team.name", "clerk.claims.absent", "clerk.claims.sub.x", "clerk.claims.team.tags.0", "clerk.claims.SUB",
		"clerk.claims.none.x", "clerk.claims.a.b", "clerk.claims.team.deep.x.y",
	} {
		if got, ok := id.Lookup(name); ok {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, name := range []string{
		"", "clerk", "clerk.user", "clerk.user.email", "clerk.claims", "clerk.claims.", "clerk.claims..a", "clerk.claims.a.", "clerk.claims.a..b",
		"http.request.host", "user.id", "Clerk.user.id", "clerk.org.id ",
	} {
		if got, ok := id.Lookup(name); ok {
			t.Errorf("%s: %v", name, got)
		}
		if err := CheckPlaceholder(name); err == nil || !strings.Contains(err.Error(), "{clerk.org.id}") {
			t.Errorf("%q: %v", name, err)
		}
	}
	nobody := new(Identity)
	for _, name := range placeholders {
		if got, ok := nobody.Lookup(name); ok {
			t.Errorf("%s of nobody: %v", name, got)
		}
	}
}

func TestWholeSeconds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "1767225600": 1767225600, "1767225600.999": 1767225600, "-1.9": -1, "1.7672256e9": 1767225600,
		"253402300799": maxSeconds, "-253402300799": -maxSeconds, "1e-400": 0, "0e999999999": 0,
	} {
		if got, ok := wholeSeconds(json.Number(text)); !ok || got != want {
			t.Errorf("%s is %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"253402300800", "-253402300800", "253402300799.5", "1e12", "1e20", "1e400", "-1e400", "9223372036854775807", "9223372036854775808", ""} {
		if got, ok := wholeSeconds(json.Number(text)); ok {
			t.Errorf("%s is %d", text, got)
		}
	}
}
