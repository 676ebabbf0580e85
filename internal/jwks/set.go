// Package jwks keeps the public keys of one issuer: fetched, refreshed, rotated, and still there when the issuer
// is not.
//
// One goroutine per set does all loading, so that there is never more than one fetch, no request owns it, and no
// request can cancel it. Requests read an immutable snapshot without a lock. A good set is only ever replaced by
// another good set, as a whole: a key that the issuer withdrew is gone with the next answer.
package jwks

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
)

// ErrNoKeys says that the set cannot tell whether its issuer has a key: no usable set was ever had, or only one from
// the store that the issuer has not confirmed, or the set was closed. It is an outage, not a verdict about a token
// (HTTP 503, not 401).
var ErrNoKeys = errors.New("the issuer's keys cannot be had at present")

// The sources of a key set, as Event and Status name them.
const (
	SourceNetwork = "network"
	SourceStore   = "store"
)

// Defaults of Options.
const (
	DefaultRefresh   = time.Hour
	DefaultCooldown  = 10 * time.Second
	DefaultMaxWait   = 2 * time.Second
	DefaultMaxMisses = 256
	DefaultMaxBody   = 1 << 20
)

// maxWaiting bounds the callers that wait in one set, each of which holds a connection and its memory.
const maxWaiting = 1024

// Options configure a Set. Only URL is required; a zero or negative number means its default.
type Options struct {
	URL       string           // where the JWK set (RFC 7517) is
	Client    *http.Client     // nil: a client of the set's own; redirects are not followed with either
	Refresh   time.Duration    // between background refreshes, +-10 %; default 1 h
	Cooldown  time.Duration    // least time between fetches that requests ask for; default 10 s
	MaxWait   time.Duration    // longest that a caller waits for a fetch; default 2 s
	MaxMisses int              // remembered unknown key ids; default 256
	MaxBody   int64            // largest document in bytes, after decompression; default 1 MiB
	Now       func() time.Time // nil: time.Now
	Store     Store            // nil: nothing is kept across restarts
	Observe   func(Event)      // nil, or called after every attempt to load and every failed save; never concurrently
}

// Event is the outcome of one attempt to load a key set, or of an attempt to save one that failed.
type Event struct {
	Err     error         // nil: a usable set was loaded
	Source  string        // SourceNetwork or SourceStore
	Keys    int           // usable keys in the document
	Skipped int           // keys in the document that cannot be used
	Changed bool          // the keys differ from those before
	Next    time.Duration // until the next scheduled attempt of this kind; 0 for the one attempt to read the store
	URL     string        // of the issuer, without user info and query

	// SkippedChanged says that Skipped differs from that of the usable set before, or from 0 in the first one. Any
	// request may cause a fetch, so this, not Skipped, is what to warn about. It is false when Err is set.
	SkippedChanged bool
}

// Status describes a set for an operator. It holds no key material.
type Status struct {
	URL         string    // without user info and query
	KIDs        []string  // of the usable keys, in the order of the document
	Skipped     int       // keys of that document that cannot be used
	Source      string    // where the keys came from; empty: there are none
	Generation  uint64    // see Set.Generation
	Fetched     time.Time // when the issuer last answered with a usable set; zero: never
	LastAttempt time.Time // when the last fetch ended, whatever came of it
	Next        time.Time // when the next fetch is due
	Fetches     uint64    // fetches that ended, the failed ones included
	Failures    int       // failed fetches in a row
	Err         error     // of the last fetch; nil: it succeeded
	Misses      int       // unknown key ids remembered
}

// Set is the key set of one issuer. Its methods may be called from any goroutine. It is a jwkset.Storage that
// cannot be written to.
type Set struct {
	o      Options
	url    string // printable
	client *http.Client
	owned  bool // client is ours to clean up

	snap    atomic.Pointer[snapshot] // nil until there are keys; written by the background goroutine only
	misses  *misses
	ready   chan struct{} // closed when snap is first set
	persist chan struct{} // the owner asks the background goroutine for a save
	wake    chan struct{} // a request asks the background goroutine for a fetch
	stopped chan struct{} // closed when Close begins: nobody waits any longer
	done    chan struct{} // closed when the background goroutine has ended
	storing chan struct{} // held by the one store operation under way
	waiting chan struct{} // holds one element per waiting caller

	skipped int // in the last usable set; for the background goroutine only

	mu     sync.Mutex
	state  state
	cancel context.CancelFunc // of the background goroutine; nil: not started
	closed bool
}

