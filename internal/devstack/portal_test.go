package devstack

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

var formAction = regexp.MustCompile(`<form method="post" action="([^"]*)"`)

// press sends the form of a page, as its button does.
func (w *world) press(p page, button ...string) page {
	w.t.Helper()
	m := formAction.FindStringSubmatch(p.body)
	if m == nil {
		w.t.Fatalf("%d, no form in %s", p.StatusCode, p.body)
	}
	action, err := p.Request.URL.Parse(html.UnescapeString(m[1]))
	if err != nil {
		w.t.Fatal(err)
	}
	form := url.Values{}
	for _, f := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`).FindAllStringSubmatch(p.body, -1) {
		form.Set(f[1], html.UnescapeString(f[2]))
	}
	for n := 0; n+1 < len(button); n += 2 {
		form.Set(button[n], button[n+1])
	}
	return w.ask(http.MethodPost, action.String(), form)
}

func TestPortalInProduction(t *testing.T) {
	t.Parallel()
	for _, place := range places {
		t.Run(place.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, place.frontend, place.site, IssuerOptions{Live: true})
			back := w.site + "/private?a=1"
			portal := w.frontend + "/sign-in?redirect_url=" + url.QueryEscape(back)
			account := w.frontend + "/user?redirect_url=" + url.QueryEscape(back)
			if p := w.ask(http.MethodGet, account, nil); p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != "sign-in" {
				t.Errorf("account page for nobody: %d %v", p.StatusCode, p.Header)
			}

			p := w.press(w.ask(http.MethodGet, portal, nil), "user", "cleo")
			if p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != back {
				t.Fatalf("%d %v", p.StatusCode, p.Header)
			}
			for _, c := range p.Cookies() {
				if c.Name == clientCookie && (!c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Domain != "" || c.Path != "/") {
					t.Errorf("cookie %v", c)
				}
			}
			// The site learns of it before any handshake.
			for _, name := range []string{"__client_uat", w.suffixed("__client_uat")} {
				if got := w.cookies(w.site)[name]; got != uat(start) {
					t.Errorf("%s = %q", name, got)
				}
			}
			w.handshake()
			if w.claims("__session")["sub"] != cleoID {
				t.Errorf("cookies %v", w.cookies(w.site))
			}

			// Who is signed in is sent straight back: that is what turns a site's mistake into a loop.
			if p := w.ask(http.MethodGet, portal, nil); p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != back {
				t.Errorf("%d %v", p.StatusCode, p.Header)
			}
			if p := w.ask(http.MethodGet, w.frontend+"/sign-in", nil); p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != "user" {
				t.Errorf("%d %v", p.StatusCode, p.Header)
			}

			p = w.press(w.ask(http.MethodGet, account, nil))
			if p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != back {
				t.Fatalf("%d %v", p.StatusCode, p.Header)
			}
			got := w.cookies(w.site)
			if _, own := w.cookies(w.frontend)[clientCookie]; own || got["__client_uat"] != "0" || got[w.suffixed("__client_uat")] != "0" {
				t.Errorf("cookies after signing out: %v", got)
			}
			if p := w.ask(http.MethodGet, portal, nil); p.StatusCode != http.StatusOK {
				t.Errorf("the portal still knows somebody: %d", p.StatusCode)
			}
			w.handshake()
			if w.claims("__session") != nil {
				t.Error("a session is left at the site")
			}
		})
	}
}

func TestPortalInDevelopment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "x.clerk.localhost", "127.0.0.1", IssuerOptions{})
	back := w.site + "/private?a=1"
	w.handshake()
	browser := w.cookies(w.site)[browserCookie]
	portal := w.frontend + "/sign-in?redirect_url=" + url.QueryEscape(back) + "&__clerk_db_jwt=" + browser
	named := back + "&__clerk_db_jwt=" + browser
	for range 2 { // the second time there is nothing to press
		p := w.ask(http.MethodGet, portal, nil)
		if p.StatusCode == http.StatusOK {
			p = w.press(p, "user", "ada")
		}
		if p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != named {
			t.Fatalf("%d %v", p.StatusCode, p.Header)
		}
	}
	if _, ok := w.cookies(w.site)[clientCookie]; ok {
		t.Error("the portal's cookie is at the site")
	}
	w.handshake(browserCookie, browser)
	if w.claims("__session")["sub"] != adaID {
		t.Errorf("cookies %v", w.cookies(w.site))
	}
	p := w.press(w.ask(http.MethodGet, w.frontend+"/user?redirect_url="+url.QueryEscape(back)+"&__clerk_db_jwt="+browser, nil))
	if p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != named {
		t.Fatalf("%d %v", p.StatusCode, p.Header)
	}
	w.handshake(browserCookie, browser)
	if w.claims("__session") != nil || w.cookies(w.site)["__client_uat"] != "0" {
		t.Errorf("cookies after signing out: %v", w.cookies(w.site))
	}

	// A site that named no browser gets a new one named.
	p = w.ask(http.MethodPost, w.frontend+"/sign-in", url.Values{"user": {"ben"}, "redirect_url": {back}})
	to, _ := p.Location()
	if id := to.Query().Get(browserCookie); !strings.HasPrefix(id, "dvb_2") || id == browser {
		t.Errorf("sent to %v", to)
	} else if w.handshake(browserCookie, id); w.claims("__session")["sub"] != benID {
		t.Errorf("cookies %v", w.cookies(w.site))
	}
}

func TestPortalRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "clerk.example.localhost", "app.example.localhost", IssuerOptions{Live: true})
	w.signIn("ada")
	_, s, _ := w.only(t)
	for _, tt := range []struct {
		name, method, path string
		form               url.Values
		status             int
		code               string
	}{
		{"nobody", http.MethodPost, "/sign-in", url.Values{"user": {"mallory"}}, 422, "form_identifier_not_found"},
		{"no name", http.MethodPost, "/sign-in", nil, 422, "form_identifier_not_found"},
		{"a large form", http.MethodPost, "/sign-in", url.Values{"user": {strings.Repeat("a", maxForm)}}, 400, "request_body_invalid"},
		{"another's session", http.MethodPost, "/v1/client/sessions/sess_2other/remove", nil, 404, "resource_not_found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := w.ask(tt.method, w.frontend+tt.path, tt.form)
			if p.StatusCode != tt.status || len(p.Cookies()) > 0 || errorCode(t, p.body) != tt.code {
				t.Errorf("%d %v %s", p.StatusCode, p.Header, p.body)
			}
			if _, alive := w.issuer.sessionByID(s.id); !alive {
				t.Error("the session ended")
			}
		})
	}
	// A link cannot sign anybody out or in.
	for _, path := range []string{"/v1/client/sessions/" + s.id + "/remove", "/sign-in?user=ben"} {
		w.ask(http.MethodGet, w.frontend+path, nil)
		if _, now, _ := w.only(t); now.id != s.id {
			t.Errorf("%s changed the session", path)
		}
	}
}

// Whoever signs in over somebody else ends that session: an instance of Clerk allows one at a time.
func TestSignInReplacesTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.0.0.1", "127.0.0.1", IssuerOptions{Live: true})
	w.signIn("ada")
	_, first, _ := w.only(t)
	w.signIn("ada")
	if _, second, _ := w.only(t); second.id == first.id || second.refresh == first.refresh {
		t.Error("two sign-ins are one session")
	}

	// In development the browser's id tells whose session it replaces.
	i := newTestIssuer(t, IssuerOptions{})
	browser := i.browser("", i.remember(devSession{userKey: "ada"}))
	do(i, http.MethodPost, "/sign-in", "user=ben&__clerk_db_jwt="+browser, "Host", "localhost", "Content-Type", "application/x-www-form-urlencoded")
	if len(i.sessions) != 1 {
		t.Errorf("%d sessions", len(i.sessions))
	}
}

// /dev/* and the Frontend API are two doors of one house.
func TestDevEndpointsShareTheSession(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{true, false} {
		w := newWorld(t, "127.0.0.1", "127.0.0.1", IssuerOptions{Live: live})
		dev := func(method, path, body string) int {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), method, w.frontend+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", jsonType)
			res, err := w.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			return closed(res)
		}
		if c := dev(http.MethodPost, "/dev/sign-in", `{"user":"ben"}`); c != http.StatusOK {
			t.Fatal(c)
		}
		browser := w.cookies(w.site)[browserCookie]
		w.handshake(browserCookie, browser)
		_, s, _ := w.only(t)
		if got := w.claims("__session"); got["sub"] != benID || got["sid"] != s.id {
			t.Errorf("live %v: claims %v", live, got)
		}
		if !live && (browser == "" || w.cookies(w.site)[browserCookie] != browser) {
			t.Error("the handshake does not know the browser of /dev/sign-in")
		}
		w.handshake("organization_id", "")
		if c := dev(http.MethodGet, "/dev/token", ""); c != http.StatusOK {
			t.Fatal(c)
		}
		if got := w.claims("__session"); got["o"] != nil || got["sid"] != s.id {
			t.Errorf("live %v: /dev/token gives %v", live, got)
		}
		w.press(w.ask(http.MethodGet, w.frontend+"/user", nil))
		if c := dev(http.MethodGet, "/dev/token", ""); c != http.StatusUnauthorized {
			t.Errorf("live %v: %d after the portal's sign-out", live, c)
		}

		w.signIn("cleo")
		if c := dev(http.MethodGet, "/dev/token", ""); c != http.StatusOK || w.claims("__session")["sub"] != cleoID {
			t.Errorf("live %v: %d after the portal's sign-in", live, c)
		}
		if c := dev(http.MethodPost, "/dev/sign-out", ""); c != http.StatusOK {
			t.Fatal(c)
		}
		if len(w.issuer.sessions) != 0 {
			t.Errorf("live %v: a session is left after /dev/sign-out", live)
		}
		w.handshake()
		if w.claims("__session") != nil {
			t.Errorf("live %v: signed in after /dev/sign-out", live)
		}
	}
}

// closed returns the status of an answer that is not read.
func closed(res *http.Response) int {
	_ = res.Body.Close()
	return res.StatusCode
}

func TestBrowsersAndNoncesAreBounded(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{})
	id := i.browser("", "a")
	i.browser(id, "b")
	i.browser(id, "") // says nothing of a session
	if len(i.known) != 1 || i.browsers[id] != "b" {
		t.Errorf("browsers %v, in order %v", i.browsers, i.known)
	}
	for range maxSessions + 10 {
		i.browser("", "")
		i.lodge(nil)
	}
	if len(i.browsers) != maxSessions || len(i.known) != maxSessions || len(i.payloads) != maxSessions || len(i.nonces) != maxSessions {
		t.Errorf("%d browsers, %d payloads", len(i.browsers), len(i.payloads))
	}
	for range 10 {
		i.end(i.remember(devSession{}))
	}
	if len(i.sessions) != 0 || len(i.order) != 0 {
		t.Errorf("%d sessions, %d in order", len(i.sessions), len(i.order))
	}
}
