package sharedlimit

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// randomLimit is any limit, now and then one at the end of the range.
func randomLimit(rng *rand.Rand) ratelimit.Limit {
	lim := ratelimit.Limit{RPS: 1 + rng.IntN(300), Burst: 1 + rng.IntN(60)}
	switch rng.IntN(8) {
	case 0:
		lim.RPS = 1 + rng.IntN(ratelimit.MaxRPS)
	case 1:
		lim.Burst = 1 + rng.IntN(ratelimit.MaxBurst)
	}
	return lim
}

// The store decides as the limiter in this process does, to the nanosecond, also when limits change: so an edge that falls back
// goes on with the same rules.
func TestScriptDecidesAsTheLocalLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, own := open(t, newPeer(t), nil), ratelimit.New(ratelimit.Options{})
		rng := rand.New(rand.NewPCG(1, 2))
		for round := range 40 {
			lims := make([]ratelimit.Limit, 1+rng.IntN(3))
			for i := range lims {
				lims[i] = randomLimit(rng)
			}
			key := strconv.Itoa(round)
			for range 40 {
				lim := lims[rng.IntN(len(lims))]
				// A counter begins, runs out in parts, and now and then as a whole. Redis counts microseconds.
				if rng.IntN(3) == 0 {
					pass(time.Duration(rng.Int64N(int64(lim.Interval())*3/int64(time.Microsecond)+2)) * time.Microsecond)
				}
				want, err := own.Allow(key, lim)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := s.ask(key, lim, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if got := result(answer, lim); got != want {
					t.Fatalf("%+v\n got %+v\nwant %+v", lims, got, want)
				}
			}
		}
	})
}

// checkEnvelope fails if any window over the admitted times holds more than rate*window+burst of them, and as many bursts more
// as there were jumps of the store's clock in it.
func checkEnvelope(t *testing.T, lim ratelimit.Limit, at, jumps []time.Duration) {
	t.Helper()
	for i := range at {
		for j := i; j < len(at); j++ {
			burst := lim.Burst
			for _, jump := range jumps {
				if at[i] <= jump && jump <= at[j] {
					burst += lim.Burst
				}
			}
			if over := int64(j-i+1-burst) * int64(time.Second); over > int64(at[j]-at[i])*int64(lim.RPS) {
				t.Fatalf("%+v: %d requests admitted within %v", lim, j-i+1, at[j]-at[i])
			}
		}
	}
}

// Over random arrivals at three edges, for tenants whose limits are changed, no window admits more than rate*window+burst.
func TestNoWindowAdmitsMoreThanRateAndBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, rng := newPeer(t), rand.New(rand.NewPCG(3, 4))
		edges := []*Limiter{newEdge(t, p, nil), newEdge(t, p, nil), newEdge(t, p, nil)}
		for round := range 25 {
			lims := make([]ratelimit.Limit, 1+rng.IntN(3))
			top := ratelimit.Limit{}
			for i := range lims {
				lims[i] = ratelimit.Limit{RPS: 1 + rng.IntN(300), Burst: 1 + rng.IntN(60)}
				top.RPS, top.Burst = max(top.RPS, lims[i].RPS), max(top.Burst, lims[i].Burst)
			}
			var at []time.Duration
			begin := time.Now()
			for range 150 {
				pass(time.Duration(rng.Int64N(int64(time.Second) / int64(top.RPS) * 2)))
				if allow(t, edges[rng.IntN(len(edges))], strconv.Itoa(round), lims[rng.IntN(len(lims))]).Allowed {
					at = append(at, time.Since(begin))
				}
			}
			if len(at) < 5 {
				t.Fatalf("%+v: only %d admitted, which shows nothing", lims, len(at))
			}
			checkEnvelope(t, top, at, nil)
		}
	})
}

// Together the edges admit what one would: the limit is used up, wherever the requests arrive.
func TestEdgesShareOneLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		edges := []*Limiter{newEdge(t, p, nil), newEdge(t, p, nil)}
		lim := ratelimit.Limit{RPS: 50, Burst: 20}
		admitted := 0
		for n := range 1000 {
			if allow(t, edges[n%2], "a", lim).Allowed {
				admitted++
			}
			pass(5 * time.Millisecond)
		}
		if want := 20 + 50*5; admitted < want-1 || admitted > want {
			t.Errorf("%d admitted in 5 s, want %d", admitted, want)
		}
		if got := drain(t, edges[0], "b", lim) + drain(t, edges[1], "b", lim); got != 20 {
			t.Errorf("another tenant got %d at once, want 20", got)
		}
	})
}