// state is what mu guards besides the life cycle.
type state struct {
	flight      *flight   // the fetch under way or asked for
	demanded    time.Time // when a request last asked for a fetch
	attempts    uint64
	failures    int // scheduled or not
	lastAttempt time.Time
	next        time.Time
	err         error
}

// snapshot is one key set, immutable once published.
type snapshot struct {
	list    []jwkset.JWK
	byKID   map[string]jwkset.JWK
	skipped int
	gen     uint64
	source  string
	fetched time.Time
}

// New makes a set. It does no I/O: nothing is loaded before Start.
func New(o Options) *Set {
	o = o.withDefaults()
	s := &Set{
		o:       o,
		url:     PrintableURL(o.URL),
		misses:  newMisses(o.MaxMisses),
		ready:   make(chan struct{}),
		wake:    make(chan struct{}, 1),
		stopped: make(chan struct{}),
		done:    make(chan struct{}),
		storing: make(chan struct{}, 1),
		persist: make(chan struct{}, 1),
		waiting: make(chan struct{}, maxWaiting),
	}
	s.client, s.owned = newClient(o.Client)
	return s
}

func (o Options) withDefaults() Options {
	if o.Refresh <= 0 {
		o.Refresh = DefaultRefresh
	}
	if o.Cooldown <= 0 {
		o.Cooldown = DefaultCooldown
	}
	if o.MaxWait <= 0 {
		o.MaxWait = DefaultMaxWait
	}
	if o.MaxMisses <= 0 {
		o.MaxMisses = DefaultMaxMisses
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	return o
}

// Start begins loading in the background and returns at once. Only the first call has an effect, and none after
// Close.
func (s *Set) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if s.state.flight == nil {
		// The first fetch is on its way already: whoever waits for it has not asked for one of their own.
		s.state.flight = newFlight()
	}
	go s.run(ctx)
}

// Close stops the loading, aborts a fetch under way, and waits until both are over. The set stays readable with the
// keys it has, because requests that began before may still need them. It must not be called from Observe.
func (s *Set) Close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	cancel := s.cancel
	s.mu.Unlock()

	if first {
		close(s.stopped)
	}
	if cancel != nil {
		cancel()
		<-s.done
	}
	if s.owned {
		s.client.CloseIdleConnections()
	}
}

// Peek looks a key up. It never waits and never causes a fetch.
func (s *Set) Peek(kid string) (jwkset.JWK, bool) {
	return s.snap.Load().lookup(kid)
}

// Generation is a number that changes whenever the set of key ids and key material changes, and only then: what was
// verified under one generation holds for as long as it lasts. 0 means that there are no keys.
func (s *Set) Generation() uint64 {
	if sn := s.snap.Load(); sn != nil {
		return sn.gen
	}
	return 0
}

// Confirmed says whether the present keys came from the issuer. While they are only the store's, a key that is
// missing or does not match proves nothing about a token: the issuer may have rotated while this process was away. Nor
// does it when the set is closed, and learns of no new keys.
func (s *Set) Confirmed() bool { return !s.isClosed() && s.snap.Load().confirmed() }

// isClosed is closed without the lock.
func (s *Set) isClosed() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

// Status reports what the set holds and how its last fetch went.
func (s *Set) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		URL:         s.url,
		LastAttempt: s.state.lastAttempt,
		Next:        s.state.next,
		Fetches:     s.state.attempts,
		Failures:    s.state.failures,
		Err:         s.state.err,
		Misses:      s.misses.len(),
	}
	if sn := s.snap.Load(); sn != nil {
		st.KIDs = sn.kids()
		st.Skipped = sn.skipped
		st.Source = sn.source
		st.Generation = sn.gen
		st.Fetched = sn.fetched
	}
	return st
}

func (sn *snapshot) lookup(kid string) (jwkset.JWK, bool) {
	if sn == nil {
		return jwkset.JWK{}, false
	}
	k, ok := sn.byKID[kid]
	return k, ok
}

func (sn *snapshot) confirmed() bool { return sn != nil && sn.source == SourceNetwork }

func (sn *snapshot) kids() []string {
	kids := make([]string, 0, len(sn.list))
	for _, k := range sn.list {
		kids = append(kids, k.Marshal().KID)
	}
	return kids
}
