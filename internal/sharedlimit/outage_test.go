package sharedlimit

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// wantEvents fails unless the store was lost and came back so many times, one after the other.
func wantEvents(t *testing.T, got []Event, want ...bool) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("events %+v, want %d", got, len(want))
	}
	for i, lost := range want {
		if (got[i].Err != nil) != lost || (got[i].Down > 0) == lost {
			t.Errorf("event %d is %+v", i, got[i])
		}
	}
}

// The store goes away and comes back: this process decides meanwhile, with what it had counted before, nobody waits, and each change is
// told once.
func TestStoreGoesAndComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, seen := newPeer(t), new(changes)
		l, lim := newEdge(t, p, seen.observe), ratelimit.Limit{RPS: 2, Burst: 10}
		for range 6 {
			allow(t, l, "a", lim)
		}
		p.leave()
		begin := time.Now()
		if got := drain(t, l, "a", lim); got != 4 {
			t.Errorf("%d more admitted without the store, want 4 of 10", got)
		}
		dials := p.dials.Load()
		for n := range 1000 {
			allow(t, l, strconv.Itoa(n), lim)
		}
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("requests waited %v for a store that refuses connections", waited)
		}
		if more := p.dials.Load() - dials; more != 0 {
			t.Errorf("requests dialled %d times while the store was away", more)
		}
		synctest.Wait()
		wantEvents(t, seen.take(), true)

		pass(time.Minute)
		if n := p.dials.Load() - dials; n < 5 || n > 90 { // go-redis has its own, once a second
			t.Errorf("%d attempts in a minute", n)
		}
		wantEvents(t, seen.take())
		p.comeBack(t)
		pass(2 * lastProbe)
		wantEvents(t, seen.take(), false)
		asked := p.asked.Load()
		allow(t, l, "b", lim)
		if p.asked.Load() == asked {
			t.Error("the store is back and not asked")
		}
	})
}

// A store that does not answer, from the beginning or after it did, holds no request longer than the time-out, however many there
// are, and after that none at all.
func TestHangingStore(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"from the beginning": 0, "later": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, seen := newPeer(t), new(changes)
				l, lim := newEdge(t, p, seen.observe), ratelimit.Limit{RPS: 1, Burst: 50}
				for range before {
					allow(t, l, "a", lim)
				}
				p.setSlow(time.Hour)
				begin := time.Now()
				var all sync.WaitGroup
				admitted := make(chan bool, 200)
				for range 200 {
					all.Go(func() {
						r, err := l.Allow("a", lim)
						if waited := time.Since(begin); err != nil || waited > DefaultTimeout {
							t.Errorf("waited %v: %v", waited, err)
						}
						admitted <- r.Allowed
					})
				}
				all.Wait()
				close(admitted)
				n := before
				for ok := range admitted {
					if ok {
						n++
					}
				}
				if n != lim.Burst {
					t.Errorf("%d admitted, the limit of this process is %d", n, lim.Burst)
				}
				begin = time.Now()
				allow(t, l, "b", lim)
				if waited := time.Since(begin); waited != 0 {
					t.Errorf("waited %v for a store that is known to hang", waited)
				}
				synctest.Wait()
				wantEvents(t, seen.take(), true)
			})
		})
	}
}

// A store that answers, but too late to be waited for, is not taken back before it is fast again.
func TestSlowStoreStaysAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, seen := newPeer(t), new(changes)
		l, lim := newEdge(t, p, seen.observe), ratelimit.Limit{RPS: 100}
		allow(t, l, "a", lim)
		p.setSlow(2 * DefaultTimeout)
		allow(t, l, "a", lim)
		pass(time.Minute)
		wantEvents(t, seen.take(), true)
		p.setSlow(DefaultTimeout / 5)
		pass(2 * lastProbe)
		wantEvents(t, seen.take(), false)
	})
}

