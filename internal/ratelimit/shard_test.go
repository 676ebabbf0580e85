package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// checkShards fails if the index and the places of a shard do not agree.
func checkShards(t *testing.T, l *Limiter) {
	t.Helper()
	for i := range l.shards {
		s := &l.shards[i]
		if len(s.index) != len(s.slots) || len(s.slots) > s.max {
			t.Fatalf("shard %d: %d names, %d places, bound %d", i, len(s.index), len(s.slots), s.max)
		}
		for at, c := range s.slots {
			if s.index[c.key] != uint32(at) {
				t.Fatalf("shard %d: %q is at %d, the index says %d", i, c.key, at, s.index[c.key])
			}
			if s.order[c.rank] != uint32(at) {
				t.Fatalf("shard %d: %q is at %d, the order has %d there", i, c.key, at, s.order[c.rank])
			}
			if parent := (int(c.rank) - 1) / 2; c.rank > 0 && s.Less(int(c.rank), parent) {
				t.Fatalf("shard %d: %q runs out before what comes before it", i, c.key)
			}
		}
	}
}

func fill(t *testing.T, l *Limiter, prefix string, n int, lim Limit) {
	t.Helper()
	for i := range n {
		allow(t, l, fmt.Sprintf("%s%d", prefix, i), lim)
	}
}

// Attack: more tenants than there is room for.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const bound = 2 * MinMaxKeys
	l, _ := limiter(bound)
	fill(t, l, "k", 10*bound, Limit{RPS: 1})
	if n := l.Len(); n != bound {
		t.Errorf("%d counters, want %d", n, bound)
	}
	if got := l.Evicted(); got != 9*bound {
		t.Errorf("%d evicted, want %d: all of them were live", got, 9*bound)
	}
	checkShards(t, l)
}

func TestDefaultBound(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{0: DefaultMaxKeys, 1: MinMaxKeys, -5: DefaultMaxKeys, 100_001: 100_001} {
		l, _ := limiter(n)
		got := 0
		for i := range l.shards {
			got += l.shards[i].max
		}
		if got != want {
			t.Errorf("MaxKeys %d: room for %d, want %d", n, got, want)
		}
	}
}

func TestCountersThatRanOutGoFirst(t *testing.T) {
	t.Parallel()
	const bound = 4 * MinMaxKeys
	l, c := limiter(bound)
	long, short := Limit{RPS: 1, Burst: 1000}, Limit{RPS: 10}
	for i := range 100 {
		allow(t, l, fmt.Sprintf("live%d", i), long)
		for range 99 {
			allow(t, l, fmt.Sprintf("live%d", i), long)
		}
	}
	for round := range 20 {
		fill(t, l, fmt.Sprintf("r%d-", round), bound/2, short)
		c.add(time.Second)
	}
	if got := l.Evicted(); got != 0 {
		t.Errorf("%d live counters went while others had run out", got)
	}
	if n := l.Len(); n > bound {
		t.Errorf("%d counters, bound %d", n, bound)
	}
	for i := range 100 {
		// 100 used, 20 s passed.
		if r := allow(t, l, fmt.Sprintf("live%d", i), long); r.Remaining != 1000-80-1 {
			t.Fatalf("live%d: %d remaining, want 919: its count was lost", i, r.Remaining)
		}
	}
	checkShards(t, l)
}

// New keys alone give the memory of old ones back, without any pass over all of them.
func TestRunOutCountersAreReclaimedBeforeTheBound(t *testing.T) {
	t.Parallel()
	l, c := limiter(0)
	fill(t, l, "old", 20_000, Limit{RPS: 1})
	c.add(2 * time.Second)
	fill(t, l, "new", 2500, Limit{RPS: 1})
	if n := l.Len(); n > 5000 {
		t.Errorf("%d counters are kept, 2500 of them live", n)
	}
	checkShards(t, l)
}

