package bapi

import (
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// recorded is a request as the stand-in saw it.
type recorded struct {
	method, uri, body string
	header            http.Header
}

func record(t testing.TB, answer string) (base string, got *recorded) {
	t.Helper()
	got = &recorded{}
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		*got = recorded{method: r.Method, uri: r.RequestURI, body: string(body), header: r.Header}
		_, _ = io.WriteString(w, answer)
	})
	return srv.URL, got
}

func wantHeader(t testing.TB, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Authorization":     "Bearer " + secretKey,
		"Clerk-Api-Version": "2026-05-12",
		"User-Agent":        "caddy-tinybird",
		"Accept":            "application/json",
	} {
		if got := h.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if len(h.Values("Cookie")) != 0 {
		t.Error("a cookie is sent")
	}
}

func TestHandshakePayload(t *testing.T) {
	t.Parallel()
	base, got := record(t, `{"directives":["__session=a; Path=/","__client_uat=1"]}`)
	list, err := newClient(t, Options{URL: base}).HandshakePayload(t.Context(), "aB9-_.~+/=")
	if err != nil || !slices.Equal(list, []string{"__session=a; Path=/", "__client_uat=1"}) {
		t.Fatalf("got %q, %v", list, err)
	}
	if want := "/v1/clients/handshake_payload?nonce=aB9-_.~%2B%2F%3D"; got.uri != want || got.method != http.MethodGet {
		t.Errorf("%s %s, want GET %s", got.method, got.uri, want)
	}
	if got.body != "" || got.header.Get("Content-Type") != "" {
		t.Errorf("body %q", got.body)
	}
	wantHeader(t, got.header)
}

func TestRefreshSession(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		suffixed bool
		headers  map[string][]string
		uri      string
		want     map[string]any
	}{
		"plain": {
			uri:  "/v1/sessions/sess_2abcDEF/refresh",
			want: map[string]any{},
		},
		"suffixed": {
			suffixed: true,
			headers:  map[string][]string{"user-agent": {"<a> & b"}, "x-forwarded-for": {"192.0.2.1", "192.0.2.2"}},
			uri:      "/v1/sessions/sess_2abcDEF/refresh?suffixed_cookies=true",
			want:     map[string]any{"user-agent": []any{"<a> & b"}, "x-forwarded-for": []any{"192.0.2.1", "192.0.2.2"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, got := record(t, `{"object":"cookies","cookies":["__session=b; Path=/"]}`)
			list, err := newClient(t, Options{URL: base}).RefreshSession(t.Context(), Refresh{
				SessionID: "sess_2abcDEF", ExpiredToken: expiredToken, RefreshToken: refreshToken, Origin: "https://app.example.com",
				Suffixed: c.suffixed, Headers: c.headers,
			})
			if err != nil || !slices.Equal(list, []string{"__session=b; Path=/"}) {
				t.Fatalf("got %q, %v", list, err)
			}
			if got.method != http.MethodPost || got.uri != c.uri || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %s, %v", got.method, got.uri, got.header)
			}
			wantHeader(t, got.header)
			var body map[string]any
			if err := json.Unmarshal([]byte(got.body), &body); err != nil {
				t.Fatal(err)
			}
			if want := map[string]any{
				"format": "cookie", "expired_token": expiredToken, "refresh_token": refreshToken,
				"request_origin": "https://app.example.com", "request_headers": c.want,
			}; !reflect.DeepEqual(body, want) {
				t.Errorf("body %v, want %v", body, want)
			}
		})
	}
}

func TestBaseURLMayHaveAPath(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/clerk", "/clerk/", "/a/../clerk"} {
		base, got := record(t, `{"directives":[]}`)
		if _, err := newClient(t, Options{URL: base + path}).HandshakePayload(t.Context(), "n"); err != nil {
			t.Fatal(err)
		}
		if got.uri != "/clerk/v1/clients/handshake_payload?nonce=n" {
			t.Errorf("%s: %s", path, got.uri)
		}
	}
}