// A client that waits as long as Retry-After says is let in, at whichever edge, and would have been refused a second before. Answers
// from what an edge remembers say the same.
func TestRetryAfterIsTrue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, rng := newPeer(t), rand.New(rand.NewPCG(5, 6))
		p.setSlow(2 * time.Millisecond)
		edges := []*Limiter{newEdge(t, p, nil), newEdge(t, p, nil)}
		for round := range 40 {
			old, lim := randomLimit(rng), ratelimit.Limit{RPS: 1 + rng.IntN(3), Burst: 1 + rng.IntN(5)}
			old.RPS, old.Burst = min(old.RPS, 300), min(old.Burst, 60)
			key := strconv.Itoa(round)
			if rng.IntN(2) == 0 {
				drain(t, edges[rng.IntN(2)], key, old)
			}
			drain(t, edges[rng.IntN(2)], key, lim)
			pass(time.Duration(rng.Int64N(int64(lim.Interval()) / 2)))
			r := allow(t, edges[rng.IntN(2)], key, lim)
			if r.Allowed {
				continue
			}
			h := make(http.Header)
			r.SetHeaders(h)
			told, err := strconv.Atoi(h.Get("Retry-After"))
			if err != nil || r.Remaining != 0 {
				t.Fatalf("%v %+v", h, r)
			}
			if told > 1 {
				pass(time.Duration(told-1) * time.Second)
				if at := edges[rng.IntN(2)]; allow(t, at, key, lim).Allowed {
					t.Fatalf("%+v to %+v: told to wait %d s, and admitted a second before", old, lim, told)
				}
				pass(time.Second)
			} else {
				pass(time.Duration(told) * time.Second)
			}
			if r := allow(t, edges[rng.IntN(2)], key, lim); !r.Allowed {
				t.Fatalf("%+v to %+v: told to wait %d s, and refused after that: %+v", old, lim, told, r)
			}
		}
	})
}

// The store's clock is set back: nobody is locked out, and nobody gets more. It is set forward: nobody gets more than a burst.
func TestStoresClockJumps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, rng := newPeer(t), rand.New(rand.NewPCG(7, 8))
		s := open(t, p, nil)
		for round := range 15 {
			lim := ratelimit.Limit{RPS: 1 + rng.IntN(100), Burst: 1 + rng.IntN(30)}
			key, begin, offset := strconv.Itoa(round), time.Now(), time.Duration(0)
			var at, ahead []time.Duration
			refused := 0
			for range 100 {
				pass(time.Duration(rng.Int64N(int64(lim.Interval()))))
				switch rng.IntN(20) {
				case 0:
					offset -= time.Duration(rng.Int64N(int64(time.Hour)))
				case 1:
					offset += time.Duration(rng.Int64N(int64(time.Hour)))
					ahead = append(ahead, time.Since(begin))
				}
				p.SetTime(time.Now().Add(offset))
				answer, err := s.ask(key, lim, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				r := result(answer, lim)
				if r.Allowed {
					at = append(at, time.Since(begin))
					refused = 0
					continue
				}
				if refused++; r.RetryAfter > lim.Interval() {
					t.Fatalf("%+v: told to wait %v", lim, r.RetryAfter)
				}
				if refused > 50 {
					t.Fatalf("%+v: locked out", lim)
				}
			}
			checkEnvelope(t, lim, at, ahead)
		}
	})
}

// After the store's clock was set back, a tenant that has used up its limit waits as long as it would have anyway.
func TestClockSetBackLocksNobodyOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		s, lim := open(t, p, nil), ratelimit.Limit{RPS: 2, Burst: 4}
		ask := func() ratelimit.Result {
			answer, err := s.ask("a", lim, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return result(answer, lim)
		}
		for range 4 {
			ask()
		}
		p.SetTime(time.Now().Add(-time.Hour))
		r := ask()
		if r.Allowed || r.RetryAfter != lim.Interval() {
			t.Fatalf("%+v", r)
		}
		p.SetTime(time.Now().Add(r.RetryAfter - time.Hour))
		if r := ask(); !r.Allowed {
			t.Errorf("after waiting: %+v", r)
		}
	})
}

