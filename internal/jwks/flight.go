package jwks

import (
	"context"
	"time"
)

// flight is one fetch, shared by everybody who waits for it.
type flight struct {
	done    chan struct{} // closed when it has landed
	ok      bool          // a usable set came back; valid once done is closed
	started bool          // guarded by Set.mu
}

func newFlight() *flight { return &flight{done: make(chan struct{})} }

// join returns the fetch to wait for: the one under way, or a new one if the cooldown allows, or nil. fresh says
// that the fetch has not begun yet, so that its answer cannot be older than the question.
func (s *Set) join() (f *flight, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.state.flight; f != nil {
		return f, !f.started
	}
	if s.closed || s.cooling() {
		return nil, false
	}
	s.state.demanded = s.o.Now()
	f = newFlight()
	s.state.flight = f
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return f, true
}

// cooling says that a request asked for a fetch too recently. A clock that went backwards must not stretch the
// cooldown, so a time in the future counts as long ago.
func (s *Set) cooling() bool {
	if s.state.demanded.IsZero() {
		return false
	}
	since := s.o.Now().Sub(s.state.demanded)
	return since >= 0 && since < s.o.Cooldown
}

// takeOff begins the fetch that was asked for, or one that nobody asked for.
func (s *Set) takeOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Schedule and demand can come together: what was asked for is answered by this fetch, not by another after it.
	select {
	case <-s.wake:
	default:
	}
	if s.state.flight == nil {
		s.state.flight = newFlight()
	}
	s.state.flight.started = true
}

// land ends the fetch under way and lets its waiters go. What they came for must have been published before.
func (s *Set) land(r result, next time.Duration) {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	st.attempts++
	st.lastAttempt = now
	st.next = now.Add(next)
	st.err = r.err
	st.failures++
	if r.err == nil {
		st.failures = 0
	}
	st.flight.ok = r.err == nil
	st.endFlight()
}

// abort ends a fetch that Close interrupted. That says nothing about the issuer, so it is no failure.
func (s *Set) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.endFlight()
}

func (st *state) endFlight() {
	close(st.flight.done)
	st.flight = nil
}

// prospect says whether waiting for a first set makes sense, and for which fetch: one is under way or can be had, or
// (without a flight) the next one is due before a caller would give up. In a long outage requests are then turned
// away at once instead of piling up.
func (s *Set) prospect() (f *flight, ok bool) {
	s.mu.Lock()
	f, closed := s.state.flight, s.closed
	soon := s.state.attempts == 0 || s.state.next.Sub(s.o.Now()) <= s.o.MaxWait
	s.mu.Unlock()
	switch {
	case closed:
		return nil, false
	case f != nil:
		return f, true
	case soon: // so the fetch that requests may ask for is saved for later
		return nil, true
	}
	f, _ = s.join()
	return f, f != nil
}

// wait returns when the flight has landed, nil, or with the reason why nobody should wait for it any longer.
func (s *Set) wait(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return nil
	case <-s.stopped:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
