package jwks

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
)

func TestNothingHappensBeforeStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		st := &memStore{}
		s := New(Options{URL: testURL, Client: i.client(), Store: st})
		elapse(time.Hour)
		wantFetches(t, i, 0)
		if _, ok := s.Peek("a"); ok || s.Generation() != 0 {
			t.Fatal("keys from nowhere")
		}
		begin := time.Now()
		wantNoKeys(t, s, "a")
		if d := time.Since(begin); d > DefaultMaxWait {
			t.Fatalf("KeyRead took %v", d)
		}
		s.Start()
		mustRead(t, s, "a")
		s.Close()
	})
}

func TestStartAndCloseAreIdempotent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := New(Options{URL: testURL, Client: i.client()})
		s.Start()
		s.Start()
		synctest.Wait()
		wantFetches(t, i, 1)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(s.Close)
		}
		wg.Wait()
		s.Close()
		s.Start() // a closed set stays closed
		elapse(2 * DefaultRefresh)
		wantFetches(t, i, 1)
	})
}

func TestCloseWithoutStart(t *testing.T) {
	t.Parallel()
	s := New(Options{URL: testURL})
	s.Close()
	s.Start()
	wantNoKeys(t, s, "a")
}

// Requests of the old config still run while the new one is in place.
func TestClosedSetStaysReadable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{})
		s.Close()
		begin := time.Now()
		mustRead(t, s, "a")
		wantNoKeys(t, s, "b") // nobody can ask the issuer any more, so this must not become a 401
		if s.Refresh(t.Context()) {
			t.Error("a closed set changed")
		}
		if s.Confirmed() {
			t.Error("a closed set says that a wrong signature is the token's fault")
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("it took %v", d)
		}
		wantFetches(t, i, 1)
		wantGeneration(t, s, 1)
	})
}

func TestCloseDuringFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{Observe: ev.observe})
		i.holdBack(make(chan struct{}))
		var wg sync.WaitGroup
		begin := time.Now()
		wg.Go(func() { wantNoKeys(t, s, "b") })
		wg.Go(func() { s.Refresh(t.Context()) })
		synctest.Wait()
		s.Close()
		wg.Wait()
		if d := time.Since(begin); d != 0 {
			t.Fatalf("it took %v", d)
		}
		if i.aborted != 1 {
			t.Fatal("the fetch was not aborted")
		}
		// A reload is no failure of the issuer: it must not be reported as one.
		if e := ev.list(); len(e) != 1 {
			t.Fatalf("events %+v", e)
		}
		if st := s.Status(); st.Err != nil || st.Failures != 0 || st.Fetches != 1 {
			t.Fatalf("status %+v", st)
		}
		mustRead(t, s, "a")
	})
}

// Close waits for the background goroutine, but those who wait for a fetch that will not come do not.
func TestCloseLetsWaitersGoBeforeItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		s := New(Options{
			URL: testURL, Client: newIssuer(doc(key("a", "1"))).client(), Observe: func(Event) { <-hold },
		})
		s.Start()
		synctest.Wait()
		begin := time.Now()
		var waiter, closer sync.WaitGroup
		waiter.Go(func() { wantNoKeys(t, s, "b") })
		synctest.Wait()
		closer.Go(s.Close)
		waiter.Wait()
		if d := time.Since(begin); d != 0 {
			t.Errorf("it took %v", d)
		}
		close(hold)
		closer.Wait()
	})
}

func TestCloseDuringFirstLoadLetsWaitersGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		i.holdBack(make(chan struct{}))
		s := New(Options{URL: testURL, Client: i.client()})
		s.Start()
		var wg sync.WaitGroup
		begin := time.Now()
		for range 10 {
			wg.Go(func() { wantNoKeys(t, s, "a") })
		}
		synctest.Wait()
		s.Close()
		wg.Wait()
		if d := time.Since(begin); d != 0 {
			t.Fatalf("it took %v", d)
		}
	})
}

func TestReadersDuringRotations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{Refresh: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					mustRead(t, s, "a") // is in every document
					s.Peek("b")
					s.Generation()
					s.Status()
					elapse(10 * time.Millisecond)
				}
			})
		}
		for n := range 20 {
			i.serve(200, doc(key("a", string(rune('a'+n))), key("b", "2")))
			elapse(1100 * time.Millisecond)
		}
		cancel()
		wg.Wait()
		if g := s.Generation(); g < 15 {
			t.Fatalf("generation %d", g)
		}
	})
}

func TestStorageInterface(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1"), `{"kty":"oct","kid":"o","k":"c2VjcmV0"}`, key("b", "2")))
		s := started(t, i, Options{})
		ctx := t.Context()

		keys, err := s.KeyReadAll(ctx)
		if err != nil || len(keys) != 2 || keys[0].Marshal().KID != "a" {
			t.Fatalf("KeyReadAll: %v, %v", keys, err)
		}
		keys[0] = jwkset.JWK{} // a caller's copy
		mustRead(t, s, "a")

		_, delErr := s.KeyDelete(ctx, "a")
		for _, err := range []error{delErr, s.KeyReplaceAll(ctx, nil), s.KeyWrite(ctx, keys[1])} {
			if !errors.Is(err, errReadOnly) {
				t.Errorf("a write returned %v", err)
			}
		}
		for name, f := range map[string]func() ([]byte, error){
			"JSON":        func() ([]byte, error) { return s.JSON(ctx) },
			"JSONPublic":  func() ([]byte, error) { return s.JSONPublic(ctx) },
			"JSONPrivate": func() ([]byte, error) { return s.JSONPrivate(ctx) },
			"JSONWithOptions": func() ([]byte, error) {
				return s.JSONWithOptions(ctx, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
			},
		} {
			text, err := f()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if again, skipped, err := ParseSet(text); err != nil || len(again) != 2 || skipped != 0 {
				t.Errorf("%s gave %s", name, text)
			}
		}
		m, err := s.Marshal(ctx)
		if err != nil || len(m.Keys) != 2 {
			t.Errorf("Marshal: %v, %v", m, err)
		}
		m, err = s.MarshalWithOptions(ctx, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil || len(m.Keys) != 2 {
			t.Errorf("MarshalWithOptions: %v, %v", m, err)
		}
	})
}

func TestStorageInterfaceWithoutKeys(t *testing.T) {
	t.Parallel()
	s := New(Options{URL: testURL})
	s.Close()
	ctx := t.Context()
	_, err1 := s.KeyReadAll(ctx)
	_, err2 := s.JSON(ctx)
	_, err3 := s.Marshal(ctx)
	_, err4 := s.MarshalWithOptions(ctx, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	_, err5 := s.JSONWithOptions(ctx, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	for n, err := range []error{err1, err2, err3, err4, err5} {
		if !errors.Is(err, ErrNoKeys) {
			t.Errorf("method %d: %v", n+1, err)
		}
	}
}
