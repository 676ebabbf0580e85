package jwks

import (
	"context"
	"crypto/rsa"
	"math/rand/v2"
	"time"

	"github.com/MicahParks/jwkset"
)

// How soon a failed fetch is tried again. Until the issuer has answered once, every second counts. Afterwards there
// are keys to work with, and a request with an unknown one asks for a fetch by itself.
const (
	firstLoadRetry    = 250 * time.Millisecond
	firstLoadRetryMax = 10 * time.Second
	refreshRetry      = 10 * time.Second
)

// run is the background goroutine.
func (s *Set) run(ctx context.Context) {
	defer close(s.done)
	s.restore(ctx)
	answered, unsaved := false, false
	for ctx.Err() == nil {
		s.takeOff()
		r := s.fetch(ctx)
		if ctx.Err() != nil {
			s.abort()
			return
		}
		changed := s.adopt(r)
		first := r.err == nil && !answered
		answered = answered || r.err == nil
		next := s.delay(r.err, answered)
		s.land(r, next)
		s.o.Observe(s.event(r, changed, next))
		if changed || first {
			unsaved = true
		}
		if unsaved {
			unsaved = !s.save(ctx, next)
		}
		s.pause(ctx, next)
	}
}

// pause waits until the next fetch is due or asked for.
func (s *Set) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.wake:
	case <-ctx.Done():
	}
}

// delay is the time until the next scheduled fetch, given the error of the one that just ended.
func (s *Set) delay(err error, answered bool) time.Duration {
	if err == nil {
		return jitter(s.o.Refresh)
	}
	s.mu.Lock()
	before := s.state.failures
	s.mu.Unlock()
	first, most := firstLoadRetry, min(firstLoadRetryMax, s.o.Refresh)
	if answered {
		first, most = refreshRetry, s.o.Refresh
	}
	return min(jitter(first<<min(before, 20)), most)
}

// jitter spreads the fetches of many edges that were started together by +-10 %.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) //nolint:gosec // spreading load needs no unpredictability
}

// result is what came of one attempt to load a document.
type result struct {
	keys    []jwkset.JWK
	skipped int
	source  string
	fetched time.Time
	err     error
}

func (s *Set) event(r result, changed bool, next time.Duration) Event {
	return Event{
		Err: r.err, Source: r.source, Keys: len(r.keys), Skipped: r.skipped, Changed: changed, Next: next, URL: s.url,
	}
}

// adopt publishes a set that was loaded. Whatever is wrong with a new document, the old keys stay.
func (s *Set) adopt(r result) (changed bool) {
	if r.err != nil || len(r.keys) == 0 {
		return false
	}
	old := s.snap.Load()
	sn := &snapshot{
		list:    r.keys,
		byKID:   make(map[string]jwkset.JWK, len(r.keys)),
		skipped: r.skipped,
		source:  r.source,
		fetched: r.fetched,
	}
	for _, k := range r.keys {
		sn.byKID[k.Marshal().KID] = k
	}
	changed = !sn.sameKeys(old)
	if old != nil {
		sn.gen = old.gen
	}
	if changed {
		sn.gen++
	}
	s.snap.Store(sn)
	if old == nil {
		close(s.ready)
	}
	return changed
}

// sameKeys compares key ids and material. The material alone decides what a signature is worth; use and alg are
// the same for all keys that ParseSet lets through.
func (sn *snapshot) sameKeys(o *snapshot) bool {
	if o == nil || len(sn.byKID) != len(o.byKID) {
		return false
	}
	for kid, k := range sn.byKID {
		other, ok := o.byKID[kid]
		if !ok {
			return false
		}
		a, aok := k.Key().(*rsa.PublicKey)
		b, bok := other.Key().(*rsa.PublicKey)
		if !aok || !bok || !a.Equal(b) {
			return false
		}
	}
	return true
}
