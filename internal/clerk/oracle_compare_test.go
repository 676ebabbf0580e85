package clerk

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// compare holds an answer against a decision that is no deviation.
func (o *oracle) compare(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	switch {
	case got.code == refusedAtLoad:
		// A key that cannot be used need not be refused token by token.
		_, hasKey := c.Input.Options["jwtKey"]
		if c.Expect.OK || c.Mode != "verifyToken" && (!hasKey || c.Expect.Status != SignedOut) {
			t.Error("the configuration is refused")
		}
	case c.Mode == "verifyToken":
		o.compareToken(t, c, got)
	default:
		o.compareRequest(t, c, got)
	}
}

func (o *oracle) compareToken(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	if len(c.Expect.Steps) == 0 {
		o.compareVerified(t, c, got, c.Expect.OK, c.Expect.Reason, c.Expect.JWKSFetches)
	}
	for i, s := range c.Expect.Steps {
		o.compareVerified(t, c, got.steps[i], s.OK, s.Reason, s.JWKSFetches)
		if sub, _ := got.steps[i].claims.text("sub"); s.OK && sub != s.Subject {
			t.Errorf("step %d: sub %q, want %q", i, sub, s.Subject)
		}
	}
	if c.Expect.OK {
		want, err := decodeObject(c.Expect.Claims)
		if err != nil {
			t.Fatal(err)
		}
		if want["omitted"] == true { // too long to be recorded but for sub
			want = map[string]any{"sub": want["sub"]}
			got.claims = claims{"sub": got.claims["sub"]}
		}
		if !reflect.DeepEqual(map[string]any(got.claims), want) {
			t.Errorf("claims %v, want %v", got.claims, want)
		}
	}
}

func (o *oracle) compareVerified(t *testing.T, c *oracleCase, got answer, ok bool, reason *string, fetches int64) {
	t.Helper()
	// Keys that were replaced under their kid are noticed by the first token that does not verify, not minutes later.
	if !ok && got.status == SignedIn && got.fetches == 1 && c.Input.JWKSDocument == "rotating" && reason != nil && *reason == reasonSignature {
		return
	}
	if ok != (got.status == SignedIn) {
		t.Fatalf("accepted: %v (%s), want %v", got.status == SignedIn, got.reason, ok)
	}
	// A wrong signature may mean that the key was replaced under its old kid, so the keys are fetched once more.
	if got.reason == reasonSignature {
		fetches++
	}
	if got.fetches > fetches {
		t.Errorf("%d fetches of the keys, want at most %d", got.fetches, fetches)
	}
	o.compareReason(t, c, got, reason)
}

// reasonsForNoKeys are the SDK's where it has no keys, for one or another cause.
var reasonsForNoKeys = []string{
	reasonKeysFailedToLoad, reasonUnexpected, reasonKidMismatch, "jwk-remote-missing", "jwk-remote-invalid", "jwk-failed-to-resolve", "secret-key-invalid",
}

// compareReason holds a reason against the SDK's. A crash of the SDK has none. That keys cannot be had is one reason
// here, and is told apart from a token that is refused; and a key that is not for RSA signatures is no key.
func (o *oracle) compareReason(t *testing.T, c *oracleCase, got answer, want *string) {
	t.Helper()
	if want == nil || got.reason == *want {
		return
	}
	doc := c.Input.JWKSDocument
	keyless := c.Input.APIDown || c.Input.NoSecretKey || doc == "empty" || doc == "garbage" || strings.HasPrefix(doc, "fail")
	noKey := got.code == apierr.KeysUnavailable || got.reason == reasonKidMismatch
	switch {
	case keyless && got.code == apierr.KeysUnavailable && slices.Contains(reasonsForNoKeys, *want):
	case noKey && *want == reasonVerification && o.namesUnusableKey(t, c):
	default:
		t.Errorf("reason %q, want %q", got.reason, *want)
	}
}

// namesUnusableKey reports whether a token of the case names a key that its document has, and that is not for RSA
// signatures.
func (o *oracle) namesUnusableKey(t *testing.T, c *oracleCase) bool {
	t.Helper()
	var doc struct {
		Keys []struct{ KID, KTY, Use string }
	}
	if json.Unmarshal(o.Meta.JWKSDocuments[c.Input.JWKSDocument], &doc) != nil {
		return false // it is only a behaviour
	}
	for _, token := range c.tokens(t) {
		p, err := parse(token)
		if err != nil {
			continue
		}
		for _, k := range doc.Keys {
			if k.KID == p.kid() && (k.KTY != "RSA" || k.Use == "enc") {
				return true
			}
		}
	}
	return false
}

