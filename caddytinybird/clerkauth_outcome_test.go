package caddytinybird

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// decided is a decider that has one answer.
type decided struct{ o *clerk.Outcome }

func (d decided) Authenticate(*http.Request, *url.URL) *clerk.Outcome { return d.o }
func (decided) Close()                                                {}

// refusalFor makes a refusal as the verifier does, of a token with the option.
func refusalFor(t *testing.T, stack *devstack.Stack, opts ...devstack.TokenOption) *clerk.Error {
	t.Helper()
	h := provisioned(t, stack, auth)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if opts != nil {
		token, err := stack.Issuer.Token("ada", opts...)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	_, err := h.settings.verifier.Authenticate(r)
	refusal := (*clerk.Error)(nil)
	if !errors.As(err, &refusal) {
		t.Fatal("not refused")
	}
	return refusal
}

// TestOutcomes: what was decided about a request is answered as decided: redirects before all else, with their cookies, and nothing
// that came with cookies may be stored.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	ada := &clerk.Identity{UserID: "user_ada", SessionID: "sess_ada"}
	none, expired := refusalFor(t, stack), refusalFor(t, stack, devstack.Expired())
	const cookie = "__session=eyJ; Path=/"
	for name, tt := range map[string]struct {
		o                  clerk.Outcome
		optional, document bool

		status           int
		location, cached string
		cookies          []string
		passed           bool
	}{
		"signed in":                 {clerk.Outcome{Status: clerk.SignedIn, Identity: ada}, false, true, 200, "", "private, no-cache", nil, true},
		"refreshed":                 {clerk.Outcome{Status: clerk.SignedIn, Identity: ada, Cookies: []string{cookie, "b=c"}}, false, false, 200, "", "private, no-store", []string{cookie, "b=c"}, true},
		"handshake":                 {clerk.Outcome{Status: clerk.Handshake, Reason: "x", Refusal: expired, Location: "https://clerk.example.com/v1/client/handshake?a=b", Cookies: []string{cookie}}, false, true, 307, "https://clerk.example.com/v1/client/handshake?a=b", "no-store", []string{cookie}, false},
		"handshake where optional":  {clerk.Outcome{Status: clerk.Handshake, Reason: "x", Refusal: none, Location: "https://clerk.example.com/"}, true, true, 307, "https://clerk.example.com/", "no-store", nil, false},
		"back from a handshake":     {clerk.Outcome{Status: clerk.SignedIn, Identity: ada, Location: "https://site.example/", Cookies: []string{cookie}}, false, true, 307, "https://site.example/", "no-store", []string{cookie}, false},
		"signed out, and said so":   {clerk.Outcome{Status: clerk.SignedOut, Reason: "x", Refusal: none, Cookies: []string{cookie}}, false, true, 302, "https://accounts.example.com/sign-in?redirect_url=http%3A%2F%2Fexample.com%2F", "no-store", []string{cookie, "__clerk_sign_in_count=1; Path=/; SameSite=Lax; HttpOnly; Max-Age=10"}, false},
		"signed out where optional": {clerk.Outcome{Status: clerk.SignedOut, Reason: "x", Refusal: none, Cookies: []string{cookie}}, true, true, 200, "", "private, no-store", []string{cookie}, true},
		"signed out, no page":       {clerk.Outcome{Status: clerk.SignedOut, Reason: "x", Refusal: none, Cookies: []string{cookie}}, false, false, 401, "", "private, no-store", []string{cookie}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := provisioned(t, stack, auth)
			h.site, h.Optional = decided{&tt.o}, tt.optional
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if tt.document {
				asDocument(r)
			}
			passed := false
			err := h.ServeHTTP(w, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil), caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
				passed = true
				return nil
			}))
			header := w.Header()
			if err != nil || w.Code != tt.status || passed != tt.passed || header.Get("Location") != tt.location {
				t.Errorf("status %d to %s, passed %t, %v", w.Code, header.Get("Location"), passed, err)
			}
			if header.Get("Cache-Control") != tt.cached || !slices.Equal(header.Values("Set-Cookie"), tt.cookies) {
				t.Errorf("headers %v", header)
			}
			wantStatus, wantReason := tt.o.Status, tt.o.Reason
			if tt.passed {
				wantStatus, wantReason = "", ""
			}
			if header.Get("X-Clerk-Auth-Status") != wantStatus || header.Get("X-Clerk-Auth-Reason") != wantReason {
				t.Errorf("explained as %q, %q", header.Get("X-Clerk-Auth-Status"), header.Get("X-Clerk-Auth-Reason"))
			}
		})
	}
}

