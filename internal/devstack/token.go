package devstack

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// SessionLifetime is how long a session token lives unless an Issuer is told otherwise: Clerk's 60 seconds.
const SessionLifetime = 60 * time.Second

// The values of the header parameter "cat", which tells what a token that the instance's key signed is for.
const (
	categorySession  = "cl_B7d4PD111AAA"
	categoryTemplate = "cl_B7d4PD222AAA"
	categoryM2M      = "cl_B7d4PD333AAA"
)

// ErrUnknownUser says that no user has the key.
var ErrUnknownUser = errors.New("no such user")

type tokenSpec struct {
	v1, noOrg, noAZP bool
	azp              string
	issued           time.Time
	lifetime         time.Duration
	method           string // "": RS256 with the instance's key
	foreign          bool
	kid              string
	edits            []func(header, claims map[string]any)
}

// TokenOption changes a token from what the issuer would sign, for tests.
type TokenOption func(*tokenSpec)

// V1 makes a token of the first claims version: org_id, org_slug, org_role and org_permissions.
func V1() TokenOption { return func(s *tokenSpec) { s.v1 = true } }

// IssuedAt dates a token: iat is t, nbf 10 s before it, exp a lifetime after it.
func IssuedAt(t time.Time) TokenOption { return func(s *tokenSpec) { s.issued = t } }

// Lifetime sets exp to d after iat.
func Lifetime(d time.Duration) TokenOption { return func(s *tokenSpec) { s.lifetime = d } }

// Expired makes a token whose minute ended an hour ago.
func Expired() TokenOption {
	return func(s *tokenSpec) { s.issued = s.issued.Add(-time.Hour - SessionLifetime) }
}

// AZP sets the authorized party.
func AZP(origin string) TokenOption {
	return func(s *tokenSpec) { s.azp, s.noAZP = origin, false }
}

// NoAZP leaves azp out, as Clerk does for a request without an Origin.
func NoAZP() TokenOption { return func(s *tokenSpec) { s.noAZP = true } }

// NoOrganization makes a token of a user with no active organization.
func NoOrganization() TokenOption { return func(s *tokenSpec) { s.noOrg = true } }

// Claim sets a claim, at the end, over anything else.
func Claim(name string, value any) TokenOption {
	return edit(func(_, claims map[string]any) { claims[name] = value })
}

// NoClaim removes a claim, at the end.
func NoClaim(name string) TokenOption {
	return edit(func(_, claims map[string]any) { delete(claims, name) })
}

// Header sets a header parameter, at the end; nil removes it. "alg" changes what is written, not how it is signed.
func Header(name string, value any) TokenOption {
	return edit(func(header, _ map[string]any) {
		if value == nil {
			delete(header, name)
			return
		}
		header[name] = value
	})
}

// Pending makes the token of a session with an unfinished task, such as a forced second factor.
func Pending() TokenOption { return Claim("sts", "pending") }

// Impersonated makes the token of a session that actorID, a user id, opened in the user's place.
func Impersonated(actorID string) TokenOption {
	return Claim("act", map[string]any{
		"iss": "https://dashboard.clerk.com", "sid": "sess_2actor", "sub": actorID,
	})
}

// Template makes a token of a JWT template: the same key, another category, no claims of the session.
func Template() TokenOption {
	return edit(func(header, claims map[string]any) {
		header["cat"] = categoryTemplate
		for _, name := range []string{"sid", "v", "pla", "fea", "o", "sts", "fva"} {
			delete(claims, name)
		}
	})
}

// M2M makes a machine's token: the same key, another category and another kind of subject.
func M2M() TokenOption {
	return edit(func(header, claims map[string]any) {
		header["cat"] = categoryM2M
		for _, name := range []string{"sid", "azp", "v", "pla", "fea", "o", "sts", "fva"} {
			delete(claims, name)
		}
		claims["sub"], claims["jti"], claims["scopes"] = "mch_2machine", "mt_2token", "mch_2other"
	})
}

