//go:build integration

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// The hosts of a Clerk instance and of its sites. Browsers take them for this machine's, and the cookies of example.localhost
// are those of all of them.
const (
	clerkHost   = "clerk.example.localhost"
	appHost     = "app.example.localhost"
	pagesHost   = "pages.example.localhost"
	foreignHost = "foreign.example.localhost"
)

// guardedSites are plain sites behind clerk_auth: one that has Clerk's secret key, one that has not, and one that takes nobody's
// session.
const guardedSites = `
(guarded) {
	bind 127.0.0.1
	clerk_auth {env.CLERK_PUBLISHABLE_KEY} {
		issuer {env.ISSUER}
		jwks_url {env.BACKEND}/.well-known/jwks.json
		clock_skew 0s
		on_unauthenticated redirect {env.ISSUER}/sign-in
		{block}
	}
	root {$ROOT}
	templates
	file_server
}

http://` + appHost + `:{$PORT} {
	import guarded {
		authorized_parties http://` + appHost + `:{$PORT}
		secret_key {env.CLERK_SECRET_KEY}
		api_url {env.BACKEND}
	}
}

http://` + pagesHost + `:{$PORT} {
	import guarded {
		authorized_parties http://` + pagesHost + `:{$PORT}
	}
}

http://` + foreignHost + `:{$PORT} {
	import guarded {
		authorized_parties https://elsewhere.example.com
	}
}
`

// guardedFiles know nothing of Clerk, but for the link to its account portal.
var guardedFiles = map[string]string{
	"index.html": `<!doctype html>
<title>Report</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/style.css">
<p id="user">{{placeholder "clerk.user.id"}}</p>
<img src="/mark.svg" alt="">
<a id="account" href="{{env "ISSUER"}}/user?redirect_url=http://{{.Req.Host}}/">Account</a>
`,
	"style.css": "p { color: green }\n",
	"mark.svg":  `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"><circle cx="8" cy="8" r="8"/></svg>` + "\n",
}

// guarded are sites of a Clerk instance.
type guarded struct {
	*edge

	port string
}

// startGuarded starts the sites behind a production instance, whose domain they share, or a development instance.
func startGuarded(t *testing.T, o devstack.IssuerOptions) *guarded {
	t.Helper()
	address := freeAddr(t)
	_, issuerPort, _ := strings.Cut(address, ":")
	o.URL = "http://" + clerkHost + ":" + issuerPort
	if !o.Live {
		// Of a domain of its own, as that of Clerk's development instances is.
		o.URL = "http://otter.clerk.accounts.localhost:" + issuerPort
	}
	e := newEdge(t, devstack.Options{Issuer: o, IssuerAddr: address})
	_, port, _ := strings.Cut(e.addr, ":")
	g := &guarded{edge: e, port: port}
	root := filepath.Join(e.home, "site")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range guardedFiles {
		write(t, filepath.Join(root, name), text)
	}
	for _, host := range []string{appHost, pagesHost, foreignHost} {
		e.stack.Issuer.AddSiteOrigin(g.origin(host))
	}
	for name, value := range map[string]string{
		"PORT": port, "ROOT": root, "ISSUER": o.URL, "BACKEND": e.stack.IssuerURL,
		"CLERK_SECRET_KEY": e.stack.Issuer.SecretKey(), "CLERK_PUBLISHABLE_KEY": e.stack.Issuer.PublishableKey(),
	} {
		e.setenv(name, value)
	}
	e.run(t, "{\n"+globalOptions+"}\n"+guardedSites)
	return g
}

func (g *guarded) origin(host string) string { return "http://" + host + ":" + g.port }

// awaitExpiry waits until a site refuses the session token that the browser has for it, and returns the token.
func (g *guarded) awaitExpiry(t *testing.T, b *browser, host string) string {
	t.Helper()
	token := sessionOf(t, b, host)
	if token == "" {
		t.Fatalf("the browser has no session for %s", host)
	}
	eventually(t, "the session token has expired", func() bool {
		r := g.request(t, "", http.MethodPost, "/", "")
		r.Host = host + ":" + g.port
		r.Header.Set("Authorization", "Bearer "+token)
		got := g.do(t, r)
		if got.StatusCode != http.StatusUnauthorized {
			return false
		}
		if code, _ := got.refusal(t); code != "token_expired" {
			t.Fatalf("the session token is refused as %s", code)
		}
		return true
	})
	return token
}

// sessionOf is the session token that the browser has for a host, under Clerk's plain name or the suffixed one.
func sessionOf(t *testing.T, b *browser, host string) string {
	t.Helper()
	for _, c := range b.cookies(t) {
		if c.Domain == host && strings.HasPrefix(c.Name, "__session") {
			return c.Value
		}
	}
	return ""
}
