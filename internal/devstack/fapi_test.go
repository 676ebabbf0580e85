package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// world is an issuer, a site that knows nothing but how to apply a handshake, and a browser.
type world struct {
	t      *testing.T
	clock  *clock
	issuer *Issuer
	client *http.Client
	jar    *cookiejar.Jar

	frontend, site string // origins
}

// newWorld serves both on ports of their own; all names lead to this machine.
func newWorld(t *testing.T, frontendHost, siteHost string, o IssuerOptions) *world {
	t.Helper()
	w := &world{t: t, clock: newClock()}
	o.Now = w.clock.Now
	w.issuer = newTestIssuer(t, o)
	w.frontend, w.site = serveAt(t, frontendHost, w.issuer), serveAt(t, siteHost, http.HandlerFunc(w.serveSite))
	t.Cleanup(w.issuer.Close)
	w.issuer.SetURL(w.frontend)
	w.issuer.AddSiteOrigin(w.site)
	w.jar, _ = cookiejar.New(nil)
	tr := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	w.client = &http.Client{Jar: w.jar, Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return w
}

func serveAt(t *testing.T, host string, h http.Handler) (origin string) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	return "http://" + host + ":" + port
}

// serveSite applies the handshake that a request brings, and answers with the cookies that came.
func (w *world) serveSite(rw http.ResponseWriter, r *http.Request) {
	carried := map[string]string{}
	for _, name := range []string{tokenCarrier, nonceCarrier} {
		carried[name] = r.URL.Query().Get(name)
		if c, err := r.Cookie(name); err == nil {
			carried[name] = c.Value
		}
	}
	var list []string
	switch {
	case carried[nonceCarrier] != "":
		list, _ = w.redeem(carried[nonceCarrier], w.issuer.SecretKey())
	case carried[tokenCarrier] != "":
		list = w.unpack(carried[tokenCarrier])
	}
	for _, f := range list {
		rw.Header().Add("Set-Cookie", f)
	}
}

// unpack reads a handshake token.
func (w *world) unpack(token string) []string {
	w.t.Helper()
	kid, pub := fetchKey(w.t, w.issuer)
	tok, claims, err := parse(token, pub, w.clock.Now())
	if err != nil {
		w.t.Fatalf("handshake token %q: %v", token, err)
	}
	if tok.Header["kid"] != kid || tok.Header["typ"] != "JWT" || tok.Header["cat"] != "cl_B7d4PD111AAA" || len(claims) != 1 {
		w.t.Errorf("handshake token with header %v, claims %v", tok.Header, claims)
	}
	var list []string
	for _, v := range claims["handshake"].([]any) {
		list = append(list, v.(string))
	}
	return list
}

func (w *world) redeem(nonce, key string) ([]string, *httptest.ResponseRecorder) {
	a := do(w.issuer, http.MethodGet, "/v1/clients/handshake_payload?nonce="+url.QueryEscape(nonce), "", "Authorization", "Bearer "+key)
	var out struct{ Directives []string }
	_ = json.Unmarshal(a.Body.Bytes(), &out)
	return out.Directives, a
}

type page struct {
	*http.Response

	body string
}

func (w *world) ask(method, target string, form url.Values) page {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return page{res, string(b)}
}

// handshake goes there and back, and applies what it brought.
func (w *world) handshake(params ...string) (page, *url.URL) {
	w.t.Helper()
	q := url.Values{"redirect_url": {w.site + "/x?a=%20b"}}
	for n := 0; n+1 < len(params); n += 2 {
		q.Set(params[n], params[n+1])
	}
	p := w.ask(http.MethodGet, w.frontend+"/v1/client/handshake?"+q.Encode(), nil)
	if p.StatusCode != http.StatusTemporaryRedirect || p.Header.Get("Cache-Control") != "no-store" {
		w.t.Fatalf("%d %s", p.StatusCode, p.body)
	}
	to, err := p.Location()
	if err != nil || to.Scheme+"://"+to.Host != w.site || to.Path != "/x" || !strings.HasPrefix(to.RawQuery, "a=%20b") {
		w.t.Fatalf("sent to %v, %v", to, err)
	}
	w.ask(http.MethodGet, to.String(), nil)
	return p, to
}

