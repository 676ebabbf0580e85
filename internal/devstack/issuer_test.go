package devstack

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func newTestIssuer(t *testing.T, o IssuerOptions) *Issuer {
	t.Helper()
	if o.Now == nil {
		o.Now = newClock().Now
	}
	if o.URL == "" {
		o.URL = "http://127.0.0.1:4000"
	}
	i, err := NewIssuer(o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// fetchKey reads the served key set as RFC 7517 and 7518 say.
func fetchKey(t *testing.T, i *Issuer) (string, *rsa.PublicKey) {
	t.Helper()
	w := do(i, http.MethodGet, "/.well-known/jwks.json", "")
	if w.Code != http.StatusOK {
		t.Fatalf("status %d", w.Code)
	}
	var doc struct {
		Keys []struct{ Kty, Use, Alg, Kid, N, E string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || len(doc.Keys) != 1 {
		t.Fatalf("key set %s: %v", w.Body, err)
	}
	k := doc.Keys[0]
	if k.Kty != "RSA" || k.Use != "sig" || k.Alg != "RS256" || !strings.HasPrefix(k.Kid, "ins_2") {
		t.Errorf("key %+v", k)
	}
	n, err1 := base64.RawURLEncoding.DecodeString(k.N)
	e, err2 := base64.RawURLEncoding.DecodeString(k.E)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return k.Kid, &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
}

func parse(token string, key any, at time.Time) (*jwt.Token, jwt.MapClaims, error) {
	claims := jwt.MapClaims{}
	t, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(func() time.Time { return at }))
	return t, claims, err
}

func mustToken(t *testing.T, i *Issuer, user string, opts ...TokenOption) string {
	t.Helper()
	token, err := i.Token(user, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenV2(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{AppOrigin: "http://localhost:8080"})
	kid, pub := fetchKey(t, i)
	tok, claims, err := parse(mustToken(t, i, "ada"), pub, start)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Header["kid"] != kid || tok.Header["typ"] != "JWT" || tok.Header["cat"] != "cl_B7d4PD111AAA" {
		t.Errorf("header %v", tok.Header)
	}
	iat := float64(start.Unix())
	want := map[string]any{
		"iss": "http://127.0.0.1:4000", "azp": "http://localhost:8080", "sub": adaID, "v": 2.0, "sts": "active",
		"iat": iat, "nbf": iat - 10, "exp": iat + 60, "pla": "o:pro",
		"fea": "o:dashboard,o:reports,o:teams,u:profile", "team_id": TeamSales,
	}
	for name, v := range want {
		if claims[name] != v {
			t.Errorf("%s = %v, want %v", name, claims[name], v)
		}
	}
	got, err := json.Marshal(claims["o"])
	if err != nil {
		t.Fatal(err)
	}
	// dashboard none; reports manage and read; teams manage.
	if w := `{"fpm":"0,3,1","id":"` + AcmeID + `","per":"manage,read","rol":"admin","slg":"acme"}`; string(got) != w {
		t.Errorf("o = %s, want %s", got, w)
	}
}

func TestTokenV1(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{})
	_, pub := fetchKey(t, i)
	_, claims, err := parse(mustToken(t, i, "ben", V1()), pub, start)
	if err != nil {
		t.Fatal(err)
	}
	if claims["org_id"] != AcmeID || claims["org_slug"] != "acme" || claims["org_role"] != "org:member" {
		t.Errorf("claims %v", claims)
	}
	for _, name := range []string{"o", "v", "azp", "pla", "fea"} {
		if _, ok := claims[name]; ok {
			t.Errorf("%s is in a v1 token", name)
		}
	}
}

func TestTokenOptions(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{AppOrigin: "http://localhost:8080"})
	_, pub := fetchKey(t, i)
	tests := []struct {
		name    string
		opts    []TokenOption
		wantErr error
		claim   string
		want    any // nil: absent
		header  string
		wantHdr any
	}{
		{name: "expired", opts: []TokenOption{Expired()}, wantErr: jwt.ErrTokenExpired},
		{name: "future", opts: []TokenOption{IssuedAt(start.Add(time.Hour))}, wantErr: jwt.ErrTokenNotValidYet},
		{name: "foreign key", opts: []TokenOption{ForeignKey()}, wantErr: jwt.ErrTokenSignatureInvalid},
		{name: "none", opts: []TokenOption{AlgNone()}, wantErr: jwt.ErrTokenSignatureInvalid},
		{name: "HS256", opts: []TokenOption{AlgHS256()}, wantErr: jwt.ErrTokenSignatureInvalid},
		{name: "other azp", opts: []TokenOption{AZP("http://evil.test")}, claim: "azp", want: "http://evil.test"},
		{name: "no azp", opts: []TokenOption{NoAZP()}, claim: "azp"},
		{name: "no organization", opts: []TokenOption{NoOrganization()}, claim: "o"},
		{name: "pending", opts: []TokenOption{Pending()}, claim: "sts", want: "pending"},
		{name: "impersonated", opts: []TokenOption{Impersonated("user_2x"), NoClaim("sid")}, claim: "sid"},
		{name: "custom", opts: []TokenOption{Claim("tier", "gold")}, claim: "tier", want: "gold"},
		{name: "template", opts: []TokenOption{Template()}, claim: "sid", header: "cat", wantHdr: "cl_B7d4PD222AAA"},
		{name: "m2m", opts: []TokenOption{M2M()}, claim: "sub", want: "mch_2machine", header: "cat", wantHdr: "cl_B7d4PD333AAA"},
		{name: "oauth", opts: []TokenOption{OAuth()}, claim: "sid", header: "typ", wantHdr: "at+jwt"},
		{name: "kid", opts: []TokenOption{KID("ins_other")}, header: "kid", wantHdr: "ins_other", claim: "nothing"},
		{name: "no cat", opts: []TokenOption{Header("cat", nil)}, header: "cat", claim: "nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tok, claims, err := parse(mustToken(t, i, "ada", tt.opts...), pub, start)
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("error %v, want %v", err, tt.wantErr)
			}
			if tt.wantErr == nil && claims[tt.claim] != tt.want {
				t.Errorf("%s = %v, want %v", tt.claim, claims[tt.claim], tt.want)
			}
			if tt.header != "" && tok.Header[tt.header] != tt.wantHdr {
				t.Errorf("%s = %v, want %v", tt.header, tok.Header[tt.header], tt.wantHdr)
			}
		})
	}
}

