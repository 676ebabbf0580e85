package clerk

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

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
	c.known, ok = v.cache.get(c.key, &v.rules, v.now())
	v.cache.lookups.Count(ok)
	if ok {
		return c
	}
	var err error
	if c.parsed, err = parse(raw); err != nil {
		c.fault = failMalformed.because(err)
	}
	return c
}

// unverified returns the claimNames of the token whether or not it is genuine; nil if it cannot be read.
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

// judge decides whether the token is that of a session. Of a session that is pending it tells whose, next to the failure.
func (v *Verifier) judge(ctx context.Context, c candidate) (*Identity, *failure) {
	switch {
	case c.known != nil:
		return c.known.identity, nil
	case c.fault != nil:
		return nil, c.fault
	case c.parsed.otherKind():
		return nil, failType
	}
	t, f := v.verifyToken(ctx, c)
	if f != nil {
		return nil, f
	}
	return t.identity, t.fault
}

// verified is what a right signature vouches for.
type verified struct {
	claims   claims
	identity *Identity
	fault    *failure // why it is not that of a session; then there is no identity but that of a pending one
}

// verifyToken is the SDK's function of that name: the category of machine tokens, the key, the header, the
// signature, and only then the claims. All that it waits for, it waits for here, on the caller's goroutine and
// for as long as the caller does.
func (v *Verifier) verifyToken(ctx context.Context, c candidate) (*verified, *failure) {
	if c.parsed.header["cat"] == categoryM2M {
		return nil, failHeader
	}
	i := v.choose(c.parsed.claims)
	return withKey(ctx, i, c.parsed, func(s signer) (*verified, *failure) { return v.share(c, i, s) })
}

// withKey calls use with the key that must have signed the token, and again with a new one if the signature is
// wrong and the keys have changed.
func withKey[T any](ctx context.Context, i *issuer, p *parsed, use func(signer) (T, *failure)) (T, *failure) {
	var none T
	for again := false; ; again = true {
		s, f := i.signer(ctx, p)
		if f != nil {
			return none, f
		}
		t, f := use(s)
		if f == nil || f.reason != reasonSignature || again {
			return t, i.doubt(f)
		}
		// Clerk's kid is the name of the instance, so new keys can come under the old kid.
		changed := i.keys.Refresh(ctx)
		// In this order, or keys that are confirmed and replaced in between would pass for those that were used.
		f = i.doubt(f)
		if changed || i.keys.Generation() != s.generation {
			continue
		}
		if ctx.Err() != nil {
			return none, interrupted(ctx)
		}
		return none, f
	}
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

// signer is the key that must have signed a token.
type signer struct {
	key        *rsaKey
	alg        string
	generation uint64 // of the key set, from before it was asked
}

// share verifies the token once for all who ask at the same time. It waits for nothing but the processor, so
// nobody's context plays a part. Those who were given keys of another generation are not among them.
func (v *Verifier) share(c candidate, i *issuer, s signer) (*verified, *failure) {
	key := string(binary.LittleEndian.AppendUint64(c.key[:], s.generation))
	value, err, _ := v.flight.Do(key, func() (any, error) { return v.verify(c, i, s) })
	t, ok := value.(*verified)
	if err != nil || !ok {
		return nil, asFailure(err)
	}
	return t, nil
}

// verify verifies the token, holds it against what a session must be, and remembers it.
func (v *Verifier) verify(c candidate, i *issuer, s signer) (t *verified, err error) {
	// The flight would hand a panic on to all who wait for it.
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	if e, ok := v.cache.get(c.key, &v.rules, v.now()); ok { // verified since the look-up
		return &verified{claims: e.identity.Claims, identity: e.identity}, nil
	}
	signed, f := c.parsed.open(s)
	if f == nil {
		f = v.rules.check(signed, i.url, v.now())
	}
	if f != nil {
		return nil, f
	}
	t = &verified{claims: signed}
	if t.fault = v.checkSession(c.parsed, signed); t.fault != nil {
		if t.fault == failPend {
			t.identity = newIdentity(signed)
		}
		return t, nil
	}
	t.identity = newIdentity(signed)
	exp := t.identity.ExpiresAt.Unix()
	v.cache.put(c.key, &entry{
		identity:   t.identity,
		exp:        exp,
		keys:       i.keys,
		generation: s.generation,
		life:       max(time.Unix(exp, 0).Add(v.rules.skew).Sub(v.now()), time.Nanosecond),
	})
	return t, nil
}
