package caddytinybird

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestSignInURL: the address to return to is added to the operator's own, without what Clerk put there and without tokens.
func TestSignInURL(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for name, tt := range map[string]struct{ page, target, want, back string }{
		"plain":      {"https://app.example.com/sign-in", "/a", "https://app.example.com/sign-in?", "/a"},
		"query":      {"https://app.example.com/sign-in?theme=dark", "/a?b=c%20d&e", "https://app.example.com/sign-in?theme=dark&", "/a?b=c%20d&e"},
		"root":       {"https://app.example.com", "/", "https://app.example.com?", "/"},
		"params":     {"https://app.example.com/sign-in", "/a?x=1&__clerk_db_jwt=dvb_2&__clerk_handshake=ey&y=2&__clerk_handshake_nonce=n&__clerk_help=1&__clerk_synced=true&__dev_session=d", "https://app.example.com/sign-in?", "/a?x=1&y=2"},
		"token":      {"https://app.example.com/sign-in", "/a?access=eyJplanted&x=1", "https://app.example.com/sign-in?", "/a?x=1"},
		"escaped":    {"https://app.example.com/sign-in", "/a?x=1&%61ccess=eyJplanted", "https://app.example.com/sign-in?", "/a?x=1"},
		"path":       {"https://app.example.com/sign-in", "/a%2Fb/..;/%C3%A4?", "https://app.example.com/sign-in?", "/a%2Fb/..;/%C3%A4"},
		"local page": {"http://localhost:3000/sign-in", "/a", "http://localhost:3000/sign-in?", "/a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, stack, "clerk_auth {pk} {\n\tissuer {issuer}\n\ttoken_from header cookie query access\n\ton_unauthenticated redirect "+tt.page+"\n}\nrespond ok")
			got := s.ask(t, tt.target, asDocument)
			page, back, ok := strings.Cut(got.Header.Get("Location"), "redirect_url=")
			if got.StatusCode != http.StatusFound || !ok || page != tt.want {
				t.Errorf("status %d to %s", got.StatusCode, got.Header.Get("Location"))
			}
			if returns, err := url.QueryUnescape(back); err != nil || returns != s.url+tt.back || strings.Contains(returns, "planted") {
				t.Errorf("returns to %s, want %s", returns, s.url+tt.back)
			}
		})
	}
}

// TestSignInPageOfTheInstance: the page is that of the instance's account portal unless the operator names another one; without
// a page everything is 401.
func TestSignInPageOfTheInstance(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for name, tt := range map[string]struct{ lines, location string }{
		"production":  {"clerk_auth pk_live_Y2xlcmsuZXhhbXBsZS5jb20k {\n\tissuer {issuer}\n\thandshake off\n}\n", "https://accounts.example.com/sign-in?redirect_url="},
		"asked for":   {"clerk_auth pk_live_Y2xlcmsuZXhhbXBsZS5jb20k {\n\tissuer {issuer}\n\ton_unauthenticated redirect\n}\n", "https://accounts.example.com/sign-in?redirect_url="},
		"development": {"clerk_auth pk_test_aGFwcHktb3R0ZXItNDIuY2xlcmsuYWNjb3VudHMuZGV2JA {\n\tissuer {issuer}\n\thandshake off\n}\n", "https://happy-otter-42.accounts.dev/sign-in?redirect_url="},
		"named":       {"clerk_auth pk_live_Y2xlcmsuZXhhbXBsZS5jb20k {\n\tissuer {issuer}\n\ton_unauthenticated redirect https://x.example/in\n}\n", "https://x.example/in?redirect_url="},
		"401":         {"clerk_auth pk_live_Y2xlcmsuZXhhbXBsZS5jb20k {\n\tissuer {issuer}\n\thandshake off\n\ton_unauthenticated 401\n}\n", ""},
		"no portal":   {"clerk_auth {pk} {\n\tissuer {issuer}\n\thandshake off\n}\n", ""},
		"no key":      {"clerk_auth {\n\tissuer {issuer}\n}\n", ""},
	} {
		s := newSite(t, stack, tt.lines+"respond ok")
		got := s.ask(t, "/", asDocument)
		if tt.location == "" && got.StatusCode != http.StatusUnauthorized || tt.location != "" && got.StatusCode != http.StatusFound {
			t.Errorf("%s: status %d", name, got.StatusCode)
		}
		if location := got.Header.Get("Location"); !strings.HasPrefix(location, tt.location) || tt.location == "" && location != "" {
			t.Errorf("%s: to %q", name, location)
		}
	}
}

