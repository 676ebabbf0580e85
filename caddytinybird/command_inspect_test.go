package caddytinybird

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/inspect"
)

// inspected runs `caddy tinybird inspect --json` with the token on stdin.
func inspected(t *testing.T, token string, args ...string) inspect.Report {
	t.Helper()
	out, stderr, status, err := commandWith(t, token+"\n", append([]string{"inspect", "--json"}, args...)...)
	if status != 0 {
		t.Fatalf("%d %v %s", status, err, stderr)
	}
	var r inspect.Report
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if parts := strings.Split(token, "."); len(parts) == 3 && parts[2] != "" && strings.Contains(out+stderr, parts[2]) {
		t.Error("the signature is shown")
	}
	return r
}

// TestInspectCommandVerdicts: the command says of a token what the edge of that config says of a request with it: the code, the
// sentence, for each pipe.
func TestInspectCommandVerdicts(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := checkedCaddyfile(t, s, map[string]string{"pipe top_pages sales_by_day\n": `pipe top_pages sales_by_day
		pipe org_metrics {
			require permission org:reports:manage
			formats csv
		}
`})
	e := newEdge(t, s, func(h *Handler) {
		h.Clerk.AuthorizedParties = []string{"https://app.example.com"}
		h.Pipes = []Pipe{
			{Names: []string{"top_pages"}},
			{Names: []string{"org_metrics"}, Require: []Requirement{{Kind: "permission", Values: []string{"org:reports:manage"}}}},
		}
	})
	azp := devstack.AZP("https://app.example.com")
	for name, tt := range map[string]struct {
		user  string
		opts  []devstack.TokenOption
		code  string   // of the token itself
		reads []string // of top_pages and org_metrics
	}{
		"ada":           {"ada", []devstack.TokenOption{azp}, "", []string{"org_metrics", "top_pages"}},
		"ben":           {"ben", []devstack.TokenOption{azp}, "", []string{"top_pages"}},
		"dana":          {"dana", []devstack.TokenOption{azp}, "", nil},
		"expired":       {"ada", []devstack.TokenOption{azp, devstack.Expired()}, "token_expired", nil},
		"future":        {"ada", []devstack.TokenOption{azp, devstack.IssuedAt(time.Now().Add(time.Hour))}, "token_not_yet_valid", nil},
		"another party": {"ada", []devstack.TokenOption{devstack.AZP("https://evil.example.com")}, "token_wrong_party", nil},
		"no party":      {"ada", []devstack.TokenOption{devstack.NoAZP()}, "token_wrong_party", nil},
		"forged":        {"ada", []devstack.TokenOption{azp, devstack.ForeignKey()}, "token_invalid", nil},
		"another kid":   {"ada", []devstack.TokenOption{azp, devstack.KID("ins_other")}, "token_invalid", nil},
		"another iss":   {"ada", []devstack.TokenOption{azp, devstack.Claim("iss", "https://other.example.com")}, "token_wrong_issuer", nil},
		"template":      {"ada", []devstack.TokenOption{azp, devstack.Template()}, "token_wrong_type", nil},
		"machine":       {"ada", []devstack.TokenOption{azp, devstack.M2M()}, "token_wrong_type", nil},
		"pending":       {"ada", []devstack.TokenOption{azp, devstack.Pending()}, "session_pending", nil},
		"none":          {"ada", []devstack.TokenOption{azp, devstack.AlgNone()}, "token_invalid", nil},
	} {
		token := e.bearer(t, tt.user, tt.opts...)
		r := inspected(t, token, "--config", config)
		if len(r.Sites) != 1 {
			t.Fatalf("%s: %+v", name, r)
		}
		v := r.Sites[0]
		request := e.request(t, "", "GET", "/v0/pipes/top_pages.json", nil)
		request.Header.Set("Authorization", "Bearer "+token)
		edge := e.do(t, request)
		if tt.code != "" {
			if v.Accepted || v.Refusal == nil || v.Refusal.Code != tt.code || edge.code(t) != tt.code || v.Refusal.Status != edge.StatusCode {
				t.Errorf("%s: the command says %+v, the edge %d %s", name, v.Refusal, edge.StatusCode, edge.body)
			} else if !strings.Contains(string(edge.body), v.Refusal.Error) || !strings.HasSuffix(v.Refusal.Docs, "errors.md#"+tt.code) {
				t.Errorf("%s: the command says %+v, the edge %s", name, v.Refusal, edge.body)
			}
			continue
		}
		var reads []string
		for _, p := range v.Pipes {
			if p.Refusal == nil && slices.Contains([]string{"org_metrics", "top_pages"}, p.Pipe) {
				reads = append(reads, p.Pipe)
			}
		}
		if !v.Accepted || !slices.Equal(reads, tt.reads) || (edge.StatusCode == 200) != slices.Contains(reads, "top_pages") {
			t.Errorf("%s: the command says %+v, the edge %d", name, v, edge.StatusCode)
		}
	}
}

