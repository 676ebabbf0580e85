package caddytinybird

import (
	"fmt"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// limiters holds one limiter for each Tinybird workspace, for all configs of this process: a reload loses no count,
// and sites that serve the same workspace count together, as Tinybird does.
var limiters = caddy.NewUsagePool()

// pooledLimiter counts the requests of each tenant over time, and those that are under way. It has the bounds that its users ask
// for. The largest holds, so that a config which is rejected after it was provisioned, or a site that wants fewer, evicts
// nothing of the others'.
type pooledLimiter struct {
	*ratelimit.Limiter

	gate *ratelimit.Gate
	told throttle // about tenants that reached their limit

	mu      sync.Mutex
	bounds  map[*Handler]int
	largest int
}

// Destruct has nothing to end: a limiter runs nothing in the background.
func (*pooledLimiter) Destruct() error { return nil }

// bound sets what a user asks for, 0 for the default, or with leave forgets the user.
func (l *pooledLimiter) bound(user *Handler, maxKeys int, leave bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if maxKeys == 0 {
		maxKeys = ratelimit.DefaultMaxKeys
	}
	l.bounds[user] = maxKeys
	if leave {
		delete(l.bounds, user)
	}
	largest := 0
	for _, n := range l.bounds {
		largest = max(largest, n)
	}
	if largest > 0 {
		l.largest = largest
		l.SetMaxKeys(largest)
	}
}

// maxKeys is the bound that holds.
func (l *pooledLimiter) maxKeys() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.largest, ratelimit.MinMaxKeys)
}

// acquireLimiter takes the limiter of a workspace. After it was given back, requests of the old config may still be counted by it.
func (h *Handler) acquireLimiter(workspaceID string, maxKeys int) error {
	l, release, err := acquire(limiters, workspaceID, func() (*pooledLimiter, error) {
		return &pooledLimiter{
			Limiter: ratelimit.New(ratelimit.Options{MaxKeys: maxKeys, OnEvict: metrics.evicted.Inc}),
			gate:    ratelimit.NewGate(),
			bounds:  make(map[*Handler]int),
		}, nil
	})
	if err != nil {
		return fmt.Errorf("limiter: %w", err)
	}
	l.bound(h, maxKeys, false)
	h.limiter, h.counter = l, l
	h.held = append(h.held, func() error {
		l.bound(h, 0, true)
		return release()
	})
	return nil
}

// Interface guard.
var _ caddy.Destructor = (*pooledLimiter)(nil)
