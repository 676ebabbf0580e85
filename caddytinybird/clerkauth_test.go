package caddytinybird

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// site is a site of a Caddyfile, served as Caddy serves it, with stand-ins for Clerk and for what is behind it.
type site struct {
	stack  *devstack.Stack
	server *caddyhttp.Server
	url    string
	client *http.Client
	http   *recorder // reached by {backend}
	php    *recorder // reached by {php}
	root   string    // its {root}: index.html, docs/page.html, index.php
}

// recorder keeps the requests that it answers.
type recorder struct {
	mu       sync.Mutex
	requests []*http.Request
	env      []map[string]string
	bodies   []string
	answer   func(http.ResponseWriter)
}

func (b *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests = append(b.requests, r)
	b.env = append(b.env, fcgi.ProcessEnv(r))
	b.bodies = append(b.bodies, string(body))
	if b.answer != nil {
		b.answer(w)
	}
	fmt.Fprint(w, "from behind")
}

// last returns the newest request, and how many there were.
func (b *recorder) last() (*http.Request, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) == 0 {
		return nil, 0
	}
	return b.requests[len(b.requests)-1], len(b.requests)
}

func (b *recorder) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests, b.env, b.bodies = nil, nil, nil
}

// newLiveStack starts stand-ins of which Clerk's is a production instance.
func newLiveStack(t testing.TB) *devstack.Stack {
	t.Helper()
	return newStack(t, devstack.Options{Issuer: devstack.IssuerOptions{Live: true, AppOrigin: "https://app.example.com"}})
}

// newSite serves the lines as a site. In them {pk}, {issuer}, {backend}, {php} and {root} stand for what the stand-ins need. Lines
// that start with "global " go into the global options, those with "before " before the site.
func newSite(t testing.TB, stack *devstack.Stack, lines string) *site {
	t.Helper()
	s, err := tryNewSite(t, stack, lines)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tryNewSite is newSite for a config that may be rejected.
func tryNewSite(t testing.TB, stack *devstack.Stack, lines string) (*site, error) {
	t.Helper()
	s := &site{stack: stack, http: new(recorder), php: new(recorder), root: t.TempDir()}
	for name, content := range map[string]string{"index.html": "static start", "docs/page.html": "static page", "index.php": "never shown", "app/page.php": "never shown"} {
		path := filepath.Join(s.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	backend := httptest.NewServer(s.http)
	t.Cleanup(backend.Close)
	php, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = fcgi.Serve(php, s.php) }()
	t.Cleanup(func() { php.Close() })

	lines = strings.NewReplacer("{pk}", stack.Issuer.PublishableKey(), "{issuer}", stack.IssuerURL, "{backend}", backend.URL,
		"{php}", php.Addr().String(), "{root}", s.root).Replace(lines)
	if s.server, err = loadServer(t, lines); err != nil {
		return nil, err
	}
	front := httptest.NewServer(s.server)
	t.Cleanup(front.Close)
	s.url, s.client = front.URL, front.Client()
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s, nil
}

// loadServer provisions the config of which the lines are the site, and returns its one server.
func loadServer(t testing.TB, lines string) (*caddyhttp.Server, error) {
	t.Helper()
	var global, before, body []string
	for line := range strings.SplitSeq(lines, "\n") {
		if option, ok := strings.CutPrefix(strings.TrimSpace(line), "global "); ok {
			global = append(global, option)
			continue
		}
		if other, ok := strings.CutPrefix(strings.TrimSpace(line), "before "); ok {
			before = append(before, other)
			continue
		}
		body = append(body, line)
	}
	adapted, _, err := adapt(t, fmt.Sprintf("{\nadmin off\nauto_https off\nstorage file_system %s\n%s\n}\n%s\n:80 {\n%s\n}\n",
		storageDir(t), strings.Join(global, "\n"), strings.Join(before, "\n"), strings.Join(body, "\n")))
	if err != nil {
		return nil, err
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	provisioning.Lock()
	ctx, err := caddy.ProvisionContext(&config)
	provisioning.Unlock()
	if err != nil {
		return nil, err
	}
	app, err := ctx.App("http")
	if err != nil {
		t.Fatal(err)
	}
	server := app.(*caddyhttp.App).Servers["srv0"]
	cleanUp(t, server.Routes)
	for _, named := range server.NamedRoutes {
		cleanUp(t, caddyhttp.RouteList{*named})
	}
	if global, err := ctx.AppIfConfigured("clerk"); err == nil {
		t.Cleanup(func() {
			if err := global.(*App).Cleanup(); err != nil {
				t.Error(err)
			}
		})
	}
	return server, nil
}

// cleanUp cleans up the modules of this plugin in the routes when the test ends, as Caddy does when a config ends.
func cleanUp(t testing.TB, routes caddyhttp.RouteList) {
	t.Helper()
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *caddyhttp.Subroute:
				cleanUp(t, h.Routes)
			case *caddyauth.Authentication:
				for _, p := range h.Providers {
					if _, ours := p.(*ClerkProvider); ours {
						cleanUpModule(t, p)
					}
				}
			case *ClerkAuth, *Handler:
				cleanUpModule(t, h)
			}
		}
	}
}

