package devstack

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// expired signs ada in, brings her session to the site, and lets the token expire.
func expired(t *testing.T, o IssuerOptions) (w *world, s devSession, body map[string]any) {
	t.Helper()
	o.Live = true
	w = newWorld(t, "clerk.example.localhost", "app.example.localhost", o)
	w.signIn("ada")
	w.handshake()
	_, s, _ = w.only(t)
	got := w.cookies(w.site)
	w.clock.Advance(time.Hour)
	return w, s, map[string]any{
		"format": "cookie", "expired_token": got["__session"], "refresh_token": got[w.suffixed("__refresh")],
		"request_origin": w.site, "request_headers": map[string][]string{"user-agent": {"x"}},
	}
}

func (w *world) refresh(sid, query string, body any, headers ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	text, ok := body.(string)
	if !ok {
		b, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		text = string(b)
	}
	if headers == nil {
		headers = []string{"Authorization", "Bearer " + w.issuer.SecretKey()}
	}
	return do(w.issuer, http.MethodPost, "/v1/sessions/"+sid+"/refresh"+query, text, append(headers, "Content-Type", jsonType, "Host", "api.clerk.com")...)
}

func TestSecretKey(t *testing.T) {
	t.Parallel()
	for live, prefix := range map[bool]string{true: "sk_live_", false: "sk_test_"} {
		a, b := newTestIssuer(t, IssuerOptions{Live: live}).SecretKey(), newTestIssuer(t, IssuerOptions{Live: live}).SecretKey()
		if !strings.HasPrefix(a, prefix) || len(a) < 40 || a == b {
			t.Errorf("keys %s and %s", a, b)
		}
	}
}

// TestBackendKeys: the Backend API has the instance's keys for whoever has its secret key.
func TestBackendKeys(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{})
	w := do(i, http.MethodGet, "/v1/jwks", "", "Authorization", "Bearer "+i.SecretKey())
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), i.KeyID()) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(i, http.MethodGet, "/v1/jwks", "", "Authorization", "Bearer sk_test_another"); w.Code != http.StatusUnauthorized {
		t.Errorf("status %d with another key", w.Code)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"", "?suffixed_cookies=false", "?suffixed_cookies=true"} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			w, s, body := expired(t, IssuerOptions{AppOrigin: "http://other.localhost", OmitHandshakeAZP: true})
			for range 2 { // a refresh token is good for as long as the session
				a := w.refresh(s.id, query, body)
				var out struct {
					Object  string
					Cookies []string
				}
				if err := json.Unmarshal(a.Body.Bytes(), &out); a.Code != http.StatusOK || err != nil || out.Object != "cookies" {
					t.Fatalf("%d %s", a.Code, a.Body)
				}
				var names []string
				for _, f := range out.Cookies {
					c, err := http.ParseSetCookie(f)
					if err != nil {
						t.Fatal(err)
					}
					names = append(names, c.Name)
					if strings.HasPrefix(c.Name, "__client_uat") {
						if c.Value != uat(start) || c.Domain != "example.localhost" {
							t.Errorf("cookie %s", f)
						}
						continue
					}
					_, pub := fetchKey(t, w.issuer)
					_, claims, err := parse(c.Value, pub, w.clock.Now())
					if err != nil || claims["sid"] != s.id || claims["sub"] != adaID || claims["azp"] != w.site || claims["iat"] != float64(w.clock.Now().Unix()) {
						t.Errorf("claims %v, %v", claims, err)
					}
					if c.Domain != "" || c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" {
						t.Errorf("cookie %v", c)
					}
				}
				want := []string{"__client_uat", "__session"}
				if strings.HasSuffix(query, "true") {
					want = []string{"__client_uat", w.suffixed("__client_uat"), "__session", w.suffixed("__session")}
				}
				if !slices.Equal(names, want) {
					t.Errorf("cookies %v, want %v", names, want)
				}
			}
			if n := w.issuer.Refreshes(); n != 2 {
				t.Errorf("%d refreshes, want 2", n)
			}
		})
	}
}

