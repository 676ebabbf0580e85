// Package sharedlimit counts requests by key in Redis or Valkey, so that several edges count together. Each edge also
// counts what it admits by itself, in a ratelimit.Limiter: when the store is away, that one decides, and it knows
// what was admitted before.
//
// A decision is one round trip of one script on one key. Decisions that are made at the same time share a round trip.
package sharedlimit

import (
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// Limiter counts requests by key in a store, and in this process. Its methods may be called concurrently.
type Limiter struct {
	store *Store
	own   *ratelimit.Limiter
	scope string
}

// NewLimiter returns a limiter that counts together with all others which have the same scope and a store at the
// same address, and falls back to own. A scope holds no zero byte.
func NewLimiter(store *Store, own *ratelimit.Limiter, scope string) *Limiter {
	return &Limiter{store: store, own: own, scope: scope}
}

// Allow counts one request of key against lim, as ratelimit.Limiter.Allow does. It waits for the store no longer than
// the store's time-out, and a store that is away is no error.
//
// A request is admitted when the store and this process admit it. So whatever happens to the store, even if it is emptied, this
// process alone never admits more than its own limit allows.
func (l *Limiter) Allow(key string, lim ratelimit.Limit) (ratelimit.Result, error) {
	if key == "" {
		return ratelimit.Result{}, ratelimit.ErrNoKey
	}
	lim, err := lim.Checked()
	if err != nil {
		return ratelimit.Result{}, err
	}
	shared, ok := l.store.decide(counterKey(l.scope, key), lim)
	l.store.decided(ok)
	if ok && !shared.Allowed {
		return shared, nil
	}
	own, err := l.own.Allow(key, lim)
	if err != nil || !ok {
		return own, err
	}
	return stricter(shared, own), nil
}
