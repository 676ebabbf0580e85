package wire

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// shards is into how many stacks the idle connections are divided, so that requests do not wait for each other.
const shards = 8

// pool holds the connections that are idle.
type pool struct {
	max     int
	timeout time.Duration

	stacks [shards]stack
	size   atomic.Int64
	closed atomic.Bool
	sweeps atomic.Bool // a sweep is due
}

// stack holds some of them: the one that was used last is used first, so that those which are not needed grow old.
type stack struct {
	mu    sync.Mutex
	conns []*conn
	_     [64]byte // keeps the next one's lock out of this one's cache line
}

func (s *stack) pop() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.conns)
	if n == 0 {
		return nil
	}
	cn := s.conns[n-1]
	s.conns[n-1] = nil
	s.conns = s.conns[:n-1]
	return cn
}

func (s *stack) push(cn *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, cn)
}

// get returns an idle connection that can be used, or nil.
func (p *pool) get() *conn {
	now := time.Now()
	start := rand.IntN(shards) //nolint:gosec // only spreads the load
	for i := range shards {
		s := &p.stacks[(start+i)%shards]
		for p.size.Load() > 0 {
			cn := s.pop()
			if cn == nil {
				break
			}
			p.size.Add(-1)
			if now.Sub(cn.idleAt) < p.timeout && cn.usable(now) {
				return cn
			}
			cn.close()
		}
	}
	return nil
}

// put keeps a connection for later, or closes it.
func (p *pool) put(cn *conn) {
	if p.size.Add(1) > int64(p.max) || p.closed.Load() {
		p.size.Add(-1)
		cn.close()
		return
	}
	cn.idleAt = time.Now()
	p.stacks[rand.IntN(shards)].push(cn) //nolint:gosec // only spreads the load
	if p.closed.Load() {
		p.drop(func(*conn) bool { return true })
		return
	}
	if p.sweeps.CompareAndSwap(false, true) {
		time.AfterFunc(p.timeout/2, p.sweep)
	}
}

// sweep closes what has been idle for too long or was closed by the server, and comes again as long as anything is left.
func (p *pool) sweep() {
	now := time.Now()
	p.drop(func(cn *conn) bool { return now.Sub(cn.idleAt) >= p.timeout || !cn.usable(now) })
	p.sweeps.Store(false)
	if p.size.Load() > 0 && !p.closed.Load() && p.sweeps.CompareAndSwap(false, true) {
		time.AfterFunc(p.timeout/2, p.sweep)
	}
}

func (p *pool) close() {
	p.closed.Store(true)
	p.drop(func(*conn) bool { return true })
}

// drop closes the idle connections of which unwanted says so.
func (p *pool) drop(unwanted func(*conn) bool) {
	for i := range p.stacks {
		s := &p.stacks[i]
		s.mu.Lock()
		kept := s.conns[:0]
		for _, cn := range s.conns {
			if unwanted(cn) {
				p.size.Add(-1)
				cn.close()
				continue
			}
			kept = append(kept, cn)
		}
		clear(s.conns[len(kept):])
		s.conns = kept
		s.mu.Unlock()
	}
}
