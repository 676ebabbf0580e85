package jwks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
)

// started makes a set that has loaded its issuer's document. It runs in a synctest bubble.
func started(t *testing.T, i *issuer, o Options) *Set {
	t.Helper()
	o.URL, o.Client = testURL, i.client()
	s := New(o)
	s.Start()
	t.Cleanup(s.Close)
	synctest.Wait()
	if s.Generation() == 0 {
		t.Fatal("nothing loaded")
	}
	return s
}

func TestSingleFlightForManyWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		hold := make(chan struct{})
		i.holdBack(hold)
		i.serve(200, doc(key("a", "1"), key("b", "2")))

		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := s.KeyRead(t.Context(), "b"); err != nil {
					t.Errorf("KeyRead: %v", err)
				}
			})
		}
		synctest.Wait()
		wantFetches(t, i, 2)
		close(hold)
		wg.Wait()
		wantFetches(t, i, 2)
	})
}

// Attack: tokens with made-up key ids, each of which would cost the issuer a fetch (SERVER-89870, CAMEL-26532).
func TestUnknownKidStormCausesOneFetchPerCooldown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		storm := func(round string) {
			var wg sync.WaitGroup
			for n := range 500 {
				wg.Go(func() { wantUnknown(t, s, fmt.Sprint(round, n)) })
			}
			wg.Wait()
		}
		storm("first")
		wantFetches(t, i, 2)
		elapse(DefaultCooldown - time.Millisecond)
		storm("second")
		wantFetches(t, i, 2)
		elapse(time.Millisecond)
		storm("third")
		wantFetches(t, i, 3)
		mustRead(t, s, "a")
	})
}

// The first load must not use up the one fetch that requests may ask for, however early they come: a rotation right
// after the start is found at once.
func TestEarlyRequestsDoNotUseUpTheCooldown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := New(Options{URL: testURL, Client: i.client()})
		s.Start()
		defer s.Close()
		mustRead(t, s, "a")
		i.serve(200, doc(key("b", "2")))
		mustRead(t, s, "b")
		wantFetches(t, i, 2)
	})
}

// The same while stored keys are in use and the first fetch is about to begin.
func TestRequestsBeforeTheFirstFetchShareIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := seeded(t, doc(key("a", "1")))
		i := newIssuer(doc(key("b", "2")))
		restored, proceed := make(chan struct{}), make(chan struct{})
		var once sync.Once
		s := New(Options{URL: testURL, Client: i.client(), Store: st, Observe: func(Event) {
			once.Do(func() { close(restored); <-proceed })
		}})
		s.Start()
		defer s.Close()
		<-restored
		var wg sync.WaitGroup
		wg.Go(func() { mustRead(t, s, "b") })
		synctest.Wait()
		close(proceed)
		wg.Wait()
		wantFetches(t, i, 1)
		i.serve(200, doc(key("c", "3")))
		mustRead(t, s, "c")
		wantFetches(t, i, 2)
	})
}

// A fetch that was asked for just before the scheduled one begins is that one.
func TestDemandAndScheduleAreOneFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := New(Options{URL: testURL, Client: i.client()})
		var wg sync.WaitGroup
		wg.Go(func() { s.Refresh(t.Context()) })
		synctest.Wait()
		s.Start()
		defer s.Close()
		wg.Wait()
		elapse(time.Minute)
		wantFetches(t, i, 1)
	})
}

func TestRememberedMissCostsNoFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		wantUnknown(t, s, "b")
		wantFetches(t, i, 2)

		elapse(missTTL - time.Second)
		wantUnknown(t, s, "b")
		wantFetches(t, i, 2)

		elapse(time.Second)
		wantUnknown(t, s, "b")
		wantFetches(t, i, 3)
	})
}

// A token can be signed with a key before the issuer publishes that: once it does, the key must not stay refused for
// minutes because somebody asked too early.
func TestKeyAskedForBeforeItsPublicationIsFoundSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		wantUnknown(t, s, "b")
		i.serve(200, doc(key("a", "1"), key("b", "2")))
		elapse(DefaultCooldown)
		mustRead(t, s, "b")
		wantFetches(t, i, 3)
	})
}

func TestRememberedMissDiesWithItsGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		wantUnknown(t, s, "b")
		elapse(DefaultCooldown)
		i.serve(200, doc(key("a", "1"), key("c", "3")))
		mustRead(t, s, "c")
		wantFetches(t, i, 3)

		i.serve(200, doc(key("a", "1"), key("b", "2"), key("c", "3")))
		elapse(DefaultCooldown)
		mustRead(t, s, "b")
		wantFetches(t, i, 4)
	})
}

