package jwks

import (
	"container/list"
	"strings"
	"sync"
	"time"
)

// missTTL is how long an unknown key id costs no fetch, and no wait for one that is under way. It is no longer than the usual cooldown,
// which bounds the fetches anyway, because a key can be used before its issuer publishes it, or before every cache of the issuer's has
// it. A new key ends it at once: it is a new generation.
const missTTL = DefaultCooldown

// misses remembers key ids that the issuer does not know, the most recently used of them, for one generation.
type misses struct {
	mu    sync.Mutex
	max   int
	gen   uint64
	order *list.List // of *miss, most recently used first
	byKID map[string]*list.Element
}

type miss struct {
	kid string
	at  time.Time
}

func newMisses(limit int) *misses {
	return &misses{max: limit, order: list.New(), byKID: make(map[string]*list.Element)}
}

// has says whether kid is known to be unknown in this generation.
func (m *misses) has(kid string, gen uint64, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.byKID[kid]
	if !ok || gen != m.gen {
		return false
	}
	// A negative age is a clock that went backwards: asking again is the safe side.
	if age := now.Sub(missIn(e).at); age < 0 || age >= missTTL {
		m.remove(e)
		return false
	}
	m.order.MoveToFront(e)
	return true
}

// add remembers kid. A late call for an old generation is ignored.
func (m *misses) add(kid string, gen uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if gen < m.gen {
		return
	}
	if gen > m.gen {
		m.gen = gen
		m.order.Init()
		clear(m.byKID)
	}
	if e, ok := m.byKID[kid]; ok {
		missIn(e).at = now
		m.order.MoveToFront(e)
		return
	}
	kid = strings.Clone(kid) // not the whole token it may be a part of
	m.byKID[kid] = m.order.PushFront(&miss{kid: kid, at: now})
	if m.order.Len() > m.max {
		m.remove(m.order.Back())
	}
}

// missIn is what add put into the list: there is nothing else in it.
func missIn(e *list.Element) *miss {
	m, _ := e.Value.(*miss)
	return m
}

func (m *misses) remove(e *list.Element) {
	m.order.Remove(e)
	delete(m.byKID, missIn(e).kid)
}

func (m *misses) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.order.Len()
}