// Without a format the answer is a bare token, and the organization is the session's.
func TestRefreshToken(t *testing.T) {
	t.Parallel()
	w, s, body := expired(t, IssuerOptions{})
	w.handshake("organization_id", "")
	for _, format := range []any{nil, "token"} {
		body["format"] = format
		a := w.refresh(s.id, "", body)
		var out struct{ Object, JWT string }
		if err := json.Unmarshal(a.Body.Bytes(), &out); a.Code != http.StatusOK || err != nil || out.Object != "token" {
			t.Fatalf("%d %s", a.Code, a.Body)
		}
		_, pub := fetchKey(t, w.issuer)
		_, claims, err := parse(out.JWT, pub, w.clock.Now())
		if err != nil || claims["azp"] != w.site || claims["o"] != nil {
			t.Errorf("claims %v, %v", claims, err)
		}
	}
}

func TestRefreshRefuses(t *testing.T) {
	t.Parallel()
	w, s, good := expired(t, IssuerOptions{})
	sid := Claim("sid", s.id)
	other := newTestIssuer(t, IssuerOptions{})
	with := func(name string, value any) map[string]any {
		body := maps.Clone(good)
		body[name] = value
		return body
	}
	token := func(opts ...TokenOption) map[string]any {
		return with("expired_token", mustToken(t, w.issuer, "ada", append([]TokenOption{Expired(), sid}, opts...)...))
	}
	if a := w.refresh(s.id, "", token()); a.Code != http.StatusOK {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	for _, tt := range []struct {
		name, sid string
		body      any
		headers   []string
		status    int
		code      string
	}{
		{"no secret key", s.id, good, []string{"Accept", "*/*"}, 401, "authentication_invalid"},
		{"another secret key", s.id, good, []string{"Authorization", "Bearer " + other.SecretKey()}, 401, "authentication_invalid"},
		{"part of the secret key", s.id, good, []string{"Authorization", "Bearer " + w.issuer.SecretKey()[:20]}, 401, "authentication_invalid"},
		{"the secret key without a scheme", s.id, good, []string{"Authorization", w.issuer.SecretKey()}, 401, "authentication_invalid"},
		{"the publishable key", s.id, good, []string{"Authorization", "Bearer " + w.issuer.PublishableKey()}, 401, "authentication_invalid"},
		{"another session in the path", "sess_2other", good, nil, 401, "expired_token_invalid"},
		{"a token of another session", s.id, token(Claim("sid", "sess_2other")), nil, 401, "expired_token_invalid"},
		{"a token of no session", s.id, token(NoClaim("sid")), nil, 401, "expired_token_invalid"},
		{"a template's token", s.id, token(Header("cat", categoryTemplate)), nil, 401, "expired_token_invalid"},
		{"another key", s.id, token(ForeignKey()), nil, 401, "expired_token_invalid"},
		{"alg none", s.id, token(AlgNone()), nil, 401, "expired_token_invalid"},
		{"alg HS256", s.id, token(AlgHS256()), nil, 401, "expired_token_invalid"},
		{"no token", s.id, with("expired_token", ""), nil, 401, "expired_token_invalid"},
		{"an unknown session", "sess_2other", token(Claim("sid", "sess_2other")), nil, 401, "session_not_found"},
		{"another refresh token", s.id, with("refresh_token", "rt_2other"), nil, 401, "refresh_token_invalid"},
		{"no refresh token", s.id, with("refresh_token", ""), nil, 401, "refresh_token_invalid"},
		{"no origin", s.id, with("request_origin", ""), nil, 401, "request_origin_invalid"},
		{"an odd origin", s.id, with("request_origin", "null"), nil, 401, "request_origin_invalid"},
		{"a field it does not know", s.id, with("suffixed_cookies", true), nil, 400, "request_body_invalid"},
		{"two objects", s.id, "{}{}", nil, 400, "request_body_invalid"},
		{"no JSON", s.id, "format=cookie", nil, 400, "request_body_invalid"},
		{"nothing", s.id, "", nil, 400, "request_body_invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := w.refresh(tt.sid, "", tt.body, tt.headers...)
			if a.Code != tt.status || errorCode(t, a.Body.String()) != tt.code {
				t.Errorf("%d %s", a.Code, a.Body)
			}
			if strings.Contains(a.Body.String(), w.issuer.SecretKey()) || strings.Contains(a.Body.String(), s.refresh) || strings.Contains(a.Body.String(), "eyJ") {
				t.Errorf("a secret in %s", a.Body)
			}
		})
	}
}