func (w *world) signIn(user string) page {
	w.t.Helper()
	return w.ask(http.MethodPost, w.frontend+"/sign-in", url.Values{"user": {user}, "redirect_url": {w.site + "/"}})
}

// cookies are those that a browser sends to an origin. One name twice is an error: which of both counts?
func (w *world) cookies(origin string) map[string]string {
	w.t.Helper()
	u, err := url.Parse(origin)
	if err != nil {
		w.t.Fatal(err)
	}
	m := map[string]string{}
	for _, c := range w.jar.Cookies(u) {
		if _, twice := m[c.Name]; twice {
			w.t.Errorf("%s twice at %s", c.Name, origin)
		}
		m[c.Name] = c.Value
	}
	return m
}

// claims are those of the session token under that cookie at the site; nil without one.
func (w *world) claims(cookie string) map[string]any {
	w.t.Helper()
	token := w.cookies(w.site)[cookie]
	if token == "" {
		return nil
	}
	_, pub := fetchKey(w.t, w.issuer)
	_, claims, err := parse(token, pub, w.clock.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return claims
}

func (w *world) suffixed(name string) string { return name + "_" + w.issuer.CookieSuffix() }

// places are the ways in which a Frontend API and a site can stand to each other.
var places = []struct{ name, frontend, site string }{
	{"subdomains", "clerk.example.localhost", "app.example.localhost"},
	{"one address", "127.0.0.1", "127.0.0.1"},
}

func errorCode(t *testing.T, body string) string {
	t.Helper()
	var e struct {
		Errors []struct {
			Code, Message string
			LongMessage   string `json:"long_message"`
		}
		TraceID string `json:"clerk_trace_id"`
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Message == "" || e.Errors[0].LongMessage == "" || e.TraceID == "" {
		t.Fatalf("no error of Clerk's form: %s, %v", body, err)
	}
	return e.Errors[0].Code
}

func TestSessionLifetime(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{SessionLifetime: 5 * time.Second})
	_, pub := fetchKey(t, i)
	lives := func() float64 {
		t.Helper()
		_, claims, err := parse(mustToken(t, i, "ada"), pub, start)
		if err != nil {
			t.Fatal(err)
		}
		return claims["exp"].(float64) - claims["iat"].(float64)
	}
	if s := lives(); s != 5 {
		t.Errorf("%v s, want 5", s)
	}
	i.SetSessionLifetime(2 * time.Second)
	if s := lives(); s != 2 {
		t.Errorf("%v s, want 2", s)
	}
	i.SetSessionLifetime(0)
	if s := lives(); s != 60 {
		t.Errorf("%v s, want 60", s)
	}
}

// A page on the web must not reach the sign-in by a name of its own that resolves to this machine, nor anybody
// through a public edge in front.
func TestFrontendRefusesStrangers(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{URL: "https://clerk.example.com", AppOrigin: "https://app.example.com", SiteOrigins: []string{"https://Other.example.com:8443"}})
	handshake := "/v1/client/handshake?redirect_url=" + url.QueryEscape("https://app.example.com/")
	for _, tt := range []struct {
		name    string
		headers []string
		want    bool
	}{
		{"loopback", []string{"Host", "127.0.0.1:4000"}, true},
		{"a name of this machine", []string{"Host", "clerk.example.localhost"}, true},
		{"the instance's own name", []string{"Host", "clerk.example.com"}, true},
		{"the app's name, as of a proxy below a path", []string{"Host", "app.example.com"}, true},
		{"another site's name", []string{"Host", "other.example.com:8443"}, true},
		{"a redirect from another site", []string{"Host", "127.0.0.1:4000", "Sec-Fetch-Site", "cross-site"}, true},
		{"a name that resolves to loopback", []string{"Host", "rebind.evil.test"}, false},
		{"a name that ends like the instance's", []string{"Host", "evilclerk.example.com"}, false},
		{"a client of a public edge", []string{"Host", "127.0.0.1:4000", "X-Forwarded-For", "203.0.113.9"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for method, targets := range map[string][]string{
				http.MethodGet:  {handshake, "/sign-in", "/user"},
				http.MethodPost: {"/sign-in", "/v1/client/sessions/sess_x/remove"},
			} {
				for _, target := range targets {
					w := do(i, method, target, "user=ada", append(tt.headers, "Content-Type", "application/x-www-form-urlencoded")...)
					if (w.Code != http.StatusForbidden) != tt.want {
						t.Errorf("%s %s: %d", method, target, w.Code)
					}
					if !tt.want && len(w.Result().Cookies()) > 0 {
						t.Error("a refusal set cookies")
					}
				}
			}
		})
	}
}

