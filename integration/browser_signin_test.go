//go:build integration

package integration

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// briefly is how long the session tokens live that expire here. They are dated by the second, so up to one of these is over
// already.
const briefly = 3 * time.Second

// TestBrowserSignsIn: somebody opens a page, signs in, stays signed in while token after token expires, and signs out.
func TestBrowserSignsIn(t *testing.T) {
	t.Parallel()
	for name, live := range map[string]bool{"production": true, "development": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGuarded(t, devstack.IssuerOptions{Live: live, SessionLifetime: briefly})
			b := startBrowser(t)
			g.signsIn(t, b)
			g.staysSignedIn(t, b)
			g.isKnownNextDoor(t, b)
			g.signsOut(t, b, live)
		})
	}
}

// signsIn opens a page that a link names, with parameters, and gets to it by way of the sign-in page.
func (g *guarded) signsIn(t *testing.T, b *browser) {
	t.Helper()
	page := "/index.html?month=may&note=a%20b+c"
	if v := b.open(t, g.origin(appHost)+page); v.Status != http.StatusOK || !strings.HasPrefix(v.URL, g.stack.Issuer.URL()+"/sign-in?") {
		t.Fatalf("nobody is signed in, and the page leads to %v", v)
	}
	b.seen(t)
	// Clerk's handshake writes the query anew, in which a space is a plus.
	want := visit{g.origin(appHost) + strings.ReplaceAll(page, "%20", "+"), http.StatusOK}
	if v := b.click(t, "#sign-in-ada"); v != want {
		t.Fatalf("signing in leads to %v, want %v\n%s", v, want, g.log.tail())
	}
	g.showsUser(t, b)
	responses, messages := b.seen(t)
	shown := map[string]int{}
	for _, r := range responses {
		if strings.HasPrefix(r.URL, g.origin(appHost)) {
			shown[r.Type] = r.Status
		}
	}
	if shown["stylesheet"] != http.StatusOK || shown["image"] != http.StatusOK || len(messages) > 0 {
		t.Errorf("the page came without its parts: %v %v", shown, messages)
	}
}

// staysSignedIn lets three tokens expire.
func (g *guarded) staysSignedIn(t *testing.T, b *browser) {
	t.Helper()
	site := g.origin(appHost)

	before := g.awaitExpiry(t, b, appHost)
	refreshes := g.stack.Issuer.Refreshes()
	if f := b.fetch(t, site+"/style.css", http.MethodGet); f.Status != http.StatusOK || f.Redirected {
		t.Errorf("fetch past the expiry: %+v\n%s", f, g.log.tail())
	}
	if n := g.stack.Issuer.Refreshes() - refreshes; n != 1 {
		t.Errorf("%d refreshes for one fetch", n)
	}
	if sessionOf(t, b, appHost) == before {
		t.Error("the browser still has the expired token")
	}

	g.awaitExpiry(t, b, appHost)
	if b.image(t, site+"/mark.svg?again") == 0 {
		t.Errorf("no image past the expiry\n%s", g.log.tail())
	}

	g.awaitExpiry(t, b, appHost)
	if v := b.reload(t); v.Status != http.StatusOK || !strings.HasPrefix(v.URL, site+"/index.html?") {
		t.Errorf("reloading past the expiry leads to %v\n%s", v, g.log.tail())
	}
	g.showsUser(t, b)
}

// isKnownNextDoor visits another site of the instance, which has no secret key: a document's expired token is renewed by a
// handshake there, and a fetch is told to sign in.
func (g *guarded) isKnownNextDoor(t *testing.T, b *browser) {
	t.Helper()
	site := g.origin(pagesHost)
	if v := b.open(t, site+"/"); v != (visit{site + "/", http.StatusOK}) {
		t.Fatalf("who is signed in is led to %v\n%s", v, g.log.tail())
	}
	g.showsUser(t, b)
	g.awaitExpiry(t, b, pagesHost)
	if f := b.fetch(t, site+"/style.css", http.MethodGet); f.Status != http.StatusUnauthorized || f.Redirected || !strings.Contains(f.Body, `"token_expired"`) {
		t.Errorf("fetch past the expiry, without a secret key: %+v", f)
	}
	handshakes := g.stack.Issuer.Handshakes()
	if v := b.reload(t); v != (visit{site + "/", http.StatusOK}) {
		t.Errorf("reloading past the expiry leads to %v\n%s", v, g.log.tail())
	}
	if n := g.stack.Issuer.Handshakes() - handshakes; n != 1 {
		t.Errorf("%d handshakes for one reload", n)
	}
	g.showsUser(t, b)
}

// signsOut leaves by the account portal, after which both sites ask to sign in again. A development instance cannot tell the
// other site, where the last token is good until it expires.
func (g *guarded) signsOut(t *testing.T, b *browser, live bool) {
	t.Helper()
	b.open(t, g.origin(appHost)+"/")
	signIn := g.stack.Issuer.URL() + "/sign-in?"
	b.click(t, "#account")
	if v := b.click(t, "#sign-out"); v.Status != http.StatusOK || !strings.HasPrefix(v.URL, signIn) {
		t.Fatalf("signing out leads to %v\n%s", v, g.log.tail())
	}
	if !live {
		g.awaitExpiry(t, b, pagesHost)
	}
	for _, host := range []string{appHost, pagesHost} {
		if v := b.open(t, g.origin(host)+"/"); !strings.HasPrefix(v.URL, signIn) {
			t.Errorf("who signed out is led to %v", v)
		}
		if token := sessionOf(t, b, host); token != "" {
			t.Errorf("a session token for %s is left in the browser", host)
		}
	}
}

func (g *guarded) showsUser(t *testing.T, b *browser) {
	t.Helper()
	ada, _ := devstack.UserByKey("ada")
	if user := b.text(t, "#user"); user != ada.ID {
		t.Errorf("the page was made for %q, want %s", user, ada.ID)
	}
}

// TestBrowserIsNotSentInCircles: a session that the site refuses for good, though Clerk finds nothing wrong with it, ends on a
// page that says so.
func TestBrowserIsNotSentInCircles(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	for name, live := range map[string]bool{"production": true, "development": false} {
		t.Run(name, func(t *testing.T) {
			g := startGuarded(t, devstack.IssuerOptions{Live: live})
			b.begin(t, instruction{})
			b.open(t, g.origin(foreignHost)+"/")
			b.seen(t)
			v := b.click(t, "#sign-in-ada")
			if v.Status != http.StatusUnauthorized || !strings.HasPrefix(v.URL, g.origin(foreignHost)+"/") {
				t.Errorf("it ends with %v\n%s", v, g.log.tail())
			}
			if text := b.text(t, "body"); !strings.Contains(text, "several times in a row") {
				t.Errorf("the page says %q", text)
			}
			responses, _ := b.seen(t)
			// Chromium gives up at 20 redirects.
			if n := len(responses); n < 4 || n > 18 {
				t.Errorf("%d answers until then: %v", n, responses)
			}
		})
	}
}
