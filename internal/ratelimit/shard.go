package ratelimit

import (
	"strings"
	"sync"
	"time"
)

const (
	// sweepStep is how many places are looked at for each new key. A full round so takes a sixteenth of as
	// many new keys as there are places.
	sweepStep = 16
	// evictSample is how many more are looked at when there is no room. With one counter in twenty run out, a
	// live one goes in their stead once in some 60 times.
	evictSample = 64
	// maxMeters bounds the distinct limits remembered by a shard.
	maxMeters = 64
)

// shard is one part of the counters, with a lock, a clock and a bound of its own.
type shard struct {
	mu sync.Mutex

	// clock is this shard's time in nanoseconds. It advances with the given clock and stands still when that
	// one is set back, so that going back neither locks a key out nor gives it anything.
	clock int64
	last  time.Time

	index   map[string]uint32 // key to its place in slots
	slots   []slot            // dense, in no order
	hand    int               // where the next sweep begins
	max     int
	evicted uint64

	meters map[Limit]*meter
}

// slot is one key's counter: 32 bytes, the key's text and its entry in the index.
type slot struct {
	key string
	// tat is the "theoretical arrival time" of the algorithm on the shard's clock: when the counter will
	// have run out. In the past it says nothing more.
	tat int64
	// interval is the time one counted request takes to run out: that of the last limit applied.
	interval time.Duration
}

func (s *shard) init(now time.Time) {
	s.clock = 1 // 0 and less are no times for the algorithm
	s.last = now
	s.index = make(map[string]uint32)
	s.meters = make(map[Limit]*meter)
}

func (s *shard) advance(now time.Time) {
	if d := now.Sub(s.last); d > 0 {
		s.clock += int64(d)
	}
	s.last = now
}

func (s *shard) stats() (keys int, evicted uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.slots), s.evicted
}

func (s *shard) setMax(now func() time.Time, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max = n
	if len(s.slots) <= n {
		return
	}
	s.advance(now())
	s.sweep(len(s.slots))
	for len(s.slots) > n {
		s.evict()
	}
}

// add gives key a counter. The caller knows that it has none.
func (s *shard) add(key string, tat int64, interval time.Duration) {
	s.sweep(sweepStep)
	if len(s.slots) >= s.max {
		s.sweep(evictSample)
	}
	if len(s.slots) >= s.max {
		s.evict()
	}
	key = strings.Clone(key)            // it may be a piece of something large
	s.index[key] = uint32(len(s.slots)) //nolint:gosec // fewer than max, which is far below 2^32
	s.slots = append(s.slots, slot{key: key, tat: tat, interval: interval})
}

// sweep looks at the next n places and takes back those that have run out.
func (s *shard) sweep(n int) {
	for range min(n, len(s.slots)) {
		if s.hand >= len(s.slots) {
			s.hand = 0
		}
		if s.slots[s.hand].tat <= s.clock {
			s.remove(s.hand) // another counter moves here and is looked at next
			continue
		}
		s.hand++
	}
}

// evict drops the counter that says least, that is the one closest to running out, of the next few.
func (s *shard) evict() {
	best := -1
	for range min(evictSample, len(s.slots)) {
		if s.hand >= len(s.slots) {
			s.hand = 0
		}
		if best < 0 || s.slots[s.hand].tat < s.slots[best].tat {
			best = s.hand
		}
		s.hand++
	}
	if best < 0 {
		return
	}
	if s.slots[best].tat > s.clock {
		s.evicted++
	}
	s.remove(best)
}

func (s *shard) remove(i int) {
	delete(s.index, s.slots[i].key)
	end := len(s.slots) - 1
	if i != end {
		s.slots[i] = s.slots[end]
		s.index[s.slots[i].key] = uint32(i) //nolint:gosec // a place that exists
	}
	s.slots[end] = slot{}
	s.slots = s.slots[:end]
}
