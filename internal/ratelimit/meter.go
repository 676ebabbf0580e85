package ratelimit

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"github.com/throttled/throttled/v2"
)

// meter is a shard as the algorithm sees it under one limit. Its methods run under the shard's lock.
//
// A counter may have been left by another limit, so it is translated: n counted requests stay n counted
// requests. What has run out in the meantime is judged by the faster of the two limits. So a caller that
// alternates between limits is never admitted more than the highest rate and the largest burst among them
// allow, a raised limit helps at once, and a slow limit cannot hold back those who share its key.
type meter struct {
	shard    *shard
	interval time.Duration
	burst    int64
	gcra     *throttled.GCRARateLimiterCtx
}

var _ throttled.GCRAStoreCtx = (*meter)(nil)

// meterFor returns the meter of lim, made on first use.
func (s *shard) meterFor(lim Limit) (*meter, error) {
	if m, ok := s.meters[lim]; ok {
		return m, nil
	}
	m := &meter{shard: s, interval: lim.Interval(), burst: int64(lim.Burst)}
	gcra, err := throttled.NewGCRARateLimiterCtx(m, throttled.RateQuota{
		MaxRate:  throttled.PerDuration(1, m.interval),
		MaxBurst: lim.Burst - 1, // throttled does not count the first request
	})
	if err != nil {
		return nil, fmt.Errorf("rate limit: %w", err)
	}
	m.gcra = gcra
	if len(s.meters) >= maxMeters {
		clear(s.meters) // they hold no counts and are cheap to make again
	}
	s.meters[lim] = m
	return m, nil
}

// GetWithTime returns the counter of key under this limit, -1 if there is none, and the shard's time.
func (m *meter) GetWithTime(_ context.Context, key string) (int64, time.Time, error) {
	now := time.Unix(0, m.shard.clock)
	i, ok := m.shard.index[key]
	if !ok {
		return -1, now, nil
	}
	c := &m.shard.slots[i]
	if own := time.Duration(c.interval); m.interval < own {
		tat := c.tat
		if debt := tat - m.shard.clock; debt > 0 {
			tat = m.shard.clock + scale(debt, m.interval, own)
		}
		m.shard.set(i, tat, m.interval)
	}
	return m.view(c), now, nil
}

// SetIfNotExistsWithTTL gives key its first counter. The time to live is not needed: the counter's value says
// when it has run out.
func (m *meter) SetIfNotExistsWithTTL(_ context.Context, key string, value int64, _ time.Duration) (bool, error) {
	if _, ok := m.shard.index[key]; ok {
		return false, nil
	}
	m.shard.add(key, value, m.interval)
	return true, nil
}

// CompareAndSwapWithTTL replaces the counter of key if it still is what GetWithTime returned.
func (m *meter) CompareAndSwapWithTTL(_ context.Context, key string, from, to int64, _ time.Duration) (bool, error) {
	i, ok := m.shard.index[key]
	if !ok {
		return false, nil
	}
	if m.view(&m.shard.slots[i]) != from {
		return false, nil
	}
	m.shard.set(i, to, m.interval)
	return true, nil
}

// view is c's counter in this limit's terms. Under a slower limit than the counter's, each counted request
// below the burst takes this limit's interval; those beyond it, which keep the next one out, still run out
// at the counter's own pace, and the wait that is announced has to be the true one.
func (m *meter) view(c *slot) int64 {
	debt, own := c.tat-m.shard.clock, time.Duration(c.interval)
	if m.interval <= own || debt <= 0 {
		return c.tat
	}
	if full := (m.burst - 1) * int64(own); debt > full {
		return m.shard.clock + (m.burst-1)*int64(m.interval) + debt - full
	}
	return m.shard.clock + scale(debt, m.interval, own)
}

// scale returns d*num/den, rounded up; the result must fit. d is not negative, num and den are positive.
func scale(d int64, num, den time.Duration) int64 {
	hi, lo := bits.Mul64(uint64(d), uint64(num))  //nolint:gosec // none is negative
	lo, carry := bits.Add64(lo, uint64(den)-1, 0) //nolint:gosec // positive
	q, _ := bits.Div64(hi+carry, lo, uint64(den)) //nolint:gosec // positive
	return int64(q)                               //nolint:gosec // fits: see above
}
