package clerk

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
)

// refreshing is a Backend API that refreshes every session with the same token.
type refreshing struct {
	Backend

	token string
}

func (b refreshing) RefreshSession(context.Context, bapi.Refresh) ([]string, error) {
	return []string{"__session=" + b.token + "; Path=/"}, nil
}

// Attack: none; a restart after a rotation while the keys cannot be fetched, and Clerk's Backend API answers. By the stored keys the
// renewed token is forged, and 401 would sign everybody out whose session is renewed in that time.
func TestRefreshDuringAnOutageOfTheKeys(t *testing.T) {
	t.Parallel()
	keys := &hookedKeys{fakeKeys: newFakeKeys(t, testKid, &keyA().PublicKey)}
	keys.unconfirmed.Store(true)
	v := newVerifier(t, Config{PublishableKey: testKey, Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
	s, err := NewSite(v, SiteConfig{Handshake: true, Backend: refreshing{token: sign(t, keyB(), testHeader(nil), testClaims(nil))}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	expired := sign(t, keyA(), testHeader(nil), testClaims(object{"iat": testNow.Unix() - 120, "exp": testNow.Unix() - 60}))
	r := httptest.NewRequest(http.MethodGet, "https://app.example.com/data", http.NoBody)
	r.Header.Set("Cookie", "__session="+expired+"; __client_uat=1; __refresh"+testSuffix+"=r; __session"+testSuffix+"="+expired+"; __client_uat"+testSuffix+"=1")
	o := s.Authenticate(r, r.URL)
	if o.Refusal == nil || o.Refusal.Status != http.StatusServiceUnavailable || o.Refusal.Code != apierr.KeysUnavailable {
		t.Fatalf("status %s, reason %s, refusal %v", o.Status, o.Reason, o.Refusal)
	}
}
