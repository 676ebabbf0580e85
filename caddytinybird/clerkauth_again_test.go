package caddytinybird

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// backToAnError is a browser that comes back from Clerk to an answer which goes without the session's cookies: the first page that it asks
// for. It is signed in, with a session that has run out, or out, with the trace of an earlier one.
func backToAnError(t *testing.T, lines, target string, signedIn bool) *browser {
	t.Helper()
	stack := newStack(t, devstack.Options{Issuer: devstack.IssuerOptions{Live: true}})
	s := newSite(t, stack, strings.ReplaceAll(lines, "{clerk_auth}", "clerk_auth {pk} {\nissuer {issuer}\napi_url {issuer}"))
	stack.Issuer.AddSiteOrigin(s.url)
	b := newBrowser(t, s)
	if signedIn {
		page := b.do(t, http.MethodGet, stack.IssuerURL+"/sign-in?redirect_url="+url.QueryEscape(s.url+"/"), "document", nil)
		b.signIn(t, page, "ada")
		b.expire(t, "ada")
	} else {
		b.set(t, &http.Cookie{Name: "__client_uat", Value: strconv.FormatInt(time.Now().Unix()-100, 10), Path: "/"})
	}
	got := b.visit(t, target)
	if got.StatusCode < http.StatusBadRequest || stack.Issuer.Handshakes() == 0 {
		t.Fatalf("status %d after %d handshakes", got.StatusCode, stack.Issuer.Handshakes())
	}
	for name := range b.cookies() {
		if strings.HasPrefix(name, "__clerk_handshake") {
			t.Errorf("the browser keeps %s", name)
		}
	}
	return b
}

// set has the browser keep cookies of the site, as clerk-js sets them.
func (b *browser) set(t *testing.T, cookies ...*http.Cookie) {
	t.Helper()
	u, err := url.Parse(b.site.url)
	if err != nil {
		t.Fatal(err)
	}
	b.jar.SetCookies(u, cookies)
}

// signInElsewhere does what clerk-js does when somebody signs in.
func (b *browser) signInElsewhere(t *testing.T, opts ...devstack.TokenOption) {
	t.Helper()
	cookies, err := b.site.stack.Issuer.Cookies("ada", append(opts, devstack.AZP(b.site.url))...)
	if err != nil {
		t.Fatal(err)
	}
	b.set(t, cookies...)
}

// pageIs holds that a page, and what a script asks for, have the status and say who it is.
func (b *browser) pageIs(t *testing.T, status int, text string) {
	t.Helper()
	for range 2 {
		page, script := b.visit(t, "/"), b.fetch(t, "/")
		if page.StatusCode != status || script.StatusCode != status || !strings.Contains(string(page.body), text) {
			t.Errorf("the page: status %d, %s; a script's: status %d; want %d, %s", page.StatusCode, page.body, script.StatusCode, status, text)
		}
	}
}

// TestHandshakeCountsOnce: a handshake that was answered by an error page counts no second time, over what the browser was given since:
// nobody who has signed in since is locked out by it or signed out, and nobody who has signed out is signed in.
func TestHandshakeCountsOnce(t *testing.T) {
	t.Parallel()
	const page = "\nrespond \"in {clerk.user.id}\"\nhandle_errors {\nrespond \"an error page\"\n}"
	ada, _ := devstack.UserByKey("ada")
	t.Run("signed in since, after a 401", func(t *testing.T) {
		t.Parallel()
		b := backToAnError(t, "{clerk_auth}\non_unauthenticated 401\nerrors caddy\n}"+page, "/", false)
		b.signInElsewhere(t)
		b.pageIs(t, http.StatusOK, ada.ID)
	})
	t.Run("signed in since, after a 404", func(t *testing.T) {
		t.Parallel()
		b := backToAnError(t, "{clerk_auth}\noptional\n}\n@gone path /gone\nerror @gone 404"+page, "/gone", false)
		b.signInElsewhere(t)
		b.pageIs(t, http.StatusOK, ada.ID)
	})
	t.Run("signed out since, after a 404", func(t *testing.T) {
		t.Parallel()
		b := backToAnError(t, "{clerk_auth}\non_unauthenticated 401\n}\n@gone path /gone\nerror @gone 404"+page, "/gone", true)
		for name := range b.cookies() {
			if strings.HasPrefix(name, "__session") || strings.HasPrefix(name, "__refresh") {
				b.set(t, &http.Cookie{Name: name, Path: "/", MaxAge: -1})
			}
			if strings.HasPrefix(name, "__client_uat") {
				b.set(t, &http.Cookie{Name: name, Value: "0", Path: "/"})
			}
		}
		b.pageIs(t, http.StatusUnauthorized, "")
	})
	t.Run("a role since, after a 403", func(t *testing.T) {
		t.Parallel()
		b := backToAnError(t, "{clerk_auth}\non_unauthenticated 401\nrequire role org:auditor\nerrors caddy\n}"+page, "/", true)
		b.signInElsewhere(t, devstack.Claim("o", map[string]any{"id": "org_x", "slg": "x", "rol": "auditor"}))
		b.pageIs(t, http.StatusOK, ada.ID)
	})
}

// TestAttackNonceInTheAnswer: a sibling site plants a nonce that Clerk's refusal of it happens to repeat, so that the code of the refusal
// is not shown, or one that a firewall in front of Clerk refuses. That is no outage, and locks nobody out.
func TestAttackNonceInTheAnswer(t *testing.T) {
	t.Parallel()
	s := clerkSite(t, true, true, "", "respond ok")
	b := newBrowser(t, s)
	b.signIn(t, b.visit(t, "/"), "ada")
	for _, nonce := range []string{"e", "_", "resource_not_found", "..%2F..%2Fetc%2Fpasswd", "%3Cscript%3E"} {
		b.expire(t, "ada")
		b.set(t, &http.Cookie{Name: "__clerk_handshake_nonce", Value: nonce, Path: "/"})
		if got := b.visit(t, "/"); got.StatusCode != http.StatusOK || string(got.body) != "ok" {
			t.Errorf("%s: status %d, %s", nonce, got.StatusCode, got.body)
		}
	}
	b.rest(t)
	b.expire(t, "ada")
	if got := b.fetch(t, "/"); got.StatusCode != http.StatusOK {
		t.Errorf("a script's request: status %d, %s", got.StatusCode, got.body)
	}
}