// Attack: a flood of new keys to push out the counter of a tenant that is held back.
func TestEvictionSparesTheMostUsed(t *testing.T) {
	t.Parallel()
	const bound = 4 * MinMaxKeys
	l, _ := limiter(bound)
	lim := Limit{RPS: 1, Burst: 50}
	for i := range 64 {
		drain(t, l, fmt.Sprintf("busy%d", i), lim)
	}
	fill(t, l, "flood", 20*bound, lim)
	for i := range 64 {
		if allow(t, l, fmt.Sprintf("busy%d", i), lim).Allowed {
			t.Errorf("busy%d was pushed out and has a fresh burst", i)
		}
	}
	if l.Evicted() == 0 {
		t.Error("nothing was counted as evicted")
	}
}

func TestSetMaxKeysShrinksAtOnce(t *testing.T) {
	t.Parallel()
	l, c := limiter(8 * MinMaxKeys)
	fill(t, l, "old", 2*MinMaxKeys, Limit{RPS: 1})
	c.add(time.Second)
	fill(t, l, "new", 2*MinMaxKeys, Limit{RPS: 1})
	drain(t, l, "busy", Limit{RPS: 1, Burst: 50})
	l.SetMaxKeys(MinMaxKeys)
	if n := l.Len(); n > MinMaxKeys {
		t.Errorf("%d counters, bound %d", n, MinMaxKeys)
	}
	if got := l.Evicted(); got == 0 || got > MinMaxKeys+MinMaxKeys/2 {
		t.Errorf("%d live counters evicted", got)
	}
	if allow(t, l, "busy", Limit{RPS: 1, Burst: 50}).Allowed {
		t.Error("the most used counter was lost")
	}
	l.SetMaxKeys(0)
	fill(t, l, "more", 2*MinMaxKeys, Limit{RPS: 1})
	if n := l.Len(); n < 2*MinMaxKeys {
		t.Errorf("%d counters after the bound was raised", n)
	}
	checkShards(t, l)
}

func TestRememberedLimitsAreBounded(t *testing.T) {
	t.Parallel()
	l, _ := limiter(0)
	for i := range 10_000 {
		allow(t, l, "a", Limit{RPS: 1 + i, Burst: MaxBurst})
	}
	for i := range l.shards {
		if n := len(l.shards[i].meters); n > maxMeters {
			t.Errorf("%d limits are remembered", n)
		}
	}
	if r := allow(t, l, "a", Limit{RPS: 1, Burst: MaxBurst}); r.Remaining != MaxBurst-10_001 {
		t.Errorf("%d remaining: counts were lost with the limits", r.Remaining)
	}
}

func TestShardStaysConsistent(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(9, 10))
	l, c := limiter(MinMaxKeys)
	for range 30_000 {
		lim := Limit{RPS: 1 + rng.IntN(20), Burst: 1 + rng.IntN(20)}
		allow(t, l, fmt.Sprint(rng.IntN(3000)), lim)
		if rng.IntN(50) == 0 {
			c.add(time.Duration(rng.Int64N(int64(time.Second))))
		}
	}
	checkShards(t, l)
}

func TestMeterIsAStore(t *testing.T) {
	t.Parallel()
	l, _ := limiter(0)
	s := &l.shards[0]
	m, err := s.meterFor(Limit{RPS: 1, Burst: 2})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if v, _, err := m.GetWithTime(ctx, "k"); v != -1 || err != nil {
		t.Fatalf("a missing key reads %d, %v", v, err)
	}
	if ok, _ := m.CompareAndSwapWithTTL(ctx, "k", 1, 2, 0); ok {
		t.Fatal("swapped a missing key")
	}
	if ok, _ := m.SetIfNotExistsWithTTL(ctx, "k", 5, 0); !ok {
		t.Fatal("not set")
	}
	if ok, _ := m.SetIfNotExistsWithTTL(ctx, "k", 6, 0); ok {
		t.Fatal("set twice")
	}
	if ok, _ := m.CompareAndSwapWithTTL(ctx, "k", 6, 7, 0); ok {
		t.Fatal("swapped the wrong value")
	}
	if ok, _ := m.CompareAndSwapWithTTL(ctx, "k", 5, 7, 0); !ok {
		t.Fatal("not swapped")
	}
	if v, now, _ := m.GetWithTime(ctx, "k"); v != 7 || now.UnixNano() < 1 {
		t.Fatalf("reads %d at %v", v, now)
	}
}

