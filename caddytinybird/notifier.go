package caddytinybird

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// The events that are emitted through Caddy's events app.
const (
	eventRefreshFailed = "clerk_jwks_refresh_failed"
	eventRateLimited   = "tinybird_rate_limited"
)

// maxHandling bounds the events of one module that are being handled at once: what handles them may hang.
const maxHandling = 8

// notifier emits events in the name of a module, for the handlers that the config binds to them.
type notifier struct {
	ctx      caddy.Context
	app      *caddyevents.App
	started  atomic.Bool
	handling chan struct{}
}

func newNotifier(ctx caddy.Context) (*notifier, error) {
	module, err := ctx.App("events")
	if err != nil {
		return nil, fmt.Errorf("events app: %w", err)
	}
	app, ok := module.(*caddyevents.App)
	if !ok {
		return nil, fmt.Errorf("the app named events is a %T, not Caddy's", module)
	}
	n := &notifier{ctx: ctx, app: app, handling: make(chan struct{}, maxHandling)}
	if err := app.On("started", n); err != nil {
		return nil, fmt.Errorf("events app: %w", err)
	}
	return n, nil
}

// Handle takes note that Caddy has started the config. Before that the events app takes its subscriptions, which must not
// be read meanwhile, and nobody is bound yet.
func (n *notifier) Handle(context.Context, caddy.Event) error {
	n.started.Store(true)
	return nil
}

// wants reports whether anybody would learn of an event. A config that was rejected, or has ended, is nobody.
func (n *notifier) wants(event string) bool {
	return n != nil && n.started.Load() && n.ctx.Err() == nil && n.app.ShouldEmit(event)
}

// emit hands an event to its handlers, which it does not wait for: they may run programs or reload the config. It reports
// false if too many are at work.
func (n *notifier) emit(event string, data map[string]any) bool {
	select {
	case n.handling <- struct{}{}:
	default:
		return false
	}
	go func() {
		defer func() { <-n.handling }()
		n.app.Emit(n.ctx, event, data)
	}()
	return true
}

// The bounds of a throttle.
const (
	throttleWindow = time.Minute
	throttleKeys   = 100
)

// throttle lets an event through once a minute for each key, and for so many keys at most. It belongs to what
// lives through reloads. The zero value is ready for use.
type throttle struct {
	mu         sync.Mutex
	begin      time.Time // of the minute
	seen       map[string]struct{}
	suppressed int
}

// admit reports whether an event with the key may be emitted, and how many were not since the last one that was.
func (t *throttle) admit(key string, now time.Time) (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if since := now.Sub(t.begin); since >= throttleWindow || since < 0 || t.seen == nil {
		t.begin, t.seen = now, make(map[string]struct{})
	}
	if _, again := t.seen[key]; again || len(t.seen) >= throttleKeys {
		t.suppressed++
		return 0, false
	}
	t.seen[key] = struct{}{}
	suppressed, t.suppressed = t.suppressed, 0
	return suppressed, true
}

// missed takes back what admit gave, for an event that could not be emitted.
func (t *throttle) missed(suppressed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suppressed += suppressed + 1
}

// tellLimited emits the event of a tenant that reached its limit.
func (h *Handler) tellLimited(pipe, tenant string, result ratelimit.Result) {
	if !h.notifier.wants(eventRateLimited) {
		return
	}
	suppressed, ok := h.limiter.told.admit(tenant, time.Now())
	if !ok {
		return
	}
	if !h.notifier.emit(eventRateLimited, map[string]any{
		"tenant":              tenant,
		"pipe":                pipe,
		"workspace_id":        h.workspaceID,
		"rps":                 result.Limit.RPS,
		"burst":               result.Limit.Burst,
		"retry_after_seconds": retryAfter(result),
		"suppressed":          suppressed,
	}) {
		h.limiter.told.missed(suppressed)
	}
}

// Interface guard.
var _ caddyevents.Handler = (*notifier)(nil)
