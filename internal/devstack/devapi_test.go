package devstack

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const jsonType = "application/json"

// browser keeps cookies between requests, as a page behind the edge would.
type browser struct {
	h   http.Handler
	jar map[string]string
}

func (b *browser) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	if b.jar == nil {
		b.jar = map[string]string{}
	}
	var cookies []string
	for k, v := range b.jar {
		cookies = append(cookies, k+"="+v)
	}
	headers = append(headers, "Host", "localhost:8080", "Cookie", strings.Join(cookies, "; "))
	if method == http.MethodPost {
		headers = append(headers, "Content-Type", jsonType, "Origin", "http://localhost:8080")
	}
	w := do(b.h, method, target, body, headers...)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.jar, c.Name)
			continue
		}
		b.jar[c.Name] = c.Value
	}
	return w
}

func decodeSignedIn(t *testing.T, w *httptest.ResponseRecorder) signedIn {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var s signedIn
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDevSession(t *testing.T) {
	t.Parallel()
	c := newClock()
	i := newTestIssuer(t, IssuerOptions{Now: c.Now})
	b := &browser{h: i}
	if w := b.do(http.MethodGet, "/dev/token", ""); w.Code != http.StatusUnauthorized {
		t.Errorf("signed out: %d", w.Code)
	}
	in := decodeSignedIn(t, b.do(http.MethodPost, "/dev/sign-in", `{"user":"ada"}`))
	if in.User.ID != adaID || in.Org.ID != AcmeID || b.jar["__session"] != in.Token {
		t.Errorf("signed in as %+v", in.User)
	}
	uat := b.jar["__client_uat"]

	// An hour and a new key later the page still gets a token that is good.
	c.Advance(time.Hour)
	if w := b.do(http.MethodPost, "/dev/rotate", `{"keep_kid":true}`); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), i.KeyID()) {
		t.Errorf("rotate: %d %s", w.Code, w.Body)
	}
	fresh := decodeSignedIn(t, b.do(http.MethodGet, "/dev/token", ""))
	_, pub := fetchKey(t, i)
	_, claims, err := parse(fresh.Token, pub, c.Now())
	if err != nil || claims["azp"] != "http://localhost:8080" || claims["sub"] != adaID {
		t.Errorf("claims %v, %v", claims, err)
	}
	suffix := "_" + i.CookieSuffix()
	if b.jar["__session"] != fresh.Token || b.jar["__session"+suffix] != fresh.Token || b.jar["__client_uat"] != uat {
		t.Error("the session cookies should be fresh and the time of the sign-in as it was")
	}

	if w := b.do(http.MethodPost, "/dev/sign-out", ""); w.Code != http.StatusOK {
		t.Errorf("sign out: %d", w.Code)
	}
	if b.jar["__session"] != "" || b.jar["__client_uat"] != "0" || b.jar["__client"] != "" {
		t.Errorf("cookies after signing out: %v", b.jar)
	}
	if w := b.do(http.MethodGet, "/dev/token", ""); w.Code != http.StatusUnauthorized {
		t.Errorf("after signing out: %d", w.Code)
	}
}

// A page script that could read __client could keep a session after signing out.
func TestDevClientCookieIsNotReadable(t *testing.T) {
	t.Parallel()
	b := &browser{h: newTestIssuer(t, IssuerOptions{})}
	for _, c := range b.do(http.MethodPost, "/dev/sign-in", `{"user":"dana"}`).Result().Cookies() {
		if c.Name == "__client" && (!c.HttpOnly || c.SameSite != http.SameSiteStrictMode) {
			t.Errorf("cookie %v", c)
		}
		if c.Name == "__session" && c.HttpOnly {
			t.Error("clerk-js writes __session from a script")
		}
	}
}

