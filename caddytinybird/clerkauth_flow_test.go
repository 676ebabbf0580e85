package caddytinybird

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// browser keeps cookies and follows redirects, as many as a browser would.
type browser struct {
	site  *site
	jar   *cookiejar.Jar
	names map[string]string // addresses of hosts that no resolver knows
	hops  []string          // where the last visit was sent to
}

func newBrowser(t *testing.T, s *site) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{site: s, jar: jar}
}

// do sends a request and follows redirects; dest is its Sec-Fetch-Dest.
func (b *browser) do(t *testing.T, method, target, dest string, form url.Values) reply {
	t.Helper()
	b.hops = nil
	client := &http.Client{Jar: b.jar, Transport: &http.Transport{DisableKeepAlives: true, DialContext: b.dial}, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		b.hops = append(b.hops, r.URL.String())
		if len(via) > 12 {
			t.Fatalf("a loop: %s", strings.Join(b.hops, "\n"))
		}
		r.Header.Set("Sec-Fetch-Dest", dest)
		return nil
	}}
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Dest", dest)
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, body}
}

func (b *browser) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if known, ok := b.names[address]; ok {
		address = known
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (b *browser) visit(t *testing.T, target string) reply {
	t.Helper()
	return b.do(t, http.MethodGet, b.site.url+target, "document", nil)
}

// fetch is a script's request.
func (b *browser) fetch(t *testing.T, target string) reply {
	t.Helper()
	return b.do(t, http.MethodGet, b.site.url+target, "empty", nil)
}

// signIn presses a user's button on the sign-in page.
func (b *browser) signIn(t *testing.T, page reply, user string) reply {
	t.Helper()
	u := page.Request.URL
	if page.StatusCode != http.StatusOK || u.Path != "/sign-in" {
		t.Fatalf("status %d at %s instead of the sign-in page: %s", page.StatusCode, u, page.body)
	}
	form := url.Values{"user": {user}, "redirect_url": {u.Query().Get("redirect_url")}, "__clerk_db_jwt": {u.Query().Get("__clerk_db_jwt")}}
	return b.do(t, http.MethodPost, b.site.stack.IssuerURL+"/sign-in", "document", form)
}

func (b *browser) cookies() map[string]string {
	all := make(map[string]string)
	u, _ := url.Parse(b.site.url)
	for _, c := range b.jar.Cookies(u) {
		all[c.Name] = c.Value
	}
	return all
}

// rest lets the seconds pass for which redirects are counted.
func (b *browser) rest(t *testing.T) {
	t.Helper()
	cookies := b.cookies()
	*b = browser{site: b.site, names: b.names, jar: newBrowser(t, b.site).jar}
	u, _ := url.Parse(b.site.url)
	for name, value := range cookies {
		if !strings.HasSuffix(name, "_count") {
			b.jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
		}
	}
}

// session returns the session's token, under whichever name the browser has it.
func (b *browser) session(t *testing.T) string {
	t.Helper()
	for name, value := range b.cookies() {
		if strings.HasPrefix(name, "__session") {
			return value
		}
	}
	t.Fatal("no session")
	return ""
}

// expire replaces the session's token by one of the same session that has expired, as time would.
func (b *browser) expire(t *testing.T, user string) {
	t.Helper()
	u, _ := url.Parse(b.site.url)
	for name, value := range b.cookies() {
		if !strings.HasPrefix(name, "__session") {
			continue
		}
		token, err := b.site.stack.Issuer.Token(user, devstack.AZP(b.site.url), devstack.Claim("sid", claimOf(t, value, "sid")),
			devstack.Claim("exp", time.Now().Add(-10*time.Second).Unix()))
		if err != nil {
			t.Fatal(err)
		}
		b.jar.SetCookies(u, []*http.Cookie{{Name: name, Value: token, Path: "/"}})
	}
}

// clerkSite is a site behind clerk_auth and nothing else, with a stand-in for Clerk that signs people in.
func clerkSite(t *testing.T, live, secret bool, option, behind string) *site {
	t.Helper()
	stack := newStack(t, devstack.Options{Issuer: devstack.IssuerOptions{Live: live}})
	lines := "clerk_auth {pk} {\n\tissuer {issuer}\n\tapi_url {issuer}\n\ton_unauthenticated redirect {issuer}/sign-in\n" + option
	if secret {
		lines += "\n\tsecret_key " + secretFile(t, stack.Issuer.SecretKey())
	}
	s := newSite(t, stack, lines+"\n}\n"+behind)
	stack.Issuer.AddSiteOrigin(s.url)
	return s
}

// TestSigningIn: a browser signs in, stays signed in when its token expires, and signs out, on a site that knows nothing of Clerk; with a
// secret key scripts stay signed in too.
func TestSigningIn(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{true, false} {
		for _, secret := range []bool{true, false} {
			t.Run(fmt.Sprintf("live %t, secret key %t", live, secret), func(t *testing.T) {
				t.Parallel()
				s := clerkSite(t, live, secret, "", "handle_path /deep/* {\nroot * {root}\nfile_server\n}\nroot * {root}\nfile_server")
				issuer := s.stack.Issuer
				b := newBrowser(t, s)
				const target = "/deep/docs/page.html?a=1&b=x+y"
				page := b.visit(t, target)
				if back := page.Request.URL.Query().Get("redirect_url"); back != s.url+target {
					t.Errorf("is to return to %s", back)
				}
				got := b.signIn(t, page, "ada")
				if got.StatusCode != http.StatusOK || string(got.body) != "static page" || got.Request.URL.Path != "/deep/docs/page.html" {
					t.Fatalf("status %d at %s, %s\n%s", got.StatusCode, got.Request.URL, got.body, strings.Join(b.hops, "\n"))
				}
				if q := got.Request.URL.Query(); len(q) != 2 || q.Get("a") != "1" || q.Get("b") != "x y" {
					t.Errorf("the query is %s now", got.Request.URL.RawQuery)
				}
				if got := b.fetch(t, target); got.StatusCode != http.StatusOK || len(b.hops) != 0 {
					t.Errorf("a script's request: status %d, %s", got.StatusCode, got.body)
				}

				b.expire(t, "ada")
				handshakes := issuer.Handshakes()
				switch got := b.fetch(t, target); {
				case secret && (got.StatusCode != http.StatusOK || issuer.Refreshes() != 1 || got.Header.Get("Cache-Control") != "private, no-store"):
					t.Errorf("not refreshed: status %d, %s, %v", got.StatusCode, got.body, got.Header)
				case !secret && (got.StatusCode != http.StatusUnauthorized || got.code(t) != "token_expired" || got.Header.Get("X-Clerk-Auth-Reason") == ""):
					t.Errorf("a script's request: status %d, %s", got.StatusCode, got.body)
				}
				if issuer.Handshakes() != handshakes {
					t.Error("a script was sent through a handshake")
				}
				b.expire(t, "ada")
				if got := b.visit(t, target); got.StatusCode != http.StatusOK || string(got.body) != "static page" {
					t.Errorf("after a minute: status %d at %s, %s", got.StatusCode, got.Request.URL, got.body)
				}
				if done := issuer.Handshakes() - handshakes; secret && done != 0 || !secret && done != 1 {
					t.Errorf("%d handshakes", done)
				}

				b.do(t, http.MethodPost, s.stack.IssuerURL+"/v1/client/sessions/"+claimOf(t, b.session(t), "sid")+"/remove?redirect_url="+
					url.QueryEscape(s.url+target)+"&__clerk_db_jwt="+b.cookies()["__clerk_db_jwt"], "document", url.Values{})
				b.expire(t, "ada")
				if got := b.visit(t, target); got.Request.URL.Path != "/sign-in" {
					t.Errorf("signed out: status %d at %s, %s", got.StatusCode, got.Request.URL, got.body)
				}
			})
		}
	}
}

// TestSessionsThatAreRefusedForGood: somebody who is signed in at Clerk and may not come in here gets an answer, not a loop.
func TestSessionsThatAreRefusedForGood(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{true, false} {
		s := clerkSite(t, live, true, "authorized_parties https://other.example.com", "respond ok")
		b := newBrowser(t, s)
		got := b.signIn(t, b.visit(t, "/"), "ada")
		if got.StatusCode != http.StatusUnauthorized || got.code(t) == "" {
			t.Errorf("live %t: status %d at %s, %s", live, got.StatusCode, got.Request.URL, got.body)
		}
		if !strings.HasPrefix(got.Request.URL.String(), s.url) {
			t.Errorf("live %t: ends at %s", live, got.Request.URL)
		}
	}
}

// TestAnotherUsersHandshake: a handshake that takes the place of another user's session is told to the operator.
func TestAnotherUsersHandshake(t *testing.T) {
	t.Parallel()
	s := clerkSite(t, true, true, "forward_identity", "reverse_proxy {backend}")
	core, logged := observer.New(zap.WarnLevel)
	for _, route := range s.server.Routes {
		for _, handler := range route.Handlers {
			if h, ok := handler.(*ClerkAuth); ok {
				h.log = zap.New(core)
			}
		}
	}
	ada, cleo := newBrowser(t, s), newBrowser(t, s)
	if got := ada.signIn(t, ada.visit(t, "/"), "ada"); got.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %s", got.StatusCode, got.body)
	}
	if n := logged.Len(); n != 0 {
		t.Errorf("logged %v", logged.All())
	}
	// A sibling of the site plants what Clerk gave to cleo's browser.
	cleo.signIn(t, cleo.visit(t, "/"), "cleo")
	planted := handshakeOf(t, cleo)
	u, _ := url.Parse(s.url)
	ada.jar.SetCookies(u, []*http.Cookie{planted})
	if got := ada.visit(t, "/"); got.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %s", got.StatusCode, got.body)
	}
	entries := logged.FilterMessage("a handshake replaced the valid session of another user").All()
	users := []string{"ada", "cleo"}
	for n, user := range users {
		u, _ := devstack.UserByKey(user)
		users[n] = u.ID
	}
	if len(entries) != 1 || entries[0].ContextMap()["replaced_user"] != users[0] || entries[0].ContextMap()["user"] != users[1] {
		t.Errorf("logged %v", logged.All())
	}
}

