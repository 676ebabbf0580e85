package ratelimit

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"time"
)

func TestSetHeaders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		r    Result
		want map[string]string
	}{
		{
			"allowed",
			Result{Allowed: true, Limit: Limit{RPS: 10, Burst: 10}, Remaining: 9, Reset: 100 * time.Millisecond},
			map[string]string{
				"RateLimit-Policy": `"default";q=10;w=1`, "RateLimit": `"default";r=9;t=1`,
				"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "9", "X-RateLimit-Reset": "1", "Retry-After": "",
			},
		},
		{
			"refused, less than a second",
			Result{Limit: Limit{RPS: 10, Burst: 25}, Reset: 2500 * time.Millisecond, RetryAfter: time.Nanosecond},
			map[string]string{
				"RateLimit-Policy": `"default";q=25;w=3`, "RateLimit": `"default";r=0;t=3`,
				"X-RateLimit-Limit": "25", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3", "Retry-After": "1",
			},
		},
		{
			"refused, a whole second is not rounded up",
			Result{Limit: Limit{RPS: 1, Burst: 4}, Reset: 4 * time.Second, RetryAfter: time.Second},
			map[string]string{"RateLimit-Policy": `"default";q=4;w=4`, "X-RateLimit-Reset": "4", "Retry-After": "1"},
		},
		{
			"a burst below the rate",
			Result{Allowed: true, Limit: Limit{RPS: 100, Burst: 5}},
			map[string]string{"RateLimit-Policy": `"default";q=5;w=1`, "RateLimit": `"default";r=0;t=0`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{}
			h.Set("X-RateLimit-Limit", "stale")
			c.r.SetHeaders(h)
			for name, want := range c.want {
				if got := h.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// Waiting as many whole seconds as Retry-After says is always enough, and a second less never is.
func TestRetryAfterHeader(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 12))
	wait := func(r Result) time.Duration {
		h := http.Header{}
		r.SetHeaders(h)
		n, err := strconv.Atoi(h.Get("Retry-After"))
		if err != nil || n < 1 {
			t.Fatalf("Retry-After %q", h.Get("Retry-After"))
		}
		return time.Duration(n) * time.Second
	}
	for range 500 {
		old := Limit{RPS: 1 + rng.IntN(5), Burst: 1 + rng.IntN(60)}
		lim := Limit{RPS: 1 + rng.IntN(5), Burst: 1 + rng.IntN(20)}
		l, c := limiter(0)
		drain(t, l, "a", old)
		c.add(time.Duration(rng.Int64N(int64(2 * time.Second))))
		for r := allow(t, l, "a", lim); r.Allowed; r = allow(t, l, "a", lim) {
			continue
		}
		d := wait(allow(t, l, "a", lim))
		c.add(d - time.Second)
		if r := allow(t, l, "a", lim); r.Allowed && d > time.Second {
			t.Fatalf("Retry-After %v is a second or more too long", d)
		}
		c.add(time.Second)
		if !allow(t, l, "a", lim).Allowed {
			t.Fatalf("refused after waiting Retry-After %v", d)
		}
	}
}