func TestDevUsers(t *testing.T) {
	t.Parallel()
	b := &browser{h: newTestIssuer(t, IssuerOptions{})}
	var got struct{ Users []User }
	if err := json.Unmarshal(b.do(http.MethodGet, "/dev/users", "").Body.Bytes(), &got); err != nil || len(got.Users) != 4 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDevRefuses(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{})
	const in = `{"user":"ada"}`
	tests := []struct {
		name, method, target, body string
		headers                    []string
		want                       int
	}{
		{"a program without Origin", "POST", "/dev/sign-in", in, []string{"Host", "127.0.0.1:9", "Content-Type", jsonType}, 200},
		{"IPv6 loopback", "POST", "/dev/sign-in", in, []string{"Host", "[::1]:9", "Content-Type", jsonType}, 200},
		{"behind an edge on this machine", "POST", "/dev/sign-in", in, []string{"Host", "demo.localhost", "Content-Type", jsonType, "X-Forwarded-For", "127.0.0.1"}, 200},
		{"another site's page", "POST", "/dev/sign-in", in, []string{"Host", "localhost:8080", "Content-Type", jsonType, "Origin", "https://evil.test"}, 403},
		{"another port's page", "POST", "/dev/sign-in", in, []string{"Host", "localhost:8080", "Content-Type", jsonType, "Origin", "http://localhost:9090"}, 403},
		{"a sandboxed frame", "POST", "/dev/sign-in", in, []string{"Host", "localhost:8080", "Content-Type", jsonType, "Origin", "null"}, 403},
		{"two Origins", "POST", "/dev/sign-in", in, []string{"Host", "localhost:8080", "Content-Type", jsonType, "Origin", "http://localhost:8080", "Origin", "https://evil.test"}, 403},
		{"a cross-site GET without Origin", "GET", "/dev/token", "", []string{"Host", "localhost:8080", "Sec-Fetch-Site", "cross-site"}, 403},
		{"a same-site GET without Origin", "GET", "/dev/token", "", []string{"Host", "localhost:8080", "Sec-Fetch-Site", "same-site"}, 403},
		{"a name that resolves to loopback", "GET", "/dev/users", "", []string{"Host", "rebind.evil.test"}, 403},
		{"a name that ends like one", "GET", "/dev/users", "", []string{"Host", "evillocalhost"}, 403},
		{"a client of a public edge", "GET", "/dev/users", "", []string{"Host", "localhost", "X-Forwarded-For", "127.0.0.1, 203.0.113.9"}, 403},
		{"a form", "POST", "/dev/sign-in", in, []string{"Host", "localhost:8080", "Content-Type", "text/plain"}, 415},
		{"no media type", "POST", "/dev/rotate", "{}", []string{"Host", "localhost:8080"}, 415},
		{"no JSON", "POST", "/dev/sign-in", "user=ada", []string{"Host", "localhost:8080", "Content-Type", jsonType}, 400},
		{"a field it does not know", "POST", "/dev/sign-in", `{"name":"ada"}`, []string{"Host", "localhost:8080", "Content-Type", jsonType}, 400},
		{"nobody", "POST", "/dev/sign-in", `{"user":"mallory"}`, []string{"Host", "localhost:8080", "Content-Type", jsonType}, 404},
		{"the wrong method", "GET", "/dev/rotate", "", []string{"Host", "localhost:8080"}, 405},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := do(i, tt.method, tt.target, tt.body, tt.headers...)
			if w.Code != tt.want {
				t.Errorf("status %d, want %d: %s", w.Code, tt.want, w.Body)
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Error("no other origin may read an answer")
			}
			if w.Code != http.StatusOK && len(w.Result().Cookies()) > 0 {
				t.Error("a refusal set cookies")
			}
		})
	}
}

func TestDevSessionsAreBounded(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{})
	for range maxSessions + 10 {
		i.remember(devSession{userKey: "ada"})
	}
	if len(i.sessions) != maxSessions || len(i.order) != maxSessions {
		t.Errorf("%d sessions, %d in order", len(i.sessions), len(i.order))
	}
}

func FuzzSameOrigin(f *testing.F) {
	f.Add("http://localhost:8080", "localhost:8080")
	f.Add("null", "localhost")
	f.Add("http://localhost:8080@evil.test", "localhost:8080")
	f.Add("http://l%80", "l\x8a")   // no UTF-8, both
	f.Add("http://\u212aey", "key") // the sign for kelvin, a k without case
	f.Add("http://evil.test/localhost:8080", "localhost:8080")
	f.Fuzz(func(t *testing.T, origin, host string) {
		if origin != "" && sameOrigin(origin, host) && !strings.Contains(strings.ToLower(origin), strings.ToLower(host)) {
			t.Errorf("%q passes for %q", origin, host)
		}
	})
}