// handshakeOf lets the browser go through a handshake and returns the cookie that carries its outcome.
func handshakeOf(t *testing.T, b *browser) *http.Cookie {
	t.Helper()
	client := &http.Client{Jar: b.jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(b.site.stack.IssuerURL + "/v1/client/handshake?redirect_url=" + url.QueryEscape(b.site.url))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == "__clerk_handshake" && c.Value != "" {
			return &http.Cookie{Name: c.Name, Value: c.Value, Path: "/"}
		}
	}
	t.Fatalf("no handshake in %v", resp.Header)
	return nil
}

// TestOutageOfTheBackendAPI: while Clerk's Backend API is away, signing in does not go in circles, and who is signed in
// is.
func TestOutageOfTheBackendAPI(t *testing.T) {
	t.Parallel()
	for _, fault := range []*devstack.Fault{{Status: http.StatusServiceUnavailable}, {Status: http.StatusForbidden, Body: []byte("<html>blocked</html>")}} {
		outageOfTheBackendAPI(t, fault)
	}
}

func outageOfTheBackendAPI(t *testing.T, fault *devstack.Fault) {
	t.Helper()
	s := clerkSite(t, true, true, "", "respond ok")
	b := newBrowser(t, s)
	if got := b.signIn(t, b.visit(t, "/"), "ada"); string(got.body) != "ok" {
		t.Fatalf("status %d, %s", got.StatusCode, got.body)
	}
	s.stack.Issuer.FailBackend(func(*http.Request) *devstack.Fault { return fault })
	if got := b.visit(t, "/"); string(got.body) != "ok" {
		t.Errorf("signed in: status %d, %s", got.StatusCode, got.body)
	}
	b.expire(t, "ada")
	got := b.fetch(t, "/")
	if got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("expired, a script's request: status %d, %s", got.StatusCode, got.body)
	}
	page := b.visit(t, "/")
	if page.StatusCode == http.StatusFound || page.Request.URL.Path == "/sign-in" {
		t.Errorf("somebody who is signed in is asked to sign in: at %s", page.Request.URL)
	}
}