// TestInspectCommandTokens: of the tokens that are not Clerk's, which they are, by whom signed, and that they are no sessions.
func TestInspectCommandTokens(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := checkedCaddyfile(t, s, nil)
	out, _, err := command(t, "token", "--config", config, "--pipe", "top_pages", "--org", "org_2a")
	if err != nil {
		t.Fatal(err)
	}
	r := inspected(t, strings.TrimSpace(out), "--config", config)
	if r.Kind != inspect.KindTinybirdJWT || r.Signature.Status != inspect.Valid || r.Signature.By != "the signing key of analytics.example.com" {
		t.Errorf("%+v", r)
	}
	if scope := r.Tinybird.Scopes[0]; scope.Resource != "top_pages" || scope.FixedParams["organization_id"] != "org_2a" || r.ExpiresAt == nil {
		t.Errorf("%+v", r.Tinybird)
	}
	if v := r.Sites[0]; v.Accepted || v.Refusal.Code != "token_invalid" {
		t.Errorf("%+v", v)
	}
	for token, want := range map[string]string{
		s.API.SigningKey():                   "It is the signing key of analytics.example.com.",
		s.API.AppendToken():                  "It is the append_token of events analytics_events of analytics.example.com.",
		s.Issuer.SecretKey():                 "It is the secret key of analytics.example.com.",
		s.Issuer.PublishableKey():            "It is the publishable key of analytics.example.com.",
		devstack.NewSigningKey("x"):          "It is none of those in the config.",
		"ak_" + strings.Repeat("a", 30):      "Only Clerk can tell whose it is. It is no session token: the edge refuses it.",
		"sk_live_" + strings.Repeat("k", 30): "It is none of those in the config.",
	} {
		if r := inspected(t, token, "--config", config); !slices.Contains(r.Notes, inspect.Note(want)) || r.Sites[0].Accepted {
			t.Errorf("no %q in %q", want, r.Notes)
		}
	}
}

