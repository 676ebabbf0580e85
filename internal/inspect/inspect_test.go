package inspect

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

var update = flag.Bool("update", false, "write the golden files anew")

var start = time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)

// golden compares what is written for people with a file.
func golden(t *testing.T, name string, r *Report, replace ...string) {
	t.Helper()
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	got := strings.NewReplacer(replace...).Replace(out.String())
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: it says\n%s\nand not\n%s", name, got, want)
	}
}

// world is a Clerk instance and a Tinybird workspace, with what a config would tell of them.
type world struct {
	issuer *devstack.Issuer
	api    *devstack.API
	known  Known
}

func newWorld(t *testing.T) *world {
	t.Helper()
	i, err := devstack.NewIssuer(devstack.IssuerOptions{Now: func() time.Time { return start }, URL: "https://clerk.example.com", AppOrigin: "https://app.example.com", Live: true})
	if err != nil {
		t.Fatal(err)
	}
	text, err := i.PublicKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := jwks.ParsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{issuer: i, api: devstack.NewAPI(devstack.APIOptions{})}
	w.known = Known{
		Configured: true, Now: start.Add(90 * time.Second), Keys: []Key{{ID: i.KeyID(), Public: pub, From: "https://clerk.example.com/.well-known/jwks.json"}},
		Secrets: []Secret{
			{Value: w.api.SigningKey(), Name: "the signing key of analytics.example.com", Signs: true},
			{Value: i.SecretKey(), Name: "the secret key of analytics.example.com"},
		},
	}
	return w
}

