package sharedlimit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

const (
	// DefaultTimeout is how long a request waits for the store unless told otherwise.
	DefaultTimeout = 50 * time.Millisecond

	// connectTimeout bounds what happens in the background: connecting, and asking a store that was away.
	connectTimeout = 2 * time.Second

	// The first question to a store that was lost comes after firstProbe, and each one after twice the time of the one before.
	firstProbe, lastProbe = 100 * time.Millisecond, 5 * time.Second
	// steady is how long the store has to be there for the next loss to be taken as a new one.
	steady = 10 * time.Second
)

var (
	errTimeout    = errors.New("no answer in time")
	errBusy       = errors.New("too many questions wait for an answer")
	errUnanswered = errors.New("the question was not answered")
	errClosed     = errors.New("the store is closed")
)

// Event is a change: the store was lost, or it is back.
type Event struct {
	Err  error         // why it is not used any more; nil when it is back
	Down time.Duration // how long it was away, when it is back
}

// Options describe a Store.
type Options struct {
	// Redis says where the store is and how to get in, as ParseURL returns it. Time-outs, retries and pools are set by Open.
	Redis *redis.UniversalOptions
	// Timeout is how long a request waits for the store; 0 means DefaultTimeout.
	Timeout time.Duration
	// Observe is told about each change, one at a time; nil: nobody is.
	Observe func(Event)
	// Decided is told about each decision whether the store took part in it; nil: nobody is.
	Decided func(byStore bool)
}

// Store is a Redis or Valkey that counts requests. It connects when it is first asked.
//
// After a failure nobody asks it until it has answered a question of our own, in time. Until then nobody waits for it.
type Store struct {
	client  redis.UniversalClient
	timeout time.Duration
	observe func(Event)
	decided func(byStore bool)

	// state counts the changes: the store is in use while it is even, and away while it is odd.
	state    atomic.Uint64
	queue    chan *call
	idle     sync.Pool // calls whose answers were taken
	refusals *refusals

	ctx     context.Context //nolint:containedctx // the store's life
	end     context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex // for closed, and for starting what is running
	closed  bool

	// Used by watch, which runs once at a time.
	delay time.Duration
	back  time.Time // when the store last came back
}

// Open returns a store. It does not connect.
func Open(o Options) (*Store, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	r := *o.Redis
	r.MaxRetries, r.DialerRetries = -1, 1 // a question is asked once
	r.ContextTimeoutEnabled = true        // so these are for what has no deadline of ours
	longest := max(connectTimeout, o.Timeout)
	r.DialTimeout, r.ReadTimeout, r.WriteTimeout, r.PoolTimeout = longest, longest, longest, longest
	r.PoolSize, r.PipelinePoolSize = workers+2, -1
	// Nothing is asked for that an access list would have to allow besides.
	r.DisableIdentity = true
	r.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}

	known, err := newRefusals()
	if err != nil {
		return nil, fmt.Errorf("shared limit: %w", err)
	}
	s := &Store{
		client:   redis.NewUniversalClient(&r),
		timeout:  o.Timeout,
		observe:  o.Observe,
		decided:  o.Decided,
		queue:    make(chan *call, maxQueue),
		refusals: known,
	}
	if s.observe == nil {
		s.observe = func(Event) {}
	}
	if s.decided == nil {
		s.decided = func(bool) {}
	}
	s.ctx, s.end = context.WithCancel(context.Background())
	for range workers {
		s.running.Go(s.work)
	}
	return s, nil
}

// Close ends the connections. Limiters that still have requests decide by themselves from now on.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	err := s.client.Close()
	s.running.Wait()
	s.refusals.close()
	if err != nil {
		return fmt.Errorf("shared limit: %w", err)
	}
	return nil
}

// decide asks the store about one request; false: it is away, and the request may not be counted there.
func (s *Store) decide(key string, lim ratelimit.Limit) (ratelimit.Result, bool) {
	now := time.Now()
	if r, ok := s.refusals.lookUp(key, lim, now); ok {
		return r, true
	}
	state := s.state.Load()
	if state%2 != 0 {
		return ratelimit.Result{}, false
	}
	answer, err := s.ask(key, lim, now)
	if err != nil {
		s.lost(state, key, err)
		return ratelimit.Result{}, false
	}
	r := result(answer, lim)
	if !r.Allowed {
		s.refusals.add(key, r, now, time.Now())
	}
	return r, true
}

// lost has the store watched until it is back, unless it was lost already since the request saw that state.
func (s *Store) lost(state uint64, key string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.state.CompareAndSwap(state, state+1) {
		return
	}
	s.running.Go(func() { s.watch(key, err) })
}

// watch asks until the store answers, for a key on the node that did not.
func (s *Store) watch(key string, err error) {
	began := time.Now()
	s.observe(Event{Err: err})
	if began.Sub(s.back) > steady {
		s.delay = firstProbe
	}
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(s.delay/2 + rand.N(s.delay)): //nolint:gosec // so that edges do not ask all at once
		}
		s.delay = min(2*s.delay, lastProbe)
		if s.probe(s.ctx, key) == nil {
			break
		}
	}
	s.back = time.Now()
	s.observe(Event{Down: s.back.Sub(began)})
	s.state.Add(1)
}

// probe counts a request of nobody's. The first time may take as long as connecting takes, and then there is a connection;
// the second time has to be in time.
func (s *Store) probe(ctx context.Context, key string) error {
	for n, patience := range []time.Duration{connectTimeout, s.timeout} {
		c := s.newCall(probeKey(key), ratelimit.Limit{RPS: 1000, Burst: 1})
		s.exchange(ctx, []*call{c}, patience)
		var late net.Error
		switch {
		case c.err == nil:
		case n > 0 && ctx.Err() == nil && errors.As(c.err, &late) && late.Timeout():
			return slowError{s.timeout}
		default:
			return c.err
		}
	}
	return nil
}

// Probe finds out whether the store can be used, by the question that brings back one that was lost. It leaves no counter behind, and
// [Explain] says what its error means.
func (s *Store) Probe(ctx context.Context) error { return s.probe(ctx, "check") }
