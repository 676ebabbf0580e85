// Package share answers identical questions of one tenant with one answer: from memory while it is fresh, and by one
// request to Tinybird for all who ask at the same time.
//
// A [Store] knows nothing of tenants and pipes. Two requests get the same answer if, and only if, their [Key] is the same, and
// what makes a key is for the caller to say. What goes up is no single client's request: it has no conditions, and a fixed
// header but for the encoding, which is part of the key. So an answer depends on nothing else.
package share

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/cachestat"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// Defaults of Options. They fit a machine with 512 MB: stored answers and those under way take up to twice DefaultSize.
const (
	DefaultEntries   = 10_000
	DefaultSize      = 64 << 20
	DefaultEntrySize = 1 << 20
)

// An answer may be fresh for MinTTL to MaxTTL. Ages are told in whole seconds.
const (
	MinTTL = time.Second
	MaxTTL = 24 * time.Hour
)

const (
	// maxRefreshes is how many answers are fetched in the background at once.
	maxRefreshes = 32
	// refreshPatience is how long a fetch goes on that nobody waits for.
	refreshPatience = time.Minute
)

// Key stands for all that decides an answer.
type Key struct {
	Question [sha256.Size]byte
	Encoding Encoding
}

// Fetch asks the question and writes the answer to w, as forward.Forwarder does: an error says that the answer is not whole. It
// runs on a goroutine of its own and may outlive the request that it came with, so it must hold on to nothing of that.
type Fetch func(ctx context.Context, w http.ResponseWriter) (forward.Outcome, error)

// Request is one client's wish for an answer.
type Request struct {
	Key Key
	// TTL is how long an answer is fresh. For as long again it is stale, and served while a new one is fetched.
	TTL time.Duration
	// Client is the client's header, of which If-None-Match and If-Modified-Since are read.
	Client http.Header
	Fetch  Fetch
	// Refreshed, if set, is told how a fetch ended that this request started in the background.
	Refreshed func(forward.Outcome, error)
}

// Options bound a Store.
type Options struct {
	Entries   int              // how many answers are kept; 0: DefaultEntries
	Size      int64            // how many bytes they have together, and again those under way; 0: DefaultSize
	EntrySize int64            // how many bytes one may have, at most Size; 0: DefaultEntrySize, or Size if that is less
	Now       func() time.Time // nil: time.Now
}

// Store keeps answers. It is safe for concurrent use.
type Store struct {
	entries   int
	entrySize int64
	now       func() time.Time
	kept      *otter.Cache[Key, *answer]
	memory    *budget
	lookups   cachestat.Counter

	mu        sync.Mutex
	flights   map[Key]*flight
	refreshes int // flights that go on without anybody waiting
	closed    bool
}

// New returns a Store.
func New(o Options) (*Store, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Store{
		entries:   o.Entries,
		entrySize: o.EntrySize,
		now:       o.Now,
		// Stored, and as much again on its way from Tinybird or to clients.
		memory:  newBudget(2 * o.Size),
		flights: make(map[Key]*flight),
	}
	// An entry weighs at least its share of the whole, so that the one bound of weight holds both.
	least := uint32(o.Size / int64(o.Entries)) //nolint:gosec // at most Size, which is checked
	kept, err := otter.New(&otter.Options[Key, *answer]{
		MaximumWeight: uint64(o.Size), //nolint:gosec // positive
		Weigher:       func(_ Key, a *answer) uint32 { return max(least, a.weight()) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[Key, *answer]) time.Duration {
			return e.Value.life
		}),
		OnAtomicDeletion: func(e otter.DeletionEvent[Key, *answer]) { e.Value.release() },
	})
	if err != nil {
		return nil, fmt.Errorf("answer cache: %w", err)
	}
	s.kept = kept
	return s, nil
}

