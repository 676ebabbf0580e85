package clerk

import (
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	keys := StaticKey(&keyA().PublicKey)
	good := []Issuer{{URL: testIssuer, Keys: keys}}
	over, negative := 61*time.Second, -time.Second
	for name, c := range map[string]struct {
		config Config
		want   string // in the error
	}{
		"no issuer":           {Config{}, "publishable_key"},
		"publishable key":     {Config{Issuers: good, PublishableKey: "pk_live_x"}, "publishable_key"},
		"issuer without keys": {Config{Issuers: []Issuer{{URL: testIssuer}}}, "jwks_url"},
		"issuer no URL":       {Config{Issuers: []Issuer{{URL: "clerk.example.com", Keys: keys}}}, "https://"},
		"issuer with query":   {Config{Issuers: []Issuer{{URL: testIssuer + "?a=b", Keys: keys}}}, "issuer"},
		"issuer empty":        {Config{Issuers: []Issuer{{Keys: keys}}}, "issuer"},
		"issuer twice":        {Config{Issuers: []Issuer{good[0], good[0]}}, "twice"},
		"no static key":       {Config{Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(nil)}}}, "jwt_key"},
		"large static key":    {Config{Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 4095), E: 65537})}}}, "2048 bits"},
		"empty static key":    {Config{Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(new(rsa.PublicKey))}}}, "jwt_key"},
		"party with a slash":  {Config{Issuers: good, AuthorizedParties: []string{"https://app.example.com/"}}, "authorized_parties"},
		"party upper case":    {Config{Issuers: good, AuthorizedParties: []string{"https://App.example.com"}}, "lower case"},
		"party no origin":     {Config{Issuers: good, AuthorizedParties: []string{"app.example.com"}}, "https://app.example.com"},
		"party empty":         {Config{Issuers: good, AuthorizedParties: []string{""}}, "authorized_parties"},
		"azp unknown":         {Config{Issuers: good, AZP: "loose"}, "if_present"},
		"azp without parties": {Config{Issuers: good, AZP: "strict"}, "authorized_parties"},
		"skew too large":      {Config{Issuers: good, ClockSkew: &over}, "clock_skew"},
		"skew negative":       {Config{Issuers: good, ClockSkew: &negative}, "clock_skew"},
		"lifetime negative":   {Config{Issuers: good, MaxLifetime: -1}, "max_lifetime"},
		"no source":           {Config{Issuers: good, Sources: []Source{}}, "token_from"},
		"unknown source":      {Config{Issuers: good, Sources: []Source{{Kind: "body"}}}, "token_from"},
		"query without name":  {Config{Issuers: good, Sources: []Source{{Kind: SourceQuery}}}, "name"},
		"cookie with a name":  {Config{Issuers: good, Sources: []Source{{Kind: SourceCookie, Name: "x"}}}, "no name"},
		"source twice":        {Config{Issuers: good, Sources: []Source{{Kind: SourceQuery, Name: "t"}, {Kind: SourceQuery, Name: "t"}}}, "query t twice"},
		"token size":          {Config{Issuers: good, MaxTokenSize: -1}, "negative"},
		"identities":          {Config{Issuers: good, MaxIdentities: -1}, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := New(c.config)
			if err == nil {
				v.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

func TestNewAccepts(t *testing.T) {
	t.Parallel()
	for _, party := range []string{"https://app.example.com", "http://localhost:3000", "chrome-extension://abcdef", "http://[::1]:3000"} {
		newVerifier(t, Config{AuthorizedParties: []string{party}})
	}
	for _, iss := range []string{"https://app.example.com/__clerk", "http://127.0.0.1:8080"} {
		newVerifier(t, Config{Issuers: []Issuer{{URL: iss, Keys: StaticKey(&keyA().PublicKey)}}})
	}
}

// Clerk's own test vectors, and the ways in which a key can be wrong.
func TestParsePublishableKey(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]Instance{
		"pk_live_Y2xlcmsuY2xlcmsuZGV2JA": {
			FrontendAPI: "clerk.clerk.dev", Issuer: "https://clerk.clerk.dev",
			JWKSURL: "https://clerk.clerk.dev/.well-known/jwks.json", CookieSuffix: "1Z8AzTQD",
		},
		"pk_test_Y2xlcmsuY2xlcmsuZGV2JA": {
			FrontendAPI: "clerk.clerk.dev", Issuer: "https://clerk.clerk.dev",
			JWKSURL: "https://clerk.clerk.dev/.well-known/jwks.json", Development: true, CookieSuffix: "QvfNY2dr",
		},
		testDevKey: {
			FrontendAPI: "happy-otter-42.clerk.accounts.dev", Issuer: "https://happy-otter-42.clerk.accounts.dev",
			JWKSURL:     "https://happy-otter-42.clerk.accounts.dev/.well-known/jwks.json",
			Development: true, CookieSuffix: "sAfxoAZ_",
		},
	} {
		if got, err := ParsePublishableKey(key); err != nil || got != want {
			t.Errorf("%s: %+v, %v", key, got, err)
		}
	}
	if padded, err := ParsePublishableKey("pk_live_Y2xlcmsuY2xlcmsuZGV2JA=="); err != nil || padded.FrontendAPI != "clerk.clerk.dev" {
		t.Errorf("padded: %+v, %v", padded, err)
	}
	for name, key := range map[string]string{
		"empty":          "",
		"secret key":     "sk_live_Y2xlcmsuY2xlcmsuZGV2JA",
		"upper case":     "PK_LIVE_Y2xlcmsuY2xlcmsuZGV2JA",
		"other kind":     "pk_prod_Y2xlcmsuY2xlcmsuZGV2JA",
		"no base64":      "pk_live_!!!!",
		"no dollar":      "pk_live_Y2xlcmsuZXhhbXBsZS5jb20=",
		"two dollars":    "pk_live_YS5iJGMuZCQ=",
		"dollars at end": "pk_live_YS5iJCQ",
		"no dot":         "pk_live_bG9jYWxob3N0JA",
		"fourth part":    "pk_live_Y2xlcmsuY2xlcmsuZGV2JA_x",
		"newline":        "pk_live_Y2xlcmsu\nY2xlcmsuZGV2JA",
		"a path":         "pk_live_YS5iL2Mk",       // a.b/c
		"credentials":    "pk_live_dUBhLmIk",       // u@a.b
		"an empty label": "pk_live_YS4uYiQ",        // a..b
		"a port too far": "pk_live_YS5iOjcwMDAwJA", // a.b:70000
	} {
		if got, err := ParsePublishableKey(key); err == nil {
			t.Errorf("%s: %+v", name, got)
		} else if key != "" && strings.Contains(err.Error(), key) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
}

func TestStaticKeyIsReadOnly(t *testing.T) {
	t.Parallel()
	k := StaticKey(&keyA().PublicKey)
	ctx := t.Context()
	if _, err := k.KeyDelete(ctx, ""); err == nil {
		t.Error("deleted")
	}
	if k.KeyWrite(ctx, testJWK(t, "x", &keyB().PublicKey)) == nil || k.KeyReplaceAll(ctx, nil) == nil || k.Refresh(ctx) {
		t.Error("changed")
	}
	all, err := k.KeyReadAll(ctx)
	if err != nil || len(all) != 1 || k.Generation() != k.Generation() { //nolint:staticcheck // it must stay the same
		t.Errorf("%d keys, %v", len(all), err)
	}
	jwk, err := k.KeyRead(ctx, "any")
	if pub, ok := jwk.Key().(*rsa.PublicKey); err != nil || !ok || !pub.Equal(&keyA().PublicKey) {
		t.Errorf("%v, %v", jwk, err)
	}
}
