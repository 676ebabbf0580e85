package clerk

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"

	"github.com/MicahParks/jwkset"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// Attack: the owner of one accepted instance signs a token in the name of another.
func TestAttackCrossIssuer(t *testing.T) {
	t.Parallel()
	const other = "https://clerk.other.example"
	keysA := newFakeKeys(t, testKid, &keyA().PublicKey)
	keysB := newFakeKeys(t, "ins_B", &keyB().PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keysA}, {URL: other, Keys: keysB}}})

	for name, c := range map[string]struct {
		key    *rsa.PrivateKey
		kid    string
		iss    any
		code   apierr.Code
		reason string
	}{
		"A as A":                    {keyA(), testKid, testIssuer, "", ""},
		"B as B":                    {keyB(), "ins_B", other, "", ""},
		"B as A":                    {keyB(), "ins_B", testIssuer, apierr.TokenInvalid, reasonKidMismatch},
		"B as A under the kid of A": {keyB(), testKid, testIssuer, apierr.TokenInvalid, reasonSignature},
		"A as B":                    {keyA(), testKid, other, apierr.TokenInvalid, reasonKidMismatch},
		"A as nobody":               {keyA(), testKid, "https://clerk.third.example", apierr.TokenWrongIssuer, reasonIssuer},
		"A without iss":             {keyA(), testKid, nil, apierr.TokenWrongIssuer, reasonIssuer},
		"B as nobody":               {keyB(), "ins_B", "https://clerk.third.example", apierr.TokenInvalid, reasonKidMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := verify(t, v, sign(t, c.key, testHeader(object{"kid": c.kid}), testClaims(object{"iss": c.iss})))
			if c.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refusal(t, err, c.code, c.reason)
		})
	}
}

// Attack: a token of a shared key set in the name of an issuer that is not listed.
func TestSharedKeySet(t *testing.T) {
	t.Parallel()
	const other = "https://clerk.other.example"
	keys := newFakeKeys(t, testKid, &keyA().PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}, {URL: other, Keys: keys}}})
	for _, iss := range []string{testIssuer, other} {
		id, err := v.Verify(t.Context(), sign(t, keyA(), testHeader(nil), testClaims(object{"iss": iss})))
		if err != nil || id.Issuer != iss {
			t.Errorf("%s: %v, %v", iss, id, err)
		}
	}
	refusal(t, verify(t, v, sign(t, keyA(), testHeader(nil), testClaims(object{"iss": "https://x.example"}))), apierr.TokenWrongIssuer, reasonIssuer)
}

// Attack: a key that is too short, or none for RS256, in a key set that lets it through.
func TestAttackUnusableKey(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	keys := newFakeKeys(t, testKid, &weak.PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
	refusal(t, verify(t, v, sign(t, weak, testHeader(nil), testClaims(nil))), apierr.TokenInvalid, reasonVerification)

	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys.replace(testKid, testJWK(t, testKid, &curve.PublicKey))
	refusal(t, verify(t, v, goodToken(t)), apierr.TokenInvalid, reasonVerification)

	if _, err := New(Config{Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(&weak.PublicKey)}}}); err == nil {
		t.Error("New accepts a short static key")
	}
}

// An outage is not a signed-out user: 503 with Retry-After, and only while there are no keys at all.
func TestKeysUnavailable(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{errors.New("no key set has been loaded yet"), context.DeadlineExceeded} {
		keys := newFakeKeys(t, testKid, &keyA().PublicKey)
		keys.keys, keys.err = nil, cause
		v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
		e := refusal(t, verify(t, v, goodToken(t)), apierr.KeysUnavailable, reasonKeysFailedToLoad)
		if e.Status != 503 || e.Header.Get("Retry-After") == "" || e.Header.Get("WWW-Authenticate") != "" || !errors.Is(e, cause) {
			t.Errorf("refusal %+v", e)
		}
		keys.mu.Lock()
		keys.keys = map[string]jwkset.JWK{testKid: testJWK(t, testKid, &keyA().PublicKey)}
		keys.mu.Unlock()
		if err := verify(t, v, goodToken(t)); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	}
}

// Clerk's kid names the instance, so a key can be replaced under its kid.
func TestRefreshAfterBadSignature(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys(t, testKid, &keyA().PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
	token := sign(t, keyB(), testHeader(nil), testClaims(nil))

	refusal(t, verify(t, v, token), apierr.TokenInvalid, reasonSignature)
	if _, refreshes := keys.counts(); refreshes != 1 {
		t.Errorf("%d refreshes, want 1", refreshes)
	}
	keys.mu.Lock()
	keys.next = map[string]jwkset.JWK{testKid: testJWK(t, testKid, &keyB().PublicKey)}
	keys.mu.Unlock()
	for range 2 { // the second time from the cache
		if err := verify(t, v, token); err != nil {
			t.Errorf("after the keys changed: %v", err)
		}
	}
	if _, refreshes := keys.counts(); refreshes != 2 {
		t.Errorf("%d refreshes, want 2", refreshes)
	}
}