func (o *oracle) compareRequest(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	want := &c.Expect
	if want.Throws != "" {
		t.Errorf("the SDK crashes with %q, which is no decision", want.Throws)
	}
	// The SDK shows the application nobody while a session is pending; here that is a refusal of its own.
	pending := want.Status == SignedIn && want.Auth != nil && !want.Auth.Authenticated
	switch {
	case pending:
		if got.code != apierr.SessionPending || got.id != nil {
			t.Errorf("code %q and identity %v of a pending session", got.code, got.id)
		}
		if got.status != SignedOut || got.reason != reasonPending {
			t.Errorf("%s (%s) with a pending session", got.status, got.reason)
		}
	case got.status != want.Status:
		t.Fatalf("%s (%s), want %s", got.status, got.reason, want.Status)
	default:
		o.compareReason(t, c, got, want.Reason)
		compareHeaders(t, c, got)
	}
	if got.location != want.Location.Raw {
		t.Errorf("location\n%s, want\n%s", got.location, want.Location.Raw)
	}
	if !slices.Equal(got.cookies, want.SetCookie) {
		t.Errorf("cookies\n%q, want\n%q", got.cookies, want.SetCookie)
	}
	compareCalls(t, c, got)
	if got.status == SignedIn && want.Auth != nil {
		compareIdentity(t, got.id, want.Auth)
	}
}

// compareHeaders holds what follows from an answer against the headers that the SDK sends. They are set by the handler,
// but for those that open every answer after a handshake to scripts of any origin: nothing here reads them.
func compareHeaders(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	ours := map[string]string{}
	if got.status != SignedIn {
		ours["x-clerk-auth-status"], ours["x-clerk-auth-reason"] = got.status, got.reason
		if c.Expect.Reason != nil {
			ours["x-clerk-auth-reason"] = *c.Expect.Reason // which was compared
		}
	}
	if got.location != "" {
		ours["cache-control"] = "no-store"
	}
	for name, value := range c.Expect.Headers {
		if !strings.HasPrefix(name, "access-control-allow-") && name != "x-clerk-auth-message" && ours[name] != value {
			t.Errorf("header %s is %q, want %q", name, ours[name], value)
		}
	}
	if c.Expect.Headers["cache-control"] != ours["cache-control"] {
		t.Errorf("cache-control %q, want %q", ours["cache-control"], c.Expect.Headers["cache-control"])
	}
}

// compareCalls holds the calls to Clerk against the SDK's. Keys are fetched when the configuration is loaded, not when
// the first token comes.
func compareCalls(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	calls := maps.Clone(c.Expect.APICalls)
	fetches := calls["GET /v1/jwks"]
	if delete(calls, "GET /v1/jwks"); got.fetches > fetches {
		t.Errorf("%d fetches of the keys, want at most %d", got.fetches, fetches)
	}
	if !maps.Equal(got.calls, calls) {
		t.Errorf("calls %v, want %v", got.calls, calls)
	}
	if want := c.Expect.RefreshCall; want != nil {
		want.Query = strings.TrimPrefix(want.Query, "?")
		if got.refresh == nil || *got.refresh != *want {
			t.Errorf("refresh %+v, want %+v", got.refresh, want)
		}
	}
}

func compareIdentity(t *testing.T, id *Identity, want *oracleAuth) {
	t.Helper()
	got := oracleAuth{
		Authenticated: true, UserID: id.UserID, SessionID: id.SessionID, SessionStatus: id.Status,
		OrgID: id.OrgID, OrgRole: id.OrgRole, OrgSlug: id.OrgSlug, OrgPermissions: id.Permissions,
	}
	if len(got.OrgPermissions) == 0 && len(want.OrgPermissions) == 0 {
		got.OrgPermissions = want.OrgPermissions
	}
	raw, err := json.Marshal(id.Claims["fva"])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &got.FactorVerificationAge); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, *want) {
		t.Errorf("identity %+v, want %+v", got, *want)
	}
}
