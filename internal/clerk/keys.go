package clerk

import (
	"context"
	"crypto/rsa"
	"errors"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

var (
	errUnusableKey = errors.New("not an RSA key of at least 2048 bits")
	errUnconfirmed = errors.New("the signature is wrong by stored keys, and the issuer was not reached yet: it may have new ones")
)

// signer returns the key that the token names, for which it may wait. The SDK looks for the key first, so an
// unknown kid comes before a wrong alg.
func (i *issuer) signer(ctx context.Context, p *parsed) (signer, *failure) {
	fault := headerFault(p.header)
	if i.static != nil {
		if fault == nil && p.alg() != algorithm { // what the key of the dashboard is for
			fault = failKey
		}
		return signer{key: i.prepare(i.static), alg: algorithm, generation: i.keys.Generation()}, fault
	}
	if f := i.ready(ctx, p.kid(), fault); f != nil {
		return signer{}, f
	}
	s := signer{alg: p.alg(), generation: i.keys.Generation()}
	// It compares the algorithm with that of the key, if the key has one.
	key, err := i.lookup.KeyfuncCtx(ctx)(&jwt.Token{Header: map[string]any{jwkset.HeaderKID: p.kid(), "alg": s.alg}})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return s, interrupted(ctx)
	case errors.Is(err, jwkset.ErrKeyNotFound): // replaced meanwhile
		return s, failKid.because(err)
	case errors.Is(err, jwks.ErrNoKeys): // the same, and the set was closed or never reached the issuer
		return s, failNoKeys.because(err)
	default:
		return s, failKey.because(err)
	}
	pub, ok := key.(*rsa.PublicKey)
	if !ok || pub.N.BitLen() < jwks.MinBits {
		return s, failKey.because(errUnusableKey)
	}
	s.key = i.prepare(pub)
	return s, nil
}

// prepare makes the key ready to verify, unless it is the one that was used last. An instance has one key but for moments.
func (i *issuer) prepare(pub *rsa.PublicKey) *rsaKey {
	if k := i.last.Load(); k != nil && k.pub == pub {
		return k
	}
	k := newRSAKey(pub)
	i.last.Store(k)
	return k
}

// ready waits until the key of that name is at hand, or else says why it is not. Only a header that can be that
// of a session token, one without fault, is worth a fetch.
func (i *issuer) ready(ctx context.Context, kid string, fault *failure) *failure {
	if kid == "" {
		return failKid
	}
	if _, ok := i.keys.Peek(kid); ok {
		return fault
	}
	if fault != nil || len(kid) > jwks.MaxKID {
		return failKid
	}
	switch _, err := i.keys.KeyRead(ctx, kid); {
	case err == nil:
		return nil
	case ctx.Err() != nil: // whatever the answer is, it was not waited for
		return interrupted(ctx)
	case errors.Is(err, jwkset.ErrKeyNotFound):
		return failKid.because(err)
	default:
		return failNoKeys.because(err)
	}
}

// doubt takes the blame for a wrong signature off the token while the keys at hand may be outdated: they can
// have been stored before a rotation. Any other failure, and none, stays what it is.
func (i *issuer) doubt(f *failure) *failure {
	if c, ok := i.keys.(confirmer); ok && f != nil && f.reason == reasonSignature && !c.Confirmed() {
		return failNoKeys.because(errUnconfirmed)
	}
	return f
}
