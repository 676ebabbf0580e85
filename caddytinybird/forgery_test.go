package caddytinybird

import (
	"crypto/tls"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestAttackForgedRows: a page of another origin, even of one that browsers send the cookies from because it is under the same domain, writes no
// rows in the name of its visitor. A preflight does not stop it: what navigator.sendBeacon sends needs none.
func TestAttackForgedRows(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		withCORS(h)
		withEvents(t, stack)(h)
		h.Clerk.TokenFrom = []TokenSource{{Source: "header"}, {Source: "cookie"}, {Source: "query", Name: "token"}}
	})
	cookies, err := stack.Issuer.Cookies("ada")
	if err != nil {
		t.Fatal(err)
	}
	beacon := func(target string, header http.Header, signedIn bool) *http.Request {
		r := e.request(t, "", http.MethodPost, target, []byte(`{"n":1}`))
		r.Header.Set("Content-Type", "text/plain;charset=UTF-8")
		maps.Copy(r.Header, header)
		if signedIn {
			for _, c := range cookies {
				r.AddCookie(c)
			}
		}
		return r
	}
	for name, header := range map[string]http.Header{
		"a sibling":                      {"Origin": {"https://blog.example.com"}, "Sec-Fetch-Site": {"same-site"}},
		"another site":                   {"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}},
		"an old browser":                 {"Origin": {"https://blog.example.com"}},
		"a sandboxed frame":              {"Origin": {"null"}, "Sec-Fetch-Site": {"cross-site"}},
		"a frame, in an old browser":     {"Origin": {"null"}},
		"a listed origin's other port":   {"Origin": {ownSite + ":8443"}, "Sec-Fetch-Site": {"same-site"}},
		"no origin, from a sibling":      {"Sec-Fetch-Site": {"same-site"}},
		"two origins, one of them known": {"Origin": {"https://blog.example.com", ownSite}, "Sec-Fetch-Site": {"same-site"}},
	} {
		for _, target := range []string{"/v0/events?name=events", "/api/tracking", "/v0/events?name=events&token=x"} {
			got := e.do(t, beacon(target, header, true))
			if got.StatusCode != http.StatusForbidden || got.code(t) != "not_allowed" {
				t.Errorf("%s: %s: status %d: %s", name, target, got.StatusCode, got.body)
			}
		}
	}
	if up := stack.API.Requests(); len(up) != 0 {
		t.Fatalf("%d requests went up", len(up))
	}

	for name, r := range map[string]*http.Request{
		"the same origin":                    beacon("/v0/events?name=events", http.Header{"Origin": {"https://any.example"}, "Sec-Fetch-Site": {"same-origin"}}, true),
		"the same origin, in an old browser": beacon("/v0/events?name=events", http.Header{"Origin": {e.url}}, true),
		"a listed origin":                    beacon("/v0/events?name=events", http.Header{"Origin": {ownSite}, "Sec-Fetch-Site": {"same-site"}}, true),
		"no browser":                         beacon("/v0/events?name=events", nil, true),
		"a token that the page has itself":   beacon("/v0/events?name=events&token="+e.bearer(t, "ada"), http.Header{"Origin": {"https://blog.example.com"}, "Sec-Fetch-Site": {"cross-site"}}, false),
		"a header that the page has set":     beacon("/v0/events?name=events", http.Header{"Authorization": {"Bearer " + e.bearer(t, "ada")}, "Origin": {"https://blog.example.com"}, "Sec-Fetch-Site": {"same-site"}}, true),
	} {
		if got := e.do(t, r); got.StatusCode != http.StatusAccepted {
			t.Errorf("%s: status %d: %s", name, got.StatusCode, got.body)
		}
	}
}

// TestAttackReplayedRows: rows that came before TLS was set up are not stored. Who saw them on their way could have them stored again.
func TestAttackReplayedRows(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withEvents(t, stack))
	for name, tt := range map[string]struct {
		state  *tls.ConnectionState
		early  string
		target string
		status int
	}{
		"0-RTT":                       {&tls.ConnectionState{}, "", "/v0/events?name=events", 425},
		"0-RTT, of the tracker":       {&tls.ConnectionState{}, "", "/api/tracking", 425},
		"0-RTT at a proxy":            {nil, "1", "/v0/events?name=events", 425},
		"0-RTT at a proxy before TLS": {&tls.ConnectionState{HandshakeComplete: true}, "1", "/v0/events?name=events", 425},
		"0-RTT at two proxies":        {nil, "1, 1", "/v0/events?name=events", 425},
		"0-RTT at a proxy, or not":    {nil, "?1", "/v0/events?name=events", 425},
		"TLS":                         {&tls.ConnectionState{HandshakeComplete: true}, "", "/v0/events?name=events", 202},
		"no TLS":                      {nil, "", "/v0/events?name=events", 202},
		"a pipe, which only reads":    {&tls.ConnectionState{}, "1", "/v0/pipes/top_pages.json", 200},
	} {
		stack.API.Reset()
		body := strings.NewReader(`{}`)
		r := httptest.NewRequest(http.MethodPost, tt.target, body)
		r.TLS = tt.state
		r.Header.Set("Authorization", "Bearer "+e.bearer(t, "ada"))
		r.Header.Set("Content-Type", "application/json")
		if tt.early != "" {
			r.Header.Set("Early-Data", tt.early)
		}
		w := httptest.NewRecorder()
		if err := e.ServeHTTP(w, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil), nil); err != nil {
			t.Fatal(err)
		}
		if up := len(stack.API.Requests()); w.Code != tt.status || up == 0 != (tt.status == http.StatusTooEarly) {
			t.Errorf("%s: status %d: %s; %d requests went up", name, w.Code, w.Body, up)
		}
		if tt.status == http.StatusTooEarly && (!strings.Contains(w.Body.String(), `"too_early"`) || body.Len() == 0) {
			t.Errorf("%s: %d bytes of the body were left: %s", name, body.Len(), w.Body)
		}
	}
}
