package clerk

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// TestClerkHangs: nobody waits longer than is promised, with the wait for a turn, and also not for a nonce and then for a session.
func TestClerkHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestSite(t, nil, time.Now)
		s.backend = hanging{}
		now := time.Now().Unix()
		expired := sign(t, keyA(), testHeader(nil), testClaims(object{"iat": now - 120, "nbf": now - 130, "exp": now - 60}))
		var all sync.WaitGroup
		for n := range 3 * maxAsking {
			all.Go(func() {
				time.Sleep(time.Duration(n) * time.Second / maxAsking) //nolint:forbidigo // the bubble's clock
				start := time.Now()
				o := visitWith(t, s, "document", handshakeNonce+"=n"+strconv.Itoa(n),
					"__session="+expired, "__client_uat=1", "__refresh"+testSuffix+"=r"+strconv.Itoa(n))
				if took := time.Since(start); took > askingWait || o.Refusal == nil || o.Refusal.Code != apierr.ClerkUnavailable {
					t.Errorf("%d: %s, %v after %v", n, o.Status, o.Refusal, took)
				}
			})
		}
		all.Wait()
		s.Close()
	})
}

// hanging is a Backend API that does not answer.
type hanging struct{}

func (hanging) HandshakePayload(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, &bapi.Error{Err: ctx.Err()}
}

func (h hanging) RefreshSession(ctx context.Context, _ bapi.Refresh) ([]string, error) {
	return h.HandshakePayload(ctx, "")
}

// Attack: a sibling site plants a handshake of an unknown key, or an unknown nonce, so that a visitor with a good session is refused for as
// long as Clerk is away or the edge has only stored keys, which say nothing about others.
func TestAttackPlantedHandshakeWhileKeysAreAway(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, &fakeBackend{err: &bapi.Error{Status: http.StatusServiceUnavailable}}, standing)
	keys, ok := s.issuer.keys.(*fakeKeys)
	if !ok {
		t.Fatalf("the keys are %T", s.issuer.keys)
	}
	keys.err = jwks.ErrNoKeys
	for planted, code := range map[string]apierr.Code{
		handshakeToken + "=" + sign(t, keyA(), testHeader(object{"kid": "made_up"}), object{"handshake": []string{}}): apierr.KeysUnavailable,
		handshakeNonce + "=made_up": apierr.ClerkUnavailable,
	} {
		if o := visitWith(t, s, "document", planted, "__session="+goodToken(t), "__client_uat=1"); o.Status != SignedIn || o.Notice == nil {
			t.Errorf("a good session beside %.20s: %s, %v, %v", planted, o.Status, o.Refusal, o.Notice)
		}
		for name, cookies := range map[string][]string{"none": nil, "one without its token": {"__client_uat=1"}} {
			o := visitWith(t, s, "document", append(cookies, planted)...)
			if o.Status != SignedOut || o.Refusal.Code != code || o.Notice == nil {
				t.Errorf("%s beside %.20s: %s, %v, %v", name, planted, o.Status, o.Refusal, o.Notice)
			}
		}
	}
}

// TestKeysHang: who waits for the key of a handshake does not wait once more for that of the session.
func TestKeysHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, Config{PublishableKey: testKey, Issuers: []Issuer{{URL: testIssuer, Keys: hangingKeys{newFakeKeys(t, "other", &keyA().PublicKey)}}}})
		s, err := NewSite(v, SiteConfig{Handshake: true})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		o := visitWith(t, s, "document", handshakeToken+"="+sign(t, keyA(), testHeader(nil), object{"handshake": []string{}}), "__session="+goodToken(t), "__client_uat=1")
		if took := time.Since(start); took != keysWait || o.Status != SignedOut || o.Refusal.Code != apierr.KeysUnavailable {
			t.Errorf("%s, %v after %v", o.Status, o.Refusal, took)
		}
		s.Close()
		v.Close()
	})
}

// hangingKeys are of an issuer that does not answer.
type hangingKeys struct{ *fakeKeys }

const keysWait = 2 * time.Second

func (k hangingKeys) KeyRead(ctx context.Context, _ string) (jwkset.JWK, error) {
	select {
	case <-ctx.Done():
		return jwkset.JWK{}, ctx.Err()
	case <-time.After(keysWait):
		return jwkset.JWK{}, jwks.ErrNoKeys
	}
}

// TestRefusalsThatAreNotOfTheSession: what stands between the edge and Clerk, and Clerk where it refuses who asks, say nothing about a
// session that has run out: nobody is signed out for it.
func TestRefusalsThatAreNotOfTheSession(t *testing.T) {
	t.Parallel()
	now := testNow.Unix()
	expired := sign(t, keyA(), testHeader(nil), testClaims(object{"iat": now - 120, "nbf": now - 130, "exp": now - 60}))
	for code, refusals := range map[apierr.Code][]*bapi.Error{
		apierr.ClerkUnavailable: {
			{Status: http.StatusForbidden},
			{Status: http.StatusNotFound},
			{Status: http.StatusRequestTimeout},
			{Status: http.StatusProxyAuthRequired},
			{Status: http.StatusPaymentRequired, Code: "quota_exceeded"},
			{Status: http.StatusForbidden, Code: "authorization_invalid"},
			{Status: http.StatusOK},
		},
		apierr.TokenExpired: {
			{Status: http.StatusUnauthorized, Code: "refresh_token_invalid"},
			{Status: http.StatusNotFound, Code: "resource_not_found"},
			{Status: http.StatusBadRequest, Code: "session_id_invalid"},
			{Status: http.StatusGone, Code: "session_ended"},
			{Status: http.StatusNotFound, Code: bapi.CodeHidden},
		},
	} {
		for _, refusal := range refusals {
			s := newTestSite(t, &fakeBackend{err: refusal}, standing)
			o := visitWith(t, s, "empty", "__session="+expired, "__client_uat=1", "__refresh"+testSuffix+"=r1")
			if o.Status != SignedOut || o.Refusal.Code != code {
				t.Errorf("%d %s: %s, %v, want %s", refusal.Status, refusal.Code, o.Status, o.Refusal, code)
			}
		}
	}
}
