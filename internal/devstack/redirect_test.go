package devstack

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Whatever is wrong with redirect_url: 400, and nobody is sent anywhere.
func TestRedirectGoesNowhereElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "clerk.example.localhost", "app.example.localhost", IssuerOptions{Live: true, AppOrigin: "https://App.example.localhost:443", SiteOrigins: []string{"http://kiosk.example.localhost"}})
	w.signIn("ada")
	_, port, _ := strings.Cut(strings.TrimPrefix(w.site, "http://"), ":")
	host := "app.example.localhost"
	_, s, _ := w.only(t)
	pages := []string{"/v1/client/handshake", "/sign-in", "/user"}
	refuse := func(t *testing.T, p page) {
		t.Helper()
		if p.StatusCode != http.StatusBadRequest || p.Header.Get("Location") != "" || len(p.Cookies()) > 0 {
			t.Errorf("%d %v", p.StatusCode, p.Header)
		}
		errorCode(t, p.body)
	}
	for name, raw := range map[string]string{
		"another host":                   "https://evil.test/",
		"another port":                   "http://" + host + ":1/",
		"another scheme":                 "https://" + host + ":" + port + "/",
		"the issuer itself":              w.frontend + "/sign-in",
		"a name that begins alike":       w.site + ".evil.test/",
		"a name that ends alike":         "http://evil" + host + ":" + port + "/",
		"a user before another host":     w.site + "@evil.test/",
		"a user before the host":         "http://evil.test@" + host + ":" + port + "/",
		"a backslash":                    `http://evil.test\@` + host + ":" + port + "/",
		"a script":                       "javascript:alert(1)//" + host,
		"data":                           "data:text/html,x",
		"no scheme":                      "//" + host + ":" + port + "/",
		"no slashes":                     "http:" + host + ":" + port + "/",
		"a path":                         "/x",
		"a line break":                   w.site + "/\r\nSet-Cookie: a=b",
		"a tab in the scheme":            "ht\ttp://evil.test/",
		"a letter whose lower case is k": "http://\u212aios\u212a.example.localhost/",
		"a blank in front":               " " + w.site + "/",
		"another form of the address":    "http://0x7f.1:" + port + "/",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, target := range pages {
				refuse(t, w.ask(http.MethodGet, w.frontend+target+"?redirect_url="+url.QueryEscape(raw), nil))
			}
			refuse(t, w.ask(http.MethodPost, w.frontend+"/sign-in", url.Values{"user": {"ben"}, "redirect_url": {raw}}))
			refuse(t, w.ask(http.MethodPost, w.frontend+"/v1/client/sessions/"+s.id+"/remove?redirect_url="+url.QueryEscape(raw), nil))
			if _, alive := w.issuer.sessionByID(s.id); !alive {
				t.Error("the session ended")
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		refuse(t, w.ask(http.MethodGet, w.frontend+"/v1/client/handshake", nil))
	})
	for _, raw := range []string{"https://app.example.localhost/", "HTTPS://APP.example.localhost:443/a?b#c", w.site} {
		if p := w.ask(http.MethodGet, w.frontend+"/v1/client/handshake?redirect_url="+url.QueryEscape(raw), nil); p.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("%s: %d", raw, p.StatusCode)
		}
	}
}

func TestSharedDomain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ a, b, want string }{
		{"clerk.example.com", "app.example.com", "example.com"},
		{"clerk.example.com", "a.b.example.com", "example.com"},
		{"Clerk.Example.com", "example.com", "example.com"},
		{"clerk.example.localhost", "app.example.localhost", "example.localhost"},
		{"clerk.example.com", "clerk.example.com", ""},
		{"clerk.example.com", "app.example.org", ""},
		{"clerk.localhost", "app.localhost", ""},
		{"localhost", "app.localhost", ""},
		{"127.0.0.1", "127.0.0.1", ""},
		{"127.0.0.1", "127.1.0.1", ""},
		{"::1", "localhost", ""},
		{"clerk.example.com.", "app.example.com.", ""},
	} {
		if got := sharedDomain(tt.a, tt.b); got != tt.want {
			t.Errorf("%s and %s share %q, want %q", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestWithQuery(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"http://a/", "http://a/?n=v+1"},
		{"http://a/?n=old&m=%20&n", "http://a/?m=%20&n=v+1"},
		{"http://a/?%6e=old#f", "http://a/?n=v+1#f"},
		{"http://a/?%zz&&N=1", "http://a/?%zz&N=1&n=v+1"},
	} {
		u, err := url.Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := withQuery(u, "n", "v 1").String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.in, got, tt.want)
		}
	}
}

func FuzzTarget(f *testing.F) {
	i, err := NewIssuer(IssuerOptions{AppOrigin: "http://localhost:8080", SiteOrigins: []string{"https://app.example.com", "nonsense", ""}})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		"http://localhost:8080/a?b", "https://app.example.com:443", "https://app.example.com:0443", "http://localhost:8080@evil.test", `http://localhost:8080\.evil.test`,
		"https:app.example.com", "https://app.example.com.", "https://app.example.com:", "//app.example.com", "https://app.example.com%2eevil.test", "https://[::1]",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, ok := i.target(raw)
		if !ok {
			return
		}
		to := strings.ToLower(withQuery(u, "n", "v").String())
		for _, site := range []string{"http://localhost:8080", "https://app.example.com", "https://app.example.com:443", "https://app.example.com:"} {
			if rest, ok := strings.CutPrefix(to, site); ok && (strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "?")) && !strings.ContainsAny(to, "\r\n") {
				return
			}
		}
		t.Errorf("%q leads to %q", raw, to)
	})
}