// A store that refuses to count is as good as none: what it says is in the event.
func TestStoreThatRefuses(t *testing.T) {
	t.Parallel()
	for _, refusal := range []string{
		"LOADING Redis is loading the dataset in memory",
		"OOM command not allowed when used memory > 'maxmemory'.",
		"READONLY You can't write against a read only replica.",
		"NOAUTH Authentication required.",
		"NOPERM User edge has no permissions to run the 'evalsha' command",
	} {
		t.Run(refusal[:6], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, seen := newPeer(t), new(changes)
				l, lim := newEdge(t, p, seen.observe), ratelimit.Limit{RPS: 1, Burst: 5}
				allow(t, l, "a", lim)
				p.SetError(refusal)
				if got := drain(t, l, "a", lim); got != 4 {
					t.Errorf("%d more admitted, want 4 of 5", got)
				}
				pass(time.Minute)
				events := seen.take()
				wantEvents(t, events, true)
				if events[0].Err.Error() != refusal {
					t.Errorf("the event says %q", events[0].Err)
				}
				p.SetError("")
				pass(2 * lastProbe)
				wantEvents(t, seen.take(), false)
			})
		})
	}
}

// A store that is lost again and again is asked less and less often, so that changes are not told all the time.
func TestFlappingStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, seen := newPeer(t), new(changes)
		l, lim := newEdge(t, p, seen.observe), ratelimit.Limit{RPS: 100}
		begin := time.Now()
		for time.Since(begin) < time.Minute {
			p.setSlow(time.Second)
			allow(t, l, "a", lim)
			p.setSlow(0)
			pass(10 * time.Millisecond)
		}
		if n := len(seen.take()); n > 40 {
			t.Errorf("%d changes in a minute", n)
		}
		pass(2*lastProbe + steady) // it is back, and stays for longer than steady
		seen.take()
		p.setSlow(time.Second)
		allow(t, l, "b", lim)
		p.setSlow(0)
		pass(4 * firstProbe)
		wantEvents(t, seen.take(), true, false)
	})
}

// Attack, or accident: the store is emptied, or another server takes its place. This process still admits no more than its own limit.
func TestEmptiedStoreGivesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		l, lim := newEdge(t, p, nil), ratelimit.Limit{RPS: 1, Burst: 20}
		drain(t, l, "a", lim)
		for range 30 {
			pass(time.Second)
			p.FlushAll()
			if got := drain(t, l, "a", lim); got > 1 {
				t.Fatalf("%d admitted in a second", got)
			}
		}
	})
}

// When the store comes back it does not know what was admitted without it. This process does.
func TestNoFreshBurstAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, seen := newPeer(t), new(changes)
		l, lim := newEdge(t, p, seen.observe), ratelimit.Limit{RPS: 1, Burst: 20}
		allow(t, l, "a", lim)
		p.leave()
		drain(t, l, "a", lim)
		p.FlushAll()
		p.comeBack(t)
		pass(2 * time.Second)
		wantEvents(t, seen.take(), true, false)
		if got := drain(t, l, "a", lim); got > 2 {
			t.Errorf("%d admitted after the store came back, want 2: two seconds passed", got)
		}
		r := allow(t, l, "a", lim)
		pass(r.RetryAfter)
		if !allow(t, l, "a", lim).Allowed {
			t.Error("refused after waiting")
		}
	})
}

// A store that has forgotten the script is told it anew, and nothing else happens.
func TestForgottenScript(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, seen := newPeer(t), new(changes)
		l, lim := newEdge(t, p, seen.observe), ratelimit.Limit{RPS: 1, Burst: 100}
		for n := range 3 {
			if r := allow(t, l, "a", lim); r.Remaining != 99-n {
				t.Errorf("%+v", r)
			}
			if err := l.store.client.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		wantEvents(t, seen.take())
	})
}

// Attack: one tenant's flood, to keep the store so busy that it is lost for all. What is refused is refused from memory until the store
// would admit it.
func TestFloodDoesNotReachTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		l, lim := newEdge(t, p, nil), ratelimit.Limit{RPS: 10, Burst: 10}
		drain(t, l, "a", lim)
		asked, admitted := p.asked.Load(), 0
		const requests = 20_000
		for range requests {
			pass(100 * time.Microsecond)
			if allow(t, l, "a", lim).Allowed {
				admitted++
			}
		}
		if n := p.asked.Load() - asked; n > 45 {
			t.Errorf("%d requests in 2 s asked the store %d times", requests, n)
		}
		if admitted < 19 || admitted > 20 {
			t.Errorf("%d admitted in 2 s, want 20", admitted)
		}
		if got := drain(t, l, "a", ratelimit.Limit{RPS: 10, Burst: 40}); got < 29 {
			t.Errorf("%d more at once after the burst was raised by 30", got)
		}
	})
}

