package caddytinybird

import (
	"net/http"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// pipes is a tinybird without Clerk settings. Its lines are to be completed by tinybirdOf.
const pipes = "tinybird /v0/* {\n{own}\nsigning_key {key}\nworkspace_id {workspace}\nupstream {tinybird}\nfixed_param organization_id {clerk.org.id}\npipe live_events {\n}\n}\n"

func tinybirdOf(t *testing.T, stack *devstack.Stack, own string) string {
	t.Helper()
	return strings.NewReplacer("{own}", own, "{key}", secretFile(t, stack.API.SigningKey()), "{workspace}", stack.API.WorkspaceID(), "{tinybird}", stack.APIURL).Replace(pipes)
}

// TestTinybirdAfterClerkAuth: tinybird takes the identity that clerk_auth verified, and does not look for a token itself: it
// could not find this one.
func TestTinybirdAfterClerkAuth(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	byQuery := strings.Replace(auth, "issuer", "token_from query access\nissuer", 1)
	for name, lines := range map[string]string{
		"beside it":         byQuery + tinybirdOf(t, stack, ""),
		"in a route":        "route {\n" + byQuery + tinybirdOf(t, stack, "") + "}",
		"around it":         byQuery + "handle /v0/* {\n" + tinybirdOf(t, stack, "") + "}",
		"over the global":   "global clerk {pk} {\nglobal issuer {issuer}\nglobal }\n" + byQuery + tinybirdOf(t, stack, ""),
		"in a named route":  "global }\nglobal &(guard) {\nglobal " + strings.ReplaceAll(strings.TrimSpace(byQuery), "\n", "\nglobal ") + "\nglobal }\nglobal (none) {\ninvoke guard\n" + tinybirdOf(t, stack, ""),
		"beneath a comment": "# nothing\n" + byQuery + tinybirdOf(t, stack, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, stack, lines)
			token, err := stack.Issuer.Token("ada")
			if err != nil {
				t.Fatal(err)
			}
			onlyTenant(t, s.ask(t, "/v0/pipes/live_events.json?access="+token, nil), "acme")
			for _, up := range stack.API.Requests() {
				if mentions(up, token) || mentions(up, "access") {
					t.Errorf("the session token went up: %s?%s", up.Path, up.RawQuery)
				}
			}
			if got := s.ask(t, "/v0/pipes/live_events.json", s.as(t, "ada")); got.StatusCode != http.StatusUnauthorized {
				t.Errorf("tinybird found a token for itself: status %d", got.StatusCode)
			}
		})
	}
}

// TestTinybirdAfterOptionalClerkAuth: whom clerk_auth lets through as nobody is nobody to tinybird, for the same reason.
func TestTinybirdAfterOptionalClerkAuth(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	// Tinybird by itself would accept the cookies, and clerk_auth looks only at the header.
	s := newSite(t, stack, "global clerk {pk} {\nglobal issuer {issuer}\nglobal }\n"+
		strings.Replace(auth, "issuer", "optional\ntoken_from header\nissuer", 1)+tinybirdOf(t, stack, ""))
	for name, tt := range map[string]struct {
		change func(*http.Request)
		code   string
	}{
		"cookies": {s.withCookies(t, "ada"), "token_missing"},
		"expired": {s.as(t, "ada", devstack.Expired()), "token_expired"},
		"forged":  {s.as(t, "ada", devstack.ForeignKey()), "token_invalid"},
	} {
		if got := s.ask(t, "/v0/pipes/live_events.json", tt.change); got.StatusCode != http.StatusUnauthorized || got.code(t) != tt.code {
			t.Errorf("%s: status %d, %s", name, got.StatusCode, got.body)
		}
	}
	onlyTenant(t, s.ask(t, "/v0/pipes/live_events.json", s.as(t, "ada")), "acme")
}

// TestTinybirdWithItsOwnClerk: settings of its own are its own: it verifies by itself, and {clerk.*} is whom it verified.
func TestTinybirdWithItsOwnClerk(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, "map {clerk.user.id} {who} {\n\tdefault {clerk.user.id}\n}\nheader >X-User {clerk.user.id}\n"+
		strings.Replace(auth, "issuer", "token_from query access\nissuer", 1)+tinybirdOf(t, stack, "clerk {pk} {\n\tissuer {issuer}\n}"))
	ada, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	cleo, _ := devstack.UserByKey("cleo")
	stack.API.Reset()
	got := s.ask(t, "/v0/pipes/live_events.json?access="+ada, s.as(t, "cleo"))
	onlyTenant(t, got, "globex")
	if got.Header.Get("X-User") != cleo.ID {
		t.Errorf("{clerk.user.id} is %s", got.Header.Get("X-User"))
	}
	for _, up := range stack.API.Requests() {
		if mentions(up, ada) || mentions(up, "access") {
			t.Errorf("clerk_auth's token went up: %s?%s", up.Path, up.RawQuery)
		}
	}
	if got := s.ask(t, "/v0/pipes/live_events.json?access="+ada, nil); got.StatusCode != http.StatusUnauthorized || got.Header.Get("X-User") != "" {
		t.Errorf("status %d, as %q", got.StatusCode, got.Header.Get("X-User"))
	}
}

// TestTinybirdWithoutClerk: a tinybird that nothing can tell who a request is from does not load, and one that a clerk_auth was to tell
// and did not fails closed.
func TestTinybirdWithoutClerk(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for _, lines := range []string{tinybirdOf(t, stack, ""), tinybirdOf(t, stack, "") + "handle /other {\nrespond ok\n}"} {
		if _, err := tryNewSite(t, stack, lines); err == nil || !strings.Contains(err.Error(), "clerk_auth") {
			t.Errorf("loaded: %v", err)
		}
	}
	s := newSite(t, stack, strings.Replace(auth, "clerk_auth", "clerk_auth /admin/*", 1)+tinybirdOf(t, stack, ""))
	stack.API.Reset()
	got := s.ask(t, "/v0/pipes/live_events.json", s.as(t, "ada"))
	if got.StatusCode != http.StatusInternalServerError || got.code(t) != "internal" {
		t.Errorf("status %d, %s", got.StatusCode, got.body)
	}
	if up := stack.API.Requests(); len(up) != 0 {
		t.Errorf("%d requests went up", len(up))
	}
}

// TestAnotherServersClerkAuth: a clerk_auth on another server guards nothing here, in whatever order Caddy loads the servers.
func TestAnotherServersClerkAuth(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for range 10 {
		_, err := tryNewSite(t, stack, tinybirdOf(t, stack, "")+"\n}\n:81 {\n"+auth)
		if err == nil || !strings.Contains(err.Error(), "clerk_auth") {
			t.Fatalf("loaded: %v", err)
		}
	}
}

// TestCredentialsOfLaterClerkAuth: a parameter that holds tokens for a clerk_auth cannot be one that a pipe lets through, though the
// clerk_auth loads after tinybird.
func TestCredentialsOfLaterClerkAuth(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	lines := strings.Replace(tinybirdOf(t, stack, "clerk {pk} {\n\tissuer {issuer}\n}"), "pipe live_events {\n", "pipe live_events {\nparams access\n", 1)
	_, err := tryNewSite(t, stack, "route {\n"+lines+strings.Replace(auth, "issuer", "token_from header query access\nissuer", 1)+"}")
	if err == nil || !strings.Contains(err.Error(), "access") {
		t.Errorf("loaded: %v", err)
	}
}