func cleanUpModule(t testing.TB, module any) {
	t.Helper()
	t.Cleanup(func() {
		if err := module.(caddy.CleanerUpper).Cleanup(); err != nil {
			t.Error(err)
		}
	})
}

// unmarshal parses the lines as the handler's directive.
func unmarshal(h caddyfile.Unmarshaler, lines string) error {
	return h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(lines))
}

// ask sends a request and reads the answer. The change may be nil.
func (s *site) ask(t testing.TB, target string, change func(*http.Request)) reply {
	t.Helper()
	return s.send(t, http.MethodGet, target, nil, change)
}

func (s *site) send(t testing.TB, method, target string, body []byte, change func(*http.Request)) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, answer}
}

// as makes a request one of the user, by the Authorization header.
func (s *site) as(t testing.TB, user string, opts ...devstack.TokenOption) func(*http.Request) {
	t.Helper()
	token, err := s.stack.Issuer.Token(user, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

// withCookies makes a request one of the user's browser.
func (s *site) withCookies(t testing.TB, user string, opts ...devstack.TokenOption) func(*http.Request) {
	t.Helper()
	cookies, err := s.stack.Issuer.Cookies(user, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return func(r *http.Request) {
		for _, c := range cookies {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
}

// asDocument makes a request one for a page, as a browser asks for it.
func asDocument(r *http.Request) {
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Accept", "text/html,*/*")
}

// all makes one change of several.
func all(changes ...func(*http.Request)) func(*http.Request) {
	return func(r *http.Request) {
		for _, change := range changes {
			change(r)
		}
	}
}

// location returns where the answer redirects to.
func (r reply) location(t testing.TB) *url.URL {
	t.Helper()
	u, err := url.Parse(r.Header.Get("Location"))
	if err != nil || u.Host == "" {
		t.Fatalf("status %d, Location %q, %s", r.StatusCode, r.Header.Get("Location"), r.body)
	}
	return u
}

const auth = "clerk_auth {pk} {\n\tissuer {issuer}\n\ton_unauthenticated redirect https://accounts.example.com/sign-in\n}\n"

// TestClerkAuthInFrontOfSites: sites that know nothing of Clerk are open to those who are signed in, and to nobody else, in every
// place where a directive can stand.
func TestClerkAuthInFrontOfSites(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for name, tt := range map[string]struct{ lines, target, want string }{
		"static":                 {auth + "root * {root}\nfile_server", "/docs/page.html?a=1&b=%20x", "static page"},
		"static, handle":         {"handle /docs/* {\n" + auth + "root * {root}\nfile_server\n}", "/docs/page.html", "static page"},
		"static, route":          {"route {\nroot * {root}\n" + auth + "file_server\n}", "/docs/page.html", "static page"},
		"static, handle_path":    {"handle_path /deep/* {\n" + auth + "root * {root}\nfile_server\n}", "/deep/docs/page.html?q=1", "static page"},
		"static, rewritten":      {"rewrite * /docs/page.html\n" + auth + "root * {root}\nfile_server", "/pretty/address?q=%2F", "static page"},
		"static, matcher":        {strings.Replace(auth, "clerk_auth", "clerk_auth /docs/*", 1) + "root * {root}\nfile_server", "/docs/page.html", "static page"},
		"proxied":                {auth + "reverse_proxy {backend}", "/any/path?x=%zz;y", "from behind"},
		"proxied, handle":        {"handle {\n" + auth + "reverse_proxy {backend}\n}", "/any/path", "from behind"},
		"proxied, handle_path":   {"handle_path /app/* {\n" + auth + "reverse_proxy {backend}\n}", "/app/inner?x=1", "from behind"},
		"PHP":                    {"root * {root}\n" + auth + "php_fastcgi {php}", "/app/page.php?x=1", "from behind"},
		"PHP, by its front page": {"root * {root}\n" + auth + "php_fastcgi {php}", "/posts/7", "from behind"},
		"PHP, route":             {"root * {root}\nroute {\n" + auth + "php_fastcgi {php}\n}", "/app/page.php", "from behind"},
		"handle_errors":          {auth + "reverse_proxy {backend}\nhandle_errors {\n\trespond \"never\" 200\n}", "/", "from behind"},
		"compressed":             {auth + "encode gzip\nroot * {root}\nfile_server", "/docs/page.html", "static page"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, stack, tt.lines)
			if got := s.ask(t, tt.target, s.as(t, "ada")); got.StatusCode != http.StatusOK || string(got.body) != tt.want {
				t.Errorf("signed in: status %d, %s", got.StatusCode, got.body)
			}
			if got := s.ask(t, tt.target, s.withCookies(t, "ada")); got.StatusCode != http.StatusOK || string(got.body) != tt.want {
				t.Errorf("signed in by cookies: status %d, %s", got.StatusCode, got.body)
			}
			got := s.ask(t, tt.target, nil)
			if got.StatusCode != http.StatusUnauthorized || got.code(t) != "token_missing" || got.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("signed out: status %d, %s", got.StatusCode, got.body)
			}
			if got.Header.Get("X-Clerk-Auth-Status") != "signed-out" || got.Header.Get("X-Clerk-Auth-Reason") != "session-token-and-uat-missing" {
				t.Errorf("signed out: headers %v", got.Header)
			}
			page := s.ask(t, tt.target, asDocument)
			to := page.location(t)
			if page.StatusCode != http.StatusFound || to.Host != "accounts.example.com" || to.Path != "/sign-in" || page.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("page: status %d to %s, %v", page.StatusCode, to, page.Header)
			}
			if back := to.Query().Get("redirect_url"); back != s.url+tt.target {
				t.Errorf("the browser is to return to %s instead of %s", back, s.url+tt.target)
			}
			if _, n := s.http.last(); n > 2 {
				t.Error("a request without a session reached the backend")
			}
			if _, n := s.php.last(); n > 2 {
				t.Error("a request without a session reached PHP")
			}
		})
	}
}

// TestClerkAuthRefusals: what cannot pass gets a status, a code and a sentence, in JSON or by the site's handle_errors.
func TestClerkAuthRefusals(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	own := newSite(t, stack, strings.Replace(auth, "issuer", "authorized_parties https://app.example.com\nissuer", 1)+"reverse_proxy {backend}")
	theirs := newSite(t, stack, strings.Replace(auth, "issuer", "errors caddy\nissuer", 1)+
		"reverse_proxy {backend}\nhandle_errors {\n\trespond \"{err.status_code} {http.clerk_auth.code}: {err.message}\"\n}")
	for name, tt := range map[string]struct {
		opts   []devstack.TokenOption
		status int
		code   string
	}{
		"other key":    {[]devstack.TokenOption{devstack.ForeignKey()}, 401, "token_invalid"},
		"other party":  {[]devstack.TokenOption{devstack.AZP("https://evil.example")}, 401, "token_wrong_party"},
		"other issuer": {[]devstack.TokenOption{devstack.Claim("iss", "https://clerk.elsewhere.example")}, 401, "token_wrong_issuer"},
		"template":     {[]devstack.TokenOption{devstack.Template()}, 401, "token_wrong_type"},
		"pending":      {[]devstack.TokenOption{devstack.Pending()}, 401, "session_pending"},
		"expired":      {[]devstack.TokenOption{devstack.Expired()}, 401, "token_expired"},
	} {
		got := own.ask(t, "/", own.as(t, "ada", tt.opts...))
		if got.StatusCode != tt.status || got.code(t) != tt.code || !strings.Contains(got.Header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("%s: status %d, %s, %v", name, got.StatusCode, got.body, got.Header)
		}
		if got.Header.Get("Cache-Control") != "private, no-store" || got.Header.Get("X-Clerk-Auth-Status") != "signed-out" || got.Header.Get("X-Clerk-Auth-Reason") == "" {
			t.Errorf("%s: headers %v", name, got.Header)
		}
	}
	twice := func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer a", "Bearer b"} }
	if got := own.ask(t, "/", all(twice, asDocument)); got.StatusCode != http.StatusBadRequest || got.code(t) != "bad_request" {
		t.Errorf("two tokens: status %d, %s", got.StatusCode, got.body)
	}
	got := theirs.ask(t, "/", theirs.as(t, "ada", devstack.ForeignKey()))
	if got.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(string(got.body), "401 token_invalid: The ") {
		t.Errorf("handle_errors: status %d, %s", got.StatusCode, got.body)
	}
	if got.Header.Get("X-Clerk-Auth-Reason") != "token-invalid-signature" || got.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("handle_errors: headers %v", got.Header)
	}
	for _, s := range []*site{own, theirs} {
		if _, n := s.http.last(); n != 0 {
			t.Errorf("%d requests reached the backend", n)
		}
	}
}

// TestClerkAuthRequire: each line has to hold, by any of its values.
func TestClerkAuthRequire(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for require, allowed := range map[string]string{
		"organization":                                  "ada ben cleo",
		"organization acme":                             "ada ben",
		"organization " + devstack.GlobexID:             "cleo",
		"organization acme " + devstack.GlobexID:        "ada ben cleo",
		"organization globe":                            "",
		"role org:admin":                                "ada cleo",
		"role org:member org:admin":                     "ada ben cleo",
		"permission org:teams:manage":                   "ada",
		"feature teams":                                 "ada ben",
		"plan o:pro":                                    "ada ben",
		"role org:admin\nrequire plan pro":              "ada",
		"role org:admin\nrequire organization globex":   "cleo",
		"role org:nobody\nrequire organization":         "",
		"organization acme\nrequire organization":       "ada ben",
		"organization acme\nrequire organization other": "",
	} {
		s := newSite(t, stack, strings.Replace(auth, "issuer", "require "+require+"\nissuer", 1)+"reverse_proxy {backend}")
		for _, user := range []string{"ada", "ben", "cleo", "dana"} {
			// A page, to see that nobody is sent to sign in who is.
			got := s.ask(t, "/", all(s.as(t, user), asDocument))
			want := http.StatusForbidden
			if strings.Contains(allowed, user) {
				want = http.StatusOK
			}
			if got.StatusCode != want || want == http.StatusForbidden && got.code(t) != "not_allowed" {
				t.Errorf("require %s: %s gets %d, %s", require, user, got.StatusCode, got.body)
			}
		}
		if got := s.ask(t, "/", nil); got.StatusCode != http.StatusUnauthorized {
			t.Errorf("require %s: nobody gets %d", require, got.StatusCode)
		}
	}
}

// TestOrganizationSlugIsNoID: an organization whose slug is spelled as another one's id does not pass for that one.
func TestOrganizationSlugIsNoID(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.Replace(auth, "issuer", "require organization "+devstack.AcmeID+"\nissuer", 1)+"reverse_proxy {backend}")
	imitation := map[string]any{"id": devstack.GlobexID, "slg": devstack.AcmeID, "rol": "admin"}
	if got := s.ask(t, "/", s.as(t, "cleo", devstack.Claim("o", imitation))); got.StatusCode != http.StatusForbidden {
		t.Errorf("status %d, %s", got.StatusCode, got.body)
	}
	if got := s.ask(t, "/", s.as(t, "ada")); got.StatusCode != http.StatusOK {
		t.Errorf("the organization itself: status %d, %s", got.StatusCode, got.body)
	}
}

// TestClerkAuthOptional: the anonymous pass, and so does a bad token, as nobody; what says nothing about the user does not.
func TestClerkAuthOptional(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.Replace(auth, "issuer", "optional\nforward_identity\nissuer", 1)+
		"header >X-Seen \"{clerk.user.id}|{http.auth.user.id}\"\nreverse_proxy {backend}")
	for name, change := range map[string]func(*http.Request){
		"nobody":        nil,
		"nobody's page": asDocument,
		"forged":        all(s.as(t, "ada", devstack.ForeignKey()), asDocument),
		"expired":       s.as(t, "ada", devstack.Expired()),
		"pending":       s.as(t, "ada", devstack.Pending()),
	} {
		got := s.ask(t, "/", change)
		if got.StatusCode != http.StatusOK || got.Header.Get("X-Seen") != "|" {
			t.Errorf("%s: status %d, %q", name, got.StatusCode, got.Header.Get("X-Seen"))
		}
		if up, _ := s.http.last(); up.Header.Get("X-Clerk-User-Id") != "" {
			t.Errorf("%s is %s to the backend", name, up.Header.Get("X-Clerk-User-Id"))
		}
	}
	ada, _ := devstack.UserByKey("ada")
	if got := s.ask(t, "/", s.as(t, "ada")); got.Header.Get("X-Seen") != ada.ID+"|"+ada.ID {
		t.Errorf("ada is %q", got.Header.Get("X-Seen"))
	}
	s.http.reset()
	twice := func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer a", "Bearer b"} }
	if got := s.ask(t, "/", twice); got.StatusCode != http.StatusBadRequest {
		t.Errorf("two tokens: status %d", got.StatusCode)
	}
	if _, n := s.http.last(); n != 0 {
		t.Error("two tokens reached the backend")
	}
}

// TestP8ClerkAuthOutage: without any keys the answer is 503, also where the anonymous pass and where browsers are sent to sign
// in: whoever is signed in must not look signed out.
func TestP8ClerkAuthOutage(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	stack.Issuer.SetDown(true)
	for _, option := range []string{"optional", "errors json"} {
		s := newSite(t, stack, strings.Replace(auth, "issuer", option+"\nissuer", 1)+"reverse_proxy {backend}")
		for name, change := range map[string]func(*http.Request){"header": s.as(t, "ada"), "page": all(s.withCookies(t, "ada"), asDocument)} {
			got := s.ask(t, "/", change)
			if got.StatusCode != http.StatusServiceUnavailable || got.code(t) != "keys_unavailable" || got.Header.Get("Retry-After") == "" {
				t.Errorf("%s, %s: status %d, %s", option, name, got.StatusCode, got.body)
			}
		}
		if _, n := s.http.last(); n != 0 {
			t.Errorf("%s: reached the backend", option)
		}
	}
}

// TestClerkAuthPlaceholders: what follows knows the user: in headers, matchers and what else Caddy expands.
func TestClerkAuthPlaceholders(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.Replace(auth, "issuer", "optional\nissuer", 1)+`
		header >X-Clerk "{clerk.user.id} {clerk.org.id} {clerk.org.slug} {clerk.org.role} {clerk.session.id} {clerk.plan} {clerk.claims.team_id}"
		header >X-User "{http.auth.user.id} {http.auth.user.org_id} {http.auth.user.org_slug} {http.auth.user.org_role} {http.auth.user.session_id} {http.auth.user.plan} {http.auth.user.azp} {http.auth.user.issuer}"
		@admin expression {http.auth.user.org_role} == "org:admin"
		respond @admin "admin"
		@paying expression {clerk.plan} == "o:pro"
		respond @paying "paying"
		respond "other"`)
	for user, want := range map[string]string{"ada": "admin", "ben": "paying", "cleo": "admin", "dana": "other"} {
		u, _ := devstack.UserByKey(user)
		got := s.ask(t, "/", s.as(t, user))
		if string(got.body) != want {
			t.Errorf("%s is %q", user, got.body)
		}
		var org devstack.Organization
		plan, team := "u:"+u.UserPlan, u.TeamID
		if u.Organization != nil {
			org, plan = *u.Organization, "o:"+u.Organization.Plan
		}
		if want := strings.TrimSpace(strings.Join([]string{u.ID, org.ID, org.Slug, org.Role, u.SessionID, plan, team}, " ")); got.Header.Get("X-Clerk") != want {
			t.Errorf("%s: %q, want %q", user, got.Header.Get("X-Clerk"), want)
		}
		if want := strings.Join([]string{u.ID, org.ID, org.Slug, org.Role, u.SessionID, plan, "https://app.example.com", stack.IssuerURL}, " "); got.Header.Get("X-User") != want {
			t.Errorf("%s: %q, want %q", user, got.Header.Get("X-User"), want)
		}
	}
	if got := s.ask(t, "/", nil); string(got.body) != "other" || strings.TrimSpace(got.Header.Get("X-Clerk")) != "" {
		t.Errorf("nobody is %q, %q", got.body, got.Header.Get("X-Clerk"))
	}
}

// TestClerkAuthKeepsNobodyElse: of a user whom an earlier handler found nothing is left beside the one of the session.
func TestClerkAuthKeepsNobodyElse(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	fromQuery := strings.Replace(auth, "issuer", "token_from query access\nissuer", 1)
	s := newSite(t, stack, "route {\n"+fromQuery+auth+"header X-User \"{http.auth.user.id} {http.auth.user.org_role} {clerk.org.id}\"\nrespond ok\n}")
	ada, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	u, _ := devstack.UserByKey("dana")
	if got := s.ask(t, "/?access="+ada, s.withCookies(t, "dana")); got.Header.Get("X-User") != u.ID {
		t.Errorf("status %d, %q", got.StatusCode, got.Header.Get("X-User"))
	}
}
