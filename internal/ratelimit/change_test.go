package ratelimit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Attack: a caller that can make its key meet several limits (two plans, two users of one organization)
// alternates between them to get more than any of them allows.
func TestAlternatingLimitsGainNothing(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		lims := make([]Limit, 2+rng.IntN(3))
		top := Limit{}
		for i := range lims {
			lims[i] = Limit{RPS: 1 + rng.IntN(300), Burst: 1 + rng.IntN(60)}
			top.RPS, top.Burst = max(top.RPS, lims[i].RPS), max(top.Burst, lims[i].Burst)
		}
		l, c := limiter(0)
		var at []time.Duration
		for range 600 {
			if rng.IntN(3) == 0 {
				c.add(time.Duration(rng.Int64N(int64(time.Second) / int64(top.RPS) * 4)))
			}
			if allow(t, l, "a", lims[rng.IntN(len(lims))]).Allowed {
				at = append(at, c.since())
			}
		}
		checkEnvelope(t, top, at)
	}
}

// What a refusal says must stay true when the limit has just changed.
func TestRetryAfterIsExactAfterAChange(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		old := Limit{RPS: 1 + rng.IntN(300), Burst: 1 + rng.IntN(60)}
		lim := Limit{RPS: 1 + rng.IntN(300), Burst: 1 + rng.IntN(60)}
		l, c := limiter(0)
		drain(t, l, "a", old)
		c.add(time.Duration(rng.Int64N(int64(old.Interval()))))
		r := allow(t, l, "a", lim)
		if r.Allowed {
			continue
		}
		if worst := time.Duration(old.Burst) * old.Interval(); r.RetryAfter > worst {
			t.Fatalf("%+v to %+v: told to wait %v, longer than the old limit's %v", old, lim, r.RetryAfter, worst)
		}
		c.add(r.RetryAfter - 1)
		if allow(t, l, "a", lim).Allowed {
			t.Fatalf("%+v to %+v: admitted before %v were over", old, lim, r.RetryAfter)
		}
		c.add(1)
		if !allow(t, l, "a", lim).Allowed {
			t.Fatalf("%+v to %+v: refused after waiting %v", old, lim, r.RetryAfter)
		}
	}
}

func TestChangedLimitAppliesAtOnce(t *testing.T) {
	t.Parallel()
	slow, fast := Limit{RPS: 1, Burst: 10}, Limit{RPS: 100, Burst: 100}

	l, _ := limiter(0)
	drain(t, l, "a", slow)
	if got := drain(t, l, "a", fast); got != 90 {
		t.Errorf("raised: %d more at once, want 90: the ten before still count", got)
	}

	l, c := limiter(0)
	drain(t, l, "a", fast)
	if allow(t, l, "a", slow).Allowed {
		t.Error("lowered: a drained counter came back full")
	}
	c.add(time.Second)
	if got := drain(t, l, "a", slow); got != 10 {
		t.Errorf("lowered: %d at once, want 10", got)
	}
	c.add(time.Second)
	if got := drain(t, l, "a", slow); got != 1 {
		t.Errorf("lowered: %d in the second after, want 1", got)
	}
}

// Attack: one user of an organization has a slow limit and keeps being refused, to slow down the others.
func TestRefusedSlowLimitDoesNotHoldBackAFastOne(t *testing.T) {
	t.Parallel()
	slow, fast := Limit{RPS: 1}, Limit{RPS: 100}
	l, c := limiter(0)
	drain(t, l, "a", fast)
	for range 50 {
		if allow(t, l, "a", slow).Allowed {
			t.Fatal("the slow limit admits")
		}
		c.add(10 * time.Millisecond)
		if !allow(t, l, "a", fast).Allowed {
			t.Fatal("the fast limit waits for the slow one")
		}
	}
}
