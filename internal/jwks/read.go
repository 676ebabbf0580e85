package jwks

import (
	"context"
	"errors"
	"fmt"

	"github.com/MicahParks/jwkset"
)

var (
	errClosed = errors.New("the key set is closed")
	errWaited = errors.New("the issuer took too long to answer")
)

// maxKID bounds a key id in bytes. Clerk's have 31; a longer one is in no set and is not worth a fetch.
const maxKID = 256

// KeyRead returns the key with the given id. While nothing is loaded, and for an unknown id, it waits for a fetch
// that all callers share, but never longer than Options.MaxWait or ctx. The error is ErrNoKeys if there is no set at
// all, else jwkset.ErrKeyNotFound; it also wraps the cause of ctx if that ended the wait.
func (s *Set) KeyRead(ctx context.Context, kid string) (jwkset.JWK, error) {
	if k, ok := s.Peek(kid); ok {
		return k, nil
	}
	if kid == "" || len(kid) > maxKID {
		return jwkset.JWK{}, fmt.Errorf("%w: a key id has 1 to %d bytes", jwkset.ErrKeyNotFound, maxKID)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.MaxWait, errWaited)
	defer cancel()
	if err := s.awaitFirst(ctx); err != nil {
		return jwkset.JWK{}, err
	}
	return s.seek(ctx, kid)
}

// awaitFirst waits until there are keys.
func (s *Set) awaitFirst(ctx context.Context) error {
	for s.snap.Load() == nil {
		f, ok := s.prospect()
		if !ok {
			return ErrNoKeys
		}
		var landed chan struct{}
		if f != nil {
			landed = f.done
		}
		select {
		case <-s.ready:
		case <-landed: // without keys, or ready would be closed too: is there another chance?
		case <-s.stopped:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoKeys, context.Cause(ctx))
		}
	}
	return nil
}

// seek looks for a key that was not in the set a moment ago, with the help of a fetch if one can be had.
func (s *Set) seek(ctx context.Context, kid string) (jwkset.JWK, error) {
	if k, ok := s.Peek(kid); ok {
		return k, nil
	}
	if s.misses.has(kid, s.Generation(), s.o.Now()) {
		return jwkset.JWK{}, notFound(kid)
	}
	f, fresh := s.join()
	var err error
	if f != nil {
		err = s.wait(ctx, f)
	}
	// Also without a flight: one may have landed between the look above and join.
	sn := s.snap.Load()
	if k, ok := sn.lookup(kid); ok {
		return k, nil
	}
	if err != nil {
		return jwkset.JWK{}, fmt.Errorf("%w: %w", notFound(kid), err)
	}
	// Only an answer that is younger than the question proves that the issuer does not know the key.
	if f != nil && fresh && f.ok {
		s.misses.add(kid, sn.gen, s.o.Now())
	}
	return jwkset.JWK{}, notFound(kid)
}

func notFound(kid string) error {
	return fmt.Errorf("%w: kid %q", jwkset.ErrKeyNotFound, kid)
}

// Refresh asks for a fetch because a signature did not match a key that the set has: the issuer may have put new
// material under an old id. It shares the fetch and the cooldown with KeyRead, waits at most Options.MaxWait or as
// long as ctx lasts, and reports whether the keys changed during the call. A change just before the call is not
// reported; a caller that looked its key up earlier compares Generation instead.
func (s *Set) Refresh(ctx context.Context) (changed bool) {
	gen := s.Generation()
	if f, _ := s.join(); f != nil {
		ctx, cancel := context.WithTimeoutCause(ctx, s.o.MaxWait, errWaited)
		defer cancel()
		_ = s.wait(ctx, f) // the generation tells, whatever ended the wait
	}
	return s.Generation() != gen
}
