package clerk

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// rules are what the claims of a token are held against.
type rules struct {
	azp         string
	parties     []string
	audiences   []string
	skew        time.Duration
	maxLifetime time.Duration
}

// check looks at the claims of a token whose signature is right, in the SDK's order: sub, aud, azp, iss, exp,
// nbf, iat; last the lifetime, which the SDK does not limit.
func (r *rules) check(c claims, issuer string, now time.Time) *failure {
	// The SDK lets an empty sub pass; nobody has that name.
	if sub, _ := c.text("sub"); sub == "" {
		return failSubject
	}
	if !r.audience(c["aud"]) {
		return failAudience
	}
	if !r.party(c["azp"]) {
		return failParty.because(fmt.Errorf("%w; accepted: %s", found(c, "azp"), r.accepted()))
	}
	if iss, _ := c.text("iss"); iss != issuer {
		return failIssuer.because(found(c, "iss"))
	}
	return r.dates(c, now)
}

// found says what a claim is that should be something else, which only a config can mend.
func found(c claims, claim string) error {
	switch value := c[claim].(type) {
	case nil:
		return fmt.Errorf("the token has no %s", claim)
	case string:
		return fmt.Errorf("the token's %s is %.200q", claim, value)
	default:
		return fmt.Errorf("the token's %s is no text", claim)
	}
}

// audience reports whether aud names one of the audiences. Unlike the SDK it does not let a token pass that
// has no aud, or one that is neither a string nor a list.
func (r *rules) audience(aud any) bool {
	if len(r.audiences) == 0 {
		return true
	}
	switch aud := aud.(type) {
	case string:
		return slices.Contains(r.audiences, aud)
	case []any:
		return slices.ContainsFunc(aud, func(one any) bool {
			s, ok := one.(string)
			return ok && slices.Contains(r.audiences, s)
		})
	default:
		return false
	}
}

// party reports whether azp is one of the authorized parties. Some of Clerk's tokens have no azp: those that
// were minted for a request without Origin.
func (r *rules) party(azp any) bool {
	switch {
	case r.azp == azpOff:
		return true
	case azp == nil:
		return r.azp == azpIfPresent
	default:
		s, ok := azp.(string)
		return ok && slices.Contains(r.parties, s)
	}
}

// accepted names the authorized parties, of which there can be very many.
func (r *rules) accepted() string {
	const named = 5
	list := strings.Join(r.parties[:min(len(r.parties), named)], ", ")
	if more := len(r.parties) - named; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

func (r *rules) dates(c claims, now time.Time) *failure {
	exp, ok, f := c.seconds("exp")
	if f != nil {
		return f
	}
	if !ok {
		return failDates
	}
	if r.expired(exp, now) {
		return failExpired
	}
	nbf, ok, f := c.seconds("nbf")
	if f != nil {
		return f
	}
	if ok && time.Unix(nbf, 0).After(now.Add(r.skew)) {
		return failNotBefore
	}
	iat, ok, f := c.seconds("iat")
	if f != nil {
		return f
	}
	minted := now
	if ok {
		minted = time.Unix(iat, 0)
		if minted.After(now.Add(r.skew)) {
			return failIssuedAt
		}
	}
	if time.Unix(exp, 0).Sub(minted) > r.maxLifetime {
		return failLifetime
	}
	return nil
}

// expired has the SDK's bound: a token dies in the second exp + skew.
func (r *rules) expired(exp int64, now time.Time) bool {
	return !time.Unix(exp, 0).After(now.Add(-r.skew))
}

// checkSession holds the claims of a verified token against what only a session has.
func (v *Verifier) checkSession(p *parsed, c claims) *failure {
	// A token from a JWT template has no sid. It outlives the session it was minted in.
	if sid, _ := c.text("sid"); sid == "" && (!v.templates || !p.uncategorized()) {
		return failType
	}
	return v.checkState(c)
}

// checkState refuses a user who has not finished signing in, and one who is somebody else.
func (v *Verifier) checkState(c claims) *failure {
	switch c["sts"] {
	case nil, "active":
	case "pending":
		// An unfinished task: to accept it would skip an enforced second factor or password reset.
		return failPend
	default:
		return failStatus
	}
	if c["act"] != nil && !v.impersonation {
		return failActor
	}
	return nil
}

// issuerHost is an issuer without its scheme.
func issuerHost(iss string) string {
	for _, scheme := range []string{"https://", "http://"} {
		if len(iss) >= len(scheme) && strings.EqualFold(iss[:len(scheme)], scheme) {
			return iss[len(scheme):]
		}
	}
	return iss
}
