package ratelimit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a clock that only the test moves.
type clock struct{ ns atomic.Int64 }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (c *clock) now() time.Time       { return epoch.Add(time.Duration(c.ns.Load())) }
func (c *clock) add(d time.Duration)  { c.ns.Add(int64(d)) }
func (c *clock) since() time.Duration { return time.Duration(c.ns.Load()) }

func limiter(maxKeys int) (*Limiter, *clock) {
	c := new(clock)
	return New(Options{MaxKeys: maxKeys, Now: c.now}), c
}

func allow(t *testing.T, l *Limiter, key string, lim Limit) Result {
	t.Helper()
	r, err := l.Allow(key, lim)
	if err != nil {
		t.Fatalf("Allow(%q, %+v): %v", key, lim, err)
	}
	return r
}

// drain uses up everything key may have at once and returns how much that was.
func drain(t *testing.T, l *Limiter, key string, lim Limit) int {
	t.Helper()
	for n := range 10_000 {
		if !allow(t, l, key, lim).Allowed {
			return n
		}
	}
	t.Fatal("the limiter never refuses")
	return 0
}

func TestAllowRefusesWhatCannotBeCounted(t *testing.T) {
	t.Parallel()
	l, _ := limiter(0)
	for _, c := range []struct {
		key  string
		lim  Limit
		want error
	}{
		{"", Limit{RPS: 1}, ErrNoKey},
		{"a", Limit{}, ErrLimit},
		{"a", Limit{RPS: -1}, ErrLimit},
		{"a", Limit{RPS: 0, Burst: 5}, ErrLimit},
		{"a", Limit{RPS: 1, Burst: -1}, ErrLimit},
		{"a", Limit{RPS: MaxRPS + 1}, ErrLimit},
		{"a", Limit{RPS: 1, Burst: MaxBurst + 1}, ErrLimit},
	} {
		r, err := l.Allow(c.key, c.lim)
		if !errors.Is(err, c.want) || r.Allowed {
			t.Errorf("Allow(%q, %+v) = %+v, %v, want refused with %v", c.key, c.lim, r, err, c.want)
		}
	}
	if n := l.Len(); n != 0 {
		t.Errorf("%d counters after nothing was counted", n)
	}
}

func TestBurstThenRate(t *testing.T) {
	t.Parallel()
	for _, lim := range []Limit{{RPS: 1}, {RPS: 3}, {RPS: 10, Burst: 1}, {RPS: 2, Burst: 50}, {RPS: 1000}} {
		l, c := limiter(0)
		want := lim.Burst
		if want == 0 {
			want = lim.RPS
		}
		if r := allow(t, l, "a", lim); r.Remaining != want-1 || r.Limit.Burst != want || r.RetryAfter != 0 {
			t.Errorf("%+v: first request: %+v", lim, r)
		}
		if got := drain(t, l, "a", lim) + 1; got != want {
			t.Errorf("%+v: %d at once, want %d", lim, got, want)
		}
		if got := drain(t, l, "b", lim); got != want {
			t.Errorf("%+v: another key got %d, want %d", lim, got, want)
		}
		r := allow(t, l, "a", lim)
		c.add(r.Reset)
		if got := drain(t, l, "a", lim); got != want {
			t.Errorf("%+v: after Reset %d at once, want %d", lim, got, want)
		}
	}
}

// A client that waits exactly as long as it is told to is admitted, and would not have been a nanosecond sooner.
func TestRetryAfterIsExact(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		lim := Limit{RPS: 1 + rng.IntN(2000), Burst: 1 + rng.IntN(40)}
		l, c := limiter(0)
		for range 20 {
			drain(t, l, "a", lim)
			r := allow(t, l, "a", lim)
			if r.Allowed || r.RetryAfter <= 0 || r.Remaining != 0 {
				t.Fatalf("%+v: drained, but %+v", lim, r)
			}
			c.add(r.RetryAfter - 1)
			if allow(t, l, "a", lim).Allowed {
				t.Fatalf("%+v: admitted before %v were over", lim, r.RetryAfter)
			}
			c.add(1)
			if !allow(t, l, "a", lim).Allowed {
				t.Fatalf("%+v: refused after waiting %v", lim, r.RetryAfter)
			}
			c.add(time.Duration(rng.Int64N(int64(3 * time.Second))))
		}
	}
}

// checkEnvelope fails if any window over the admitted times holds more than rate*window+burst of them.
func checkEnvelope(t *testing.T, lim Limit, at []time.Duration) {
	t.Helper()
	for i := range at {
		for j := i; j < len(at); j++ {
			over := int64(j-i+1-lim.Burst) * int64(time.Second)
			if over > int64(at[j]-at[i])*int64(lim.RPS) {
				t.Fatalf("%+v: %d requests admitted within %v", lim, j-i+1, at[j]-at[i])
			}
		}
	}
}