// TestPendingSessionsFinish: a session with a task left is sent to the page of tasks.
func TestPendingSessionsFinish(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.Replace(auth, "sign-in", "sign-in/?a=b", 1)+"respond ok")
	got := s.ask(t, "/x", all(s.withCookies(t, "ada", devstack.Pending()), asDocument))
	if to := got.location(t); to.Path != "/sign-in/tasks" || to.Query().Get("a") != "b" || to.Query().Get("redirect_url") != s.url+"/x" {
		t.Errorf("to %s", to)
	}
}

// TestPendingSessionsAreBroughtUpToDate: like any other, a pending session goes through a handshake when its browser comes from another
// site, or asks for another organization than is active: choosing one can be the task. Scripts are told what is left to do.
func TestPendingSessionsAreBroughtUpToDate(t *testing.T) {
	t.Parallel()
	s := newSite(t, newLiveStack(t), strings.Replace(auth, "\n}", "\n\torganization_sync organization /orgs/:slug\n}", 1)+"respond ok")
	pending := s.withCookies(t, "ada", devstack.Pending())
	fromElsewhere := func(r *http.Request) { r.Header.Set("Referer", "https://elsewhere.example/") }
	for name, tt := range map[string]struct {
		target, reason string
		change         func(*http.Request)
	}{
		"from another site":    {"/x", "primary-domain-cross-origin-sync", all(pending, asDocument, fromElsewhere)},
		"another organization": {"/orgs/other", "active-organization-mismatch", all(pending, asDocument)},
		"script, from another": {"/x", "session-pending", all(pending, fromElsewhere)},
		"script, another":      {"/orgs/other", "session-pending", pending},
	} {
		got := s.ask(t, tt.target, tt.change)
		if reason := got.Header.Get("X-Clerk-Auth-Reason"); reason != tt.reason {
			t.Errorf("%s: status %d, %s", name, got.StatusCode, reason)
		}
		script := tt.reason == "session-pending"
		if script != (got.StatusCode == http.StatusUnauthorized) || !script && got.location(t).Path != "/v1/client/handshake" {
			t.Errorf("%s: status %d to %s", name, got.StatusCode, got.Header.Get("Location"))
		}
	}
}

// TestOnlyDocumentsAreRedirected: what is no page of a browser gets 401.
func TestOnlyDocumentsAreRedirected(t *testing.T) {
	t.Parallel()
	s := newSite(t, newLiveStack(t), auth+"respond ok")
	for name, tt := range map[string]struct {
		method, dest, accept string
		status               int
	}{
		"document":           {"GET", "document", "", 302},
		"frame":              {"GET", "iframe", "", 302},
		"no word, HTML":      {"GET", "", "text/html", 302},
		"no word, anything":  {"GET", "", "*/*", 401},
		"script's fetch":     {"GET", "empty", "text/html", 401},
		"image":              {"GET", "image", "image/*", 401},
		"form":               {"POST", "document", "text/html", 401},
		"HEAD":               {"HEAD", "document", "text/html", 401},
		"another letter":     {"GET", "Document", "text/html", 401},
		"old browser's POST": {"POST", "", "text/html", 401},
	} {
		got := s.send(t, tt.method, "/", nil, func(r *http.Request) {
			r.Header.Set("Accept", tt.accept)
			if tt.dest != "" {
				r.Header.Set("Sec-Fetch-Dest", tt.dest)
			}
		})
		if got.StatusCode != tt.status {
			t.Errorf("%s: status %d", name, got.StatusCode)
		}
	}
}