// TestOrganizationSync: the path says which organization is active, and Clerk is asked for it once.
func TestOrganizationSync(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{true, false} {
		s := clerkSite(t, live, true, "organization_sync organization /orgs/:slug /orgs/:slug/(.*)\norganization_sync personal /me /me/(.*)", `respond "in {clerk.org.slug}"`)
		b := newBrowser(t, s)
		if got := b.signIn(t, b.visit(t, "/"), "ada"); string(got.body) != "in acme" {
			t.Fatalf("status %d, %s", got.StatusCode, got.body)
		}
		for _, step := range []struct {
			target, want string
			handshakes   int
		}{
			{"/orgs/acme", "in acme", 0},
			{"/me", "in ", 1},
			{"/me/settings", "in ", 0},
			{"/", "in ", 0},
			{"/orgs/acme/reports?x=1", "in acme", 1},
			{"/me", "in ", 1},
		} {
			b.rest(t)
			before := s.stack.Issuer.Handshakes()
			got := b.visit(t, step.target)
			if string(got.body) != step.want || s.stack.Issuer.Handshakes()-before != step.handshakes {
				t.Errorf("live %t, %s: %s after %d handshakes", live, step.target, got.body, s.stack.Issuer.Handshakes()-before)
			}
		}
		// An organization that ada is not in: no loop, and she stays who she is.
		if got := b.visit(t, "/orgs/globex"); got.StatusCode != http.StatusOK || strings.Contains(string(got.body), "globex") {
			t.Errorf("live %t: status %d, %s", live, got.StatusCode, got.body)
		}
	}
}

