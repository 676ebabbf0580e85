package devstack

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// only returns the one session there is.
func (w *world) only(t *testing.T) (string, devSession, bool) {
	t.Helper()
	w.issuer.mu.Lock()
	defer w.issuer.mu.Unlock()
	if len(w.issuer.sessions) != 1 {
		t.Fatalf("%d sessions", len(w.issuer.sessions))
	}
	for handle, s := range w.issuer.sessions {
		return handle, s, true
	}
	return "", devSession{}, false
}

func TestHandshakeInProduction(t *testing.T) {
	t.Parallel()
	for _, place := range places {
		for _, names := range []string{"false", "true"} {
			for _, format := range []string{"token", "nonce"} {
				t.Run(place.name+", suffixed "+names+", "+format, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, place.frontend, place.site, IssuerOptions{Live: true})
					w.signIn("ada")
					w.clock.Advance(time.Hour)

					p, to := w.handshake("suffixed_cookies", names, "format", format)
					if to.RawQuery != "a=%20b" {
						t.Errorf("query %q", to.RawQuery)
					}
					carrier := tokenCarrier
					if names == "true" && format == "nonce" { // more than 2 kB
						carrier = nonceCarrier
					}
					var carried *http.Cookie
					for _, c := range p.Cookies() {
						if c.Name == carrier {
							carried = c
						} else if c.MaxAge >= 0 {
							t.Errorf("cookie %v", c)
						}
					}
					if carried == nil || carried.MaxAge != 60 || !carried.HttpOnly || carried.Secure || carried.Path != "/" || carried.SameSite != http.SameSiteLaxMode {
						t.Fatalf("carried in %v", carried)
					}
					if n := len(carried.Name) + len(carried.Value); n > 4096 {
						t.Errorf("no browser keeps a cookie of %d bytes", n)
					}

					// The largest token does not fit under both names: the one that was asked for is left.
					cookie := "__session"
					if names == "true" {
						cookie = w.suffixed(cookie)
					}
					claims := w.claims(cookie)
					if claims["sub"] != adaID || claims["azp"] != w.site || claims["iat"] != float64(w.clock.Now().Unix()) {
						t.Errorf("claims %v", claims)
					}
					_, s, _ := w.only(t)
					got := w.cookies(w.site)
					if claims["sid"] != s.id || got[w.suffixed("__refresh")] != s.refresh {
						t.Error("the session or its refresh token is another one")
					}
					if both := names == "true" && format == "nonce"; both != (got["__session"] == got[w.suffixed("__session")]) {
						t.Errorf("cookies %v", got)
					}
					for _, name := range []string{"__client_uat", w.suffixed("__client_uat")} {
						if got[name] != uat(start) {
							t.Errorf("%s = %s, want %s", name, got[name], uat(start))
						}
					}
					if got[tokenCarrier] != "" || got[nonceCarrier] != "" {
						t.Errorf("the handshake is still there: %v", got)
					}
				})
			}
		}
	}
}