func TestNoWindowAdmitsMoreThanRateAndBurst(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	for range 150 {
		lim := Limit{RPS: 1 + rng.IntN(500), Burst: 1 + rng.IntN(60)}
		if rng.IntN(8) == 0 {
			lim.RPS = 1 + rng.IntN(MaxRPS) // the rates that do not divide a second show at the top
		}
		l, c := limiter(0)
		var at []time.Duration
		// The same decisions from tokens in a bucket, counted in nanoseconds of the interval.
		interval := lim.Interval()
		full := interval * time.Duration(lim.Burst)
		tokens, last := full, time.Duration(0)
		for range 400 {
			c.add(time.Duration(rng.Int64N(int64(interval) * int64(1+rng.IntN(6)))))
			tokens = min(full, tokens+c.since()-last)
			last = c.since()
			want := tokens >= interval
			r := allow(t, l, "a", lim)
			if r.Allowed != want {
				t.Fatalf("%+v: allowed %v with %v of %v left", lim, r.Allowed, tokens, interval)
			}
			if want {
				tokens -= interval
				at = append(at, c.since())
			}
			if got := int(tokens / interval); r.Remaining != got {
				t.Fatalf("%+v: %d remaining, want %d", lim, r.Remaining, got)
			}
			if r.Reset != full-tokens {
				t.Fatalf("%+v: reset %v, want %v", lim, r.Reset, full-tokens)
			}
		}
		checkEnvelope(t, lim, at)
	}
}

func TestConcurrentCallersNeverExceedTheBurst(t *testing.T) {
	t.Parallel()
	l, c := limiter(0)
	lim := Limit{RPS: 50, Burst: 200}
	for round := range 3 {
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for range 50 {
					r, err := l.Allow("a", lim)
					if err != nil {
						t.Error(err)
						return
					}
					if r.Allowed {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if got := admitted.Load(); got != 200 {
			t.Errorf("round %d: %d of 1600 concurrent requests admitted, want 200", round, got)
		}
		c.add(4 * time.Second)
	}
}

func TestConcurrentUseOfEverything(t *testing.T) {
	t.Parallel()
	l := New(Options{MaxKeys: MinMaxKeys})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				if _, err := l.Allow(fmt.Sprint(g, i%1500), Limit{RPS: 1 + i%100}); err != nil {
					t.Error(err)
					return
				}
				if i%500 == 0 {
					l.SetMaxKeys(MinMaxKeys + i)
					l.Len()
					l.Evicted()
				}
			}
		})
	}
	wg.Wait()
	l.SetMaxKeys(1)
	if n := l.Len(); n > MinMaxKeys {
		t.Errorf("%d counters, bound %d", n, MinMaxKeys)
	}
}

// A clock that is set back neither locks a key out for longer than it was nor gives it a second burst.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	lim := Limit{RPS: 2, Burst: 10}
	l, c := limiter(0)
	allow(t, l, "partly used", lim)
	drain(t, l, "drained", lim)
	c.add(-24 * time.Hour)
	if got := drain(t, l, "partly used", lim); got != 9 {
		t.Errorf("%d at once after the clock was set back, want the 9 that were left", got)
	}
	r := allow(t, l, "drained", lim)
	if r.Allowed {
		t.Fatal("setting the clock back refilled a drained counter")
	}
	if r.RetryAfter > lim.Interval() {
		t.Fatalf("setting the clock back locks the key out for %v", r.RetryAfter)
	}
	c.add(r.RetryAfter)
	if !allow(t, l, "drained", lim).Allowed {
		t.Error("refused after the announced wait")
	}
	c.add(24 * time.Hour)
	if got := drain(t, l, "drained", lim); got != 10 {
		t.Errorf("%d at once after the clock came back, want 10", got)
	}
}

// Attack: a tenant's name may be as long as a claim, and a million long names would cost more memory than the
// bound on keys promises.
func TestLongKeysAreStoredShort(t *testing.T) {
	t.Parallel()
	l, _ := limiter(0)
	lim := Limit{RPS: 1}
	long := strings.Repeat("x", 100_000)
	if !allow(t, l, long+"1", lim).Allowed || !allow(t, l, long+"2", lim).Allowed {
		t.Error("two long keys share a counter")
	}
	if allow(t, l, long+"1", lim).Allowed {
		t.Error("a long key is not counted")
	}
	for i := range l.shards {
		for _, c := range l.shards[i].slots {
			if len(c.key) > maxKeySize {
				t.Errorf("a key of %d bytes is kept", len(c.key))
			}
		}
	}
}

//nolint:paralleltest // AllocsPerRun must not run beside other tests.
func TestWarmDecisionDoesNotAllocate(t *testing.T) {
	l, _ := limiter(0)
	lim := Limit{RPS: 10}
	allow(t, l, "org_1", lim)
	got := testing.AllocsPerRun(1000, func() {
		if _, err := l.Allow("org_1", lim); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations for a known key, want none", got)
	}
}

func FuzzAllow(f *testing.F) {
	f.Add("a", 1, 1, 2, 2, int64(1))
	f.Add("org_1:top_pages", MaxRPS, MaxBurst, 1, MaxBurst, int64(time.Hour))
	f.Add("", 0, -1, 1, 1, int64(-1))
	f.Fuzz(func(t *testing.T, key string, rps1, burst1, rps2, burst2 int, step int64) {
		l, c := limiter(0)
		for i := range 20 {
			lim := Limit{RPS: rps1, Burst: burst1}
			if i%3 == 0 {
				lim = Limit{RPS: rps2, Burst: burst2}
			}
			r, err := l.Allow(key, lim)
			if err != nil {
				if r.Allowed {
					t.Fatal("allowed with an error")
				}
				continue
			}
			if r.Remaining < 0 || r.Remaining > r.Limit.Burst || r.Reset < 0 || r.RetryAfter < 0 || r.Allowed != (r.RetryAfter == 0) {
				t.Fatalf("%+v", r)
			}
			c.add(time.Duration(step % int64(24*time.Hour)))
		}
	})
}

func BenchmarkAllow(b *testing.B) {
	l := New(Options{})
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("org_%026d", i)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_, _ = l.Allow(keys[i%len(keys)], Limit{RPS: 1000})
		}
	})
}