// check fills in the defaults.
func (o *Options) check() error {
	if o.Entries == 0 {
		o.Entries = DefaultEntries
	}
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.EntrySize == 0 {
		o.EntrySize = min(DefaultEntrySize, o.Size)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	switch {
	case o.Entries < 0 || o.Size < 0 || o.EntrySize < 0:
		return errors.New("the bounds of the cache must be positive")
	case o.EntrySize > o.Size:
		return fmt.Errorf("an answer of %d bytes would never fit a cache of %d", o.EntrySize, o.Size)
	case o.Size > math.MaxUint32:
		return fmt.Errorf("a cache of %d bytes is too large; use at most %d", o.Size, uint32(math.MaxUint32))
	}
	return nil
}

// Serve answers from what is kept, or fetches. With the result Bypass nothing was written and no error is returned: the
// request has to be forwarded by itself. Otherwise the errors are those of forward.Forwarder. The field Cache-Status says in
// each case what was done.
func (s *Store) Serve(ctx context.Context, w http.ResponseWriter, q Request) (Outcome, error) {
	a, state := s.find(q)
	s.lookups.Count(a != nil)
	if state == absent {
		return s.wait(ctx, w, q, 0)
	}
	return s.answer(ctx, w, q, a, state)
}

// answer answers from what is known, without a fetch that the client would wait for.
func (s *Store) answer(ctx context.Context, w http.ResponseWriter, q Request, a *answer, state state) (Outcome, error) {
	if a == nil {
		detail := ""
		if state == tooLarge {
			detail = detailTooLarge
		}
		return bypass(w, detail)
	}
	defer a.release()
	out := Outcome{Result: Hit}
	if state == stale {
		out.Result = Stale
		s.refresh(q, a)
	}
	setHit(w.Header(), s.now().Sub(a.at), q.TTL)
	return out, a.send(ctx, w, q.Client)
}

// state is what is known of an answer.
type state int

const (
	absent   state = iota
	fresh          // may be served
	stale          // may be served while a new one is fetched
	tooLarge       // is known to be more than is kept
	closed         // nothing is kept any more
)

// find looks for a kept answer. One that is fresh or stale has to be released.
func (s *Store) find(q Request) (*answer, state) {
	a, ok := s.kept.GetIfPresent(q.Key)
	if !ok {
		return nil, absent
	}
	age := s.now().Sub(a.at)
	switch {
	case age < 0 || age >= 2*q.TTL: // a clock that was set back makes nothing fresh again
		return nil, absent
	case a.tooLarge && age < q.TTL:
		return nil, tooLarge
	case a.tooLarge || !a.acquire():
		return nil, absent
	case age < q.TTL:
		return a, fresh
	default:
		return a, stale
	}
}

// keep stores an answer for as long as it may be served.
func (s *Store) keep(key Key, a *answer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !a.acquire() {
		return false
	}
	s.kept.Set(key, a)
	return true
}

// Usage returns how many answers are kept, and how many bytes are taken by them and by those under way.
func (s *Store) Usage() (answers int, bytes int64) {
	s.kept.CleanUp()
	return s.kept.EstimatedSize(), s.memory.used()
}

// Stats are what an operator wants to know of a store. A look-up that finds nothing good may still wait for what another asked for.
type Stats struct {
	cachestat.Stats

	Bytes    int64 // taken by what is kept and what is under way
	MaxBytes int64 // at most
}

// Stats returns what has become of all requests so far.
func (s *Store) Stats() Stats {
	answers, bytes := s.Usage()
	return Stats{Stats: s.lookups.Of(answers, s.entries), Bytes: bytes, MaxBytes: s.memory.size}
}

// Close forgets all answers and ends what is fetched in the background. Those who wait for an answer get it; all later
// requests are to be forwarded by themselves.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	for _, f := range s.flights {
		s.abandon(f, errNobody)
	}
	s.mu.Unlock()
	s.kept.InvalidateAll()
	s.kept.StopAllGoroutines()
}
