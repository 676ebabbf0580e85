package share

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

var (
	errNobody = errors.New("nobody waits for the answer any more")
	errSlow   = fmt.Errorf("the answer did not come within %s, and nobody waits for it", refreshPatience)
	// errFault is a mistake of ours.
	errFault = errors.New("the fetch of an answer went wrong")
)

// flight is one fetch and all who wait for it.
type flight struct {
	key    Key
	begun  time.Time
	ctx    context.Context //nolint:containedctx // it lives as long as the fetch
	cancel context.CancelCauseFunc

	members    int         // who wait; the background counts as one. Guarded by the store's mutex
	background *time.Timer // set while the flight goes on without anybody; guarded by the same

	landed chan struct{} // closed when what follows is set
	answer *answer       // for all; held until the last member has left
	stored bool
	stream *stream // for one of them; the others are on their own
	err    error   // of a fetch that yielded nothing

	// outcome is set before the end of the fetch is known to anybody, and goes to one member, so that each fetch is counted once.
	outcome claim[forward.Outcome]
}

// join makes the request a member of the flight for its key, or of a new one as its leader. There is none if an answer was
// kept meanwhile, or if the store is closed.
func (s *Store) join(q Request) (f *flight, leader bool, a *answer, st state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, nil, closed
	}
	if f := s.flights[q.Key]; f != nil {
		f.members++
		return f, false, nil, absent
	}
	// A flight keeps its answer before it leaves the table, so what was missed before is seen now.
	if a, st := s.find(q); st != absent {
		return nil, false, a, st
	}
	return s.start(q, nil), true, nil, absent
}

// refresh fetches a new answer in the background, unless that is done already or too many are.
func (s *Store) refresh(q Request, old *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.flights[q.Key] != nil || s.refreshes == maxRefreshes {
		return
	}
	if now, ok := s.kept.GetIfPresent(q.Key); ok && now != old {
		return // it has been done
	}
	s.refreshes++
	report := q.Refreshed
	if report == nil {
		report = func(forward.Outcome, error) {}
	}
	s.start(q, report)
}

// start begins a flight with one member: a request or, if there is somebody to report to, the background. The mutex is held.
func (s *Store) start(q Request, report func(forward.Outcome, error)) *flight {
	f := &flight{key: q.Key, begun: time.Now(), members: 1, landed: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancelCause(context.Background())
	s.flights[q.Key] = f
	if report != nil {
		f.background = time.AfterFunc(refreshPatience, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.abandon(f, errSlow)
		})
	}
	go s.fly(f, q, report)
	return f
}

// abandon takes the background's membership, for a reason. The mutex is held.
func (s *Store) abandon(f *flight, why error) {
	if f.background == nil {
		return
	}
	f.background.Stop()
	f.background = nil
	s.refreshes--
	s.drop(f, why)
}

// leave ends a request's membership.
func (s *Store) leave(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(f, errNobody)
}

// drop ends one membership. The last ends the flight: whoever comes now starts another. The mutex is held.
func (s *Store) drop(f *flight, why error) {
	f.members--
	if f.members > 0 {
		return
	}
	s.remove(f)
	f.cancel(why)
	if f.answer != nil {
		f.answer.release()
	}
}

// remove takes the flight out of the table. The mutex is held.
func (s *Store) remove(f *flight) {
	if s.flights[f.key] == f {
		delete(s.flights, f.key)
	}
}

// fly fetches the answer and hands it over. In the background nobody else reads how that went.
func (s *Store) fly(f *flight, q Request, report func(forward.Outcome, error)) {
	rec := &recorder{store: s, flight: f, request: q, header: make(http.Header)}
	outcome, err := fetch(f.ctx, q.Fetch, rec)
	if report != nil {
		if err != nil && errors.Is(context.Cause(f.ctx), errSlow) {
			err = errSlow
		}
		report(outcome, err)
	} else {
		f.outcome.set(outcome)
	}
	switch {
	case rec.out != nil: // the flight has landed
		rec.finish(err)
		return
	case err == nil && rec.status == 0:
		err = fmt.Errorf("%w: it ended without an answer", errFault)
	}
	if err != nil {
		rec.free()
		s.land(f, func() { f.err = err })
		return
	}
	a := rec.answer()
	stored := s.keep(f.key, a)
	s.land(f, func() {
		f.stored = stored
		if f.members > 0 && a.acquire() {
			f.answer = a
		}
	})
	a.release()
}

// fetch calls the function. A panic here would end the process, where one in a handler ends a request.
func fetch(ctx context.Context, f Fetch, w http.ResponseWriter) (out forward.Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errFault, p)
		}
	}()
	return f(ctx, w)
}

// land tells all members what has become of the fetch, and ends the background's membership. The flight must not be in
// the table any more when they know, or they could join it again.
func (s *Store) land(f *flight, set func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(f)
	set()
	close(f.landed)
	s.abandon(f, errNobody)
}

// wait has the question asked, or waits for what others have asked, for as long as is left, or without a bound if that is 0.
//
// A fetch that times out was given its time when it began. Who came to it later has as much from then on, and asks once more for the
// rest of it: one connection that hangs would fail all who come before it is given up, even in its last moment.
func (s *Store) wait(ctx context.Context, w http.ResponseWriter, q Request, left time.Duration) (Outcome, error) {
	f, leader, a, state := s.join(q)
	if f == nil {
		return s.answer(ctx, w, q, a, state)
	}
	patience, late := ctx, time.Duration(0)
	switch {
	case left > 0:
		var cancel context.CancelFunc
		patience, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	case !leader:
		late = time.Since(f.begun)
	}
	out, err := s.await(ctx, patience, w, q, f, leader, late)
	if !errors.Is(err, errLate) {
		return out, err
	}
	return s.wait(ctx, w, q, late)
}

// errLate is for one who has time left after a fetch has timed out.
var errLate = errors.New("the fetch began before the request came")

// await waits for the flight to land, for as long as patience lasts. The error is errLate for one who came to it late and may ask again.
func (s *Store) await(ctx, patience context.Context, w http.ResponseWriter, q Request, f *flight, leader bool, late time.Duration) (Outcome, error) {
	defer s.leave(f)
	out := Outcome{Result: Collapsed}
	if leader {
		out.Result = Miss
	}
	h := w.Header()
	select {
	case <-f.landed:
	case <-patience.Done():
		setForwarded(h, out.Result, 0, false, "")
		return out, forward.Unsent(h, patience.Err())
	}
	// With less than a quarter of the time left nothing is begun anew.
	if late > 0 && late >= time.Since(f.begun)/4 && f.err != nil && forward.TimedOut(f.err) {
		return out, errLate
	}
	switch st := f.stream; {
	case st != nil && !st.claimed.CompareAndSwap(false, true):
		return bypass(w, st.detail)
	case st != nil:
		setForwarded(h, out.Result, st.status, false, st.detail)
		err := st.send(ctx, w, f)
		out.Upstream = f.outcome.take()
		return out, err
	}
	out.Upstream = f.outcome.take()
	if f.err == nil {
		setForwarded(h, out.Result, http.StatusOK, f.stored, "")
		return out, f.answer.send(ctx, w, q.Client)
	}
	setForwarded(h, out.Result, out.Upstream.UpstreamStatus, false, "")
	if errors.Is(f.err, errFault) {
		return out, f.err
	}
	return out, forward.Unsent(h, f.err)
}
