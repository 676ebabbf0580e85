package clerk

import (
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// categoryTemplate is what the tokens of JWT templates say that they are for.
const categoryTemplate = "cl_B7d4PD222AAA"

// Template verifies the token that the request shows if it is one from a JWT template with a signing key of its own, which
// Clerk signs by HS256. The claims are nil if the request shows no such token: then Authenticate decides about it. They
// are held against the rules for sessions: sub, azp, iss, dates and lifetime. The identity knows the user, and nothing of an
// organization or of other claims: what a template calls by the name of a session's claim is its author's choice, and may be
// something that users set themselves. The error is always an [*Error].
//
// The key is never one of the issuer's, and the issuer's are never tried here: a token's header chooses between the two
// ways of verification once, and neither falls back on the other.
func (v *Verifier) Template(r *http.Request, key []byte) (id *Identity, claims map[string]any, err error) {
	token := v.shown(r)
	if token == "" || len(token) > v.maxToken {
		return nil, nil, nil
	}
	p, err := parse(token)
	if err != nil || p.alg() != jwt.SigningMethodHS256.Alg() {
		return nil, nil, nil //nolint:nilerr // Authenticate says what is wrong with it
	}
	c, f := v.openTemplate(p, key)
	if f != nil {
		v.report(f)
		return nil, nil, f.refusal(f.reason)
	}
	v.observe("")
	whole := newIdentity(c)
	return &Identity{
		UserID: whole.UserID, Issuer: whole.Issuer, AuthorizedParty: whole.AuthorizedParty,
		IssuedAt: whole.IssuedAt, ExpiresAt: whole.ExpiresAt,
	}, c, nil
}

// openTemplate verifies the signature and then the claims.
func (v *Verifier) openTemplate(p *parsed, key []byte) (claims, *failure) {
	if jwt.SigningMethodHS256.Verify(p.input, p.signature, key) != nil {
		return nil, failSignature
	}
	header, c, f := p.decode()
	if f != nil {
		return nil, f
	}
	if f := typeFault(header); f != nil {
		return nil, f
	}
	if f := extensionFault(header); f != nil {
		return nil, f
	}
	if cat, ok := header["cat"]; ok && cat != categoryTemplate && cat != categoryIgnored {
		return nil, failType
	}
	if sub, _ := c.text("sub"); strings.HasPrefix(sub, "mch_") {
		return nil, failType
	}
	if f := v.checkState(c); f != nil {
		return nil, f
	}
	return c, v.rules.check(c, v.choose(c).url, v.now())
}

// shown returns the token that Authenticate would judge, if it was sent by itself and not in cookies. It is "" if there
// is none, or if it is not clear which one it is.
func (v *Verifier) shown(r *http.Request) string {
	if v.header {
		if token, f := headerToken(r.Header); f != nil || token != "" {
			return token
		}
	}
	for _, s := range v.others {
		switch s.Kind {
		case SourceQuery:
			if token, f := queryToken(r.URL.RawQuery, s.Name); f != nil || token != "" {
				return token
			}
		case SourceCookie:
			if s := v.readSession(v.cookies(&visit{Request: r})); s.token != "" || s.clientUAT != 0 {
				return ""
			}
		case SourceHeader: // came first
		}
	}
	return ""
}
