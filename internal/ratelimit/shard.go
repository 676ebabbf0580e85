package ratelimit

import (
	"container/heap"
	"strings"
	"sync"
	"time"
)

const (
	// sweepStep is how many counters that have run out are taken back, at most, for each new one: more than one, so that
	// memory comes back after a flood, and few, so that no single request pays for it.
	sweepStep = 16
	// maxMeters bounds the distinct limits remembered by a shard.
	maxMeters = 64
)

// shard is one part of the counters, with a lock, a clock and a bound of its own.
type shard struct {
	counters

	mu sync.Mutex

	// clock is this shard's time in nanoseconds. It advances with the given clock and stands still when that
	// one is set back, so that going back neither locks a key out nor gives it anything.
	clock int64
	last  time.Time

	index   map[string]uint32 // key to its place in slots
	max     int
	evicted uint64
	onEvict func() // told of each counter that went while it was live; nil: nobody is

	meters map[Limit]*meter
}

// slot is one key's counter: 32 bytes, the key's text and its entry in the index.
type slot struct {
	key string
	// tat is the "theoretical arrival time" of the algorithm on the shard's clock: when the counter will
	// have run out. In the past it says nothing more.
	tat int64
	// interval is the time in nanoseconds that one counted request takes to run out: that of the last limit applied.
	// It is at most a second.
	interval uint32
	// rank is the counter's place in the order of running out.
	rank uint32
}

// counters are slots, dense and in no order, and their places as a heap: the one that runs out first comes first.
type counters struct {
	slots []slot
	order []uint32
}

// Len, Less, Swap, Push and Pop are heap.Interface. Only heap.Fix is used, which calls neither of the last two: they
// would put each place into an interface.
func (c *counters) Len() int           { return len(c.order) }
func (c *counters) Less(i, j int) bool { return c.slots[c.order[i]].tat < c.slots[c.order[j]].tat }

// Swap exchanges two places in the order.
func (c *counters) Swap(i, j int) {
	c.order[i], c.order[j] = c.order[j], c.order[i]
	c.slots[c.order[i]].rank = uint32(i) //nolint:gosec // a place that exists
	c.slots[c.order[j]].rank = uint32(j) //nolint:gosec // a place that exists
}

// Push is not called.
func (*counters) Push(any) {}

// Pop is not called.
func (*counters) Pop() any { return nil }

// moved puts the counter at place i where it belongs after its time has changed.
func (c *counters) moved(i uint32) { heap.Fix(c, int(c.slots[i].rank)) }

func (s *shard) init(now time.Time, onEvict func()) {
	s.clock = 1 // 0 and less are no times for the algorithm
	s.last = now
	s.onEvict = onEvict
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
	s.advance(now())
	for len(s.slots) > n {
		s.evict()
	}
}

// add gives key a counter. The caller knows that it has none.
func (s *shard) add(key string, tat int64, interval time.Duration) {
	for n := 0; n < sweepStep && len(s.order) > 0 && s.slots[s.order[0]].tat <= s.clock; n++ {
		s.remove(s.order[0])
	}
	if len(s.slots) >= s.max {
		s.evict()
	}
	key = strings.Clone(key)   // it may be a piece of something large
	at := uint32(len(s.slots)) //nolint:gosec // fewer than max, which is far below 2^32
	s.index[key] = at
	s.slots = append(s.slots, slot{key: key, tat: tat, interval: uint32(interval), rank: at}) //nolint:gosec // at most a second
	s.order = append(s.order, at)
	s.moved(at)
}

// set gives the counter at place i another value.
func (s *shard) set(i uint32, tat int64, interval time.Duration) {
	c := &s.slots[i]
	c.tat, c.interval = tat, uint32(interval) //nolint:gosec // at most a second
	s.moved(i)
}

// evict drops the counter that says least: one that has run out if there is any, else the one that is closest to it.
func (s *shard) evict() {
	if len(s.order) == 0 {
		return
	}
	first := s.order[0]
	if s.slots[first].tat > s.clock {
		s.evicted++
		if s.onEvict != nil {
			s.onEvict()
		}
	}
	s.remove(first)
}

// remove drops the counter at place i. The last one moves there.
func (s *shard) remove(i uint32) {
	end := len(s.slots) - 1
	if rank := int(s.slots[i].rank); rank != end {
		s.Swap(rank, end)
		s.order = s.order[:end]
		heap.Fix(s, rank)
	} else {
		s.order = s.order[:end]
	}
	delete(s.index, s.slots[i].key)
	if int(i) != end {
		s.slots[i] = s.slots[end]
		s.index[s.slots[i].key] = i
		s.order[s.slots[i].rank] = i
	}
	s.slots[end] = slot{}
	s.slots = s.slots[:end]
}
