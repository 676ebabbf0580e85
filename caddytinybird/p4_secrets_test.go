package caddytinybird

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestP4SecretsAppearNowhere: after good and bad requests at debug level neither keys nor tokens are in the logs, the metrics,
// the answers or the config. It runs alone, because Caddy's logging is one for the process.
//
//nolint:paralleltest // see above
func TestP4SecretsAppearNowhere(t *testing.T) {
	stack := newStack(t, devstack.Options{})
	logFile := filepath.Join(t.TempDir(), "log")
	config := &caddy.Config{
		StorageRaw: json.RawMessage(fmt.Sprintf(`{"module":"file_system","root":%q}`, t.TempDir())),
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{
			Level:     "DEBUG",
			WriterRaw: json.RawMessage(fmt.Sprintf(`{"output":"file","filename":%q}`, logFile)),
		}}}},
	}
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		t.Fatal(err)
	}
	h := testHandler(t, stack)
	h.Clerk.SecretKey = secretFile(t, "sk_test_planted_secret_key_of_clerk_0123456789")
	h.UpstreamErrors = "pass"
	h.TokenEndpoint, h.AcceptTemplateTokens = endpoint, true
	withEvents(t, stack)(h)
	// A store that is away, so that there is something to say about it.
	h.RateLimit = &RateLimit{RPS: "1000"}
	h.RateLimitRedis = &SharedLimit{URL: "redis://edge:" + secretFile(t, "planted/password@of:the?store") + "@127.0.0.1:1"}
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	e := serve(t, stack, h)

	secrets := []string{stack.API.SigningKey(), "sk_test_planted_secret_key_of_clerk_0123456789", "planted/password@of:the?store", "planted%2Fpassword"}
	answers := secretTraffic(t, e, &secrets)
	for _, up := range stack.API.Requests() {
		secrets = append(secrets, up.Tokens...)
	}
	logged, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(logged) == 0 {
		t.Fatal("nothing was logged, so the test shows nothing")
	}
	handlerJSON, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range map[string]string{
		"log": string(logged), "answers": answers, "config": string(handlerJSON), "metrics": gather(t, ctx),
		"printed handler": fmt.Sprintf("%+v", h.Clerk.Limits),
	} {
		for i, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("secret %d is in the %s", i, place)
			}
		}
		// The signature of a token is as good as the token to one who can guess the rest.
		if strings.Contains(text, "eyJhbGciOi") {
			t.Errorf("something like a token is in the %s", place)
		}
	}
}

// secretTraffic makes good requests and every kind of bad ones, and returns all that was answered.
func secretTraffic(t *testing.T, e *edge, secrets *[]string) string {
	t.Helper()
	var answers bytes.Buffer
	ask := func(token, target string) {
		*secrets = append(*secrets, token)
		r := e.request(t, "", http.MethodGet, target, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		got := e.do(t, r)
		fmt.Fprintf(&answers, "%v %s\n", got.Header, got.body)
	}
	for _, opts := range [][]devstack.TokenOption{
		nil,
		{devstack.Expired()},
		{devstack.ForeignKey()},
		{devstack.KID("ins_2unknown")},
		{devstack.AlgNone()},
		{devstack.AlgHS256()},
		{devstack.Template()},
		{devstack.Pending()},
		{devstack.NoOrganization()},
		{devstack.Claim("iss", "https://elsewhere.example")},
		{devstack.Claim("exp", "soon")},
		{devstack.M2M()},
	} {
		ask(e.bearer(t, "ada", opts...), "/v0/pipes/live_events.json")
	}
	for _, more := range []claims{nil, {"sub": nil}, {"scopes": nil}, {"workspace_id": "planted"}} {
		ask(templateToken(t, e.stack, more), "/v0/pipes/live_events.json")
	}
	// The one answer that holds a token is for its holder, and for no log.
	*secrets = append(*secrets, e.get(t, "ada", endpoint).handed(t).Token)
	ask("planted-garbage-token-0123456789", "/v0/pipes/live_events.json?token=planted-query-token-0123456789")
	*secrets = append(*secrets, "planted-query-token-0123456789")
	// Tinybird's 403 echoes the token it was shown; so do its other errors here.
	for _, status := range []int{400, 403, 404, 429, 500, 503} {
		e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
			token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			return &devstack.Fault{Status: status, Body: []byte(`{"error":"invalid authentication token. Invalid token b'` + token + `': "}`)}
		})
		ask(e.bearer(t, "cleo"), "/v0/pipes/live_events.json")
	}
	sendRows := func(status int) {
		e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
			return &devstack.Fault{Status: status, Body: []byte(`{"error":"invalid token ` + r.Header.Get("Authorization") + `"}`)}
		})
		got := e.do(t, e.request(t, "ada", http.MethodPost, "/v0/events?name=events&token=planted-query-token-0123456789", []byte(`{}`)))
		fmt.Fprintf(&answers, "%v %s\n", got.Header, got.body)
	}
	for _, status := range []int{202, 400, 403, 404, 429, 500} {
		sendRows(status)
	}
	e.stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Stop: devstack.DropBeforeHeader} })
	ask(e.bearer(t, "ben"), "/v0/pipes/live_events.json")
	return answers.String()
}

