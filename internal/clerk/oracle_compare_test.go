package clerk

import (
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
	case got.code == refusedAtLoad && c.Mode == "verifyToken":
		if c.Expect.OK { // a key that cannot be used need not be refused token by token
			t.Error("the configuration is refused")
		}
	case got.code == refusedAtLoad:
		t.Error("the configuration is refused")
	case c.Mode == "verifyToken":
		o.compareToken(t, c, got)
	default:
		compareRequest(t, c, got)
	}
}

func (o *oracle) compareToken(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	if len(c.Expect.Steps) == 0 {
		compareVerified(t, c, got, c.Expect.OK, c.Expect.Reason, c.Expect.JWKSFetches)
	}
	for i, s := range c.Expect.Steps {
		compareVerified(t, c, got.steps[i], s.OK, s.Reason, s.JWKSFetches)
		if sub, _ := got.steps[i].claims.text("sub"); sub != s.Subject {
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

func compareVerified(t *testing.T, c *oracleCase, got answer, ok bool, reason *string, fetches int64) {
	t.Helper()
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
	// A crash of the SDK has no reason, and about keys that cannot be had we say more.
	if reason != nil && c.Group != "jwks" && got.reason != *reason {
		t.Errorf("reason %q, want %q", got.reason, *reason)
	}
}

func compareRequest(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	// The SDK shows the application nobody while a session is pending; here that is a refusal of its own.
	if c.Expect.Status == SignedIn && c.Expect.Auth != nil && !c.Expect.Auth.Authenticated {
		if got.code != apierr.SessionPending {
			t.Errorf("code %q of a pending session", got.code)
		}
		return
	}
	if got.status != c.Expect.Status {
		t.Fatalf("%s (%s), want %s", got.status, got.reason, c.Expect.Status)
	}
	if c.Expect.Reason != nil && got.reason != *c.Expect.Reason {
		t.Errorf("reason %q, want %q", got.reason, *c.Expect.Reason)
	}
	if got.location != c.Expect.Location.Raw {
		t.Errorf("location\n%s, want\n%s", got.location, c.Expect.Location.Raw)
	}
	if !slices.Equal(got.cookies, c.Expect.SetCookie) {
		t.Errorf("cookies\n%q, want\n%q", got.cookies, c.Expect.SetCookie)
	}
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
	if got.status == SignedIn && c.Expect.Auth != nil {
		compareIdentity(t, got.id, c.Expect.Auth)
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
	if !reflect.DeepEqual(got, *want) {
		t.Errorf("identity %+v, want %+v", got, *want)
	}
}

// compareMachine looks at a case in which the SDK was told to accept machine tokens. Here they are refused as what
// they are.
func compareMachine(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	var token string
	for _, h := range c.Input.Headers {
		if strings.EqualFold(h[0], "authorization") {
			token = strings.TrimPrefix(h[1], "Bearer ")
		}
	}
	p, err := parse(token)
	switch machine := isOpaque(token) || err == nil && p.otherKind(); {
	case machine && got.code != apierr.TokenWrongType:
		t.Errorf("code %q of a machine token", got.code)
	case token == "" && got.status == SignedIn:
		t.Error("accepted without a token in the header")
	}
}

// compareDeviation holds an answer against the table; or, for a case that is not in it, against a rule that holds for
// all of them: nothing is accepted that the SDK does not accept, and nobody is sent anywhere but to Clerk.
func compareDeviation(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	d, listed := deviations[c.ID]
	if !listed {
		d = deviation{code: got.code, steps: len(c.Expect.Steps) > 0}
		crashed := c.Expect.Throws != "" || c.Mode == "verifyToken" && c.Expect.Reason == nil
		if sdk := c.Expect.OK || c.Expect.Status == SignedIn; got.code == "" && !d.steps && !sdk && !crashed {
			t.Error("accepts what the SDK refuses; if that is meant, say why in the table")
		}
		if c.Expect.Auth != nil && c.Expect.Auth.Authenticated && got.id != nil {
			d.user = c.Expect.Auth.UserID
		}
	}
	if got.code != d.code {
		t.Errorf("code %q (%s), want %q: %s", got.code, got.reason, d.code, d.why)
	}
	if d.user != "" && (got.id == nil || got.id.UserID != d.user) {
		t.Errorf("identity %+v, want %s", got.id, d.user)
	}
	if got.location != "" && !strings.HasPrefix(got.location, "https://"+frontendAPIOf(t, c)+"/v1/client/handshake?") {
		t.Errorf("sent to %s", got.location)
	}
	var fetches, most int64
	for i, s := range c.Expect.Steps {
		if s.OK != (got.steps[i].status == SignedIn) {
			t.Errorf("step %d: accepted: %v, want %v", i, !s.OK, s.OK)
		}
		fetches, most = fetches+got.steps[i].fetches, most+s.JWKSFetches
	}
	if d.steps && fetches >= most {
		t.Errorf("%d fetches of the keys, the SDK makes %d", fetches, most)
	}
}

// frontendAPIOf is the host of the case's Frontend API.
func frontendAPIOf(t *testing.T, c *oracleCase) string {
	t.Helper()
	i, err := ParsePublishableKey(c.Input.PublishableKey)
	if err != nil {
		t.Fatal(err)
	}
	return i.FrontendAPI
}

// compareTable checks that the table lists the deviations of the oracle, and no other case.
func (o *oracle) compareTable(t *testing.T) {
	t.Helper()
	marked := map[string]bool{}
	for i := range o.Results {
		if c := &o.Results[i]; c.Deviation {
			marked[c.ID] = true
			if deviations[c.ID].why == "" {
				t.Errorf("the deviation %s is not explained", c.ID)
			}
		}
	}
	for id := range deviations {
		if !marked[id] {
			t.Errorf("%s is no deviation", id)
		}
	}
}
