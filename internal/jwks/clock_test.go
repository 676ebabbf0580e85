package jwks

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The system clock of an edge can be set. Set back, it must not stretch the cooldown or a remembered miss by the
// difference; set forward, it costs at most one more fetch.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{
		"a year back":   -365 * 24 * time.Hour,
		"a second back": -time.Second,
		"a year ahead":  365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				clock := &struct {
					sync.Mutex

					now time.Time
				}{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
				now := func() time.Time {
					clock.Lock()
					defer clock.Unlock()
					return clock.now
				}
				i := newIssuer(doc(key("a", "1")))
				s := started(t, i, Options{Now: now})
				wantUnknown(t, s, "b")
				wantFetches(t, i, 2)

				clock.Lock()
				clock.now = clock.now.Add(jump)
				clock.Unlock()
				i.serve(200, doc(key("a", "1"), key("b", "2")))
				mustRead(t, s, "b")
				wantFetches(t, i, 3)

				// The cooldown counts anew from the time after the jump.
				wantUnknown(t, s, "c")
				wantFetches(t, i, 3)
			})
		})
	}
}
