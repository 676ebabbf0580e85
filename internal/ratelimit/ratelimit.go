// Package ratelimit counts requests by key with the generic cell rate algorithm and bounded memory.
//
// The algorithm is throttled's; the store under it is this package's own, because it has to stay bounded,
// must not stop the world to forget a counter, and must carry a counter over when a key's limit changes.
// There is no goroutine and nothing to close.
package ratelimit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"time"
)

const (
	// DefaultMaxKeys is how many counters a Limiter keeps unless told otherwise.
	DefaultMaxKeys = 1_000_000
	// MinMaxKeys is the least number of counters a Limiter keeps: a smaller number would leave a shard with
	// so few places that unrelated keys push each other out.
	MinMaxKeys = 16 * shardCount
	// MaxRPS is the highest rate, in requests per second. Above it the interval between two requests is no
	// whole number of nanoseconds worth the name.
	MaxRPS = 1_000_000
	// MaxBurst is the highest burst, in requests. It keeps every time that is computed within 64 bits.
	MaxBurst = 1_000_000

	shardCount = 64
	maxKeySize = 128
)

var (
	// ErrNoKey is the answer to an empty key. A request that cannot be attributed must be refused by the
	// caller: sharing one counter, or having none, would both be wrong.
	ErrNoKey = errors.New("rate limit: the key is empty")
	// ErrLimit is the answer to a limit that is not positive or beyond MaxRPS or MaxBurst.
	ErrLimit = errors.New("rate limit: the limit is out of range")
)

// Options configure a Limiter. The zero value is usable.
type Options struct {
	// MaxKeys bounds the counters kept; 0 means DefaultMaxKeys, and fewer than MinMaxKeys mean MinMaxKeys.
	// Keys are spread over shards by hash, so a shard can be full a few per cent before the whole is.
	MaxKeys int
	// Now is the clock; nil means time.Now, whose monotonic reading is used, so that setting the machine's
	// clock changes nothing.
	Now func() time.Time
	// OnEvict is told of each counter that went while it was live, see Evicted. It must return at once. Nil: nobody is.
	OnEvict func()
}

// Limit is a rate and what it allows at once.
type Limit struct {
	RPS   int // requests per second
	Burst int // requests at once; 0 means RPS
}

// Result is the decision on one request and the state it left.
type Result struct {
	Allowed    bool
	Limit      Limit         // the limit that was applied, with its burst filled in
	Remaining  int           // further requests that would be allowed at once, now
	Reset      time.Duration // until Remaining is Limit.Burst again
	RetryAfter time.Duration // until the next request is allowed; 0 if this one was
}

// Limiter counts requests by key. Its methods may be called concurrently.
type Limiter struct {
	now    func() time.Time
	seed   maphash.Seed
	shards [shardCount]shard
}

// New returns an empty Limiter.
func New(o Options) *Limiter {
	l := &Limiter{now: o.Now, seed: maphash.MakeSeed()}
	if l.now == nil {
		l.now = time.Now
	}
	start := l.now()
	for i := range l.shards {
		l.shards[i].init(start, o.OnEvict)
	}
	l.SetMaxKeys(o.MaxKeys)
	return l
}

// Allow counts one request of key against lim. A key has one counter whatever its limit: when the limit
// differs from the one before, the requests already counted stay counted and the new limit applies at once.
//
// The error is ErrNoKey or ErrLimit, or one of the algorithm's own; the request must then be refused.
func (l *Limiter) Allow(key string, lim Limit) (Result, error) {
	if key == "" {
		return Result{}, ErrNoKey
	}
	lim, err := lim.Checked()
	if err != nil {
		return Result{}, err
	}
	key = bounded(key)
	s := &l.shards[maphash.String(l.seed, key)%shardCount]
	// The lock is held for the whole decision, not only for each access to the store: the algorithm's
	// compare-and-swap then never fails, however many callers share a key.
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(l.now())
	m, err := s.meterFor(lim)
	if err != nil {
		return Result{}, err
	}
	limited, r, err := m.gcra.RateLimitCtx(context.Background(), key, 1)
	if err != nil {
		return Result{}, fmt.Errorf("rate limit: %w", err)
	}
	return Result{
		Allowed:    !limited,
		Limit:      lim,
		Remaining:  r.Remaining,
		Reset:      r.ResetAfter,
		RetryAfter: max(r.RetryAfter, 0), // the algorithm says -1 for "not limited"
	}, nil
}

// SetMaxKeys changes the bound on the counters kept, with the meaning of Options.MaxKeys. If there are more,
// those that say least go now, one shard at a time.
func (l *Limiter) SetMaxKeys(n int) {
	if n <= 0 {
		n = DefaultMaxKeys
	}
	n = max(n, MinMaxKeys)
	for i := range l.shards {
		share := n / shardCount
		if i < n%shardCount {
			share++
		}
		l.shards[i].setMax(l.now, share)
	}
}

// Len returns how many counters are kept, including those that have run out and were not reclaimed yet.
func (l *Limiter) Len() int {
	total := 0
	for i := range l.shards {
		n, _ := l.shards[i].stats()
		total += n
	}
	return total
}

// Evicted returns how many counters had to go while they still held back a request or part of one. Each such
// key was given at most one fresh burst.
func (l *Limiter) Evicted() uint64 {
	var total uint64
	for i := range l.shards {
		_, n := l.shards[i].stats()
		total += n
	}
	return total
}

// bounded returns a key that is not long. A long key must not be a way to buy more memory than one counter's.
func bounded(key string) string {
	if len(key) <= maxKeySize {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return string(sum[:])
}

// Checked returns the limit with its burst filled in, or ErrLimit.
func (l Limit) Checked() (Limit, error) {
	if l.Burst == 0 {
		l.Burst = l.RPS
	}
	if l.RPS < 1 || l.RPS > MaxRPS || l.Burst < 1 || l.Burst > MaxBurst {
		return l, fmt.Errorf("%w: %d requests per second, %d at once", ErrLimit, l.RPS, l.Burst)
	}
	return l, nil
}

// Interval is the time between two requests at the limit's rate, rounded up, so that a rate which does not
// divide a second is never exceeded.
func (l Limit) Interval() time.Duration {
	rps := time.Duration(l.RPS)
	return (time.Second + rps - 1) / rps
}
