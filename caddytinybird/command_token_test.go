package caddytinybird

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
)

// tokenCaddyfile is a config with all that a token can depend on.
func tokenCaddyfile(t *testing.T, s *devstack.Stack) string {
	t.Helper()
	return checkedCaddyfile(t, s, map[string]string{"pipe top_pages sales_by_day\n": `pipe top_pages sales_by_day
		rate_limit 7
		token_endpoint /token
		pipe org_metrics {
			require permission org:reports:read
			require plan pro
			rate_limit {rps}
			formats csv prometheus
		}
		pipe team_activity {
			fixed_param team_id {clerk.claims.teams}
		}
`})
}

// minted runs `caddy tinybird token --json`.
func minted(t *testing.T, config string, args ...string) (doc struct {
	Token, URL, Curl string
	Header, Claims   map[string]any
	Refused          *struct {
		Status                 int
		Code, Error, Why, Docs string
	}
}, status int,
) {
	t.Helper()
	out, status, err := command(t, append([]string{"token", "--json", "--config", config}, args...)...)
	if status == exitCouldNotRun {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return doc, status
}

// TestTokenCommand: what the command mints is what the edge mints for such a session, and Tinybird takes it.
func TestTokenCommand(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := tokenCaddyfile(t, s)
	out, status, err := command(t, "token", "--config", config, "--pipe", "top_pages", "--user", "user_2a", "--org", devstack.AcmeID)
	token := strings.TrimSuffix(out, "\n")
	if status != 0 || strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \n") {
		t.Fatalf("%d %v %s", status, err, out)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.APIURL+"/v0/pipes/top_pages.json", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	got := s.API.Requests()[0]
	scope, _ := got.Claims["scopes"].([]any)[0].(map[string]any)
	fixed, _ := scope["fixed_params"].(map[string]any)
	if res.StatusCode != http.StatusOK || got.Claims["name"] != devstack.AcmeID || fixed["organization_id"] != devstack.AcmeID || len(fixed) != 1 {
		t.Errorf("%d %v", res.StatusCode, got.Claims)
	}

	// The same by way of the edge.
	e := newEdge(t, s, func(h *Handler) { h.RateLimit = &RateLimit{RPS: "7"} })
	s.API.Reset()
	if got := e.get(t, "ada", "/v0/pipes/top_pages.json"); got.StatusCode != http.StatusOK {
		t.Fatalf("%s", got.body)
	}
	edges := s.API.Requests()[0].Claims
	for _, claims := range []map[string]any{edges, got.Claims} {
		delete(claims, "exp")
	}
	if a, b := asJSON(t, edges), asJSON(t, got.Claims); a != b {
		t.Errorf("the edge mints\n%s\nthe command\n%s", a, b)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// TestTokenCommandJSON: what a program needs, for pipes of all kinds.
func TestTokenCommandJSON(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := tokenCaddyfile(t, s)
	all := []string{
		"--user", "user_2a", "--org", devstack.AcmeID, "--role", "org:admin", "--plan", "o:pro", "--permission", "org:reports:read", "--claim", `teams=["a","b"]`, "--rps", "30",
	}
	doc, _ := minted(t, config, append(all, "--pipe", "org_metrics")...)
	if doc.URL != s.APIURL+"/v0/pipes/org_metrics.csv" || doc.Curl != `curl -H "Authorization: Bearer $TOKEN" '`+doc.URL+`'` || doc.Header["alg"] != "HS256" {
		t.Errorf("%+v", doc)
	}
	if limits, _ := doc.Claims["limits"].(map[string]any); limits["rps"] != 30.0 || doc.Claims["name"] != devstack.AcmeID+":org_metrics" {
		t.Errorf("%+v", doc.Claims)
	}
	doc, _ = minted(t, config, append(all, "--pipe", "team_activity")...)
	if text := asJSON(t, doc.Claims["scopes"]); !strings.Contains(text, `"team_id":"a,b"`) {
		t.Error(text)
	}
	// Without a pipe it is what the token endpoint hands out: the shared rate, and all that the session may read under it.
	doc, _ = minted(t, config, all...)
	if text := asJSON(t, doc.Claims["scopes"]); strings.Count(text, "PIPES:READ") != 4 || strings.Contains(text, "org_metrics") {
		t.Error(text)
	}
	if limits, _ := doc.Claims["limits"].(map[string]any); limits["rps"] != 7.0 {
		t.Errorf("%+v", doc.Claims)
	}
}

// TestTokenCommandRefuses: where the edge would refuse the command does, by the same code and sentence, and status 1.
func TestTokenCommandRefuses(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := tokenCaddyfile(t, s)
	for name, tt := range map[string]struct {
		args      []string
		code, why string
	}{
		"no organization": {[]string{"--pipe", "top_pages", "--user", "user_2a"}, "tenant_missing", "organization_id"},
		"no user":         {[]string{"--pipe", "my_activity", "--org", "org_2a"}, "tenant_missing", "user_id"},
		"no team":         {[]string{"--pipe", "team_activity", "--org", "org_2a"}, "tenant_missing", "team_id"},
		"a team of two":   {[]string{"--pipe", "team_activity", "--org", "org_2a", "--claim", `teams=["a,b"]`}, "tenant_missing", "comma"},
		"no permission":   {[]string{"--pipe", "org_metrics", "--org", "org_2a", "--plan", "o:pro"}, "not_allowed", "org:reports:read"},
		"no plan":         {[]string{"--pipe", "org_metrics", "--org", "org_2a", "--permission", "org:reports:read"}, "not_allowed", "plan pro"},
		"no such pipe":    {[]string{"--pipe", "leaky_report", "--org", "org_2a"}, "not_found", ""},
		"nothing to read": {[]string{"--user", "user_2a"}, "tenant_missing", ""},
	} {
		doc, status := minted(t, config, tt.args...)
		if status != 1 || doc.Token != "" || doc.Refused == nil || doc.Refused.Code != tt.code || !strings.Contains(doc.Refused.Why, tt.why) {
			t.Errorf("%s: %d %+v", name, status, doc)
			continue
		}
		if doc.Refused.Error == "" || !strings.HasSuffix(doc.Refused.Docs, "docs/errors.md#"+tt.code) {
			t.Errorf("%s: %+v", name, doc.Refused)
		}
		if out, _, _ := command(t, append([]string{"token", "--config", config}, tt.args...)...); out != "" {
			t.Errorf("%s: stdout has %q", name, out)
		}
	}
	// The edge's own words.
	got := newEdge(t, s, nil).get(t, "dana", "/v0/pipes/top_pages.json")
	doc, _ := minted(t, config, "--pipe", "top_pages", "--user", "user_2a")
	if doc.Refused.Status != got.StatusCode || !strings.Contains(string(got.body), doc.Refused.Error) {
		t.Errorf("the edge says %s, the command %+v", got.body, doc.Refused)
	}
}

// TestTokenCommandSites: the site that lists the pipe is meant; where several do, one has to be named. A clerk_auth that the handler
// relies on has a say.
func TestTokenCommandSites(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	settings := "signing_key " + secretFile(t, s.API.SigningKey()) + "\nupstream " + s.APIURL + "\nfixed_param organization_id {clerk.org.id}\n"
	config := filepath.Join(t.TempDir(), "Caddyfile")
	text := `
a.example.com {
	clerk_auth ` + s.Issuer.PublishableKey() + ` {
		require role org:admin
	}
	tinybird {
		` + settings + `
		pipe top_pages
	}
}
b.example.com {
	tinybird {
		clerk ` + s.Issuer.PublishableKey() + `
		` + settings + `
		pipe top_pages sales_by_day
	}
}
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	who := []string{"--org", "org_2a"}
	if doc, status := minted(t, config, append(who, "--pipe", "sales_by_day")...); status != 0 || doc.Token == "" {
		t.Errorf("%d %+v", status, doc)
	}
	for want, args := range map[string][]string{
		"a.example.com; b.example.com": append(slices.Clone(who), "--pipe", "top_pages"),
		"--pipe: sales_by_day":         append(slices.Clone(who), "--site", "b.example.com"),
	} {
		_, status, err := command(t, append([]string{"token", "--config", config}, args...)...)
		if status != exitCouldNotRun || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %d %v", args, status, err)
		}
	}
	doc, status := minted(t, config, append(who, "--site", "a.example.com")...)
	if status != 1 || doc.Refused.Code != "not_allowed" {
		t.Errorf("%d %+v", status, doc)
	}
	if doc, status = minted(t, config, append(who, "--site", "a.example.com", "--role", "org:admin")...); status != 0 || doc.Token == "" {
		t.Errorf("%d %+v", status, doc)
	}
	if len(s.API.Requests())+s.Issuer.Fetches() > 0 {
		t.Error("somebody was asked")
	}
}

// TestTokenCommandCannotRun holds the errors of a token that cannot be made, none of which shows a secret.
func TestTokenCommandCannotRun(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := tokenCaddyfile(t, s)
	for want, args := range map[string][]string{
		"--rps":     {"--config", config, "--pipe", "org_metrics", "--org", "o", "--plan", "o:pro", "--permission", "org:reports:read"},
		"org:admin": {"--config", config, "--role", "admin", "--org", "o"},
		"flags":     {"--config", config, "top_pages"},
		"NO_KEY":    {"--config", checkedCaddyfile(t, s, map[string]string{"signing_key {file.": "signing_key {env.NO_KEY}\n#"})},
	} {
		out, status, err := command(t, append([]string{"token"}, args...)...)
		if status != exitCouldNotRun || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("%s: %d %v %s", want, status, err, out)
		} else if secret.Looks(err.Error()) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
