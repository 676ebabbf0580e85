//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// globalOptions begin every config. The site of a test is http://{$EDGE} or another at that port.
const globalOptions = `
	admin {$ADMIN}
	persist_config off
	skip_install_trust
	auto_https off
	grace_period 20s
	storage file_system {$STORAGE}
`

// clerkOption is the global option clerk.
const clerkOption = `
	clerk {
		publishable_key {env.CLERK_PUBLISHABLE_KEY}
		issuer {env.ISSUER}
	}
`

// credentials are the lines that every tinybird block needs.
const credentials = `
	signing_key {env.TINYBIRD_SIGNING_KEY}
	upstream {env.UPSTREAM}
`

// allPipes are those of the stand-in: for an organization, a user and a team.
const allPipes = `
	fixed_param organization_id {clerk.org.id}
	pipe top_pages sales_by_day live_events org_metrics draft_report
	pipe my_activity {
		fixed_param user_id {clerk.user.id}
	}
	pipe team_activity {
		fixed_param team_id {clerk.claims.team_id}
	}
`

// plainSite is a site with nothing but the plugin.
const plainSite = "http://{$EDGE} {\n tinybird {\n" + credentials + allPipes + "}\n}\n"

// edge is a Caddy between a client and the stand-ins.
type edge struct {
	*process

	stack *devstack.Stack
	addr  string // where the site listens
	home  string
	env   []string
	http  *http.Client
}

// caddyfile is a whole config: the options that every test needs, the clerk option, further options and sites.
func caddyfile(options, sites string) string {
	return "{\n" + globalOptions + clerkOption + options + "}\n" + sites
}

// newEdge prepares everything but the process.
func newEdge(t *testing.T, o devstack.Options) *edge {
	t.Helper()
	stack, err := devstack.Start(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Close(); err != nil {
			t.Error(err)
		}
	})
	e := &edge{stack: stack, addr: freeAddr(t), home: t.TempDir()}
	e.env = []string{
		"EDGE=" + e.addr,
		"ADMIN=" + freeAddr(t),
		"STORAGE=" + e.home + "/storage",
		"UPSTREAM=" + stack.APIURL,
		"ISSUER=" + stack.IssuerURL,
		"CLERK_PUBLISHABLE_KEY=" + stack.Issuer.PublishableKey(),
		"TINYBIRD_SIGNING_KEY=" + stack.API.SigningKey(),
	}
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	e.http = &http.Client{
		Transport: tr, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e
}

