package devstack

import (
	"math"
	"sync"
	"time"
)

// maxBuckets bounds the names that are counted; past it all counts start anew.
const maxBuckets = 10_000

// buckets counts limits.rps by the token's name: a bucket holds one second's worth and refills steadily. All
// tokens of a name share it, and the limit of the latest one holds.
type buckets struct {
	mu   sync.Mutex
	byID map[string]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

type taken struct {
	ok                           bool
	remaining, reset, retryAfter int // reset and retryAfter in seconds, rounded up
}

func (b *buckets) take(name string, rps int, now time.Time) taken {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byID == nil || len(b.byID) >= maxBuckets {
		b.byID = map[string]bucket{}
	}
	size := float64(rps)
	c, known := b.byID[name]
	if !known {
		c = bucket{left: size, at: now}
	}
	c.left = min(size, c.left+max(0, now.Sub(c.at).Seconds())*size)
	c.at = now
	// A nanosecond's worth of rounding must not refuse a request that has waited long enough.
	ok := c.left >= 1-1e-9
	if ok {
		c.left = max(0, c.left-1)
	}
	b.byID[name] = c
	t := taken{ok: ok, remaining: int(c.left), reset: int(math.Ceil((size - c.left) / size))}
	if !ok {
		t.retryAfter = max(1, int(math.Ceil((1-c.left)/size)))
	}
	return t
}
