// Package cachestat counts how often a cache had what it was asked for.
package cachestat

import "sync/atomic"

// Counter counts look-ups. The zero value is ready for use, from any number of goroutines.
type Counter struct{ hits, misses atomic.Uint64 }

// Count counts one look-up.
func (c *Counter) Count(hit bool) {
	if hit {
		c.hits.Add(1)
		return
	}
	c.misses.Add(1)
}

// Stats are what an operator wants to know of a cache.
type Stats struct {
	Size   int    // entries, of which some may have run out
	Max    int    // entries at most
	Hits   uint64 // look-ups that found something good
	Misses uint64 // all others
}

// Of returns the statistics of a cache with so many entries.
func (c *Counter) Of(size, maxSize int) Stats {
	return Stats{Size: size, Max: maxSize, Hits: c.hits.Load(), Misses: c.misses.Load()}
}

// HitRatio is the share of the look-ups that found something. ok is false before the first.
func (s Stats) HitRatio() (ratio float64, ok bool) {
	all := s.Hits + s.Misses
	if all == 0 {
		return 0, false
	}
	return float64(s.Hits) / float64(all), true
}
