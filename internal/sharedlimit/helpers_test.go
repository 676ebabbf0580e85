package sharedlimit

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{}) // what it says is said by events here
	goleak.VerifyTestMain(m)
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// peer is a store in the test's own bubble of time: it has the bubble's clock, and no network.
type peer struct {
	*miniredis.Miniredis

	dials atomic.Int64
	asked atomic.Int64 // scripts that were to be run

	mu   sync.Mutex
	gone error         // what dialling ends with
	slow time.Duration // before each command of a client's
}

var errRefused = errors.New("connection refused")

func newPeer(t *testing.T) *peer {
	t.Helper()
	p := &peer{Miniredis: miniredis.NewMiniRedis()}
	p.ClockTTL(true)
	t.Cleanup(p.Close)
	conn, err := p.Dial() // there is a server from now on
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	p.Server().SetPreHook(p.hook)
	return p
}

func (p *peer) hook(_ *server.Peer, command string, _ ...string) bool {
	switch command {
	case "EVALSHA", "EVAL":
		p.asked.Add(1)
	case "HELLO":
	default: // what the script calls
		return false
	}
	p.mu.Lock()
	slow := p.slow
	p.mu.Unlock()
	pass(slow)
	return false
}

func (p *peer) dial(context.Context, string, string) (net.Conn, error) {
	p.dials.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return nil, p.gone
	}
	return p.Dial()
}

// leave ends all connections, and refuses new ones.
func (p *peer) leave() {
	p.mu.Lock()
	p.gone = errRefused
	p.mu.Unlock()
	p.Close()
}

// comeBack accepts connections again. The counters are still there.
func (p *peer) comeBack(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	p.gone = nil
	p.mu.Unlock()
	conn, err := p.Dial()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	p.Server().SetPreHook(p.hook)
}

func (p *peer) setSlow(d time.Duration) {
	p.mu.Lock()
	p.slow = d
	p.mu.Unlock()
}

// changes are the events of a store.
type changes struct {
	mu     sync.Mutex
	events []Event
}

func (c *changes) observe(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

func (c *changes) take() []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.events
	c.events = nil
	return taken
}

// pass lets time pass in the bubble.
func pass(d time.Duration) {
	if d > 0 {
		time.Sleep(d) //nolint:forbidigo // the bubble's clock, which nobody waits for
	}
}

// open opens a store over the peer.
func open(t *testing.T, p *peer, observe func(Event)) *Store {
	t.Helper()
	s, err := Open(Options{
		Redis:   &redis.UniversalOptions{Addrs: []string{"store:6379"}, Dialer: p.dial},
		Observe: observe,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const scope = "2f0c1a9e-6f0b-4b53-8f39-0d6a3b1c2d4e"

// newEdge is an edge with a store of its own at the peer.
func newEdge(t *testing.T, p *peer, observe func(Event)) *Limiter {
	t.Helper()
	return NewLimiter(open(t, p, observe), ratelimit.New(ratelimit.Options{}), scope)
}

func allow(t *testing.T, l *Limiter, key string, lim ratelimit.Limit) ratelimit.Result {
	t.Helper()
	r, err := l.Allow(key, lim)
	if err != nil {
		t.Fatalf("Allow(%q, %+v): %v", key, lim, err)
	}
	return r
}

// drain uses up everything that key may have at once and returns how much that was.
func drain(t *testing.T, l *Limiter, key string, lim ratelimit.Limit) int {
	t.Helper()
	for n := range 10_000 {
		if !allow(t, l, key, lim).Allowed {
			return n
		}
	}
	t.Fatal("the limiter never refuses")
	return 0
}
