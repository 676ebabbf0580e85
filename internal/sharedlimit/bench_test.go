//go:build unix

package sharedlimit

import (
	"context"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

type limiter interface {
	Allow(key string, lim ratelimit.Limit) (ratelimit.Result, error)
}

// oneByOne is what sharing round trips is compared with: each decision is a command of its own, on a connection of its own.
type oneByOne struct {
	client *redis.Client
	own    *ratelimit.Limiter
}

func (o oneByOne) Allow(key string, lim ratelimit.Limit) (ratelimit.Result, error) {
	answer, err := o.client.EvalSha(context.Background(), scriptDigest, []string{counterKey(scope, key)}, int64(lim.Interval()), lim.Burst).Int64()
	if err != nil {
		return ratelimit.Result{}, err
	}
	own, err := o.own.Allow(key, lim)
	return stricter(result(answer, lim), own), err
}

// cpu is the time that this process has computed, which a busy machine changes less than the time on the clock.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkAllow is the cost of a decision: by this process alone, together with a real Redis on loopback with so many callers at once, and
// from what is remembered of a refusal. cpu-ns/op is this process's share, without Redis.
func BenchmarkAllow(b *testing.B) {
	const tenants = 1000
	keys := make([]string, tenants)
	for i := range keys {
		keys[i] = "org_2acmeB3JrTAwR4y9ojfljoQoa" + strconv.Itoa(i)
	}
	run := func(b *testing.B, l limiter, callers int, lim ratelimit.Limit) {
		b.Helper()
		b.ReportAllocs()
		b.SetParallelism(callers)
		var next atomic.Uint64
		b.ResetTimer()
		before := cpu(b)
		b.RunParallel(func(pb *testing.PB) {
			for n := next.Add(tenants / 3); pb.Next(); n++ {
				if _, err := l.Allow(keys[n%tenants], lim); err != nil {
					b.Error(err)
				}
			}
		})
		b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
	}
	fast := ratelimit.Limit{RPS: ratelimit.MaxRPS, Burst: ratelimit.MaxBurst}
	b.Run("local", func(b *testing.B) { run(b, ratelimit.New(ratelimit.Options{}), 1, fast) })
	b.Run("redis", func(b *testing.B) {
		addr := realRedis(b)
		open := func(b *testing.B) *Limiter {
			b.Helper()
			s, err := Open(Options{Redis: &redis.UniversalOptions{Addrs: []string{addr}}, Timeout: time.Minute})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { s.Close() })
			l := NewLimiter(s, ratelimit.New(ratelimit.Options{}), scope)
			if _, err := l.Allow(keys[0], fast); err != nil {
				b.Fatal(err)
			}
			return l
		}
		for _, callers := range []int{1, 8, 64} {
			b.Run("callers="+strconv.Itoa(callers)+"/core", func(b *testing.B) { run(b, open(b), callers, fast) })
		}
		for _, callers := range []int{1, 8, 64} {
			b.Run("one_by_one/callers="+strconv.Itoa(callers)+"/core", func(b *testing.B) {
				open(b) // which loads the script
				c := redis.NewClient(&redis.Options{Addr: addr})
				defer c.Close()
				run(b, oneByOne{c, ratelimit.New(ratelimit.Options{})}, callers, fast)
			})
		}
		b.Run("refused", func(b *testing.B) {
			l, slow := open(b), ratelimit.Limit{RPS: 1, Burst: 1}
			for _, key := range keys {
				l.store.refusals.add(counterKey(scope, key), ratelimit.Result{Limit: slow, RetryAfter: time.Hour, Reset: time.Hour}, time.Now(), time.Now())
			}
			run(b, l, 1, slow)
		})
	})
}
