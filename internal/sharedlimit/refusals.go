package sharedlimit

import (
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// maxRefusals bounds the keys, each under one limit, that are remembered to be refused. A forgotten one costs a question.
const maxRefusals = 10_000

// refusals remembers what the store has refused, until it would admit it. Counters only run out with time, so the answer to
// any earlier question is known. Without that, one tenant's flood could keep the store so busy that it is lost for all.
type refusals struct {
	cache *otter.Cache[refused, refusal]
}

// refused is what was refused: a key under a limit. A tenant can have several limits by turns, and none may push out another's.
type refused struct {
	key string
	lim ratelimit.Limit
}

// refusal is an answer of the store. It was given some time between the question and the answer's arrival.
type refusal struct {
	result          ratelimit.Result
	asked, answered time.Time
}

func newRefusals() (*refusals, error) {
	// No expiry is given to the cache, so it runs no goroutine.
	cache, err := otter.New(&otter.Options[refused, refusal]{MaximumSize: maxRefusals})
	if err != nil {
		return nil, fmt.Errorf("cache of refusals: %w", err)
	}
	return &refusals{cache}, nil
}

func (k *refusals) add(key string, r ratelimit.Result, asked, answered time.Time) {
	k.cache.Set(refused{key, r.Limit}, refusal{result: r, asked: asked, answered: answered})
}

// maxRemembered is how long a refusal is remembered at most, whatever the store said: a store that is emptied, or mended after somebody
// has written to it, counts again within that time.
const maxRemembered = time.Minute

// lookUp returns a refusal that still holds under that limit. It holds from the question on, and what it tells to wait is
// reckoned from the answer: as long as nobody asks under a faster limit it refuses nothing that the store would admit, and nobody is
// told to come too early.
func (k *refusals) lookUp(key string, lim ratelimit.Limit, now time.Time) (ratelimit.Result, bool) {
	known, ok := k.cache.GetIfPresent(refused{key, lim})
	if !ok || now.Sub(known.asked) >= min(known.result.RetryAfter, maxRemembered) {
		return ratelimit.Result{}, false
	}
	r, passed := known.result, max(now.Sub(known.answered), 0)
	r.RetryAfter -= passed
	r.Reset -= passed
	return r, true
}

func (k *refusals) close() {
	k.cache.InvalidateAll()
	k.cache.StopAllGoroutines()
}