// A refresh token must not outlive its session, however that ended.
func TestRefreshAfterTheEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*world){
		"signed out at the portal": func(w *world) { w.press(w.ask(http.MethodGet, w.frontend+"/user", nil)) },
		"signed in as another":     func(w *world) { w.signIn("ben") },
		"ended in the dashboard":   func(w *world) { w.issuer.EndSessions() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, s, body := expired(t, IssuerOptions{})
			end(w)
			if a := w.refresh(s.id, "", body); a.Code != http.StatusUnauthorized || errorCode(t, a.Body.String()) != "session_not_found" {
				t.Errorf("%d %s", a.Code, a.Body)
			}
		})
	}
}

func TestHandshakePayload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "clerk.example.localhost", "app.example.localhost", IssuerOptions{Live: true})
	want := []string{"a=b; Path=/"}
	refused := func(nonce, key string, status int, code string) {
		t.Helper()
		if _, a := w.redeem(nonce, key); a.Code != status || errorCode(t, a.Body.String()) != code {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
	nonce := w.issuer.lodge(want)
	refused(nonce, "sk_live_guess", http.StatusUnauthorized, "authentication_invalid")
	refused("hsn_guess", w.issuer.SecretKey(), http.StatusNotFound, "resource_not_found")
	refused("", w.issuer.SecretKey(), http.StatusNotFound, "resource_not_found")
	// In an outage nothing is used up.
	w.issuer.FailBackend(fail(Fault{Status: http.StatusBadGateway}))
	refused(nonce, w.issuer.SecretKey(), http.StatusBadGateway, "internal_clerk_error")
	w.issuer.FailBackend(nil)
	w.clock.Advance(time.Minute)
	if got, a := w.redeem(nonce, w.issuer.SecretKey()); a.Code != http.StatusOK || !slices.Equal(got, want) {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	refused(nonce, w.issuer.SecretKey(), http.StatusNotFound, "resource_not_found") // once

	late := w.issuer.lodge(want)
	w.clock.Advance(time.Minute + time.Second)
	refused(late, w.issuer.SecretKey(), http.StatusNotFound, "resource_not_found")
	if n := w.issuer.NoncesRedeemed(); n != 1 {
		t.Errorf("%d redeemed, want 1", n)
	}
}

// An answer that is lost on its way is not an outage: the work is done.
func TestFaultsOfTheBackend(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{})
	nonce := s.Issuer.lodge([]string{"a=b"})
	target, bearer := s.IssuerURL+"/v1/clients/handshake_payload?nonce="+nonce, "Bearer "+s.Issuer.SecretKey()
	s.Issuer.FailBackend(fail(Fault{Stop: DropInBody}))
	if _, _, err := get(t, target, "Authorization", bearer); err == nil {
		t.Error("no error")
	}
	s.Issuer.FailBackend(nil)
	if res, _, err := get(t, target, "Authorization", bearer); err != nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("%v, %v", res, err)
	}
	if n := s.Issuer.NoncesRedeemed(); n != 1 {
		t.Errorf("%d redeemed, want 1", n)
	}
}

func FuzzReadRefresh(f *testing.F) {
	f.Add(`{"format":"cookie","expired_token":"a","refresh_token":"b","request_origin":"c","request_headers":null,"request_originating_ip":null}`)
	f.Add(`{"request_headers":{"a":["b"]}}`)
	f.Add(`{}x`)
	f.Add(`{"EXPIRED_TOKEN":1}`)
	f.Fuzz(func(t *testing.T, body string) {
		in, ok := readRefresh(strings.NewReader(body))
		if ok && !json.Valid([]byte(body)) {
			t.Errorf("%q is no JSON, but read as %+v", body, in)
		}
	})
}