func TestDefaultURL(t *testing.T) {
	t.Parallel()
	var got string
	c := newClient(t, Options{Client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		got = r.URL.String()
		return response(r, http.StatusOK, `{"cookies":[]}`), nil
	})}})
	if _, err := c.RefreshSession(t.Context(), refresh); err != nil {
		t.Fatal(err)
	}
	if got != "https://api.clerk.com/v1/sessions/sess_1/refresh" {
		t.Error(got)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no key":           {},
		"key of two lines": {SecretKey: "sk_live_marker\r\nX-A: b"},
		"key with a space": {SecretKey: "sk_live_marker 1"},
		"key not ASCII":    {SecretKey: "sk_live_markér"},
		"no host":          {SecretKey: secretKey, URL: "https:///marker"},
		"only a port":      {SecretKey: secretKey, URL: "https://:443"},
		"no scheme":        {SecretKey: secretKey, URL: "marker.example.com"},
		"opaque":           {SecretKey: secretKey, URL: "https:marker.example.com"},
		"other scheme":     {SecretKey: secretKey, URL: "ftp://marker.example.com"},
		"user":             {SecretKey: secretKey, URL: "https://marker@example.com"},
		"password":         {SecretKey: secretKey, URL: "https://a:marker@example.com"},
		"broken password":  {SecretKey: secretKey, URL: "https://a:marker/b@example.com"},
		"query":            {SecretKey: secretKey, URL: "https://example.com/?marker"},
		"empty query":      {SecretKey: secretKey, URL: "https://example.com?"},
		"fragment":         {SecretKey: secretKey, URL: "https://example.com#marker"},
		"empty fragment":   {SecretKey: secretKey, URL: "https://example.com#"},
		"control":          {SecretKey: secretKey, URL: "https://example.com/\x7fmarker"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "mark") {
			t.Errorf("%s: the error quotes it: %v", name, err)
		}
	}
}

// Attack: a session id, or a nonce, that turns the request with the secret key into another one.
func TestIDThatCannotBeOneIsNotSent(t *testing.T) {
	t.Parallel()
	asked := false
	c := newClient(t, Options{Client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		asked = true
		return response(r, http.StatusOK, `{"cookies":[],"directives":[]}`), nil
	})}})
	for _, sid := range []string{
		"", ".", "..", "../users", "/evil.example.com", "//evil.example.com", "a/b", "a%2fb", "a?b", "a#b", "a;b", "a\\b", "a b", "a\n", "a-b", "ä", "\x00",
		strings.Repeat("a", 65),
	} {
		r := refresh
		r.SessionID = sid
		_, err := c.RefreshSession(t.Context(), r)
		if e := wantError(t, err); asked || e.Status != http.StatusBadRequest || e.Code != "session_id_invalid" {
			t.Fatalf("session id %q: %v, asked %v", sid, err, asked)
		}
	}
	for _, nonce := range []string{"", strings.Repeat("n", 513), "<script>", "../../etc/passwd", "a b", "a\x00", "a\n", "ä", "a%2f", "a;b", "a'b", `a"b`, "a&b"} {
		_, err := c.HandshakePayload(t.Context(), nonce)
		if e := wantError(t, err); asked || e.Status != http.StatusBadRequest || e.Code != "nonce_invalid" {
			t.Fatalf("nonce %q: %v, asked %v", nonce, err, asked)
		}
	}
	long := refresh
	long.RefreshToken = strings.Repeat("r", 4<<10+1)
	_, err := c.RefreshSession(t.Context(), long)
	if e := wantError(t, err); asked || e.Status != http.StatusBadRequest || e.Code != "refresh_token_invalid" {
		t.Fatalf("refresh token of %d bytes: %v, asked %v", len(long.RefreshToken), err, asked)
	}
	r := refresh
	r.SessionID = strings.Repeat("Z", 64)
	if _, err := c.RefreshSession(t.Context(), r); err != nil || !asked {
		t.Errorf("session id of 64 bytes: %v, asked %v", err, asked)
	}
	asked = false
	if _, err := c.HandshakePayload(t.Context(), strings.Repeat("n", 512)); err != nil || !asked {
		t.Errorf("nonce of 512 bytes: %v, asked %v", err, asked)
	}
}
