package ratelimit

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// maxCounterBytes is what a counter of a Clerk organization costs at most, everything included: its slot, its key's text, its
// entry in the index and what these have in reserve. docs/limits.md and docs/operations.md state it.
const maxCounterBytes = 192

// crowd is what a run over many tenants showed.
type crowd struct {
	limiter *Limiter
	heap    uint64 // bytes that the limiter holds in the end
	peak    int    // most counters at a time
	evicted uint64 // live ones among those that went
}

// runCrowd has n distinct tenants come one after the other within a time, each with as many requests as use says, and
// counts them with at most maxKeys counters.
func runCrowd(tb testing.TB, maxKeys, n int, within time.Duration, use func(i int) (lim Limit, requests int)) crowd {
	tb.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	clk := new(clock)
	told := uint64(0)
	c := crowd{limiter: New(Options{MaxKeys: maxKeys, Now: clk.now, OnEvict: func() { told++ }})}
	for i := range n {
		key := fmt.Sprintf("org_%027d", i)
		lim, requests := use(i)
		for range requests {
			if _, err := c.limiter.Allow(key, lim); err != nil {
				tb.Fatal(err)
			}
		}
		clk.add(within / time.Duration(n))
		if i%(n/100) == 0 {
			c.peak = max(c.peak, c.limiter.Len())
		}
	}
	c.peak = max(c.peak, c.limiter.Len())
	c.evicted = c.limiter.Evicted()
	runtime.GC()
	runtime.ReadMemStats(&after)
	c.heap = after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc)
	if told != c.evicted {
		tb.Errorf("told of %d evictions of %d", told, c.evicted)
	}
	return c
}

// usual are tenants with rates as plans have them, of whom one in a hundred is busy for a minute.
func usual(i int) (Limit, int) {
	lims := [...]Limit{{RPS: 5}, {RPS: 50}, {RPS: 200}, {RPS: 1, Burst: 30}}
	if i%100 == 0 {
		return Limit{RPS: 1, Burst: 60}, 60
	}
	return lims[i%len(lims)], 1 + i%4
}

// busy are tenants whose counters take as many seconds to run out as they have requests.
func busy(requests int) func(int) (Limit, int) {
	return func(int) (Limit, int) { return Limit{RPS: 1, Burst: 3600}, requests }
}

// TestManyTenantsOverAnHour: many more distinct tenants than there are counters come within an hour. Memory stays under the
// stated bound, and no information is lost, because counters that have none go first. BenchmarkTenMillionTenants is the same
// with ten million.
//
//nolint:paralleltest // it measures the heap
func TestManyTenantsOverAnHour(t *testing.T) {
	const bound, tenants = 2 * MinMaxKeys, 50 * MinMaxKeys
	c := runCrowd(t, bound, tenants, time.Hour, usual)
	if c.evicted != 0 {
		t.Errorf("%d live counters went, although there was room for all of them", c.evicted)
	}
	wantBounded(t, c, bound)
}

// TestMoreLiveTenantsThanRoom: where information has to go, memory holds all the same, and each loss is counted.
//
//nolint:paralleltest // it measures the heap
func TestMoreLiveTenantsThanRoom(t *testing.T) {
	const bound, tenants = 2 * MinMaxKeys, 20 * MinMaxKeys
	c := runCrowd(t, bound, tenants, time.Minute, busy(12)) // twice as many as there is room for are live at a time
	if c.evicted < tenants/2-bound || c.evicted > tenants-bound {
		t.Errorf("%d live counters went, of %d with room for %d", c.evicted, tenants, bound)
	}
	wantBounded(t, c, bound)
}

// wantBounded fails the test if there were more counters than the bound, or if they take more memory than is stated.
func wantBounded(t *testing.T, c crowd, bound int) {
	t.Helper()
	if c.peak > bound || c.heap > uint64(bound)*maxCounterBytes {
		t.Errorf("%d counters in %d bytes, the bounds are %d and %d", c.peak, c.heap, bound, bound*maxCounterBytes)
	}
	checkShards(t, c.limiter)
}

// BenchmarkTenMillionTenants lets ten million distinct tenants come and tells what is held: within an hour, under usual limits;
// within an hour, busy, with room for fewer than are live at a time; and within a second, to fill the default room.
func BenchmarkTenMillionTenants(b *testing.B) {
	const tenants = 10_000_000
	for _, c := range []struct {
		name   string
		bound  int
		within time.Duration
		use    func(int) (Limit, int)
	}{
		{"hour", DefaultMaxKeys, time.Hour, usual},
		{"busy", 10_000, time.Hour, busy(8)},
		{"flood", DefaultMaxKeys, time.Second, busy(1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				got := runCrowd(b, c.bound, tenants, c.within, c.use)
				b.ReportMetric(float64(got.heap)/(1<<20), "MiB")
				b.ReportMetric(float64(got.peak), "counters")
				b.ReportMetric(float64(got.heap)/float64(got.peak), "bytes/counter")
				b.ReportMetric(float64(got.evicted), "evicted")
				runtime.KeepAlive(got.limiter)
			}
		})
	}
}
