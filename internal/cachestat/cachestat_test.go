package cachestat

import (
	"sync"
	"testing"
)

// TestStats: every look-up is counted once, whoever makes it, and before the first one there is no ratio.
func TestStats(t *testing.T) {
	t.Parallel()
	var c Counter
	if _, ok := c.Of(0, 10).HitRatio(); ok {
		t.Error("a ratio of nothing")
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 300 {
				c.Count(true)
			}
			for range 100 {
				c.Count(false)
			}
		})
	}
	all.Wait()
	s := c.Of(3, 10)
	if s != (Stats{Size: 3, Max: 10, Hits: 1200, Misses: 400}) {
		t.Errorf("%+v", s)
	}
	if ratio, ok := s.HitRatio(); !ok || ratio != 0.75 {
		t.Errorf("ratio %v", ratio)
	}
}
