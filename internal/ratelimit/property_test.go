package ratelimit

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// seedFlag repeats a run of the property tests: go test ./internal/ratelimit -run Property -seed <n>.
var seedFlag = flag.Uint64("seed", 0, "seed of the property tests; 0: a new one")

// newRand returns numbers of a new seed, which is told if the test fails.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to repeat it: go test ./internal/ratelimit -run '^%s$' -seed %d", t.Name(), seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// world is a clock that runs, waits and is set in both directions, and tenants that ask at random.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	l       *Limiter
	clock   *clock
	elapsed time.Duration // the time that ran, and that the clock was set forward: at most so much has passed for anybody
	tenants []*tenant
}

type tenant struct {
	key   string
	plans []Limit
	lim   Limit
	asked []asked
}

// asked is one request.
type asked struct {
	at      time.Duration
	lim     Limit
	allowed bool
}

func newWorld(t *testing.T, rng *rand.Rand) *world {
	t.Helper()
	w := &world{t: t, rng: rng}
	w.l, w.clock = limiter(0)
	for i := range 1 + rng.IntN(12) {
		x := &tenant{key: fmt.Sprint("tenant", i)}
		for range 1 + rng.IntN(3) {
			lim := Limit{RPS: 1 + rng.IntN(40), Burst: 1 + rng.IntN(40)}
			if rng.IntN(6) == 0 {
				lim = Limit{RPS: 1 + rng.IntN(MaxRPS), Burst: 1 + rng.IntN(100)}
			}
			x.plans = append(x.plans, lim)
		}
		x.lim = x.plans[0]
		w.tenants = append(w.tenants, x)
	}
	return w
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	w.clock.add(d)
	w.elapsed += d
}

// jump sets the clock, by up to two days in either direction.
func (w *world) jump() {
	d := time.Duration(w.rng.Int64N(int64(96*time.Hour))) - 48*time.Hour
	if w.rng.IntN(2) == 0 {
		d /= 1 << w.rng.IntN(40)
	}
	w.clock.add(d)
	w.elapsed += max(d, 0)
}

func (w *world) ask(x *tenant) Result {
	r := allow(w.t, w.l, x.key, x.lim)
	x.asked = append(x.asked, asked{w.elapsed, x.lim, r.Allowed})
	return r
}

// pause is a time that is about as long as what matters to the tenant.
func (w *world) pause(x *tenant) time.Duration {
	return time.Duration(w.rng.Int64N(int64(x.lim.Interval()) * int64(1+w.rng.IntN(2*x.lim.Burst))))
}

// patience has the tenant ask until it is refused, and then wait as it was told to, while others go on asking. It must
// not be let in a nanosecond before that, must be then, and the header must say that time, rounded up.
func (w *world) patience(x *tenant) {
	w.t.Helper()
	r := w.ask(x)
	for range 5 * MaxBurst {
		if !r.Allowed {
			break
		}
		r = w.ask(x)
	}
	h := http.Header{}
	r.SetHeaders(h)
	told, err := strconv.Atoi(h.Get("Retry-After"))
	wait := time.Duration(told) * time.Second
	if err != nil || told < 1 || wait < r.RetryAfter || wait-r.RetryAfter >= time.Second {
		w.t.Fatalf("%s %+v: Retry-After %q, but the wait is %v", x.key, x.lim, h.Get("Retry-After"), r.RetryAfter)
	}
	worst := time.Duration(0)
	for _, lim := range x.plans {
		for _, other := range x.plans {
			worst = max(worst, lim.Interval()*time.Duration(other.Burst))
		}
	}
	if r.RetryAfter > worst {
		w.t.Fatalf("%s: locked out for %v, although nothing it may have takes longer than %v", x.key, r.RetryAfter, worst)
	}
	left := r.RetryAfter - 1
	for left > 0 {
		step := min(left, 1+time.Duration(w.rng.Int64N(int64(r.RetryAfter))))
		w.run(step)
		left -= step
		if other := w.tenants[w.rng.IntN(len(w.tenants))]; other != x {
			w.ask(other)
		}
	}
	if w.ask(x).Allowed {
		w.t.Fatalf("%s %+v: let in before %v were over", x.key, x.lim, r.RetryAfter)
	}
	w.run(1)
	if !w.ask(x).Allowed {
		w.t.Fatalf("%s %+v: refused after %v, as long as it was told to wait", x.key, x.lim, r.RetryAfter)
	}
}

