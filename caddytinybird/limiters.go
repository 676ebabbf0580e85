package caddytinybird

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// limiters holds one limiter for each Tinybird workspace, for all configs of this process: a reload loses no count,
// and sites that serve the same workspace count together, as Tinybird does.
var limiters = caddy.NewUsagePool()

type pooledLimiter struct {
	*ratelimit.Limiter
}

// Destruct has nothing to end: a limiter runs nothing in the background.
func (pooledLimiter) Destruct() error { return nil }

// acquireLimiter returns the limiter of a workspace. A changed number of keys applies to the counts there are.
func acquireLimiter(workspaceID string, maxKeys int) (*ratelimit.Limiter, error) {
	value, loaded, err := limiters.LoadOrNew(workspaceID, func() (caddy.Destructor, error) {
		return pooledLimiter{ratelimit.New(ratelimit.Options{MaxKeys: maxKeys})}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("limiter: %w", err)
	}
	l, ok := value.(pooledLimiter)
	if !ok {
		return nil, fmt.Errorf("limiter is a %T", value)
	}
	if loaded {
		l.SetMaxKeys(maxKeys)
	}
	return l.Limiter, nil
}

// Interface guard.
var _ caddy.Destructor = pooledLimiter{}