// A fetch that failed proves nothing about a key id: it must be looked for again as soon as the cooldown allows.
func TestFailedFetchIsNoMiss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		i.down()
		wantUnknown(t, s, "b")
		if n := s.Status().Misses; n != 0 {
			t.Fatalf("%d misses remembered", n)
		}
		i.serve(200, doc(key("b", "2")))
		elapse(DefaultCooldown)
		mustRead(t, s, "b")
	})
}

// A fetch that began before the question may have been answered before the key was published.
func TestAnswerOlderThanTheQuestionIsNoMiss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		hold := make(chan struct{})
		i.holdBack(hold)
		go s.Refresh(t.Context())
		synctest.Wait()
		var wg sync.WaitGroup
		wg.Go(func() { wantUnknown(t, s, "b") })
		synctest.Wait()
		close(hold)
		wg.Wait()
		if n := s.Status().Misses; n != 0 {
			t.Fatalf("%d misses remembered", n)
		}
	})
}

// Attack: key ids that can be in no set, to fill the memory or cause fetches.
func TestImpossibleKidsCostNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		wantUnknown(t, s, "")
		wantUnknown(t, s, string(make([]byte, MaxKID+1)))
		wantFetches(t, i, 1)
		if n := s.Status().Misses; n != 0 {
			t.Fatalf("%d misses remembered", n)
		}
	})
}

func TestRefreshFindsNewMaterialUnderTheSameKid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		old := mustRead(t, s, "a").Marshal().N
		i.serve(200, doc(key("a", "2")))
		if !s.Refresh(t.Context()) {
			t.Fatal("Refresh saw no change")
		}
		wantGeneration(t, s, 2)
		if k := mustRead(t, s, "a"); k.Marshal().N == old {
			t.Fatal("old material")
		}

		// Attack: forged signatures under a known key id.
		for range 1000 {
			if s.Refresh(t.Context()) {
				t.Fatal("Refresh saw a change that was none")
			}
		}
		wantFetches(t, i, 2)
		elapse(DefaultCooldown)
		if s.Refresh(t.Context()) {
			t.Fatal("the same document is a change")
		}
		wantFetches(t, i, 3)
		wantGeneration(t, s, 2)
	})
}

func TestConcurrentRefreshesShareOneFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		hold := make(chan struct{})
		i.holdBack(hold)
		i.serve(200, doc(key("a", "2")))
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if !s.Refresh(t.Context()) {
					t.Error("Refresh saw no change")
				}
			})
		}
		synctest.Wait()
		close(hold)
		wg.Wait()
		wantFetches(t, i, 2)
	})
}

// A request that goes away must not take down the fetch that others wait for (oathkeeper#203).
func TestWaiterThatGoesAwayLeavesTheFetchAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		hold := make(chan struct{})
		i.holdBack(hold)
		i.serve(200, doc(key("b", "2")))

		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { // the one that asked for the fetch
			_, err := s.KeyRead(ctx, "b")
			if !errors.Is(err, context.Canceled) || !errors.Is(err, jwkset.ErrKeyNotFound) {
				t.Errorf("the first waiter got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { mustRead(t, s, "b") })
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(hold)
		wg.Wait()
		wantFetches(t, i, 2)
		if i.aborted != 0 {
			t.Fatal("the fetch was aborted")
		}
	})
}

func TestHungIssuerHoldsNobodyLongerThanMaxWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{Observe: ev.observe})
		i.holdBack(make(chan struct{}))

		begin := time.Now()
		wantUnknown(t, s, "b")
		if d := time.Since(begin); d != DefaultMaxWait {
			t.Fatalf("KeyRead took %v", d)
		}
		begin = time.Now()
		if s.Refresh(t.Context()) {
			t.Fatal("Refresh saw a change")
		}
		if d := time.Since(begin); d != DefaultMaxWait {
			t.Fatalf("Refresh took %v", d)
		}
		mustRead(t, s, "a")

		elapse(fetchTimeout)
		wantFetches(t, i, 2)
		if err := ev.last(t).Err; !errors.Is(err, errTimeout) {
			t.Fatalf("the event says %v", err)
		}
	})
}

func TestContextShorterThanMaxWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		i.holdBack(make(chan struct{}))
		s := New(Options{URL: testURL, Client: i.client()})
		s.Start()
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := s.KeyRead(ctx, "a")
		if d := time.Since(begin); d != 50*time.Millisecond {
			t.Fatalf("KeyRead took %v", d)
		}
		if !errors.Is(err, ErrNoKeys) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
	})
}