func gather(t *testing.T, ctx caddy.Context) string {
	t.Helper()
	families, err := prometheus.Gatherer(ctx.GetMetricsRegistry()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(text.String(), "caddy_tinybird_requests_total") {
		t.Error("the metrics are not registered")
	}
	return text.String()
}

// TestP4LoadErrorsHideTheKey: an error about a secret does not show it.
func TestP4LoadErrorsHideTheKey(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	for name, secret := range map[string]string{
		"empty":          "",
		"short":          "hunter2-short",
		"braces":         "hunter2-{env.TINYBIRD_SIGNING_KEY}-0123456789",
		"angle brackets": "<hunter2-workspace-admin-token-goes-here>",
		"space":          "hunter2 ",
		"broken key":     "p.hunter2hunter2hunter2hunter2.hunter2hunter2hunter2",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testHandler(t, stack)
			h.WorkspaceID, h.Upstream = "", ""
			h.SigningKey = secretFile(t, secret)
			err := provision(t, newContext(t, storageDir(t)), h)
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the key: %v", err)
			}
			if !strings.Contains(err.Error(), "signing_key") && !strings.Contains(err.Error(), "signing key") {
				t.Errorf("the error does not say what is wrong: %v", err)
			}
		})
	}
}

// TestP4KeyInTheWrongPlace: a key that was written between braces, or pasted where something else belongs, is refused
// without being printed, while adapting and while loading.
func TestP4KeyInTheWrongPlace(t *testing.T) {
	t.Parallel()
	const key = "p.eyJ1IjoicGxhbnRlZCJ9.planted-signature-of-the-key"
	const clerkKey = "sk_live_plantedplantedplantedplanted"
	for _, line := range []string{
		"signing_key {" + key + "}", "signing_key {{" + key + "}}", "signing_key {env." + key + "}", "signing_key {file." + key + "}",
		"signing_key {env.A}{env.B}", "token " + key, key, "errors " + key, "rate_limit 1 burst " + key, "fixed_param a {" + key + "}",
		"fixed_param " + key + " x", "upstream " + key, "workspace_id " + key, "pipe " + key + " {\n}", "upstream_errors " + key, "cors " + key, "token_endpoint " + key,
		"accept_template_tokens " + key,
		"clerk " + key, "clerk {\n\tsecret_key {" + clerkKey + "}\n}", "clerk {\n\ttoken_from " + key + "\n}",
		"clerk {\n\tjwks_url " + key + "\n}", "clerk {\n\tissuer " + key + "\n}", "clerk {\n\tclock_skew " + key + "\n}",
		"clerk {\n\tauthorized_parties " + clerkKey + "\n}", "clerk {\n\tallow_impersonation " + clerkKey + "\n}",
		"clerk {\n\tpublishable_key " + clerkKey + "\n}", "limits {\n\ttokens " + key + "\n}",
	} {
		_, _, err := adapt(t, "example.com {\n\ttinybird {\n"+line+"\n}\n}\n")
		if err == nil {
			t.Errorf("accepted: %s", line)
			continue
		}
		if strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "planted") {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	stack := newStack(t, devstack.Options{})
	for name, configure := range map[string]func(h *Handler, text string){
		"signing_key":      func(h *Handler, text string) { h.SigningKey = text },
		"workspace_id":     func(h *Handler, text string) { h.WorkspaceID = text },
		"upstream":         func(h *Handler, text string) { h.Upstream = text },
		"token name":       func(h *Handler, text string) { h.Token = &Token{Name: text} },
		"fixed param":      func(h *Handler, text string) { h.FixedParams[0].Value = text },
		"fixed param name": func(h *Handler, text string) { h.FixedParams[0].Name = text },
		"rate":             func(h *Handler, text string) { h.RateLimit = &RateLimit{RPS: text} },
		"pipe":             func(h *Handler, text string) { h.Pipes[0].Names[0] = text },
		"requirement": func(h *Handler, text string) {
			h.Pipes[0].Require = []Requirement{{Kind: text, Values: []string{text}}}
		},
		"format":          func(h *Handler, text string) { h.Pipes[0].Formats = []string{text} },
		"token endpoint":  func(h *Handler, text string) { h.TokenEndpoint = text },
		"cors":            func(h *Handler, text string) { h.CORS = []string{text} },
		"errors":          func(h *Handler, text string) { h.Errors = text },
		"upstream errors": func(h *Handler, text string) { h.UpstreamErrors = text },
		"transport":       func(h *Handler, text string) { h.TransportRaw, _ = json.Marshal(map[string]string{"protocol": text}) },
		"transport field": func(h *Handler, text string) {
			h.TransportRaw, _ = json.Marshal(map[string]string{"protocol": "http", text: text})
		},
		"publishable key": func(h *Handler, text string) { h.Clerk.PublishableKey = text },
		"issuer":          func(h *Handler, text string) { h.Clerk.Issuers = []string{text} },
		"issuer path":     func(h *Handler, text string) { h.Clerk.Issuers = []string{"https://a.example/" + text + "/"} },
		"jwks_url":        func(h *Handler, text string) { h.Clerk.JWKSURL = text },
		"jwt_key":         func(h *Handler, text string) { h.Clerk.JWTKey = text },
		"azp":             func(h *Handler, text string) { h.Clerk.AZP = text },
		"party":           func(h *Handler, text string) { h.Clerk.AuthorizedParties = []string{text} },
		"token_from":      func(h *Handler, text string) { h.Clerk.TokenFrom = []TokenSource{{Source: text}} },
	} {
		for _, text := range []string{key, clerkKey, "{" + key + "}", "{env." + key + "}", "{{" + clerkKey + "}}", "{http." + key + "}"} {
			h := testHandler(t, stack)
			configure(h, text)
			// Some are accepted, such as a literal value, and show nothing for it.
			err := provision(t, newContext(t, storageDir(t)), h)
			if err != nil && strings.Contains(err.Error(), "planted") {
				t.Errorf("%s shows the key: %v", name, err)
			}
		}
	}
}

// TestAttackCredentialInAnAddress: an address of Clerk's can hold a credential, in its query or as a password. An error about one that
// was mistyped goes to a log, and does not show it.
func TestAttackCredentialInAnAddress(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	for setting, set := range map[string]func(c *Clerk, text string){
		"jwks_url":  func(c *Clerk, text string) { c.JWKSURL = text },
		"api_url":   func(c *Clerk, text string) { c.APIURL = text },
		"proxy_url": func(c *Clerk, text string) { c.ProxyURL = text },
		"issuer":    func(c *Clerk, text string) { c.Issuers = []string{text} },
	} {
		for _, text := range []string{
			"clerk.internal/jwks?key=planted", "clerk.internal:8080/jwks?key=planted", "https:/clerk.internal/jwks?key=planted",
			"https://clerk.internal:x/jwks?key=planted", "/jwks?key=planted", "user:planted@clerk.internal/jwks", "https://user:planted%zz@clerk.internal/",
			"https://user:planted@clerk.internal/", "ftp://clerk.internal/?planted", "http://clerk.example.com/?planted",
		} {
			_, _, err := adapt(t, "example.com {\n\ttinybird {\n\tclerk {\n\t"+setting+" "+text+"\n}\n}\n}\n")
			if err == nil || strings.Contains(err.Error(), "planted") || !strings.Contains(err.Error(), setting) {
				t.Errorf("%s %s: %v", setting, text, err)
			}
			h := testHandler(t, stack)
			set(h.Clerk, text)
			err = provision(t, newContext(t, storageDir(t)), h)
			if err == nil || strings.Contains(err.Error(), "planted") || !strings.Contains(err.Error(), setting) {
				t.Errorf("%s %s: %v", setting, text, err)
			}
		}
	}
	// With these an address of keys or of a proxy is right.
	for _, text := range []string{"https://clerk.internal?key=planted", "https://clerk.internal/?key=planted/", "https://clerk.internal#planted"} {
		_, _, err := adapt(t, "example.com {\n\ttinybird {\n\tclerk {\n\tissuer "+text+"\n}\n}\n}\n")
		h := testHandler(t, stack)
		h.Clerk.Issuers = []string{text}
		for _, err := range []error{err, provision(t, newContext(t, storageDir(t)), h)} {
			if err == nil || strings.Contains(err.Error(), "planted") || !strings.Contains(err.Error(), "issuer") {
				t.Errorf("issuer %s: %v", text, err)
			}
		}
	}
}
