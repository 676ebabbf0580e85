package clerk

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/cachestat"
)

// digest of a token stands for it in memory, so that no token does.
type digest [sha256.Size]byte

// digestOf copies the token to the stack if it has a usual size, which is cheaper than a conversion.
func digestOf(token string) digest {
	var room [2048]byte
	return sha256.Sum256(append(room[:0], token...))
}

// entry is a token that was verified, and with which keys.
type entry struct {
	identity   *Identity
	exp        int64
	keys       KeySet
	generation uint64        // of keys, from before they were asked
	life       time.Duration // left when it was verified
}

// cache remembers verified tokens. What it holds is judged anew at each look-up: a clock that runs faster than
// the process's, and keys that were replaced, end an entry at once. Its own expiry only frees memory.
type cache struct {
	entries *otter.Cache[digest, *entry]
	lookups cachestat.Counter // one for each token that is shown
}

func newCache(size int) (*cache, error) {
	entries, err := otter.New(&otter.Options[digest, *entry]{
		MaximumSize: size,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[digest, *entry]) time.Duration {
			return e.Value.life
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("identity cache: %w", err)
	}
	return &cache{entries: entries}, nil
}

func (c *cache) close() { c.entries.StopAllGoroutines() }

// get returns an entry that is as good as a verification now. nbf and iat stay as they were judged.
func (c *cache) get(key digest, r *rules, now time.Time) (*entry, bool) {
	e, ok := c.entries.GetIfPresent(key)
	if !ok {
		return nil, false
	}
	if r.expired(e.exp, now) || e.keys.Generation() != e.generation {
		c.entries.Invalidate(key)
		return nil, false
	}
	return e, true
}

func (c *cache) stats() cachestat.Stats {
	return c.lookups.Of(c.entries.EstimatedSize(), int(c.entries.GetMaximum())) //nolint:gosec // it was given as an int
}

func (c *cache) put(key digest, e *entry) { c.entries.Set(key, e) }