// TestPropertyLimiter: over random arrivals of many tenants, with limits that change and a clock that is set forward and back,
// no window admits more than rate*window+burst, with the highest rate and the largest burst that was asked with in
// the window; and whoever waits as it is told to is let in then, and not before.
func TestPropertyLimiter(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	for range 30 {
		w := newWorld(t, rng)
		for range 1000 {
			x := w.tenants[rng.IntN(len(w.tenants))]
			switch n := rng.IntN(100); {
			case n < 3:
				w.jump()
			case n < 8:
				x.lim = x.plans[rng.IntN(len(x.plans))]
			case n < 10:
				w.patience(x)
			case n < 40:
				w.run(w.pause(x))
			default:
				w.ask(x)
			}
		}
		for _, x := range w.tenants {
			checkWindows(t, x)
		}
	}
}

// checkWindows looks at every window that begins and ends with an admitted request.
func checkWindows(t *testing.T, x *tenant) {
	t.Helper()
	for i, first := range x.asked {
		if !first.allowed {
			continue
		}
		top, admitted := Limit{}, 0
		for _, a := range x.asked[i:] {
			top.RPS, top.Burst = max(top.RPS, a.lim.RPS), max(top.Burst, a.lim.Burst)
			if !a.allowed {
				continue
			}
			admitted++
			if over := int64(admitted-top.Burst) * int64(time.Second); over > 0 && over/int64(top.RPS) > int64(a.at-first.at) {
				t.Fatalf("%s: %d requests admitted within %v, by %+v at most", x.key, admitted, a.at-first.at, top)
			}
		}
	}
}

// TestPropertyConcurrentTenants: the same for tenants that really ask at the same time, each from several places, while the
// clock is moved under them.
func TestPropertyConcurrentTenants(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	for range 8 {
		// The limiter's clock is set in both directions. Between what has surely passed before a request and what may have
		// passed after it is the time that the limiter saw.
		l, c := limiter(0)
		var sure, maybe atomic.Int64
		stop := make(chan struct{})
		var mover, askers sync.WaitGroup
		moves := make([]time.Duration, 2000)
		for i := range moves {
			moves[i] = time.Duration(rng.Int64N(int64(20*time.Millisecond))) - 3*time.Millisecond
		}
		mover.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				d := moves[i%len(moves)]
				maybe.Add(int64(max(d, 0)))
				c.add(d)
				sure.Add(int64(max(d, 0)))
			}
		})
		lims := make([]Limit, 4)
		admitted := make([][][2]time.Duration, len(lims))
		var mu sync.Mutex
		for i := range lims {
			lims[i] = Limit{RPS: 1 + rng.IntN(200), Burst: 1 + rng.IntN(20)}
			for range 3 {
				askers.Go(func() {
					for range 300 {
						from := time.Duration(sure.Load())
						r, err := l.Allow(fmt.Sprint("tenant", i), lims[i])
						to := time.Duration(maybe.Load())
						if err != nil {
							t.Error(err)
							return
						}
						if r.Allowed {
							mu.Lock()
							admitted[i] = append(admitted[i], [2]time.Duration{from, to})
							mu.Unlock()
						}
					}
				})
			}
		}
		askers.Wait()
		close(stop)
		mover.Wait()
		for i, lim := range lims {
			checkSpans(t, lim, admitted[i])
		}
	}
}

// checkSpans looks at every window over requests of which each was admitted at some time between two.
func checkSpans(t *testing.T, lim Limit, spans [][2]time.Duration) {
	t.Helper()
	if len(spans) < lim.Burst {
		t.Errorf("%+v: only %d requests were admitted", lim, len(spans))
	}
	for _, first := range spans {
		var ends []time.Duration
		for _, s := range spans {
			if s[0] >= first[0] {
				ends = append(ends, s[1])
			}
		}
		slices.Sort(ends)
		for n, end := range ends {
			over := int64(n+1-lim.Burst) * int64(time.Second)
			if over > 0 && over/int64(lim.RPS) > int64(end-first[0]) {
				t.Fatalf("%+v: %d requests admitted within %v", lim, n+1, end-first[0])
			}
		}
	}
}
