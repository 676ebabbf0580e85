package clerk

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
)

func (o *oracle) compare(t *testing.T, c *oracleCase, got answer) {
	t.Helper()
	if c.Mode == "verifyToken" {
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
			if !reflect.DeepEqual(map[string]any(got.claims), want) {
				t.Errorf("claims %v, want %v", got.claims, want)
			}
		}
		return
	}
	if signed := c.Expect.Status == "signed-in"; signed != (got.state == signedIn) {
		t.Fatalf("state %d (%s), want %s", got.state, got.reason, c.Expect.Status)
	}
	if c.Expect.Reason != nil && got.reason != *c.Expect.Reason {
		t.Errorf("reason %q, want %q", got.reason, *c.Expect.Reason)
	}
	if want := c.Expect.APICalls["GET /v1/jwks"]; got.fetches > want {
		t.Errorf("%d fetches of the keys, the SDK makes %d", got.fetches, want)
	}
	if got.state == signedIn && c.Expect.Auth != nil {
		compareIdentity(t, got.id, c.Expect.Auth)
	}
}

func compareVerified(t *testing.T, c *oracleCase, got answer, ok bool, reason *string, fetches int64) {
	t.Helper()
	if ok != (got.state == signedIn) {
		t.Fatalf("accepted: %v (%s), want %v", got.state == signedIn, got.reason, ok)
	}
	if got.fetches > fetches+moreFetches[c.ID] {
		t.Errorf("%d fetches of the keys, the SDK makes %d", got.fetches, fetches)
	}
	// A crash of the SDK has no reason, and about keys that cannot be had we need not say the same.
	if reason != nil && c.Group != "jwks" && got.code != refusedAtLoad && got.reason != *reason {
		t.Errorf("reason %q, want %q", got.reason, *reason)
	}
}

func compareIdentity(t *testing.T, id *Identity, want *oracleAuth) {
	t.Helper()
	got := oracleAuth{
		UserID: id.UserID, SessionID: id.SessionID, SessionStatus: id.Status,
		OrgID: id.OrgID, OrgRole: id.OrgRole, OrgSlug: id.OrgSlug, OrgPermissions: id.Permissions,
	}
	if len(got.OrgPermissions) == 0 && len(want.OrgPermissions) == 0 {
		got.OrgPermissions = want.OrgPermissions
	}
	if !reflect.DeepEqual(got, *want) {
		t.Errorf("identity %+v, want %+v", got, *want)
	}
}

// keyServer is a key server of which only the behaviour is real.
type keyServer struct {
	doc, flaky json.RawMessage
	name       string
	down       bool
	fetches    atomic.Int64
}

func (s *keyServer) RoundTrip(r *http.Request) (*http.Response, error) {
	n := s.fetches.Add(1)
	if s.down {
		return nil, context.DeadlineExceeded
	}
	status, body := http.StatusOK, string(s.doc)
	switch s.name {
	case "fail500":
		status = http.StatusInternalServerError
	case "fail401":
		status = http.StatusUnauthorized
	case "fail429":
		status = http.StatusTooManyRequests
	case "garbage":
		body = "garbage"
	case "flaky":
		if body = string(s.flaky); n <= 2 {
			status = http.StatusServiceUnavailable
		}
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}
