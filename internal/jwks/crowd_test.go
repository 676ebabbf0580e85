package jwks

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
)

// Attack: requests with made-up key ids while the issuer hangs, each of which would hold a connection for MaxWait.
func TestWaitersAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		loaded bool
		want   error
	}{
		{"for an unknown key", true, jwkset.ErrKeyNotFound},
		{"for the first keys", false, ErrNoKeys},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i := newIssuer(doc(key("a", "1")))
				hold := make(chan struct{})
				if !c.loaded {
					i.holdBack(hold)
				}
				s := New(Options{URL: testURL, Client: i.client(), MaxMisses: 2 * maxWaiting})
				s.Start()
				defer s.Close()
				synctest.Wait()
				i.holdBack(hold)

				var wg sync.WaitGroup
				for n := range maxWaiting {
					wg.Go(func() { wantUnknown(t, s, strconv.Itoa(n)) })
				}
				synctest.Wait()
				begin := time.Now()
				for range 100 {
					if _, err := s.KeyRead(t.Context(), "one too many"); !errors.Is(err, c.want) || !errors.Is(err, errCrowd) {
						t.Fatalf("got %v", err)
					}
					if s.Refresh(t.Context()) {
						t.Fatal("Refresh saw a change")
					}
				}
				if c.loaded {
					mustRead(t, s, "a") // needs no place among those who wait
				}
				if d := time.Since(begin); d != 0 {
					t.Fatalf("it took %v", d)
				}

				close(hold)
				wg.Wait()
				if n := len(s.waiting); n != 0 {
					t.Fatalf("%d places are not given back", n)
				}
				if s.misses.has("one too many", s.Generation(), time.Now()) {
					t.Fatal("who was turned away left a miss behind")
				}
				i.serve(200, doc(key("a", "1"), key("one too many", "2")))
				elapse(DefaultCooldown)
				mustRead(t, s, "one too many")
			})
		})
	}
}

// Nor does it use up the fetch that requests may ask for.
func TestTurnedAwayCallerAsksForNoFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		for range maxWaiting {
			s.enter()
		}
		wantUnknown(t, s, "b")
		s.Refresh(t.Context())
		synctest.Wait()
		wantFetches(t, i, 1)
		for range maxWaiting {
			s.leave()
		}
		i.serve(200, doc(key("b", "2")))
		mustRead(t, s, "b")
	})
}