// TestInspectCommandTemplateTokens: a token of Clerk's template is judged as accept_template_tokens says.
func TestInspectCommandTemplateTokens(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	token, err := devstack.SignToken(s.API.SigningKey(), map[string]any{
		"iss": s.IssuerURL, "sub": "user_2a", "azp": "https://app.example.com", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"workspace_id": s.API.WorkspaceID(), "name": "x",
		"scopes": []any{map[string]any{"type": "PIPES:READ", "resource": "top_pages", "fixed_params": map[string]any{"organization_id": devstack.AcmeID}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := inspected(t, token, "--config", checkedCaddyfile(t, s, nil))
	if r.Kind != inspect.KindTinybirdClerk || r.Sites[0].Accepted {
		t.Errorf("%+v", r)
	}
	r = inspected(t, token, "--config", checkedCaddyfile(t, s, map[string]string{"upstream ": "accept_template_tokens\nupstream "}))
	if v := r.Sites[0]; !v.Accepted || len(v.Pipes) != 3 || v.Pipes[2].Pipe != "top_pages" || v.Pipes[2].Refusal != nil || v.Pipes[1].Refusal == nil {
		t.Errorf("%+v", v)
	}
}

// TestInspectCommandClerkAuth: a clerk_auth judges by itself, with what it requires, and for the tinybird that relies on it.
func TestInspectCommandClerkAuth(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	settings := "signing_key " + secretFile(t, s.API.SigningKey()) + "\nupstream " + s.APIURL + "\n"
	config := filepath.Join(t.TempDir(), "Caddyfile")
	text := `
{
	clerk {
		publishable_key ` + s.Issuer.PublishableKey() + `
		issuer ` + s.IssuerURL + `
	}
}
a.example.com {
	clerk_auth {
		require role org:admin
	}
	respond ok
}
b.example.com {
	clerk_auth {
		require role org:admin
	}
	tinybird {
		` + settings + `
		pipe top_pages {
			fixed_param organization_id {clerk.org.id}
		}
	}
}
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for user, accepted := range map[string]bool{"ada": true, "ben": false} {
		token, err := s.Issuer.Token(user)
		if err != nil {
			t.Fatal(err)
		}
		r := inspected(t, token, "--config", config)
		if len(r.Sites) != 2 || r.Sites[0].Directive != "clerk_auth" || r.Sites[1].Directive != "tinybird" {
			t.Fatalf("%+v", r.Sites)
		}
		for _, v := range r.Sites {
			if v.Accepted != accepted || !accepted && v.Refusal.Code != "not_allowed" {
				t.Errorf("%s at %v: %+v", user, v.Hosts, v)
			}
		}
	}
	if n := s.Issuer.Fetches(); n != 2 {
		t.Errorf("the keys were fetched %d times in two runs over two sites", n)
	}
}

// TestInspectCommandOffline: without the keys it is not said that a token is refused, or that its signature is wrong.
func TestInspectCommandOffline(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := checkedCaddyfile(t, s, nil)
	token, err := s.Issuer.Token("ada", devstack.AZP("https://app.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	r := inspected(t, token, "--config", config, "--offline")
	if r.Signature.Status != inspect.NotChecked || r.Sites[0].Unclear == "" || r.Sites[0].Refusal != nil || s.Issuer.Fetches() > 0 {
		t.Errorf("%+v %+v", r.Signature, r.Sites)
	}
	// In an outage it is the same.
	s.Issuer.SetDown(true)
	r = inspected(t, token, "--config", config)
	if r.Signature.Status != inspect.NotChecked || !strings.Contains(r.Signature.Why, "503") || r.Sites[0].Unclear == "" {
		t.Errorf("%+v %+v", r.Signature, r.Sites)
	}
	if len(s.API.Requests()) > 0 {
		t.Error("Tinybird was asked")
	}
}

// Attack: a credential in the address of the keys is read off the screen of whoever looks at a token.
func TestAttackInspectKeysAddress(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	keys := s.IssuerURL + "/.well-known/jwks.json"
	config := checkedCaddyfile(t, s, map[string]string{
		"\tissuer " + s.IssuerURL: "\tissuer " + s.IssuerURL + "\njwks_url " + keys + "?key=marked-secret",
	})
	token, err := s.Issuer.Token("ada", devstack.AZP("https://app.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	look := func(want string, args ...string) {
		t.Helper()
		out, stderr, _, err := commandWith(t, token+"\n", append([]string{"inspect", "--config", config}, args...)...)
		if err != nil || !strings.Contains(out, want) || strings.Contains(out+stderr, "marked") {
			t.Errorf("%v, want %q\n%s%s", err, want, out, stderr)
		}
	}
	look("the signature is right: by " + keys)
	look(`"by": "`+keys+`"`, "--json")
	look("the keys at "+keys+" were not had", "--offline")
	s.Issuer.SetDown(true)
	look("the keys at " + keys + " were not had")
}

// TestInspectCommandInput: where the token may come from, and what is said about an argument.
func TestInspectCommandInput(t *testing.T) {
	t.Parallel()
	token := "sk_test_" + strings.Repeat("k", 40)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("Authorization: Bearer "+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		stdin string
		args  []string
		warns bool
	}{
		"stdin":    {token, nil, false},
		"dash":     {token, []string{"-"}, false},
		"file":     {"", []string{"@" + file}, false},
		"argument": {"", []string{token}, true},
	} {
		out, stderr, status, err := commandWith(t, tt.stdin, append([]string{"inspect"}, tt.args...)...)
		if status != 0 || !strings.Contains(out, "A secret key of Clerk's") || strings.Contains(stderr, "history") != tt.warns {
			t.Errorf("%s: %d %v\n%s%s", name, status, err, out, stderr)
		}
		if strings.Contains(out+stderr, "kkkk") {
			t.Errorf("%s: the token is shown", name)
		}
	}
	if out, _, status, _ := commandWith(t, "hello", "inspect"); status != 1 || !strings.Contains(out, "Nothing that Clerk or Tinybird issues") {
		t.Errorf("%d %s", status, out)
	}
	for want, args := range map[string][]string{
		"no token":     {},
		"no such file": {"@" + file + "x"},
		"one token":    {token, token},
		"--config":     {"--site", "a.example.com"},
		"no such fi":   {"--config", file + "x"},
	} {
		_, stderr, status, err := commandWith(t, "", append([]string{"inspect"}, args...)...)
		if status != exitCouldNotRun || !strings.Contains(err.Error(), want) || strings.Contains(err.Error()+stderr, "kkkk") {
			t.Errorf("%v: %d %v", args, status, err)
		}
	}
}

// TestInspectCommandCaddyfileByChance: a Caddyfile in the directory is used if it can be, and left aside with a word if not.
func TestInspectCommandCaddyfileByChance(t *testing.T) {
	s := newStack(t, devstack.Options{})
	good, err := os.ReadFile(checkedCaddyfile(t, s, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for text, used := range map[string]bool{string(good): true, "example.com {\n respond ok\n}\n": false, "example.com {\n": false} {
		if err := os.WriteFile("Caddyfile", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, stderr, status, err := commandWith(t, s.Issuer.PublishableKey(), "inspect")
		if status != 0 || strings.Contains(out, "analytics.example.com") != used || strings.Contains(stderr, "left aside") == used {
			t.Errorf("%q: %d %v\n%s%s", text, status, err, out, stderr)
		}
	}
}