// OAuth makes an OAuth access token: the same key, told apart by typ.
func OAuth() TokenOption {
	return edit(func(header, claims map[string]any) {
		header["typ"] = "at+jwt"
		delete(header, "cat")
		delete(claims, "sid")
		claims["client_id"], claims["scope"] = "client_2demo", "profile email"
	})
}

// ForeignKey signs with a key that is not in the key set, under the kid of the one that is.
func ForeignKey() TokenOption { return func(s *tokenSpec) { s.foreign = true } }

// KID sets the kid; the key stays.
func KID(kid string) TokenOption { return func(s *tokenSpec) { s.kid = kid } }

// AlgNone makes an unsigned token that says so.
func AlgNone() TokenOption {
	return func(s *tokenSpec) { s.method = jwt.SigningMethodNone.Alg() }
}

// AlgHS256 signs with the text of the public key as a shared secret, hoping that the verifier takes the token's
// word for the algorithm.
func AlgHS256() TokenOption {
	return func(s *tokenSpec) { s.method = jwt.SigningMethodHS256.Alg() }
}

func edit(f func(header, claims map[string]any)) TokenOption {
	return func(s *tokenSpec) { s.edits = append(s.edits, f) }
}

// Token signs a session token for the user that userKey names, issued now.
func (i *Issuer) Token(userKey string, opts ...TokenOption) (string, error) {
	u, ok := UserByKey(userKey)
	if !ok {
		return "", fmt.Errorf("%w: %q", ErrUnknownUser, userKey)
	}
	return i.tokenFor(u, opts...)
}

// tokenFor signs a token for a session of u: the one that u names, with the organization that u has.
func (i *Issuer) tokenFor(u User, opts ...TokenOption) (string, error) {
	i.mu.Lock()
	iss, key, kid, app, lifetime := i.url, i.key, i.kid, i.app, i.lifetime
	i.mu.Unlock()

	s := tokenSpec{azp: app, issued: i.now(), lifetime: lifetime, kid: kid}
	for _, o := range opts {
		o(&s)
	}
	claims := s.claims(u, iss)
	header := map[string]any{"alg": "RS256", "typ": "JWT", "kid": s.kid, "cat": categorySession}
	for _, f := range s.edits {
		f(header, claims)
	}
	if s.foreign {
		var err error
		if key, err = i.foreign(); err != nil {
			return "", err
		}
	}
	return sign(s.method, key, header, claims)
}

func sign(method string, key *rsa.PrivateKey, header, claims map[string]any) (string, error) {
	var (
		m      jwt.SigningMethod = jwt.SigningMethodRS256
		secret any               = key
	)
	switch method {
	case jwt.SigningMethodNone.Alg():
		m, secret = jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType
		header["alg"] = method
	case jwt.SigningMethodHS256.Alg():
		text, err := publicPEM(&key.PublicKey)
		if err != nil {
			return "", err
		}
		m, secret = jwt.SigningMethodHS256, []byte(text)
		header["alg"] = method
	}
	t := jwt.NewWithClaims(m, jwt.MapClaims(claims))
	t.Header = header
	signed, err := t.SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("sign a session token: %w", err)
	}
	return signed, nil
}

// claims builds the claims of Clerk's document "Session tokens", version 2 unless asked for 1. team_id and teams
// are custom claims, as "Customize session token" would add them.
func (s *tokenSpec) claims(u User, iss string) map[string]any {
	iat := s.issued.Unix()
	c := map[string]any{
		"iss": iss,
		"sub": u.ID,
		"sid": u.SessionID,
		"iat": iat,
		"nbf": iat - 10,
		"exp": s.issued.Add(s.lifetime).Unix(),
		"jti": rand.Text(),
		"fva": []int{0, -1},
	}
	if s.azp != "" && !s.noAZP {
		c["azp"] = s.azp
	}
	if u.TeamID != "" {
		c["team_id"] = u.TeamID
		c["teams"] = u.Teams
	}
	org := u.Organization
	if s.noOrg {
		org = nil
	}
	if s.v1 {
		claimsV1(c, org)
	} else {
		claimsV2(c, u, org)
	}
	return c
}