// Attack: the same flood, under two limits by turns, as a tenant has them at two sites or by the plans of two of its users.
func TestFloodUnderTwoLimitsDoesNotReachTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		l := newEdge(t, p, nil)
		limits := [...]ratelimit.Limit{{RPS: 10, Burst: 10}, {RPS: 5, Burst: 10}}
		drain(t, l, "a", limits[0])
		asked, admitted := p.asked.Load(), 0
		const requests = 4000
		for n := range requests {
			pass(500 * time.Microsecond)
			if allow(t, l, "a", limits[n%2]).Allowed {
				admitted++
			}
		}
		if n := p.asked.Load() - asked; n > 2*45 {
			t.Errorf("%d requests in 2 s asked the store %d times", requests, n)
		}
		if admitted < 9 || admitted > 20 {
			t.Errorf("%d admitted in 2 s, want 10 to 20", admitted)
		}
	})
}

// Many at once share round trips, and never get more than the burst. Over real connections: those in a bubble have no buffers, so that
// a batch and its answers would wait for each other.
func TestConcurrentCallers(t *testing.T) {
	t.Parallel()
	m, seen := miniredis.RunT(t), new(changes)
	m.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) // and there it stands still
	edges := make([]*Limiter, 2)
	for i := range edges {
		s, err := Open(Options{
			Redis:   &redis.UniversalOptions{Addrs: []string{m.Addr()}},
			Timeout: time.Minute,
			Observe: seen.observe,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		edges[i] = NewLimiter(s, ratelimit.New(ratelimit.Options{}), scope)
	}
	lim := ratelimit.Limit{RPS: 1, Burst: 70}
	var all sync.WaitGroup
	var admitted [5]atomic.Int64
	for n := range 1000 {
		all.Go(func() {
			r, err := edges[n%2].Allow(strconv.Itoa(n%5), lim)
			if err != nil {
				t.Error(err)
			}
			if r.Allowed {
				admitted[n%5].Add(1)
			}
		})
	}
	all.Wait()
	wantEvents(t, seen.take())
	for i := range admitted {
		if n := admitted[i].Load(); n != int64(lim.Burst) {
			t.Errorf("%d: %d admitted, want %d", i, n, lim.Burst)
		}
	}
	if n := m.TotalConnectionCount(); n > 2*(workers+2) {
		t.Errorf("%d connections", n)
	}
}

// What is remembered of a refusal holds as long as the store would refuse, counted from the question. What a client is told is counted
// from the answer: it is never told to come too early.
func TestRefusalsAreRemembered(t *testing.T) {
	t.Parallel()
	k, err := newRefusals()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	lim, asked := ratelimit.Limit{RPS: 1, Burst: 3}, time.Now()
	k.add("a", ratelimit.Result{Limit: lim, Reset: 3 * time.Second, RetryAfter: time.Second}, asked, asked.Add(10*time.Millisecond))
	for after, want := range map[time.Duration]ratelimit.Result{
		5 * time.Millisecond:          {Limit: lim, Reset: 3 * time.Second, RetryAfter: time.Second}, // another request's question was later, its answer not
		10 * time.Millisecond:         {Limit: lim, Reset: 3 * time.Second, RetryAfter: time.Second},
		510 * time.Millisecond:        {Limit: lim, Reset: 2500 * time.Millisecond, RetryAfter: 500 * time.Millisecond},
		time.Second - time.Nanosecond: {Limit: lim, Reset: 2010*time.Millisecond + time.Nanosecond, RetryAfter: 10*time.Millisecond + time.Nanosecond},
	} {
		if r, ok := k.lookUp("a", lim, asked.Add(after)); !ok || r != want {
			t.Errorf("after %v: %+v, %v, want %+v", after, r, ok, want)
		}
	}
	if _, ok := k.lookUp("a", lim, asked.Add(time.Second)); ok {
		t.Error("still refused when the store would admit")
	}
	if _, ok := k.lookUp("a", ratelimit.Limit{RPS: 2, Burst: 3}, asked); ok {
		t.Error("refused under another limit")
	}
	if _, ok := k.lookUp("b", lim, asked); ok {
		t.Error("another one is refused")
	}
	// Attack: somebody who could write to Redis once has a tenant refused for days after it was mended.
	k.add("c", ratelimit.Result{Limit: lim, RetryAfter: 240 * time.Hour}, asked, asked)
	if _, ok := k.lookUp("c", lim, asked.Add(maxRemembered-1)); !ok {
		t.Error("forgotten early")
	}
	if _, ok := k.lookUp("c", lim, asked.Add(maxRemembered)); ok {
		t.Error("remembered for as long as Redis says")
	}
}

// A question that nobody waits for any more is not asked: it was decided, and must not be counted again.
func TestNobodyWaitsNobodyAsks(t *testing.T) {
	t.Parallel()
	s, now := &Store{queue: make(chan *call, 8)}, time.Now()
	late, live := &call{deadline: now.Add(-time.Second)}, &call{deadline: now.Add(time.Hour)}
	for _, c := range []*call{late, live, late, live, live} {
		s.queue <- c
	}
	if batch := s.collect(nil, late); len(batch) != 3 || batch[0] != live {
		t.Errorf("%d questions", len(batch))
	}
	if batch := s.collect(nil, late); len(batch) != 0 {
		t.Errorf("%d questions", len(batch))
	}
}

// What cannot be counted is refused before anybody is asked.
func TestAllowRefusesWhatCannotBeCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		l := newEdge(t, p, nil)
		for _, c := range []struct {
			key  string
			lim  ratelimit.Limit
			want error
		}{
			{"", ratelimit.Limit{RPS: 1}, ratelimit.ErrNoKey},
			{"a", ratelimit.Limit{}, ratelimit.ErrLimit},
			{"a", ratelimit.Limit{RPS: -1}, ratelimit.ErrLimit},
			{"a", ratelimit.Limit{RPS: 1, Burst: ratelimit.MaxBurst + 1}, ratelimit.ErrLimit},
		} {
			if r, err := l.Allow(c.key, c.lim); !errors.Is(err, c.want) || r.Allowed {
				t.Errorf("Allow(%q, %+v) = %+v, %v", c.key, c.lim, r, err)
			}
		}
		if p.asked.Load() != 0 {
			t.Error("the store was asked")
		}
	})
}