// setenv sets a variable of the processes to come.
func (e *edge) setenv(name, value string) {
	e.env = slices.DeleteFunc(e.env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	e.env = append(e.env, name+"="+value)
}

func (e *edge) getenv(name string) string {
	for _, v := range e.env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// run starts Caddy with a config.
func (e *edge) run(t *testing.T, config string) *edge {
	t.Helper()
	e.process = start(t, e.home, config, e.getenv("ADMIN"), e.env)
	return e
}

// startEdge starts the stand-ins and Caddy with one plain site or, if there are any, with other sites.
func startEdge(t *testing.T, sites ...string) *edge {
	t.Helper()
	if len(sites) == 0 {
		sites = []string{plainSite}
	}
	return newEdge(t, devstack.Options{}).run(t, caddyfile("", strings.Join(sites, "\n")))
}

// token is a session token of a user.
func (e *edge) token(t *testing.T, user string, opts ...devstack.TokenOption) string {
	t.Helper()
	token, err := e.stack.Issuer.Token(user, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// cookies are those of a browser of the user. The session is dated at the second of the sign-in, and not before it.
func (e *edge) cookies(t *testing.T, user string) []*http.Cookie {
	t.Helper()
	cookies, err := e.stack.Issuer.Cookies(user, devstack.IssuedAt(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return cookies
}

// request is a request with a session token in the header; user "" sends none.
func (e *edge) request(t *testing.T, user, method, target, body string) *http.Request {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+e.addr+target, content)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if user != "" {
		r.Header.Set("Authorization", "Bearer "+e.token(t, user))
	}
	return r
}

func (e *edge) get(t *testing.T, user, target string) reply {
	t.Helper()
	return e.do(t, e.request(t, user, http.MethodGet, target, ""))
}

func (e *edge) do(t *testing.T, r *http.Request) reply {
	t.Helper()
	resp, err := e.http.Do(r)
	if err != nil {
		t.Fatalf("%v\n%s", err, e.log.tail())
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%v\n%s", err, e.log.tail())
	}
	return reply{resp, body}
}

// reply is an answer with its body read.
type reply struct {
	*http.Response

	body []byte
}

// refusal is the code of a refusal as JSON, whose shape is checked.
func (r reply) refusal(t *testing.T) (code, sentence string) {
	t.Helper()
	var members map[string]string
	if err := json.Unmarshal(r.body, &members); err != nil {
		t.Fatalf("status %d, no JSON refusal: %q", r.StatusCode, r.body)
	}
	if len(members) != 2 || members["error"] == "" || members["code"] == "" {
		t.Errorf("status %d, a refusal of another shape: %q", r.StatusCode, r.body)
	}
	return members["code"], members["error"]
}

// rows are the rows of a JSON answer.
func (r reply) rows(t *testing.T) []map[string]any {
	t.Helper()
	var answer struct {
		Data []map[string]any `json:"data"`
	}
	if err := json.Unmarshal(r.body, &answer); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("status %d, no JSON answer: %q", r.StatusCode, r.body)
	}
	return answer.Data
}

// tenants are the first parts of the paths in the rows of each organization.
var tenants = map[string]string{devstack.AcmeID: "/acme/", devstack.GlobexID: "/globex/", devstack.InitechID: "/initech/"}

// ownRows fails the test unless the answer holds text of the user's organization and none of another.
func ownRows(t *testing.T, user string, r reply) {
	t.Helper()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", r.StatusCode, r.body)
	}
	own := organization(t, user)
	for org, prefix := range tenants {
		if has := bytes.Contains(r.body, []byte(prefix)); has != (org == own) {
			t.Fatalf("%s of %s: rows with %s: %v\n%s", user, own, prefix, has, r.body)
		}
	}
}

// organization is the id of the user's organization.
func organization(t *testing.T, user string) string {
	t.Helper()
	u, ok := devstack.UserByKey(user)
	if !ok || u.Organization == nil {
		t.Fatalf("%s has no organization", user)
	}
	return u.Organization.ID
}

// goesUp are the headers that a request to Tinybird may have.
var goesUp = []string{
	"Accept", "Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "If-Modified-Since",
	"If-None-Match", "Traceparent", "Tracestate", "User-Agent",
}

// wellFormed fails the test unless what went up is one question for one pipe in the name of the user: the path built, the
// edge's own host, one credential, which says the user's organization, and only headers that may go up.
func wellFormed(t *testing.T, e *edge, up devstack.Recorded, user, pipe string) {
	t.Helper()
	if up.Method != http.MethodGet && up.Method != http.MethodPost {
		t.Errorf("method %s went up", up.Method)
	}
	if want := "/v0/pipes/" + pipe + ".json"; up.Path != want {
		t.Errorf("path %s went up, want %s", up.Path, want)
	}
	if want := strings.TrimPrefix(e.stack.APIURL, "http://"); up.Host != want {
		t.Errorf("host %s went up, want %s", up.Host, want)
	}
	for name, values := range up.Header {
		if !slices.Contains(goesUp, name) || len(values) != 1 {
			t.Errorf("header %s went up %d times", name, len(values))
		}
	}
	if len(up.Tokens) != 1 || up.TokenFrom != "header" || up.Claims == nil {
		t.Fatalf("%d credentials went up, judged by the %s", len(up.Tokens), up.TokenFrom)
	}
	scopes, _ := up.Claims["scopes"].([]any)
	if len(scopes) != 1 {
		t.Fatalf("scopes %v", up.Claims["scopes"])
	}
	scope, _ := scopes[0].(map[string]any)
	fixed, _ := scope["fixed_params"].(map[string]any)
	if scope["type"] != "PIPES:READ" || scope["resource"] != pipe || fixed["organization_id"] != organization(t, user) {
		t.Errorf("%s of %s read with the scope %v", user, organization(t, user), scope)
	}
}