func (w *world) token(t *testing.T, user string, opts ...devstack.TokenOption) string {
	t.Helper()
	token, err := w.issuer.Token(user, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (w *world) tinybird(t *testing.T, key string, claims map[string]any) string {
	t.Helper()
	token, err := devstack.SignToken(key, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestExplain holds what is said about each kind of token, and that none of it shows the token.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	minted := map[string]any{
		"workspace_id": devstack.WorkspaceID, "name": devstack.AcmeID, "exp": start.Add(2 * time.Minute).Unix(), "limits": map[string]any{"rps": 50},
		"scopes": []any{map[string]any{"type": "PIPES:READ", "resource": "top_pages", "fixed_params": map[string]any{"organization_id": devstack.AcmeID}}},
	}
	ofClerk := map[string]any{
		"iss": "https://clerk.example.com", "sub": "user_2ada", "azp": "https://app.example.com", "iat": start.Unix(), "nbf": start.Unix() - 5, "exp": start.Add(time.Minute).Unix(),
		"workspace_id": devstack.WorkspaceID, "name": "frontend",
		"scopes": []any{
			map[string]any{"type": "PIPES:READ", "resource": "top_pages", "fixed_params": map[string]any{"org": nil}},
			map[string]any{"type": "PIPES:READ", "resource": "countries"},
			map[string]any{"type": "DATASOURCES:READ", "resource": "events", "filter": "organization_id = 'acme'"},
		},
	}
	static := func(said string) string {
		return "p." + base64.RawURLEncoding.EncodeToString([]byte(said)) + ".c2lnbmF0dXJlLW9mLXR5bmliaXJk"
	}
	for name, tt := range map[string]struct {
		token string
		kind  Kind
		known func(*Known)
	}{
		"session":              {token: w.token(t, "ada"), kind: KindSession},
		"session-alive":        {token: w.token(t, "ada"), kind: KindSession, known: func(k *Known) { k.Now = start.Add(20 * time.Second) }},
		"session-v1":           {token: w.token(t, "ben", devstack.V1()), kind: KindSession},
		"session-personal":     {token: w.token(t, "dana", devstack.NoAZP(), devstack.Pending()), kind: KindSession},
		"session-impersonated": {token: w.token(t, "ada", devstack.Impersonated("user_2boss")), kind: KindSession},
		"session-no-config":    {token: w.token(t, "ada"), kind: KindSession, known: func(k *Known) { *k = Known{Now: k.Now} }},
		"session-no-keys": {token: w.token(t, "ada"), kind: KindSession, known: func(k *Known) {
			k.Keys, k.NoKeys = nil, "the keys at https://clerk.example.com were not had: status 503"
		}},
		"session-forged":      {token: w.token(t, "ada", devstack.ForeignKey()), kind: KindSession},
		"session-other-key":   {token: w.token(t, "ada", devstack.KID("ins_2other")), kind: KindSession},
		"session-unsigned":    {token: w.token(t, "ada", devstack.AlgNone()), kind: KindSession},
		"session-future":      {token: w.token(t, "ada", devstack.IssuedAt(start.Add(26*time.Hour))), kind: KindSession},
		"session-no-exp":      {token: w.token(t, "ada", devstack.NoClaim("exp")), kind: KindSession},
		"template":            {token: w.token(t, "ada", devstack.Template()), kind: KindTemplate},
		"template-old":        {token: w.token(t, "ada", devstack.Template(), devstack.Header("cat", nil)), kind: KindTemplate},
		"m2m":                 {token: w.token(t, "ada", devstack.M2M()), kind: KindM2M},
		"oauth":               {token: w.token(t, "ada", devstack.OAuth()), kind: KindOAuth},
		"handshake":           {token: w.token(t, "ada", devstack.Claim("handshake", []string{"__session=secret"}), devstack.NoClaim("sub"), devstack.NoClaim("sid")), kind: KindHandshake},
		"jwt":                 {token: w.token(t, "ada", devstack.NoClaim("sid"), devstack.Claim("sub", "12345")), kind: KindJWT},
		"tinybird":            {token: w.tinybird(t, w.api.SigningKey(), minted), kind: KindTinybirdJWT},
		"tinybird-other":      {token: w.tinybird(t, devstack.NewSigningKey(devstack.WorkspaceID), minted), kind: KindTinybirdJWT},
		"tinybird-of-clerk":   {token: w.tinybird(t, w.api.SigningKey(), ofClerk), kind: KindTinybirdClerk},
		"static":              {token: static(`{"u":"7d0c5a52-1b0e-4c55-9a3e-5b5f5c0de001","id":"t1","host":"aws-us-east-1"}`), kind: KindTinybirdStatic},
		"static-known":        {token: w.api.SigningKey(), kind: KindTinybirdStatic},
		"static-far":          {token: static(`{"u":"7d0c5a52-1b0e-4c55-9a3e-5b5f5c0de001","host":"mars"}`), kind: KindTinybirdStatic},
		"static-cut":          {token: "p.eyJ1Ijoi.c2lnbmF0dXJl", kind: KindTinybirdStatic},
		"secret-key":          {token: w.issuer.SecretKey(), kind: KindSecretKey},
		"secret-key-other":    {token: "sk_test_" + strings.Repeat("x", 40), kind: KindSecretKey},
		"publishable-key":     {token: w.issuer.PublishableKey(), kind: KindPublishableKey},
		"publishable-key-cut": {token: "pk_live_Y2xl", kind: KindPublishableKey},
		"opaque-m2m":          {token: "mt_" + strings.Repeat("x", 30), kind: KindM2M},
		"opaque-oauth":        {token: "oat_" + strings.Repeat("x", 30), kind: KindOAuth},
		"api-key":             {token: "ak_" + strings.Repeat("x", 30), kind: KindAPIKey},
		"webhook":             {token: "whsec_" + strings.Repeat("x", 30), kind: KindWebhookSecret},
		"unknown":             {token: "hello-this-is-a-password", kind: KindUnknown},
		"unknown-jwt":         {token: "eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl", kind: KindUnknown},
		"unknown-three":       {token: "www.example.computer", kind: KindUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := w.known
			if tt.known != nil {
				tt.known(&k)
			}
			r, err := Explain(tt.token, k)
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind != tt.kind {
				t.Errorf("%s is a %s", name, r.Kind)
			}
			golden(t, name, r, w.issuer.KeyID(), "ins_2abc")
			doc, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if secret := secretOf(tt.token); secret != "" && strings.Contains(string(doc), secret) {
				t.Errorf("the secret is shown: %s", doc)
			}
		})
	}
}

// TestTrim takes tokens out of what they are copied with.
func TestTrim(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"  eyJ.a.b\n":                                    "eyJ.a.b",
		"Bearer eyJ.a.b":                                 "eyJ.a.b",
		"authorization: bearer eyJ.a.b\r\n":              "eyJ.a.b",
		"Cookie: x=1; __session=eyJ.a.b; __client_uat=1": "eyJ.a.b",
		"__session_AbC=eyJ.a.b":                          "eyJ.a.b",
		"\"eyJ.a.b\"":                                    "eyJ.a.b",
		"'sk_test_x'":                                    "sk_test_x",
		"https://a.example.com/v0/pipes/p.json?from=x&token=eyJ.a.b&y=1": "eyJ.a.b",
		"eyJ.a.b": "eyJ.a.b",
		"":        "",
		"\"":      "\"",
	} {
		if got := Trim(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// TestExplainBounds: what is no token at all is an error.
func TestExplainBounds(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", " \n", "Bearer ", strings.Repeat("a", MaxSize+1)} {
		if r, err := Explain(text, Known{}); err == nil {
			t.Errorf("%+v", r)
		}
	}
}

// TestClaimsThatHoldSecrets: what looks like another token, repeats this one's signature or steers the terminal is not written.
func TestClaimsThatHoldSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.api.SigningKey()
	token := w.token(t, "ada", devstack.Claim("leaked", key), devstack.Claim("nested", map[string]any{"a": []any{"sk_live_" + strings.Repeat("k", 30), "fine"}}),
		devstack.Claim("escape", "\x1b[31mred\x1b[0m\u202e"), devstack.Claim(key, "a name"), devstack.Claim("long", strings.Repeat("x", 5000)))
	r, err := Explain(token, w.known)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), string(doc)} {
		for _, bad := range []string{key, "sk_live_", "\x1b", "\u202e", `\u001b`, strings.Repeat("x", 600)} {
			if strings.Contains(text, bad) {
				t.Errorf("it writes %q:\n%s", bad, text)
			}
		}
		if !strings.Contains(text, "fine") {
			t.Errorf("the harmless claim is missing:\n%s", text)
		}
	}
}