func TestTokenOfNobody(t *testing.T) {
	t.Parallel()
	if _, err := newTestIssuer(t, IssuerOptions{}).Token("mallory"); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("error %v", err)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{})
	kid, pub := fetchKey(t, i)
	old := mustToken(t, i, "ada")
	if err := i.Rotate(true); err != nil {
		t.Fatal(err)
	}
	kid2, pub2 := fetchKey(t, i)
	if kid2 != kid || pub2.Equal(pub) {
		t.Error("the kid should stay and the key should not")
	}
	if _, _, err := parse(old, pub2, start); !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		t.Errorf("old token with the new key: %v", err)
	}
	if err := i.Rotate(false); err != nil {
		t.Fatal(err)
	}
	if kid3, _ := fetchKey(t, i); kid3 == kid {
		t.Error("the kid should have changed")
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	i := newTestIssuer(t, IssuerOptions{})
	i.SetDown(true)
	if w := do(i, http.MethodGet, "/.well-known/jwks.json", ""); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "keys") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	i.SetDown(false)
	fetchKey(t, i)
	i.Fail(func(*http.Request) *Fault { return &Fault{Status: http.StatusOK, Body: []byte("<html>")} })
	if w := do(i, http.MethodGet, "/.well-known/jwks.json", ""); w.Body.String() != "<html>" {
		t.Errorf("body %s", w.Body)
	}
	if n := i.Fetches(); n != 3 {
		t.Errorf("%d fetches, want 3", n)
	}
}

func TestPublishableKey(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{false, true} {
		i := newTestIssuer(t, IssuerOptions{URL: "https://clerk.clerk.dev/", Live: live})
		want := map[bool]string{false: "pk_test_Y2xlcmsuY2xlcmsuZGV2JA", true: "pk_live_Y2xlcmsuY2xlcmsuZGV2JA"}[live]
		if got := i.PublishableKey(); got != want {
			t.Errorf("key %s, want %s", got, want)
		}
		// As Clerk's SDK computes them.
		if got, w := i.CookieSuffix(), map[bool]string{false: "QvfNY2dr", true: "1Z8AzTQD"}[live]; got != w {
			t.Errorf("suffix %s, want %s", got, w)
		}
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{false, true} {
		i := newTestIssuer(t, IssuerOptions{URL: "https://clerk.clerk.dev", Live: live})
		cs, err := i.Cookies("ada", Expired())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		value := map[string]string{}
		for _, c := range cs {
			names = append(names, c.Name)
			value[c.Name] = c.Value
		}
		suffix := "_" + i.CookieSuffix()
		want := []string{"__session", "__session" + suffix, "__client_uat", "__client_uat" + suffix}
		if !live {
			want = append(want, "__clerk_db_jwt", "__clerk_db_jwt"+suffix)
		}
		if !slices.Equal(names, want) {
			t.Errorf("cookies %v, want %v", names, want)
		}
		if value["__session"] != value["__session"+suffix] || value["__session"] == "" {
			t.Error("both session cookies should hold the token")
		}
		// Not after the token's iat: else the token is one from before the sign-in.
		if uat, err := strconv.ParseInt(value["__client_uat"], 10, 64); err != nil || uat > start.Add(-time.Hour).Unix() {
			t.Errorf("client_uat %v, %v", uat, err)
		}
	}
}

func TestUsersKeepTeamIDsAcrossOrganizations(t *testing.T) {
	t.Parallel()
	ben, _ := UserByKey("ben")
	cleo, _ := UserByKey("cleo")
	if ben.TeamID != cleo.TeamID || ben.Organization.ID == cleo.Organization.ID {
		t.Error("a team filter alone must not tell the organizations apart")
	}
}
