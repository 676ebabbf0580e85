package jwks

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The issuer rotated while this process was away, and cannot be reached: the stored keys prove nothing about a token
// with another key, so that it must not be answered as if the issuer had been asked.
func TestRestartAfterRotationDuringOutageIsNoVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := seeded(t, doc(key("a", "1")))
		i := newIssuer(doc(key("b", "2")))
		i.down()
		s := started(t, i, Options{Store: st})
		mustRead(t, s, "a")
		for range 3 { // the fetch of the first one failed, the others may not ask for one
			wantNoKeys(t, s, "b")
		}
		if s.Confirmed() {
			t.Error("the store's keys count as the issuer's")
		}
		if n := s.Status().Misses; n != 0 {
			t.Errorf("%d misses remembered", n)
		}

		i.serve(200, doc(key("b", "2")))
		elapse(firstLoadRetryMax)
		synctest.Wait()
		mustRead(t, s, "b")
		wantUnknown(t, s, "a")
		if !s.Confirmed() {
			t.Error("the issuer's keys count as the store's")
		}
	})
}

// The same while the first fetch hangs.
func TestRestartWithHungIssuerIsNoVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := seeded(t, doc(key("a", "1")))
		i := newIssuer("")
		i.holdBack(make(chan struct{}))
		s := started(t, i, Options{Store: st})
		begin := time.Now()
		_, err := s.KeyRead(t.Context(), "b")
		if !errors.Is(err, ErrNoKeys) || !errors.Is(err, errWaited) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(begin); d != DefaultMaxWait {
			t.Errorf("KeyRead took %v", d)
		}
	})
}

func TestConfirmedIsTheIssuersWord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := New(Options{URL: testURL, Client: i.client(), Store: seeded(t, doc(key("a", "1")))})
		if s.Confirmed() {
			t.Error("confirmed without keys")
		}
		s.Start()
		defer s.Close()
		synctest.Wait()
		if !s.Confirmed() { // the generation is still that of the stored keys
			t.Error("the same keys from the issuer are no confirmation")
		}
		i.down()
		s.Refresh(t.Context())
		if !s.Confirmed() {
			t.Error("an outage takes the confirmation back")
		}
	})
}

// A reload that closes the set under a waiting request says nothing about the request's key.
func TestCloseDuringAWaitIsNoVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		i.holdBack(make(chan struct{}))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := s.KeyRead(context.Background(), "b")
			if !errors.Is(err, ErrNoKeys) || !errors.Is(err, errClosed) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		s.Close()
		wg.Wait()
	})
}

// Attack: junk tokens during an outage, whose failed fetches would count for the backoff, so that the issuer's return
// goes unnoticed for as long as the refresh interval.
func TestJunkTokensDoNotPutOffTheScheduledRetry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		loaded bool
		limit  time.Duration
	}{
		{"with keys", true, refreshRetryMax},
		{"before the first keys", false, firstLoadRetryMax},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i := newIssuer(doc(key("a", "1")))
				if !c.loaded {
					i.down()
				}
				s := New(Options{URL: testURL, Client: i.client(), Refresh: 24 * time.Hour})
				s.Start()
				defer s.Close()
				synctest.Wait()
				i.down()
				var due time.Time
				for range 360 { // an hour
					before := i.fetches()
					s.Refresh(t.Context())
					synctest.Wait()
					if i.fetches() == before {
						t.Fatal("no fetch")
					}
					next := s.Status().Next
					if left := time.Until(next); left > c.limit {
						t.Fatalf("the next try is in %v", left)
					}
					if time.Now().Before(due) && next.After(due) {
						t.Fatalf("the try due at %v was put off to %v", due, next)
					}
					elapse(DefaultCooldown)
					synctest.Wait()
					due = s.Status().Next
				}
			})
		})
	}
}

// Attack: a few junk tokens right after the issuer went away, before any scheduled fetch has failed.
func TestDemandedFailuresAreNoBackoff(t *testing.T) {
	t.Parallel()
	refresh := 24 * time.Hour
	p := schedule{answered: true, due: time.Now().Add(refresh)}
	for n := range 20 {
		if d := p.after(errors.New("down"), refresh); d > refreshRetry*11/10 || p.failures != 0 {
			t.Fatalf("after %d failures that were asked for the next try is in %v, and %d count", n+1, d, p.failures)
		}
	}
	for n := range 20 {
		p.due = time.Now().Add(-1)
		want := min(refreshRetry<<n, refreshRetryMax)
		if d := p.after(errors.New("down"), refresh); d < want*9/10 || d > refreshRetryMax {
			t.Fatalf("after %d scheduled failures the next try is in %v, want about %v", n+1, d, want)
		}
	}
	if p.after(nil, refresh); p.failures != 0 || time.Until(p.due) < refresh/2 {
		t.Fatalf("after a success: %+v", p)
	}
}