// shardOf returns a shard with one counter for each time, at its place.
func shardOf(t *testing.T, tats ...int64) *shard {
	t.Helper()
	s := new(shard)
	s.init(epoch, nil)
	s.max = len(tats)
	for i, tat := range tats {
		s.add(fmt.Sprint(i), tat, time.Second)
	}
	s.clock = 1000
	return s
}

// Wherever a counter that has run out is among thousands of live ones, it is the one that goes, and only then is anything
// lost. What is lost is what says least.
func TestOnlyLiveCountersCountAsEvicted(t *testing.T) {
	t.Parallel()
	for _, at := range []int{0, 1, 1500, 2999} {
		tats := make([]int64, 3000)
		for i := range tats {
			tats[i] = 2000 + int64(i)
		}
		tats[at] = 999
		s := shardOf(t, tats...)
		told := 0
		s.onEvict = func() { told++ }
		s.add("new", 9000, time.Second)
		if _, kept := s.index[fmt.Sprint(at)]; kept || s.evicted != 0 || len(s.slots) != 3000 {
			t.Errorf("%d: %d evicted, %d kept; the one that should go had run out", at, s.evicted, len(s.slots))
		}
		s.add("newer", 9000, time.Second)
		least := "0"
		if at == 0 {
			least = "1"
		}
		if _, kept := s.index[least]; kept || s.evicted != 1 || told != 1 || len(s.slots) != 3000 {
			t.Errorf("%d: %d evicted, %d told, %d kept, want 1, 1 and 3000, and not %s", at, s.evicted, told, len(s.slots), least)
		}
	}
}

func TestShrinkingTakesWhatRanOutFirst(t *testing.T) {
	t.Parallel()
	tats := make([]int64, 1000)
	for i := range tats {
		tats[i] = 2000
	}
	for i := 900; i < 910; i++ {
		tats[i] = 1000
	}
	s := shardOf(t, tats...)
	s.setMax(func() time.Time { return epoch }, 990)
	if s.evicted != 0 || len(s.slots) != 990 {
		t.Errorf("%d live counters evicted, %d kept, want 0 and 990", s.evicted, len(s.slots))
	}
}

func TestIntervalNeverExceedsTheRate(t *testing.T) {
	t.Parallel()
	for _, rps := range []int{1, 2, 3, 7, 60, 999, 700_000, MaxRPS - 1, MaxRPS} {
		if d := (Limit{RPS: rps}).Interval(); d*time.Duration(rps) < time.Second || (d-1)*time.Duration(rps) >= time.Second {
			t.Errorf("%d requests per second: one each %v", rps, d)
		}
	}
}

func TestScale(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d        int64
		num, den time.Duration
		want     int64
	}{
		{0, 3, 7, 0},
		{7, 3, 7, 3},
		{8, 3, 7, 4}, // rounded up: a debt is never forgiven
		{1, 1, 1_000_000_000, 1},
		{MaxBurst * int64(time.Second), 1000, time.Second, MaxBurst * 1000},
		{MaxBurst * 1000, time.Second, 1000, MaxBurst * int64(time.Second)},
	} {
		if got := scale(c.d, c.num, c.den); got != c.want {
			t.Errorf("scale(%d, %d, %d) = %d, want %d", c.d, c.num, c.den, got, c.want)
		}
	}
}