// uat is what __client_uat holds after a sign-in at t.
func uat(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// The directives to the letter, as Clerk writes them.
func TestDirectives(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{URL: "https://clerk.example.com", Live: true})
	dev := newTestIssuer(t, IssuerOptions{URL: "https://x.clerk.accounts.dev"})
	at := uat(start)
	s := devSession{userKey: "dana", id: "sess_x", signedIn: start, refresh: "rt_x"}
	sfx, devSfx := i.CookieSuffix(), dev.CookieSuffix()
	for _, tt := range []struct {
		name   string
		issuer *Issuer
		at     string
		visit  visit
		want   []string
	}{
		{"production, both names", i, "https://app.example.com/", visit{session: &s, plain: true, suffixed: true}, []string{
			"__client_uat=; Path=/; Max-Age=0; Secure; SameSite=Lax",
			"__clerk_handshake=; Path=/; Domain=example.com; Max-Age=0; Secure; SameSite=Lax",
			"__clerk_handshake_nonce=; Path=/; Domain=example.com; Max-Age=0; Secure; SameSite=Lax",
			"__client_uat=" + at + "; Path=/; Domain=example.com; Max-Age=315360000; Secure; SameSite=Lax",
			"__client_uat_" + sfx + "=" + at + "; Path=/; Domain=example.com; Max-Age=315360000; Secure; SameSite=Lax",
			"__session=TOKEN; Path=/; Max-Age=31536000; Secure; SameSite=Lax",
			"__session_" + sfx + "=TOKEN; Path=/; Max-Age=31536000; Secure; SameSite=Lax",
			"__refresh_" + sfx + "=rt_x; Path=/; Max-Age=31536000; HttpOnly; Secure; SameSite=Lax",
		}},
		{"production, signed out, over HTTP", i, "http://app.example.com/", visit{plain: true}, []string{
			"__client_uat=; Path=/; Max-Age=0; SameSite=Lax",
			"__clerk_handshake=; Path=/; Domain=example.com; Max-Age=0; SameSite=Lax",
			"__clerk_handshake_nonce=; Path=/; Domain=example.com; Max-Age=0; SameSite=Lax",
			"__client_uat=0; Path=/; Domain=example.com; Max-Age=315360000; SameSite=Lax",
			"__client_uat_" + sfx + "=0; Path=/; Domain=example.com; Max-Age=315360000; SameSite=Lax",
			"__session=; Path=/; Max-Age=0; SameSite=Lax",
			"__session_" + sfx + "=; Path=/; Max-Age=0; SameSite=Lax",
			"__refresh_" + sfx + "=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax",
		}},
		{"development", dev, "http://localhost:3000/", visit{session: &s, plain: true, browser: "dvb_x"}, []string{
			"__clerk_handshake=; Path=/; Max-Age=0; SameSite=Lax",
			"__clerk_handshake_nonce=; Path=/; Max-Age=0; SameSite=Lax",
			"__client_uat=" + at + "; Path=/; Max-Age=315360000; SameSite=Lax",
			"__session=TOKEN; Path=/; Max-Age=31536000; SameSite=Lax",
			"__refresh_" + devSfx + "=rt_x; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax",
			"__clerk_db_jwt=dvb_x; Path=/; Max-Age=31536000; SameSite=Lax",
			"__clerk_db_jwt_" + devSfx + "=dvb_x; Path=/; Max-Age=31536000; SameSite=Lax",
		}},
		{"development on subdomains", dev, "https://app.accounts.dev/", visit{plain: true}, []string{
			"__clerk_handshake=; Path=/; Max-Age=0; Secure; SameSite=Lax",
			"__clerk_handshake_nonce=; Path=/; Max-Age=0; Secure; SameSite=Lax",
			"__client_uat=0; Path=/; Max-Age=315360000; Secure; SameSite=Lax",
			"__client_uat_" + devSfx + "=0; Path=/; Max-Age=315360000; Secure; SameSite=Lax",
			"__session=; Path=/; Max-Age=0; Secure; SameSite=Lax",
			"__session_" + devSfx + "=; Path=/; Max-Age=0; Secure; SameSite=Lax",
			"__refresh_" + devSfx + "=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			site, _ := url.Parse(tt.at)
			frontend, _ := url.Parse(tt.issuer.URL())
			tt.visit.site = tt.issuer.siteAt(site, frontend.Host)
			list, err := tt.issuer.directives(tt.visit)
			if err != nil {
				t.Fatal(err)
			}
			for n, f := range list {
				if name, rest, _ := strings.Cut(f, "="); strings.HasPrefix(name, "__session") && strings.HasPrefix(rest, "ey") {
					_, attributes, _ := strings.Cut(rest, ";")
					list[n] = name + "=TOKEN;" + attributes
				}
			}
			if !slices.Equal(list, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestHandshakeInDevelopment(t *testing.T) {
	t.Parallel()
	// Nothing in common, not even an address: only the query can tell the site anything.
	w := newWorld(t, "x.clerk.localhost", "127.0.0.1", IssuerOptions{})

	// A browser that nobody knows is given an id, and nobody is signed in.
	_, to := w.handshake()
	if to.Query().Get(tokenCarrier) == "" || w.cookies(w.site)["__client_uat"] != "0" {
		t.Fatalf("sent to %v, cookies %v", to, w.cookies(w.site))
	}
	first := w.cookies(w.site)[browserCookie]
	if !strings.HasPrefix(first, "dvb_2") || w.cookies(w.site)[w.suffixed(browserCookie)] != first {
		t.Fatalf("cookies %v", w.cookies(w.site))
	}

	// The portal signs that browser in and names it to the site.
	p := w.ask(http.MethodPost, w.frontend+"/sign-in", url.Values{"user": {"ada"}, "redirect_url": {w.site + "/x?a=%20b"}, browserCookie: {first}})
	if p.StatusCode != http.StatusSeeOther || p.Header.Get("Location") != w.site+"/x?a=%20b&__clerk_db_jwt="+first {
		t.Fatalf("%d %v", p.StatusCode, p.Header)
	}
	for _, c := range p.Cookies() {
		if c.Name != clientCookie {
			t.Errorf("the portal set %v", c)
		}
	}

	// The id is enough, without a cookie on the Frontend API's host.
	frontend, _ := url.Parse(w.frontend)
	handle := w.cookies(w.frontend)[clientCookie]
	w.jar.SetCookies(frontend, []*http.Cookie{{Name: clientCookie, Path: "/", MaxAge: -1}})
	for _, format := range []string{"token", "nonce"} {
		_, to = w.handshake("format", format, "suffixed_cookies", "true", browserCookie, first)
		if got := to.Query(); (got.Get(nonceCarrier) != "") != (format == "nonce") || (got.Get(tokenCarrier) != "") != (format == "token") {
			t.Errorf("%s: sent to %v", format, to)
		}
		// Here no cookie limits the token: both names are in it.
		if w.claims("__session")["sub"] != adaID || w.claims(w.suffixed("__session"))["sub"] != adaID {
			t.Errorf("%s: cookies %v", format, w.cookies(w.site))
		}
		if w.cookies(w.site)[browserCookie] != first {
			t.Error("the browser's id changed")
		}
	}

	// An id that nobody knows is none, and is not made one: somebody may have planted it.
	w.handshake(browserCookie, "dvb_planted")
	if got := w.cookies(w.site); got["__client_uat"] != "0" || got[browserCookie] == "dvb_planted" || got[browserCookie] == first {
		t.Errorf("cookies %v", got)
	}
	// The cookie is as good as the id.
	w.jar.SetCookies(frontend, []*http.Cookie{{Name: clientCookie, Value: handle, Path: "/"}})
	w.handshake(browserCookie, w.cookies(w.site)[browserCookie])
	if w.claims("__session")["sub"] != adaID {
		t.Errorf("cookies %v", w.cookies(w.site))
	}
}

// The site looks for a nonce first. One that it never saw must not win over what came later.
func TestHandshakeReplacesAnEarlierOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "clerk.example.localhost", "app.example.localhost", IssuerOptions{Live: true})
	w.signIn("ada")
	for _, suffixed := range []string{"true", "false", "true"} {
		w.ask(http.MethodGet, w.frontend+"/v1/client/handshake?format=nonce&suffixed_cookies="+suffixed+"&redirect_url="+url.QueryEscape(w.site), nil)
		got := w.cookies(w.site)
		if (got[nonceCarrier] != "") != (suffixed == "true") || (got[tokenCarrier] != "") != (suffixed == "false") {
			t.Errorf("suffixed %s: cookies %v", suffixed, got)
		}
	}
}

func TestHandshakeSignedOut(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{true, false} {
		for _, place := range places {
			w := newWorld(t, place.frontend, place.site, IssuerOptions{Live: live})
			w.signIn("ada")
			w.handshake("suffixed_cookies", "true")
			if w.claims(w.suffixed("__session")) == nil {
				t.Fatal("not signed in")
			}
			w.issuer.EndSessions()
			_, to := w.handshake("format", "nonce", browserCookie, w.cookies(w.site)[browserCookie])
			if live && to.RawQuery != "a=%20b" {
				t.Errorf("sent to %v", to)
			}
			got := w.cookies(w.site)
			for _, name := range []string{"__session", w.suffixed("__session"), w.suffixed("__refresh")} {
				if v, ok := got[name]; ok {
					t.Errorf("%s = %q is left", name, v)
				}
			}
			if got["__client_uat"] != "0" || got[w.suffixed("__client_uat")] != "0" {
				t.Errorf("cookies %v", got)
			}
		}
	}
}

func TestHandshakeAZP(t *testing.T) {
	t.Parallel()
	for _, omit := range []bool{false, true} {
		w := newWorld(t, "127.0.0.1", "127.0.0.1", IssuerOptions{Live: true, OmitHandshakeAZP: omit, AppOrigin: "http://other.localhost"})
		w.signIn("dana")
		w.handshake()
		azp, ok := w.claims("__session")["azp"]
		if ok == omit || !omit && azp != w.site {
			t.Errorf("omit %v: azp %v", omit, azp)
		}
	}
}

func TestHandshakeOrganization(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.0.0.1", "127.0.0.1", IssuerOptions{Live: true})
	w.signIn("ada")
	for _, tt := range []struct {
		name   string
		params []string
		want   string // the organization's id
	}{
		{"not asked", nil, AcmeID},
		{"the id", []string{"organization_id", AcmeID}, AcmeID},
		{"somebody else's", []string{"organization_id", GlobexID}, AcmeID},
		{"one that does not exist", []string{"organization_id", "org_x"}, AcmeID},
		{"none", []string{"organization_id", ""}, ""},
		{"none stays", nil, ""},
		{"somebody else's changes nothing", []string{"organization_id", "globex"}, ""},
		{"the slug", []string{"organization_id", "acme"}, AcmeID},
		{"which stays", nil, AcmeID},
	} {
		w.handshake(tt.params...)
		o, _ := w.claims("__session")["o"].(map[string]any)
		id, _ := o["id"].(string)
		if id != tt.want {
			t.Errorf("%s: organization %q, want %q", tt.name, id, tt.want)
		}
	}
	w.ask(http.MethodPost, w.frontend+"/sign-in", url.Values{"user": {"dana"}})
	w.handshake("organization_id", "acme")
	if _, ok := w.claims("__session")["o"]; ok {
		t.Error("a user of no organization is in one")
	}
}
