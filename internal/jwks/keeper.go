package jwks

import (
	"context"
	"time"
)

// How soon a failed save is tried again.
const (
	saveRetry    = 10 * time.Second
	saveRetryMax = 5 * time.Minute
)

// keeper has the newest keys saved, however often that fails, and without holding up the fetches: a slow storage must
// not make requests wait. It belongs to the background goroutine. The zero value with a set is ready for use.
type keeper struct {
	set      *Set
	wanted   bool             // the present keys are not in the store
	failures int              // in a row
	ended    chan result      // of the attempt under way; nil: there is none
	retry    <-chan time.Time // the next attempt waits for it; nil: it need not
}

// want asks for a save of new keys at once, whatever became of older ones.
func (k *keeper) want() {
	k.wanted = k.set.o.Store != nil
	k.failures, k.retry = 0, nil
}

// begin starts an attempt if one is wanted now.
func (k *keeper) begin(ctx context.Context) {
	if !k.wanted || k.ended != nil || k.retry != nil {
		return
	}
	k.wanted = false
	sn, ended := k.set.snap.Load(), make(chan result, 1)
	k.ended = ended
	go func() { ended <- k.set.save(ctx, sn) }()
}

// end takes note of what came of the attempt under way.
func (k *keeper) end(ctx context.Context, r result) {
	k.ended = nil
	if r.err == nil || ctx.Err() != nil {
		return
	}
	var wait time.Duration
	if !k.wanted { // else there are newer keys, which need not wait
		wait = min(saveRetry<<min(k.failures, 20), saveRetryMax)
		k.failures++
		k.wanted, k.retry = true, time.After(wait)
	}
	k.set.o.Observe(k.set.event(r, false, wait))
}

// await returns when no attempt is under way. It takes not long once the context of the attempt has ended.
func (k *keeper) await() {
	if k.ended != nil {
		<-k.ended
	}
}
