package caddytinybird

import (
	"net/url"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// FuzzSignInURL holds that whatever a request's URL is, the browser goes to the operator's page and is to return to the same host,
// and that no token goes along.
func FuzzSignInURL(f *testing.F) {
	f.Add("https://app.example.com/sign-in", "/a?x=1&access=eyJ")
	f.Add("https://app.example.com/sign-in?theme=dark", "//evil.example/?redirect_url=https://evil.example&%61ccess=eyJ")
	f.Add("http://localhost:3000", "/%23@evil.example?a=%zz;access=eyJ&__clerk_db_jwt=dvb")
	f.Fuzz(func(t *testing.T, page, target string) {
		asked, err := url.ParseRequestURI(target)
		if err != nil || checkSignInURL(page) != nil || !strings.HasPrefix(target, "/") || strings.Contains(target, "#") {
			return // no browser sends a fragment
		}
		redirect, err := url.Parse(page)
		if err != nil {
			t.Fatal(err)
		}
		h := &ClerkAuth{redirect: redirect, private: []string{"access"}}
		for _, code := range []apierr.Code{apierr.TokenMissing, apierr.SessionPending} {
			to, err := url.Parse(h.signInURL(code, &url.URL{Scheme: "https", Host: "site.example", Path: asked.Path, RawPath: asked.RawPath, RawQuery: asked.RawQuery}))
			if err != nil || to.Scheme != redirect.Scheme || to.Host != redirect.Host || to.User != nil || to.Fragment != "" {
				t.Fatalf("to %s, %v", to, err)
			}
			back := to.Query()["redirect_url"]
			if len(back) != 1 {
				t.Fatalf("to %s: %d addresses to return to", to, len(back))
			}
			returns, err := url.Parse(back[0])
			if err != nil || returns.Host != "site.example" || returns.User != nil {
				t.Fatalf("returns to %s, %v", back[0], err)
			}
			for _, secret := range []string{"access", "__clerk_db_jwt", "__clerk_handshake"} {
				if returns.Query().Has(secret) {
					t.Errorf("returns with %s: %s", secret, back[0])
				}
			}
		}
	})
}