// TestOperatorIsTold: who was replaced by whom, and what failed at Clerk, is in the log, and no token is.
func TestOperatorIsTold(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	h := provisioned(t, stack, auth)
	core, logged := observer.New(zap.DebugLevel)
	h.log = zap.New(core)
	mallory := &clerk.Identity{UserID: "user_mallory", SessionID: "sess_mallory"}
	h.site = decided{&clerk.Outcome{
		Status: clerk.SignedIn, Identity: mallory, Replaced: &clerk.Identity{UserID: "user_ada", SessionID: "sess_ada"},
		Cookies: []string{"__session=eyJplanted"}, Notice: errors.New("the Backend API answered 500 to eyJplanted"),
	}}
	pass(t, h, httptest.NewRequest(http.MethodGet, "/", nil))

	replaced := logged.FilterMessage("a handshake replaced the valid session of another user").All()
	if len(replaced) != 1 || replaced[0].Level != zap.WarnLevel {
		t.Fatalf("logged %v", logged.All())
	}
	want := map[string]any{"replaced_user": "user_ada", "replaced_session": "sess_ada", "user": "user_mallory", "session": "sess_mallory"}
	if got := replaced[0].ContextMap(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("logged %v", got)
	}
	if n := logged.FilterMessage("a handshake or a refresh with Clerk went wrong").Len(); n != 1 {
		t.Errorf("the failure was logged %d times", n)
	}
	for _, entry := range logged.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), "planted") {
			t.Errorf("a token was logged: %v", entry)
		}
	}

	// Of whoever replaced nobody is known when the new session is refused.
	h.site = decided{&clerk.Outcome{Status: clerk.SignedOut, Refusal: refusalFor(t, stack), Replaced: mallory}}
	h.Optional = true
	pass(t, h, httptest.NewRequest(http.MethodGet, "/", nil))
	if n := logged.FilterMessage("a handshake replaced the valid session of another user").Len(); n != 2 {
		t.Errorf("%d times logged", n)
	}
}

// TestClientThatLeft: that somebody did not wait for the answer is neither a refusal nor an outage.
func TestClientThatLeft(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	stack.Issuer.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Stop: devstack.HangBeforeHeader} })
	h := provisioned(t, stack, auth)
	core, logged := observer.New(zap.DebugLevel)
	h.log = zap.New(core)
	token, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	leave()
	w := httptest.NewRecorder()
	var status caddyhttp.HandlerError
	if err := h.ServeHTTP(w, r, nil); !errors.As(err, &status) || status.StatusCode != 499 {
		t.Errorf("%v, status %d, %s", err, w.Code, w.Body)
	}
	if n := logged.Len(); n != 0 {
		t.Errorf("logged %v", logged.All())
	}
	if _, ok, err := h.Authenticate(w, r); ok || err != nil {
		t.Errorf("the provider: %t, %v", ok, err)
	}
}

