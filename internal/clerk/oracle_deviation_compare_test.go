package clerk

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// compareMachine looks at a case in which the SDK was told to accept machine tokens. Here they are refused as what
// they are, and a session is judged as ever.
func (o *oracle) compareMachine(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	token, f := headerToken(http.Header{"Authorization": c.headers("authorization")})
	if f == nil && token != "" {
		if p, err := parse(token); (isOpaque(token) || err == nil && p.otherKind()) && got.code != apierr.TokenWrongType {
			t.Errorf("code %q of a machine token", got.code)
		}
	}
	o.checkAccepted(t, c, got)
	checkLocation(t, c, got)
}

// compareDeviation holds an answer against the table; or, for a case that is not in it, against rules that hold for all
// of them: nobody is signed in but by a token that is good by itself, nobody is sent anywhere but to Clerk or to the
// same page, no cookie is set that is not Clerk's, and the keys are not fetched more often than by the SDK.
func (o *oracle) compareDeviation(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	d, listed := deviations[c.ID]
	if !listed {
		d = deviation{code: got.code}
	}
	if got.code != d.code {
		t.Errorf("code %q (%s), want %q: %s", got.code, got.reason, d.code, d.why)
	}
	if d.user != "" && (got.id == nil || got.id.UserID != d.user) {
		t.Errorf("identity %+v, want %s", got.id, d.user)
	}
	o.checkAccepted(t, c, got)
	checkLocation(t, c, got)
	for _, cookie := range got.cookies {
		name, _, _ := strings.Cut(cookie, "=")
		if i, err := ParsePublishableKey(c.Input.PublishableKey); err != nil || i.cookie(name) < 0 && name != countCookie {
			t.Errorf("sets the cookie %s", name)
		}
	}
	var fetches, most int64
	for i, s := range c.Expect.Steps {
		if listed && s.OK != (got.steps[i].status == SignedIn) {
			t.Errorf("step %d: accepted: %v, want %v", i, !s.OK, s.OK)
		}
		fetches, most = fetches+got.steps[i].fetches, most+s.JWKSFetches
	}
	if fetches > most || d.steps && fetches == most {
		t.Errorf("%d fetches of the keys, the SDK makes %d", fetches, most)
	}
}

// checkAccepted looks at who was accepted with another library's eyes: one of the case's tokens names them, is signed by
// a key of the case, and is in its time. In the first day a development instance forgives the clock.
func (o *oracle) checkAccepted(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	if got.id == nil {
		return
	}
	var keys []any
	for _, instance := range o.Meta.Instances {
		if pub, err := jwks.ParsePEM(instance.PublicKey); err == nil {
			keys = append(keys, pub)
		}
	}
	leeway := 2 * defaultClockSkew
	if o.Meta.Instances[c.Instance].Kind == "test" {
		leeway = developmentSkew
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{algorithm, "RS384", "RS512"}), jwt.WithLeeway(leeway), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(func() time.Time { return time.Unix(c.Now, 0) }), jwt.WithSubject(got.id.UserID))
	for _, token := range c.tokens(t) {
		for _, key := range keys {
			signed, err := parser.Parse(token, func(*jwt.Token) (any, error) { return key, nil })
			if err == nil && signed.Valid {
				return
			}
		}
	}
	t.Errorf("%s is signed in, and no token says so", got.id.UserID)
}

// checkLocation accepts Clerk's Frontend API, the page itself without what Clerk added, and what the SDK says.
func checkLocation(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	if got.location == "" || got.location == c.Expect.Location.Raw {
		return
	}
	i, err := ParsePublishableKey(c.Input.PublishableKey)
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"https://" + i.FrontendAPI + "/v1/client/handshake?"}
	page, _, _ := strings.Cut(c.Input.URL, "?")
	if got.location == page || slices.ContainsFunc(append(allowed, page+"?"), func(prefix string) bool { return strings.HasPrefix(got.location, prefix) }) {
		return
	}
	t.Errorf("sent to %s", got.location)
}

// headers are the values of a header of the case's request.
func (c *oracleCase) headers(name string) []string {
	var list []string
	for _, h := range c.Input.Headers {
		if strings.EqualFold(h[0], name) {
			list = append(list, h[1])
		}
	}
	return list
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
