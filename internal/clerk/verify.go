package clerk

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// maxKid is the longest kid that is worth asking the issuer for; Clerk's have 31 characters.
const maxKid = 256

var errUnusableKey = errors.New("not an RSA key of at least 2048 bits")

// candidate is a token that is to be judged: known from an earlier verification, or taken apart.
type candidate struct {
	raw    string
	key    digest
	known  *entry
	parsed *parsed
	fault  *failure // why it could not be taken apart
}

func (v *Verifier) candidate(raw string) candidate {
	c := candidate{raw: raw}
	switch {
	case len(raw) > v.maxToken:
		c.fault = failTooLarge
		return c
	case isOpaque(raw):
		c.fault = failOpaque
		return c
	}
	c.key = digestOf(raw)
	var ok bool
	if c.known, ok = v.cache.get(c.key, &v.rules, v.now()); ok {
		return c
	}
	var err error
	if c.parsed, err = parse(raw); err != nil {
		c.fault = failMalformed.because(err)
	}
	return c
}

// unverified returns the token's claims whether or not it is genuine; nil if it cannot be read.
func (c *candidate) unverified() claims {
	switch {
	case c.known != nil:
		return c.known.identity.Claims
	case c.parsed != nil:
		return c.parsed.claims
	default:
		return nil
	}
}

// judge decides whether the token is that of a session.
func (v *Verifier) judge(ctx context.Context, c candidate) (*Identity, *failure) {
	switch {
	case c.known != nil:
		return c.known.identity, nil
	case c.fault != nil:
		return nil, c.fault
	case c.parsed.otherKind():
		return nil, failType
	default:
		return v.share(ctx, c)
	}
}

// share verifies the token once for all who ask at the same time. No caller's context ends the verification:
// it would end for the others, too. What it waits for is bounded by the key set.
func (v *Verifier) share(ctx context.Context, c candidate) (*Identity, *failure) {
	done := v.flight.DoChan(string(c.key[:]), func() (any, error) {
		return v.verifySession(context.WithoutCancel(ctx), c)
	})
	select {
	case result := <-done:
		id, ok := result.Val.(*Identity)
		if result.Err != nil || !ok {
			return nil, asFailure(result.Err)
		}
		return id, nil
	case <-ctx.Done():
		return nil, failNoKeys.because(ctx.Err())
	}
}

// verifySession verifies the token, holds it against what a session must be, and remembers it.
func (v *Verifier) verifySession(ctx context.Context, c candidate) (id *Identity, err error) {
	// It runs on a goroutine of the flight, where a panic would end the process and not one request.
	defer func() {
		if p := recover(); p != nil {
			id, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	if e, ok := v.cache.get(c.key, &v.rules, v.now()); ok { // verified since the look-up
		return e.identity, nil
	}
	t, f := v.verifyToken(ctx, c)
	if f == nil {
		f = checkSession(t.claims, v.impersonation)
	}
	if f != nil {
		return nil, f
	}
	id = newIdentity(t.claims)
	exp := id.ExpiresAt.Unix()
	v.cache.put(c.key, &entry{
		identity:   id,
		exp:        exp,
		keys:       t.issuer.keys,
		generation: t.generation,
		life:       max(time.Unix(exp, 0).Add(v.rules.skew).Sub(v.now()), time.Nanosecond),
	})
	return id, nil
}

// verified is what a right signature vouches for.
type verified struct {
	claims     claims
	issuer     *issuer
	generation uint64
}

// verifyToken is the SDK's function of that name: the category of machine tokens, the key, the header, the
// signature, and only then the claims.
func (v *Verifier) verifyToken(ctx context.Context, c candidate) (verified, *failure) {
	if c.parsed.header["cat"] == categoryM2M {
		return verified{}, failHeader
	}
	i := v.choose(c.parsed.claims)
	if f := i.ready(ctx, c.parsed); f != nil {
		return verified{}, f
	}
	generation := i.keys.Generation()
	signed, f := v.signature(ctx, i, c.raw)
	if f != nil && f.reason == reasonSignature && i.keys.Refresh(ctx) {
		// Clerk's kid is the name of the instance, so new keys can come under the old kid.
		generation = i.keys.Generation()
		signed, f = v.signature(ctx, i, c.raw)
	}
	if f != nil {
		return verified{}, f
	}
	if f := v.rules.check(signed, i.url, v.now()); f != nil {
		return verified{}, f
	}
	return verified{claims: signed, issuer: i, generation: generation}, nil
}

// choose picks the issuer whose keys must have signed the token. The unverified iss decides nothing else: it
// is compared again once the signature is right.
func (v *Verifier) choose(unverified claims) *issuer {
	iss, _ := unverified.text("iss")
	for _, i := range v.issuers {
		if i.url == iss {
			return i
		}
	}
	return v.issuers[0]
}

// ready reports what is wrong with the token's header, and otherwise waits until the key it names is at hand.
// The SDK looks for the key first, so an unknown kid comes before a wrong alg; but only a header that can be
// that of a session token is worth a fetch.
func (i *issuer) ready(ctx context.Context, p *parsed) *failure {
	fault := p.headerFault()
	if i.static != nil {
		return fault
	}
	kid := p.kid()
	if kid == "" {
		return failKid
	}
	if _, ok := i.keys.Peek(kid); ok {
		return fault
	}
	if fault != nil || len(kid) > maxKid {
		return failKid
	}
	switch _, err := i.keys.KeyRead(ctx, kid); {
	case err == nil:
		return nil
	case errors.Is(err, jwkset.ErrKeyNotFound):
		return failKid.because(err)
	default:
		return failNoKeys.because(err)
	}
}

// signature verifies the token's signature with the issuer's keys and returns what was signed.
func (v *Verifier) signature(ctx context.Context, i *issuer, token string) (claims, *failure) {
	var signed payload
	_, err := v.parser.ParseWithClaims(token, &signed, i.key(ctx))
	switch {
	case err == nil:
		return claims(signed.MapClaims), nil
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, failSignature
	case errors.Is(err, jwkset.ErrKeyNotFound): // replaced meanwhile
		return nil, failKid
	default:
		return nil, failKey.because(err)
	}
}

// key is the function by which golang-jwt asks for the key.
func (i *issuer) key(ctx context.Context) jwt.Keyfunc {
	if i.static != nil {
		return func(*jwt.Token) (any, error) { return i.static, nil }
	}
	lookup := i.lookup.KeyfuncCtx(ctx)
	return func(t *jwt.Token) (any, error) {
		key, err := lookup(t)
		if err != nil {
			return nil, err
		}
		// Also refuses the list of all keys, which keyfunc returns for a token without kid.
		pub, ok := key.(*rsa.PublicKey)
		if !ok || pub.N.BitLen() < minKeyBits {
			return nil, errUnusableKey
		}
		return pub, nil
	}
}