// TestProvider: in Caddy's own handler the provider tells who the user is, sets cookies, never redirects, and calls only what cannot
// be found out an error.
func TestProvider(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	ctx := newContext(t, storageDir(t))
	module, err := ctx.LoadModuleByID("http.handlers.subroute", fmt.Appendf(nil, `{"routes":[{"handle":[
		{"handler":"authentication","providers":{"clerk":{"publishable_key":%q,"issuers":[%q]}}},
		{"handler":"static_response","body":"{http.auth.user.id} {http.auth.user.org_role} {http.auth.user.session_id}"}]}]}`,
		stack.Issuer.PublishableKey(), stack.IssuerURL))
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, module.(*caddyhttp.Subroute).Routes)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
		err := module.(caddyhttp.MiddlewareHandler).ServeHTTP(w, r, nil)
		if status := (caddyhttp.HandlerError{}); errors.As(err, &status) {
			w.WriteHeader(status.StatusCode)
		}
	}))
	t.Cleanup(server.Close)
	s := &site{stack: stack, url: server.URL, client: server.Client()}
	ada, _ := devstack.UserByKey("ada")
	if got := s.ask(t, "/", s.as(t, "ada")); string(got.body) != ada.ID+" org:admin "+ada.SessionID {
		t.Errorf("status %d, %q", got.StatusCode, got.body)
	}
	if got := s.ask(t, "/", asDocument); got.StatusCode != http.StatusUnauthorized || got.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("status %d, %v", got.StatusCode, got.Header)
	}
	// Attack: a link on another site, after which clerk_auth sends even a browser with a valid session to Clerk and back, locks that
	// browser out where nobody sends it anywhere.
	link := func(r *http.Request) { r.Header.Set("Referer", "https://search.example/") }
	got := s.ask(t, "/", all(s.withCookies(t, "ada"), asDocument, link))
	if got.StatusCode != http.StatusOK || !strings.HasPrefix(string(got.body), ada.ID+" ") || len(got.Header.Values("Set-Cookie")) > 0 || got.Header.Get("Location") != "" {
		t.Errorf("by a link from another site: status %d, %q, %v", got.StatusCode, got.body, got.Header)
	}
	if got := s.ask(t, "/", all(s.withCookies(t, "ada", devstack.Expired()), asDocument, link)); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("with an expired session: status %d", got.StatusCode)
	}
}

// TestProviderOutcomes holds what the provider makes of every kind of decision.
func TestProviderOutcomes(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	none, bad := refusalFor(t, stack), refusalFor(t, stack, devstack.ForeignKey())
	stack.Issuer.SetDown(true)
	away := newLiveStack(t)
	away.Issuer.SetDown(true)
	outage := refusalFor(t, away, []devstack.TokenOption{devstack.V1()}...)
	dana := &clerk.Identity{UserID: "user_dana", Plan: "u:free"}
	const cookie = "__session=eyJ; Path=/"
	for name, tt := range map[string]struct {
		o         clerk.Outcome
		user      caddyauth.User
		ok        bool
		err       error
		cookies   int
		challenge bool
	}{
		"signed in":   {o: clerk.Outcome{Identity: dana, Cookies: []string{cookie}}, user: caddyauth.User{ID: "user_dana", Metadata: map[string]string{"plan": "u:free"}}, ok: true, cookies: 1},
		"cleaned up":  {o: clerk.Outcome{Identity: dana, Cookies: []string{cookie}, Location: "https://x.example"}, user: caddyauth.User{ID: "user_dana", Metadata: map[string]string{"plan": "u:free"}}, ok: true, cookies: 1},
		"nobody":      {o: clerk.Outcome{Refusal: none}, challenge: true},
		"bad token":   {o: clerk.Outcome{Refusal: bad}, challenge: true},
		"signed out":  {o: clerk.Outcome{Refusal: none, Cookies: []string{cookie}}, cookies: 1, challenge: true},
		"handshake":   {o: clerk.Outcome{Refusal: none, Cookies: []string{cookie}, Location: "https://clerk.example.com/"}, challenge: true},
		"unavailable": {o: clerk.Outcome{Refusal: outage, Cookies: []string{cookie}}, err: outage},
	} {
		h := provisioned(t, away, auth)
		h.site = decided{&tt.o}
		w := httptest.NewRecorder()
		user, ok, err := h.Authenticate(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if ok != tt.ok || !errors.Is(err, tt.err) || fmt.Sprint(user) != fmt.Sprint(tt.user) {
			t.Errorf("%s: %v, %t, %v", name, user, ok, err)
		}
		if n := len(w.Header().Values("Set-Cookie")); n != tt.cookies || tt.challenge != (w.Header().Get("WWW-Authenticate") != "") || w.Header().Get("Location") != "" {
			t.Errorf("%s: headers %v", name, w.Header())
		}
	}
}

// TestModulesMarshal: the settings keep their names in JSON, so that a config that Caddy saved loads again.
func TestModulesMarshal(t *testing.T) {
	t.Parallel()
	h := provisioned(t, newLiveStack(t), auth)
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	again := new(ClerkAuth)
	if err := caddy.StrictUnmarshalJSON(text, again); err != nil || again.PublishableKey != h.PublishableKey || again.SignInURL != h.SignInURL {
		t.Errorf("%v: %s", err, text)
	}
}