// TestNoSignInLoop: a browser that Clerk knows and this site refuses is not sent back and forth. Clerk's page returns at once; after
// three times the browser is told why.
func TestNoSignInLoop(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.Replace(auth, "issuer", "authorized_parties https://other.example.com\nissuer", 1)+"respond ok")
	signedIn := all(s.withCookies(t, "ada"), asDocument)
	cookie := ""
	for n := 1; ; n++ {
		got := s.ask(t, "/", all(signedIn, func(r *http.Request) {
			if cookie != "" {
				r.Header.Add("Cookie", cookie)
			}
		}))
		if n == 4 {
			if got.StatusCode != http.StatusUnauthorized || got.code(t) != "token_wrong_party" || !strings.Contains(string(got.body), "several times") {
				t.Errorf("at last: status %d, %s", got.StatusCode, got.body)
			}
			return
		}
		if got.StatusCode != http.StatusFound {
			t.Fatalf("time %d: status %d, %s", n, got.StatusCode, got.body)
		}
		want := "__clerk_sign_in_count=" + strconv.Itoa(n) + "; Path=/; SameSite=Lax; HttpOnly; Max-Age=10"
		if set := got.Header.Values("Set-Cookie"); len(set) != 1 || set[0] != want {
			t.Fatalf("time %d: cookies %q, want %q", n, set, want)
		}
		cookie, _, _ = strings.Cut(want, ";")
	}
}

// TestSignInCountIsNotTrusted: a cookie that somebody planted makes no loop.
func TestSignInCountIsNotTrusted(t *testing.T) {
	t.Parallel()
	s := newSite(t, newLiveStack(t), auth+"respond ok")
	for cookies, status := range map[string]int{
		"__clerk_sign_in_count=0":                                              302,
		"__clerk_sign_in_count=2":                                              302,
		"__clerk_sign_in_count=3":                                              401,
		"__clerk_sign_in_count=255":                                            401,
		"__clerk_sign_in_count=99999999999999999999":                           401,
		"__clerk_sign_in_count=-1":                                             401,
		"__clerk_sign_in_count=":                                               401,
		"__clerk_sign_in_count":                                                401,
		"__clerk_sign_in_count=abc":                                            401,
		"__clerk_sign_in_count=\"1\"":                                          401,
		"__clerk_sign_in_count=1; __clerk_sign_in_count=3":                     401,
		"__clerk_sign_in_count=3; __clerk_sign_in_count=1":                     401,
		"__clerk_sign_in_count=1;__clerk_sign_in_count=\x80":                   401,
		"__clerk_sign_in_count_x=9; x__clerk_sign_in_count=9":                  302,
		"a=b; __clerk_sign_in_count=1\n__clerk_sign_in_count=4":                401,
		"__clerk_sign_in_count=+1":                                             401,
		"__CLERK_SIGN_IN_COUNT=9; other=\"__clerk_sign_in_count=9\"; __clerk=": 302,
	} {
		got := s.ask(t, "/", all(asDocument, func(r *http.Request) { r.Header["Cookie"] = strings.Split(cookies, "\n") }))
		if got.StatusCode != status {
			t.Errorf("%q: status %d, want %d", cookies, got.StatusCode, status)
		}
	}
}