// Both limits hold, and what a client is told is true for both.
func TestStricter(t *testing.T) {
	t.Parallel()
	lim := ratelimit.Limit{RPS: 10, Burst: 5} // an interval is 100 ms
	const ms = time.Millisecond
	for _, c := range []struct{ shared, own, want ratelimit.Result }{
		{
			ratelimit.Result{Allowed: true, Limit: lim, Remaining: 3, Reset: 200 * ms},
			ratelimit.Result{Allowed: true, Limit: lim, Remaining: 1, Reset: 400 * ms},
			ratelimit.Result{Allowed: true, Limit: lim, Remaining: 1, Reset: 400 * ms},
		},
		{
			ratelimit.Result{Allowed: true, Limit: lim, Remaining: 0, Reset: 500 * ms},
			ratelimit.Result{Allowed: true, Limit: lim, Remaining: 4, Reset: 100 * ms},
			ratelimit.Result{Allowed: true, Limit: lim, Remaining: 0, Reset: 500 * ms},
		},
		{ // the store has counted this one, so that it admits the next in 100 ms
			ratelimit.Result{Allowed: true, Limit: lim, Remaining: 0, Reset: 500 * ms},
			ratelimit.Result{Limit: lim, Reset: 402 * ms, RetryAfter: 2 * ms},
			ratelimit.Result{Limit: lim, Reset: 500 * ms, RetryAfter: 100 * ms},
		},
		{
			ratelimit.Result{Allowed: true, Limit: lim, Remaining: 4, Reset: 100 * ms},
			ratelimit.Result{Limit: lim, Reset: 450 * ms, RetryAfter: 50 * ms},
			ratelimit.Result{Limit: lim, Reset: 450 * ms, RetryAfter: 50 * ms},
		},
	} {
		if got := stricter(c.shared, c.own); got != c.want {
			t.Errorf("%+v and %+v are\n%+v, want\n%+v", c.shared, c.own, got, c.want)
		}
	}
}

// A limit that changes applies at once, at all edges, and what was counted stays counted.
func TestChangedLimitAppliesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		a, b := newEdge(t, p, nil), newEdge(t, p, nil)
		slow, fast := ratelimit.Limit{RPS: 1, Burst: 10}, ratelimit.Limit{RPS: 100, Burst: 100}
		drain(t, a, "raised", slow)
		if got := drain(t, b, "raised", fast); got != 90 {
			t.Errorf("raised: %d more at once, want 90: the ten before still count", got)
		}
		drain(t, a, "lowered", fast)
		for _, edge := range []*Limiter{a, b} {
			if allow(t, edge, "lowered", slow).Allowed {
				t.Error("lowered: a drained counter came back full")
			}
		}
	})
}

// Counters go when they say nothing any more, so that the store holds only the tenants of the moment.
func TestCountersExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		l := newEdge(t, p, nil)
		for n := range 50 {
			lim := ratelimit.Limit{RPS: 1 + n%7, Burst: 1 + n}
			r := allow(t, l, strconv.Itoa(n), lim)
			key := counterKey(scope, strconv.Itoa(n))
			if ttl := p.TTL(key); ttl < r.Reset || ttl > r.Reset+2*time.Millisecond {
				t.Errorf("%+v: a counter that runs out in %v is kept for %v", lim, r.Reset, ttl)
			}
		}
		if n := len(p.Keys()); n != 50 {
			t.Fatalf("%d keys", n)
		}
		pass(2 * time.Second)
		if n := len(p.Keys()); n != 0 {
			t.Errorf("%d keys are left: %q", n, p.Keys())
		}
	})
}

// Attack: a tenant whose name is another one's with something around it, or is made to be read as a key, a pattern, a slot or a script's
// argument. In the store all have one form and none has the name in it.
func TestAttackNamesAsKeys(t *testing.T) {
	t.Parallel()
	names := []string{
		"org_1", "org_1 ", " org_1", "org_1\x00", "\x00org_1", "org_1:a", "{org_1}", "{org_1}:a", "{}", "*", "org_?", "org_1\r\nFLUSHALL\r\n",
		"' .. redis.call('FLUSHALL') .. '", "1 1 1", strings.Repeat("a", 8192), strings.Repeat("a", 8191), "ORG_1", "örg_1", "\xff", "probe:{a}",
		"org_1org_1", scope + "org_1",
	}
	seen := make(map[string]string)
	for _, scope := range []string{scope, "", "org_1"} {
		for _, name := range names {
			key := counterKey(scope, name)
			what := fmt.Sprintf("%q in %q", name, scope)
			if before, ok := seen[key]; ok {
				t.Errorf("%.80s and %.80s share a counter", before, what)
			}
			seen[key] = what
			if len(key) != len(keyPrefix+"limit:")+43 || strings.Trim(key[len(keyPrefix+"limit:"):], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				t.Errorf("%.80s: the key %q", what, key)
			}
		}
	}
}

// What else may stand in a counter's place is taken for none, and written over.
func TestForeignValueIsNoCounter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		l, lim := newEdge(t, p, nil), ratelimit.Limit{RPS: 1, Burst: 3}
		for n, value := range []string{"", "x", "1", "1 2", "-1 -2 -3", "1 2 3 4", "1e9 1e9 1e9", "nan 1 2"} {
			name := strconv.Itoa(n)
			if err := p.Set(counterKey(scope, name), value); err != nil {
				t.Fatal(err)
			}
			if got := drain(t, l, name, lim); got != 3 {
				t.Errorf("%q: %d at once, want 3", value, got)
			}
		}
	})
}
