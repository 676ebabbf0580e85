package caddytinybird

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// goesUp are the headers that a request to Tinybird may have. Everything else a client sends stays here.
var goesUp = []string{
	"Accept", "Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "If-Modified-Since",
	"If-None-Match", "Traceparent", "Tracestate", "User-Agent",
}

// TestP1OneCredentialUpstream: whatever a client sends as a credential, wherever and however spelled, Tinybird
// sees exactly one, the minted token.
func TestP1OneCredentialUpstream(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	const planted = "planted-credential"
	admin := stack.API.SigningKey()
	e := newEdge(t, stack, nil)

	for name, attack := range map[string]struct {
		query  string
		body   string
		header http.Header
	}{
		"query":               {query: "token=" + planted},
		"query, upper case":   {query: "TOKEN=" + planted},
		"query, encoded name": {query: "%74oken=" + planted},
		"query, twice":        {query: "token=" + planted + "&token=" + planted},
		"query, admin token":  {query: "token=" + admin},
		"query, with a space": {query: "token+=" + planted + "&+token=" + planted},
		"query, array":        {query: "token[]=" + planted + "&token%00=x"[:0]},
		"body":                {body: `{"token":"` + planted + `"}`},
		"body, upper case":    {body: `{"ToKeN":"` + planted + `"}`},
		"body, escaped":       {body: `{"\u0074oken":"` + planted + `"}`},
		"body, admin token":   {body: `{"token":"` + admin + `"}`},
		"query, of Clerk":     {query: "__session=" + planted + "&__clerk_db_jwt=" + planted + "&__CLERK_HANDSHAKE=" + planted},
		"cookie":              {header: http.Header{"Cookie": {"token=" + planted + "; __session=" + planted}}},
		"other headers": {header: http.Header{
			"Proxy-Authorization": {planted}, "X-Tinybird-Token": {planted}, "X-Api-Key": {planted}, "Token": {planted},
		}},
		"connection lists authorization": {header: http.Header{"Connection": {"Authorization, close"}}},
		"forwarded":                      {header: http.Header{"X-Forwarded-For": {planted}, "Forwarded": {"for=" + planted}, "Via": {planted}}},
	} {
		t.Run(name, func(t *testing.T) {
			method, body := http.MethodGet, []byte(nil)
			if attack.body != "" {
				method, body = http.MethodPost, []byte(attack.body)
			}
			stack.API.Reset()
			r := e.request(t, "ada", method, "/v0/pipes/live_events.json?"+attack.query, body)
			session := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			maps.Copy(r.Header, attack.header)
			onlyTenant(t, e.do(t, r), "acme")

			up := stack.API.Requests()
			if len(up) != 1 {
				t.Fatalf("%d requests went up", len(up))
			}
			if len(up[0].Tokens) != 1 || up[0].TokenFrom != "header" || up[0].Claims == nil {
				t.Errorf("credentials upstream: %d, judged by the %s", len(up[0].Tokens), up[0].TokenFrom)
			}
			for _, secret := range []string{planted, session, admin} {
				if mentions(up[0], secret) {
					t.Errorf("what the client sent as a credential went up: %+v", up[0])
				}
			}
			for name := range up[0].Header {
				if !slices.Contains(goesUp, name) {
					t.Errorf("header %s went up", name)
				}
			}
		})
	}
}

// TestP1QueryTokenStaysHere: with token_from query the parameter is a credential, and is no parameter of the pipe.
func TestP1QueryTokenStaysHere(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		h.Clerk.TokenFrom = []TokenSource{{Source: "header"}, {Source: "query", Name: "access"}}
	})
	session := e.bearer(t, "ada")
	onlyTenant(t, e.get(t, "", "/v0/pipes/live_events.json?access="+session), "acme")
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json?Access="+session), "acme")
	for _, up := range stack.API.Requests() {
		if mentions(up, session) || mentions(up, "access=") {
			t.Errorf("the session token went up: %+v", up)
		}
	}
}
