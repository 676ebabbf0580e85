package ratelimit

import (
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
)

// Gate bounds how many requests of a key are under way at once. There is no queue: who finds no place is turned away.
// It remembers a key only while requests of it are under way, so its memory is bounded by theirs. Its methods may be
// called concurrently.
type Gate struct {
	seed   maphash.Seed
	shards [shardCount]gateShard
}

type gateShard struct {
	mu     sync.Mutex
	inside map[string]int // none is 0
}

// Place is what one request holds while it is under way. The zero value holds nothing.
type Place struct {
	shard *gateShard
	key   string
}

// NewGate returns a gate with nobody inside.
func NewGate() *Gate {
	g := &Gate{seed: maphash.MakeSeed()}
	for i := range g.shards {
		g.shards[i].inside = make(map[string]int)
	}
	return g
}

// Enter takes a place for a request of key if fewer than most are taken. A key has one count whatever the bound: it may
// change from request to request. The place has to be left in the end.
//
// The error is ErrNoKey, or ErrLimit for a bound below 1; the request must then be refused.
func (g *Gate) Enter(key string, most int) (Place, bool, error) {
	if key == "" {
		return Place{}, false, ErrNoKey
	}
	if most < 1 {
		return Place{}, false, fmt.Errorf("%w: %d requests under way", ErrLimit, most)
	}
	key = bounded(key)
	s := &g.shards[maphash.String(g.seed, key)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.inside[key]
	if n >= most {
		return Place{}, false, nil
	}
	if n == 0 {
		key = strings.Clone(key) // it may be a piece of something large
	}
	s.inside[key] = n + 1
	return Place{shard: s, key: key}, true, nil
}

// Leave gives the place back. Further calls do nothing.
func (p *Place) Leave() {
	s := p.shard
	if s == nil {
		return
	}
	p.shard = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.inside[p.key]; n > 1 {
		s.inside[p.key] = n - 1
		return
	}
	delete(s.inside, p.key)
}

// Inside returns how many places are taken, by all keys together, and by how many keys.
func (g *Gate) Inside() (requests, keys int) {
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		keys += len(s.inside)
		for _, n := range s.inside {
			requests += n
		}
		s.mu.Unlock()
	}
	return requests, keys
}
