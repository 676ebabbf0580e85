package jwks

import (
	"context"
	"crypto/rsa"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/MicahParks/jwkset"
)

// How soon a failed fetch is tried again. Until the issuer has answered once, every second counts. Afterwards there
// are keys to work with, and a request with an unknown one asks for a fetch by itself.
const (
	firstLoadRetry    = 250 * time.Millisecond
	firstLoadRetryMax = 10 * time.Second
	refreshRetry      = 10 * time.Second
	refreshRetryMax   = 5 * time.Minute
)

// run is the background goroutine.
func (s *Set) run(ctx context.Context) {
	defer close(s.done)
	s.restore(ctx)
	var plan schedule
	k := keeper{set: s}
	defer k.await()
	for ctx.Err() == nil {
		s.takeOff()
		r := s.fetch(ctx)
		if ctx.Err() != nil {
			s.abort()
			return
		}
		changed := s.adopt(r)
		first := r.err == nil && !plan.answered
		next := plan.after(r.err, s.o.Refresh)
		s.land(r, next)
		s.o.Observe(s.event(r, changed, next))
		if changed || first {
			k.want()
		}
		s.rest(ctx, plan.due, &k)
	}
}

// rest returns when the next fetch is due or asked for. Meanwhile it looks after the store.
func (s *Set) rest(ctx context.Context, due time.Time, k *keeper) {
	t := time.NewTimer(time.Until(due))
	defer t.Stop()
	for {
		k.begin(ctx)
		select {
		case <-t.C:
			return
		case <-s.wake:
			return
		case <-ctx.Done():
			return
		case r := <-k.ended:
			k.end(ctx, r)
		case <-k.retry:
			k.retry = nil
		case <-s.persist:
			if s.snap.Load() != nil {
				k.want()
			}
		}
	}
}

// schedule decides when the next fetch comes that nobody asked for. It goes by the monotonic clock, as timers do.
type schedule struct {
	due      time.Time
	failures int  // of scheduled fetches in a row
	answered bool // the issuer has, at least once
}

// after returns the time until the next scheduled fetch, given the error of the fetch that just ended. One that was
// asked for and failed can bring the next forward, but neither put it off nor count for the backoff: anyone can ask
// for a fetch, and must not be able to have the set look for the issuer's return less often.
func (p *schedule) after(err error, refresh time.Duration) time.Duration {
	next := jitter(refresh)
	if err == nil {
		p.answered, p.failures = true, 0
	} else {
		next = p.retry(refresh, err)
	}
	p.due = time.Now().Add(next)
	return next
}

func (p *schedule) retry(refresh time.Duration, err error) time.Duration {
	first, most := firstLoadRetry, firstLoadRetryMax
	// An issuer that answers with keys of which none can be used will not have others in a second.
	if p.answered || errors.Is(err, errNoneFit) {
		first, most = refreshRetry, refreshRetryMax
	}
	next := min(jitter(first<<min(p.failures, 20)), most, refresh)
	if left := time.Until(p.due); left > 0 {
		return min(next, left)
	}
	p.failures++
	return next
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
	header  http.Header // of the issuer's answer
	err     error
}

func (s *Set) event(r result, changed bool, next time.Duration) Event {
	e := Event{
		Err: r.err, Source: r.source, Keys: len(r.keys), Skipped: r.skipped, Changed: changed, Next: next, URL: s.url,
	}
	if r.err == nil {
		e.SkippedChanged = r.skipped != s.skipped
		s.skipped = r.skipped
	}
	return e
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

// sameKeys compares key ids, material and alg: they decide what a signature is worth. use is the same for all keys
// that ParseSet lets through.
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
		if !aok || !bok || !a.Equal(b) || k.Marshal().ALG != other.Marshal().ALG {
			return false
		}
	}
	return true
}