// Requests of a config that is gone are still decided, and closing ends everything, also while the store hangs.
func TestClose(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]time.Duration{"at rest": 0, "while the store hangs": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, seen := newPeer(t), new(changes)
				s, err := Open(Options{Redis: &redis.UniversalOptions{Addrs: []string{"store:6379"}, Dialer: p.dial}, Observe: seen.observe})
				if err != nil {
					t.Fatal(err)
				}
				l, lim := NewLimiter(s, ratelimit.New(ratelimit.Options{}), scope), ratelimit.Limit{RPS: 1, Burst: 5}
				allow(t, l, "a", lim)
				p.setSlow(slow)
				go l.Allow("b", lim)
				synctest.Wait()
				begin := time.Now()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if waited := time.Since(begin); waited > DefaultTimeout {
					t.Errorf("closing took %v", waited)
				}
				if got := drain(t, l, "a", lim); got != 4 {
					t.Errorf("%d more admitted after the end, want 4 of 5", got)
				}
				synctest.Wait()
				wantEvents(t, seen.take())
			})
		})
	}
}

// Decisions are told apart by who took part in them.
func TestDecisionsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		byStore := make(map[bool]int)
		s, err := Open(Options{
			Redis:   &redis.UniversalOptions{Addrs: []string{"store:6379"}, Dialer: p.dial},
			Decided: func(shared bool) { byStore[shared]++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		l := NewLimiter(s, ratelimit.New(ratelimit.Options{}), scope)
		drain(t, l, "a", ratelimit.Limit{RPS: 1, Burst: 5})
		p.leave()
		allow(t, l, "a", ratelimit.Limit{RPS: 1, Burst: 6})
		allow(t, l, "b", ratelimit.Limit{RPS: 1})
		if byStore[true] != 6 || byStore[false] != 2 {
			t.Errorf("%v", byStore)
		}
	})
}
