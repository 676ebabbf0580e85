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

// pooledLimiter is a limiter with the bounds that its users ask for. The largest holds, so that a config which is rejected
// after it was provisioned, or a site that wants fewer, evicts nothing of the others'.
type pooledLimiter struct {
	*ratelimit.Limiter

	mu     sync.Mutex
	bounds map[*Handler]int
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
		l.SetMaxKeys(largest)
	}
}

// acquireLimiter takes the limiter of a workspace.
func (h *Handler) acquireLimiter(workspaceID string, maxKeys int) error {
	value, _, err := limiters.LoadOrNew(workspaceID, func() (caddy.Destructor, error) {
		return &pooledLimiter{Limiter: ratelimit.New(ratelimit.Options{MaxKeys: maxKeys}), bounds: make(map[*Handler]int)}, nil
	})
	if err != nil {
		return fmt.Errorf("limiter: %w", err)
	}
	h.workspace = workspaceID
	l, ok := value.(*pooledLimiter)
	if !ok {
		return fmt.Errorf("limiter is a %T", value)
	}
	l.bound(h, maxKeys, false)
	h.limiter, h.counter = l, l
	return nil
}

// releaseLimiter gives it back. Requests of the old config may still be counted by it.
func (h *Handler) releaseLimiter() error {
	if h.workspace == "" {
		return nil
	}
	workspace := h.workspace
	h.workspace = ""
	if h.limiter != nil {
		h.limiter.bound(h, 0, true)
	}
	if _, err := limiters.Delete(workspace); err != nil {
		return fmt.Errorf("limiter: %w", err)
	}
	return nil
}

// Interface guard.
var _ caddy.Destructor = (*pooledLimiter)(nil)