// Both pages run without scripts, in their own style alone, and their forms reach what the redirects after them do.
func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "clerk.example.localhost", "app.example.localhost", IssuerOptions{Live: true, AppOrigin: "https://first.example.localhost:443/"})
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`)
	signIn := w.ask(http.MethodGet, w.frontend+"/sign-in?redirect_url="+url.QueryEscape(w.site+`/"><script>`), nil)
	w.signIn("ada")
	user := w.ask(http.MethodGet, w.frontend+"/user?redirect_url="+url.QueryEscape(w.site+`/"><script>`), nil)
	for name, p := range map[string]page{"sign-in": signIn, "user": user} {
		if p.StatusCode != http.StatusOK || p.Header.Get("Content-Type") != "text/html; charset=utf-8" || p.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %v", name, p.StatusCode, p.Header)
		}
		m := style.FindStringSubmatch(p.body)
		if m == nil {
			t.Fatalf("%s: no style in %s", name, p.body)
		}
		sum := sha256.Sum256([]byte(m[1]))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self' https://first.example.localhost " +
			w.site + " " + w.frontend + "; base-uri 'none'; frame-ancestors 'none'"
		if got := p.Header.Get("Content-Security-Policy"); got != want {
			t.Errorf("%s: policy\n%s, want\n%s", name, got, want)
		}
		if strings.Contains(p.body, "<script") || strings.Contains(p.body, " style=") || !strings.Contains(p.body, `<html lang="en">`) {
			t.Errorf("%s: %s", name, p.body)
		}
	}
	for _, id := range []string{"sign-in-ada", "sign-in-ben", "sign-in-cleo", "sign-in-dana"} {
		if strings.Count(signIn.body, `id="`+id+`"`) != 1 {
			t.Errorf("no button %s in %s", id, signIn.body)
		}
	}
	if p := w.ask(http.MethodGet, w.frontend+"/favicon.ico", nil); p.StatusCode != http.StatusNoContent {
		t.Errorf("icon: %d", p.StatusCode)
	}
	if !strings.Contains(user.body, "Ada Acme") || strings.Count(user.body, `id="sign-out"`) != 1 {
		t.Errorf("user page: %s", user.body)
	}
	action := regexp.MustCompile(`action="([^"]*)"`).FindStringSubmatch(user.body)
	if action == nil || !strings.HasPrefix(html.UnescapeString(action[1]), "v1/client/sessions/sess_2") {
		t.Errorf("sign-out leads to %q", action)
	}
}

func TestFaultsOfTheFrontend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "clerk.example.localhost", "app.example.localhost", IssuerOptions{Live: true})
	target := w.frontend + "/v1/client/handshake?redirect_url=" + url.QueryEscape(w.site+"/")
	w.issuer.FailFrontend(fail(Fault{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"3"}}}))
	if p := w.ask(http.MethodGet, target, nil); p.StatusCode != http.StatusServiceUnavailable || p.Header.Get("Retry-After") != "3" ||
		p.Header.Get("Location") != "" || errorCode(t, p.body) != "internal_clerk_error" {
		t.Errorf("%d %v %s", p.StatusCode, p.Header, p.body)
	}
	w.issuer.FailFrontend(fail(Fault{Header: http.Header{"Location": {"http://evil.test/"}}}))
	if p := w.ask(http.MethodGet, target, nil); p.Header.Get("Location") != "http://evil.test/" {
		t.Errorf("%d %v", p.StatusCode, p.Header)
	}
	if p := w.ask(http.MethodGet, w.frontend+"/sign-in", nil); p.StatusCode != http.StatusOK {
		t.Errorf("the portal answers %d", p.StatusCode)
	}
	w.issuer.FailFrontend(nil)
	w.handshake()
	if n := w.issuer.Handshakes(); n != 3 {
		t.Errorf("%d handshakes, want 3", n)
	}
}