// TestForwardedOnlyFromTrustedProxies: where a browser returns to follows X-Forwarded-Host and -Proto only if the operator trusts who
// sends them.
func TestForwardedOnlyFromTrustedProxies(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	forwarded := all(asDocument, func(r *http.Request) {
		r.Header.Set("X-Forwarded-Host", "shop.example.com")
		r.Header.Set("X-Forwarded-Proto", "https")
	})
	for global, want := range map[string]string{
		"": "",
		"global servers {\nglobal trusted_proxies static 10.0.0.0/8\nglobal }\n":  "",
		"global servers {\nglobal trusted_proxies static 127.0.0.1/8\nglobal }\n": "https://shop.example.com",
	} {
		s := newSite(t, stack, global+auth+"respond ok")
		if want == "" {
			want = s.url
		}
		if back := s.ask(t, "/cart?x=1", forwarded).location(t).Query().Get("redirect_url"); back != want+"/cart?x=1" {
			t.Errorf("%q: returns to %s, want %s", global, back, want)
		}
	}
}

// TestPublicURLOverTLS: the scheme is that of the connection, not what the client says.
func TestPublicURLOverTLS(t *testing.T) {
	t.Parallel()
	for scheme, state := range map[string]*tls.ConnectionState{"https": {}, "http": nil} {
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		r.Host, r.TLS = "shop.example.com", state
		r.Header.Set("X-Forwarded-Proto", "gopher")
		if got := publicURL(r).String(); got != scheme+"://shop.example.com/x" {
			t.Errorf("%s: %s", scheme, got)
		}
	}
}

// TestNowhereToReturnTo: a browser whose host is none is not sent away with an address that leads elsewhere.
func TestNowhereToReturnTo(t *testing.T) {
	t.Parallel()
	h := provisioned(t, newLiveStack(t), auth)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "evil.example/@"
	asDocument(r)
	if err := h.ServeHTTP(w, r, nil); err != nil || w.Code != http.StatusUnauthorized {
		t.Errorf("status %d to %s, %v", w.Code, w.Header().Get("Location"), err)
	}
}

// TestWithoutSecrets: what is logged of where a browser is sent is the same, but for what holds a token.
func TestWithoutSecrets(t *testing.T) {
	t.Parallel()
	const clerk = "https://clerk.example.com/v1/client/handshake?"
	for location, want := range map[string]string{
		"https://app.example.com/a":                                                                                                 "https://app.example.com/a",
		"https://app.example.com/a?access=T&b=1":                                                                                    "https://app.example.com/a?b=1",
		"https://app.example.com/a?b=1&%61ccess=T":                                                                                  "https://app.example.com/a?b=1",
		clerk + "a=b&__session=T&__clerk_db_jwt=T":                                                                                  clerk + "a=b",
		clerk + "redirect_url=https%3A%2F%2Fx%2F&a=b":                                                                               clerk + "redirect_url=https%3A%2F%2Fx%2F&a=b",
		clerk + "redirect_url=https%3A%2F%2Fx%2F%3Fa%3Db":                                                                           clerk + "redirect_url=https%3A%2F%2Fx%2F%3Fa%3Db",
		clerk + "redirect_url=https%3A%2F%2Fx%2F%3Faccess%3DT%26b%3D1%26access%3DT%26%2561ccess%3DT&a=b":                            clerk + "redirect_url=https%3A%2F%2Fx%2F%3Fb%3D1&a=b",
		"https://app.example.com/in?__clerk_redirect_url=https%3A%2F%2Fx%2F%3Faccess%3DT%26b%3D1&access=T&c=d":                      "https://app.example.com/in?__clerk_redirect_url=https%3A%2F%2Fx%2F%3Fb%3D1&c=d",
		"https://app.example.com/in?__clerk_redirect_url=https%3A%2F%2Fsat%2F%3F__clerk_db_jwt%3DT%26b%3D1%26__clerk_handshake%3DT": "https://app.example.com/in?__clerk_redirect_url=https%3A%2F%2Fsat%2F%3Fb%3D1",
		"https://sat.example.com/?__clerk_handshake=T&b=1&__clerk_handshake_nonce=T":                                                "https://sat.example.com/?b=1",
	} {
		if got := withoutSecrets(location, []string{"access"}); got != want {
			t.Errorf("%s: %s, want %s", location, got, want)
		}
	}
}
