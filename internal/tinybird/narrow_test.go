package tinybird

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// narrow decides about a token that has this scopes claim, for acme's user.
func narrow(p *Policy, scopes string) (*Grant, error) {
	d := json.NewDecoder(strings.NewReader(scopes))
	d.UseNumber()
	var list any
	if err := d.Decode(&list); err != nil {
		list = nil // what is no JSON is in no token
	}
	user := subject{values: map[string]any{"clerk.user.id": "user_1"}}
	return p.Narrow("top_pages", "json", user, testWorkspace, map[string]any{"workspace_id": testWorkspace, "scopes": list})
}

const goodScope = `[{"type":"PIPES:READ","resource":"top_pages","fixed_params":{"organization_id":"org_acme","days":90071992547409931}}]`

// TestNarrow: the tenant is the token's, the user is who it was made for, and what it fixes besides stays, with all its digits. It
// counts for the tenant, as that one's sessions do.
func TestNarrow(t *testing.T) {
	t.Parallel()
	g, err := narrow(newPolicy(t, tenantConfig()), goodScope)
	if err != nil {
		t.Fatal(err)
	}
	want := []FixedValue{{"User_Id", "user_1"}, {"days", json.Number("90071992547409931")}, {"organization_id", "org_acme"}}
	if !reflect.DeepEqual(g.Fixed, want) || g.TokenName != "org_acme" || g.Counter != "org_acme" {
		t.Errorf("fixed %v, counted under %s", g.Fixed, g.TokenName)
	}
	for _, name := range []string{"days", "DAYS", "organization_id", "user_id"} {
		if g.lets(name) {
			t.Errorf("the client may set %s", name)
		}
	}
}

// TestAttackNarrow: see the names.
func TestAttackNarrow(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, tenantConfig())
	scope := func(members string) string {
		return `[{"type":"PIPES:READ","resource":"top_pages",` + members + `}]`
	}
	for name, tt := range map[string]struct {
		scopes string
		code   apierr.Code
	}{
		"the pipe by its id":             {`[{"type":"PIPES:READ","resource":"t_0123","fixed_params":{"organization_id":"org_acme"}}]`, apierr.NotAllowed},
		"the pipe in other letters":      {`[{"type":"PIPES:READ","resource":"Top_Pages","fixed_params":{"organization_id":"org_acme"}}]`, apierr.NotAllowed},
		"PIPE:READ":                      {`[{"type":"PIPE:READ","resource":"top_pages","fixed_params":{"organization_id":"org_acme"}}]`, apierr.NotAllowed},
		"the type in other letters":      {`[{"type":"pipes:read","resource":"top_pages","fixed_params":{"organization_id":"org_acme"}}]`, apierr.NotAllowed},
		"a list of resources":            {`[{"type":"PIPES:READ","resource":["top_pages"],"fixed_params":{"organization_id":"org_acme"}}]`, apierr.NotAllowed},
		"the same scope twice":           {"[" + goodScope[1:len(goodScope)-1] + "," + goodScope[1:len(goodScope)-1] + "]", apierr.NotAllowed},
		"fixed params in other letters":  {scope(`"Fixed_Params":{"organization_id":"org_acme"}`), apierr.NotAllowed},
		"fixed params that are a list":   {scope(`"fixed_params":["org_acme"]`), apierr.NotAllowed},
		"another user's id":              {scope(`"fixed_params":{"organization_id":"org_acme","User_Id":"user_2"}`), apierr.NotAllowed},
		"the user's id in other letters": {scope(`"fixed_params":{"organization_id":"org_acme","user_id":"user_2"}`), apierr.NotAllowed},
		"the tenant in other letters":    {scope(`"fixed_params":{"Organization_Id":"org_acme"}`), apierr.TenantMissing},
		"true for the user":              {scope(`"fixed_params":{"organization_id":"org_acme","User_Id":true}`), apierr.NotAllowed},
		"null for the user":              {scope(`"fixed_params":{"organization_id":"org_acme","User_Id":null}`), apierr.TenantMissing},
		"a control character":            {scope(`"fixed_params":{"organization_id":"org\u0000acme"}`), apierr.TenantMissing},
		"broken text":                    {scope(`"fixed_params":{"organization_id":"\ud800"}`), apierr.TenantMissing},
		"too long":                       {scope(`"fixed_params":{"organization_id":"` + strings.Repeat("a", maxValue+1) + `"}`), apierr.TenantMissing},
		"a number that is infinite":      {scope(`"fixed_params":{"organization_id":1e999}`), apierr.TenantMissing},
		"a switch of Tinybird's":         {scope(`"fixed_params":{"organization_id":"org_acme","__tb__deployment":"x"}`), apierr.NotAllowed},
		"q":                              {scope(`"fixed_params":{"organization_id":"org_acme","Q":"select 1"}`), apierr.NotAllowed},
		"a letter that folds to another": {scope(`"fixed_params":{"organization_id":"org_acme","u\u017fer_id":"x"}`), apierr.NotAllowed},
		"two further ones, folded alike": {scope(`"fixed_params":{"organization_id":"org_acme","a":1,"A":2}`), apierr.NotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := narrow(p, tt.scopes)
			if err == nil {
				t.Fatalf("allowed: %+v", g)
			}
			wantRefusal(t, err, http.StatusForbidden, tt.code)
			if strings.Contains(err.Error(), "org_acme") || strings.Contains(err.Error(), "user_2") {
				t.Errorf("the error shows a value: %v", err)
			}
		})
	}
}

// FuzzNarrow holds that whatever a template's token says, what becomes of it has each fixed parameter of the config, once, is
// signed without complaint, and lets the client set none of it.
func FuzzNarrow(f *testing.F) {
	f.Add(goodScope)
	f.Add(`[{"type":"PIPES:READ","resource":"top_pages","fixed_params":{"organization_id":1e3,"User_Id":"user_1"}}]`)
	f.Add(`[{"type":"PIPES:READ","resource":"top_pages","fixed_params":{"organization_id":null,"a":[1],"A":{}}}]`)
	f.Add(`[{"type":"PIPES:READ","resource":"top_pages"},{"type":"PIPES:READ","resource":"top_pages","filter":""}]`)
	f.Add(`{"type":"PIPES:READ"}`)
	p := newPolicy(f, tenantConfig())
	f.Fuzz(func(t *testing.T, scopes string) {
		g, err := narrow(p, scopes)
		if err != nil {
			wantRefusalOf(t, err)
			return
		}
		if err := checkGrants(g.TokenName, 0, []*Grant{g}); err != nil {
			t.Fatalf("%s: %v", scopes, err)
		}
		found := make(map[string]any)
		for _, v := range g.Fixed {
			folded := strings.ToLower(v.Name)
			if _, twice := found[folded]; twice || g.lets(v.Name) || g.lets(folded) || g.lets(strings.ToUpper(v.Name)) {
				t.Fatalf("%s: %s is fixed twice, or the client's to set", scopes, v.Name)
			}
			found[folded] = v.Value
		}
		if org, ok := found["organization_id"].(string); found["user_id"] != "user_1" || !ok || strings.TrimSpace(org) == "" {
			t.Fatalf("%s: fixed to %v", scopes, g.Fixed)
		}
	})
}

func wantRefusalOf(t testing.TB, err error) {
	t.Helper()
	if _, ok := err.(*apierr.Error); !ok { //nolint:errorlint // Narrow says that it is always one
		t.Fatalf("error %v", err)
	}
}
