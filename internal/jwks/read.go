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
	errCrowd  = errors.New("too many requests wait for the issuer already")
)

// MaxKID bounds a key id in bytes. Clerk's have 31; a longer one is in no set and is not worth a fetch.
const MaxKID = 256

// KeyRead returns the key with the given id. While nothing is loaded, and for an unknown id, it waits for a fetch
// that all callers share, but never longer than Options.MaxWait or ctx, and not at all if very many wait already. The
// error is ErrNoKeys while there is no set that the issuer confirmed (see Confirmed) and when the set is closed, else
// jwkset.ErrKeyNotFound; it also wraps the cause of ctx if that ended the wait.
func (s *Set) KeyRead(ctx context.Context, kid string) (jwkset.JWK, error) {
	if k, ok := s.Peek(kid); ok {
		return k, nil
	}
	if kid == "" || len(kid) > MaxKID {
		return jwkset.JWK{}, fmt.Errorf("%w: a key id has 1 to %d bytes", jwkset.ErrKeyNotFound, MaxKID)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.MaxWait, errWaited)
	defer cancel()
	if err := s.awaitFirst(ctx); err != nil {
		return jwkset.JWK{}, err
	}
	return s.seek(ctx, kid)
}

// enter takes the place of one waiting caller, if there is one left. It is given back with leave.
func (s *Set) enter() bool {
	select {
	case s.waiting <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Set) leave() { <-s.waiting }

// awaitFirst waits until there are keys.
func (s *Set) awaitFirst(ctx context.Context) error {
	if s.snap.Load() != nil {
		return nil
	}
	if !s.enter() {
		return fmt.Errorf("%w: %w", ErrNoKeys, errCrowd)
	}
	defer s.leave()
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
	proven, err := s.ask(ctx, func() bool { _, ok := s.Peek(kid); return ok })
	// Also if nothing was asked: a fetch may have landed between the look above and then.
	sn := s.snap.Load()
	if k, ok := sn.lookup(kid); ok {
		return k, nil
	}
	if proven {
		s.misses.add(kid, sn.gen, s.o.Now())
		return jwkset.JWK{}, notFound(kid)
	}
	verdict := notFound(kid)
	if !sn.confirmed() || errors.Is(err, errClosed) {
		verdict = fmt.Errorf("%w: kid %q is not among the keys at hand", ErrNoKeys, kid)
	}
	if err != nil {
		return jwkset.JWK{}, fmt.Errorf("%w: %w", verdict, err)
	}
	return jwkset.JWK{}, verdict
}

// ask waits for a fetch, if one can be had. One that is under way may have begun before the issuer published what is asked
// for, so if it does not bring what was sought, one more is waited for, if the cooldown allows. proven says that the present
// keys are younger than the question: only such an answer proves that the issuer does not know a key. The error is the
// reason why the wait ended early, or errClosed if there will be no fetch any more.
func (s *Set) ask(ctx context.Context, found func() bool) (proven bool, err error) {
	if !s.enter() {
		return false, errCrowd
	}
	defer s.leave()
	f, fresh := s.join()
	if f != nil {
		err = s.wait(ctx, f)
	}
	if f != nil && !fresh && err == nil && f.ok && !found() {
		if f, fresh = s.join(); f != nil {
			err = s.wait(ctx, f)
		}
	}
	if f != nil && err == nil && f.ok {
		return fresh, nil
	}
	if s.isClosed() {
		return false, errClosed
	}
	return false, err
}

func notFound(kid string) error {
	return fmt.Errorf("%w: kid %q", jwkset.ErrKeyNotFound, kid)
}

// Refresh asks for a fetch because a signature did not match a key that the set has: the issuer may have put new
// material under an old id. It shares the fetch and the cooldown with KeyRead, waits at most Options.MaxWait or as
// long as ctx lasts, declines if very many wait already, and reports whether the keys changed during the call. A change just before the call is not
// reported; a caller that looked its key up earlier compares Generation instead.
func (s *Set) Refresh(ctx context.Context) (changed bool) {
	gen := s.Generation()
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.MaxWait, errWaited)
	defer cancel()
	_, _ = s.ask(ctx, func() bool { return s.Generation() != gen }) // the generation tells, whatever ended the wait
	return s.Generation() != gen
}