// TestClaimThatRepeatsTheSignature: a token can be made to say its own signature, which is not written then.
func TestClaimThatRepeatsTheSignature(t *testing.T) {
	t.Parallel()
	const signature = "c2lnbmF0dXJlLXNpZ25hdHVyZQ"
	seg := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	token := seg(`{"alg":"RS256","kid":"`+signature+`"}`) + "." + seg(`{"sub":"user_`+signature+`","sid":"sess_1","echo":["`+signature+`"],"`+signature+`":1}`) + "." + signature
	r, err := Explain(token, Known{Now: start})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String()+string(doc), signature) || r.Kind != KindSession {
		t.Errorf("%s", doc)
	}
}

// TestPinnedKey: the key of jwt_key is that of every key id.
func TestPinnedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.known
	k.Keys = []Key{{Public: w.known.Keys[0].Public, From: "jwt_key"}}
	r, err := Explain(w.token(t, "ada", devstack.KID("ins_any")), k)
	if err != nil || r.Signature.Status != Valid || r.Signature.By != "jwt_key" {
		t.Errorf("%+v %v", r.Signature, err)
	}
	k.Keys[0].Public = &rsa.PublicKey{N: w.known.Keys[0].Public.N, E: 3}
	if r, err = Explain(w.token(t, "ada"), k); err != nil || r.Signature.Status != Invalid {
		t.Errorf("%+v %v", r.Signature, err)
	}
}

// TestMoments holds how times are told.
func TestMoments(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds", 61 * time.Second: "1 minute 1 second", time.Hour: "1 hour",
		time.Hour + time.Second: "1 hour", 25 * time.Hour: "1 day 1 hour", 49*time.Hour + 59*time.Minute: "2 days 1 hour", 120 * time.Second: "2 minutes",
	} {
		if got := ago(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// TestVerdicts holds what is written of the sites.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, err := Explain(w.token(t, "ada"), w.known)
	if err != nil {
		t.Fatal(err)
	}
	refused := &Refusal{Status: 401, Code: "token_expired", Error: "The session token has expired. Fetch a fresh one.", Docs: "https://example.com/errors.md#token_expired"}
	missing := &Refusal{Status: 403, Code: "tenant_missing", Error: "Choose an organization.", Why: "pipe team: no value", Docs: "https://example.com/errors.md#tenant_missing"}
	r.Sites = []Verdict{
		{Hosts: []string{"a.example.com", "b.example.com"}, Directive: "tinybird", Refusal: refused},
		{Directive: "tinybird", Accepted: true, Pipes: []PipeVerdict{{Pipe: "top_pages"}, {Pipe: "team", Refusal: missing}, {Pipe: "sales"}}},
		{Hosts: []string{"c.example.com"}, Directive: "clerk_auth", Accepted: true},
		{Hosts: []string{"d.example.com"}, Directive: "clerk_auth", Unclear: "the keys were not had"},
	}
	golden(t, "verdicts", r, w.issuer.KeyID(), "ins_2abc")
}