// TestSatellite: who is signed in on the primary is signed in on the satellite at once, and somebody else is not sent in circles.
func TestSatellite(t *testing.T) {
	t.Parallel()
	const origin = "http://satellite.test"
	primary := clerkSite(t, false, true, "satellites "+origin, "respond primary")
	stack := primary.stack
	satellite := newSite(t, stack, "clerk_auth {pk} {\n\tissuer {issuer}\n\tsatellite localhost:3001 auto_sync\n\ton_unauthenticated redirect "+primary.url+"/sign-in\n}\nrespond satellite")
	stack.Issuer.AddSiteOrigin(origin)
	b := newBrowser(t, primary)
	b.names = map[string]string{"satellite.test:80": strings.TrimPrefix(satellite.url, "http://")}

	// Nobody is signed in: the way leads to a sign-in page, which returns to the satellite.
	got := b.do(t, http.MethodGet, origin+"/x?y=1", "document", nil)
	if got.Request.URL.Path != "/sign-in" || !strings.Contains(got.Request.URL.RawQuery, "redirect_url=") {
		t.Errorf("status %d at %s, %s", got.StatusCode, got.Request.URL, got.body)
	}
	b = newBrowser(t, primary)
	b.names = map[string]string{"satellite.test:80": strings.TrimPrefix(satellite.url, "http://")}
	if got := b.signIn(t, b.visit(t, "/"), "ada"); string(got.body) != "primary" {
		t.Fatalf("status %d, %s", got.StatusCode, got.body)
	}
	got = b.do(t, http.MethodGet, origin+"/x?y=1", "document", nil)
	if string(got.body) != "satellite" || got.Request.URL.Host != "satellite.test" || got.Request.URL.Path != "/x" || got.Request.URL.Query().Get("y") != "1" {
		t.Errorf("status %d at %s, %s\n%s", got.StatusCode, got.Request.URL, got.body, strings.Join(b.hops, "\n"))
	}
	// Only the satellites that the primary lists are answered: anything else would be an open redirect.
	for _, elsewhere := range []string{"http://evil.test/", "http://satellite.test.evil.test/", "//satellite.test", "http://satellite.test@evil.test/"} {
		got := primary.ask(t, "/?__clerk_redirect_url="+url.QueryEscape(elsewhere), asDocument)
		if u, err := url.Parse(got.Header.Get("Location")); err != nil || !strings.HasPrefix(stack.IssuerURL, "http://"+u.Host) {
			t.Errorf("%s: to %s", elsewhere, got.Header.Get("Location"))
		}
	}
}

// claimOf reads a claim of a token without verifying it.
func claimOf(t *testing.T, token, name string) string {
	t.Helper()
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		t.Fatalf("%v: %q", err, token)
	}
	text, _ := claims[name].(string)
	return text
}
