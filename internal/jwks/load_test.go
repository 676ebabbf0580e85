package jwks

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An issuer that is down when Caddy starts must neither stop nor delay the start (caddy-jwt#56, caddy-security#410).
func TestIssuerDownAtStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		i := newIssuer(doc(key("a", "1")))
		i.down()
		begin := time.Now()
		s := New(Options{URL: testURL, Client: i.client(), Observe: ev.observe})
		s.Start()
		defer s.Close()
		wantNoKeys(t, s, "a")
		if d := time.Since(begin); d > DefaultMaxWait {
			t.Fatalf("KeyRead took %v", d)
		}
		wantGeneration(t, s, 0)

		elapse(time.Minute)
		times := i.fetchTimes()
		for n := 1; n < len(times); n++ {
			gap := times[n].Sub(times[n-1])
			want := min(firstLoadRetry<<min(n-1, 20), firstLoadRetryMax)
			if gap < want*9/10 || gap > min(want*11/10, firstLoadRetryMax) {
				t.Errorf("try %d came after %v, want about %v", n, gap, want)
			}
		}
		if n := len(times); n < 10 {
			t.Fatalf("%d tries in a minute", n)
		}
		st := s.Status()
		if st.Failures != i.fetches() || st.Err == nil || !st.Fetched.IsZero() || st.Source != "" {
			t.Fatalf("status %+v", st)
		}
		if e := ev.last(t); e.Err == nil || e.Source != SourceNetwork || e.Next > firstLoadRetryMax || e.Next <= 0 {
			t.Fatalf("event %+v", e)
		}

		i.serve(200, doc(key("a", "1")))
		elapse(firstLoadRetryMax)
		mustRead(t, s, "a")
		if e := ev.last(t); e.Err != nil || !e.Changed || e.Keys != 1 {
			t.Fatalf("event %+v", e)
		}
	})
}

// Requests that come before the first keys wait for them instead of failing.
func TestFirstRequestsWaitForTheFirstLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		i.down()
		s := New(Options{URL: testURL, Client: i.client()})
		s.Start()
		defer s.Close()
		synctest.Wait()
		i.serve(200, doc(key("a", "1")))
		mustRead(t, s, "a") // served by the retry after 250 ms
		wantFetches(t, i, 2)
	})
}

// Attack: load during a long outage, so that requests pile up, each waiting for keys that will not come.
func TestLongOutageTurnsRequestsAwayAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		i.down()
		s := New(Options{URL: testURL, Client: i.client()})
		s.Start()
		defer s.Close()
		elapse(30 * time.Second)
		synctest.Wait()
		for time.Until(s.Status().Next) <= DefaultMaxWait {
			elapse(100 * time.Millisecond)
		}
		n := i.fetches()
		begin := time.Now()
		for range 100 {
			wantNoKeys(t, s, "a")
		}
		if d := time.Since(begin); d != 0 {
			t.Fatalf("100 requests took %v", d)
		}
		wantFetches(t, i, n+1)

		// But the issuer's return is noticed by the first request that may ask.
		i.serve(200, doc(key("a", "1")))
		elapse(DefaultCooldown)
		mustRead(t, s, "a")
	})
}

func TestBackgroundRefreshIsJittered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		started(t, i, Options{Refresh: time.Hour})
		elapse(100 * time.Hour)
		times := i.fetchTimes()
		gaps := map[time.Duration]bool{}
		for n := 1; n < len(times); n++ {
			gap := times[n].Sub(times[n-1])
			gaps[gap] = true
			if gap < 54*time.Minute || gap > 66*time.Minute {
				t.Fatalf("refresh %d came after %v", n, gap)
			}
		}
		if len(times) < 90 || len(gaps) < 50 {
			t.Fatalf("%d refreshes with %d different gaps", len(times), len(gaps))
		}
	})
}

func TestFailedRefreshIsRetriedSooner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{Refresh: time.Hour})
		i.down()
		elapse(100 * time.Hour)
		times := i.fetchTimes()
		for n := 2; n < len(times); n++ {
			gap := times[n].Sub(times[n-1])
			want := min(refreshRetry<<min(n-2, 20), refreshRetryMax)
			if gap < want*9/10 || gap > min(want*11/10, refreshRetryMax) {
				t.Fatalf("try %d came after %v, want about %v", n, gap, want)
			}
		}
		mustRead(t, s, "a")
	})
}

// The set that works is only ever replaced by another that works (caddy-jwt#48, auth0/node-jwks-rsa#385).
func TestGoodSetSurvives(t *testing.T) {
	t.Parallel()
	weak := `{"kty":"RSA","kid":"a","n":"` + b64(modulus(1024, "x")) + `","e":"AQAB"}`
	for _, c := range []struct {
		name   string
		status int
		body   string
	}{
		{"no answer", 0, ""},
		{"empty set", 200, `{"keys":[]}`},
		{"null set", 200, `{"keys":null}`},
		{"no set", 200, `{}`},
		{"empty body", 200, ``},
		{"cut off", 200, doc(key("b", "2"))[:300]},
		{"trailing data", 200, doc(key("b", "2")) + "x"},
		{"login page", 200, `<!doctype html><title>Sign in to the hotel network</title>`},
		{"only unusable keys", 200, doc(weak)},
		{"too large", 200, doc(key("b", "2")) + strings.Repeat(" ", DefaultMaxBody)},
		{"error with a good body", 500, doc(key("b", "2"))},
		{"not found", 404, doc(key("b", "2"))},
		{"unauthorized", 401, doc(key("b", "2"))},
		{"too many requests", 429, doc(key("b", "2"))},
		{"created", 201, doc(key("b", "2"))},
		{"no content", 204, ""},
		{"not modified", 304, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var ev events
				i := newIssuer(doc(key("a", "1")))
				s := started(t, i, Options{Observe: ev.observe})
				fetched := s.Status().Fetched
				if i.serve(c.status, c.body); c.status == 0 {
					i.down()
				}
				if s.Refresh(t.Context()) {
					t.Fatal("Refresh saw a change")
				}
				wantFetches(t, i, 2)
				mustRead(t, s, "a")
				if _, ok := s.Peek("b"); ok {
					t.Fatal("a key of the bad document is trusted")
				}
				wantGeneration(t, s, 1)
				if e := ev.last(t); e.Err == nil || e.Changed || e.Keys != 0 {
					t.Fatalf("event %+v", e)
				}
				if st := s.Status(); st.Err == nil || st.Failures != 1 || !st.Fetched.Equal(fetched) {
					t.Fatalf("status %+v", st)
				}

				i.serve(200, doc(key("a", "1")))
				elapse(DefaultCooldown)
				s.Refresh(t.Context())
				if st := s.Status(); st.Err != nil || st.Failures != 0 {
					t.Fatalf("status %+v", st)
				}
			})
		})
	}
}

// Attack: a withdrawn key stays trusted because refreshes merge (CVE-2025-22149).
func TestKeyRemovedFromTheSetDisappears(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1"), key("b", "2")))
		s := started(t, i, Options{Refresh: time.Hour})
		mustRead(t, s, "a")
		i.serve(200, doc(key("b", "2")))
		elapse(2 * time.Hour)
		if _, ok := s.Peek("a"); ok {
			t.Fatal("the key is still there")
		}
		wantUnknown(t, s, "a")
		mustRead(t, s, "b")
		wantGeneration(t, s, 2)
	})
}

func TestGenerationChangesWithTheKeysOnly(t *testing.T) {
	t.Parallel()
	bare := `{"kty":"RSA","alg":"RS256","kid":"a","n":"` + b64(modulus(2048, "1")) + `","e":"AQAB"}`
	for _, c := range []struct {
		name   string
		body   string
		change bool
	}{
		{"same", doc(key("a", "1"), key("b", "2")), false},
		{"other order", doc(key("b", "2"), key("a", "1")), false},
		{"other metadata", doc(bare, key("b", "2")), false},
		{"other alg", doc(strings.Replace(key("a", "1"), "RS256", "RS512", 1), key("b", "2")), true},
		{"an unusable key more", doc(key("a", "1"), key("b", "2"), `{"kty":"oct"}`), false},
		{"key added", doc(key("a", "1"), key("b", "2"), key("c", "3")), true},
		{"key removed", doc(key("a", "1")), true},
		{"kid renamed", doc(key("a", "1"), key("c", "2")), true},
		{"new material", doc(key("a", "1"), key("b", "3")), true},
		{"materials swapped", doc(key("a", "2"), key("b", "1")), true},
		{"new exponent", doc(key("a", "1"), strings.Replace(key("b", "2"), "AQAB", "Aw", 1)), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var ev events
				i := newIssuer(doc(key("a", "1"), key("b", "2")))
				s := started(t, i, Options{Observe: ev.observe})
				i.serve(200, c.body)
				if got := s.Refresh(t.Context()); got != c.change {
					t.Errorf("Refresh: %v", got)
				}
				synctest.Wait()
				if e := ev.last(t); e.Changed != c.change || e.Err != nil {
					t.Errorf("event %+v", e)
				}
				if got := s.Generation() != 1; got != c.change {
					t.Errorf("generation %d", s.Generation())
				}
			})
		})
	}
}

func TestEventsComeOneAtATimeAndUnderNoLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(doc(key("a", "1")))
		var running, calls atomic.Int32
		var s *Set
		s = New(Options{
			URL: testURL, Client: i.client(), Store: &memStore{saveErr: errors.New("disk full")}, Refresh: time.Second,
			Observe: func(Event) {
				if running.Add(1) != 1 {
					t.Error("two at a time")
				}
				s.Status() // would deadlock under the set's lock
				mustRead(t, s, "a")
				elapse(time.Second)
				calls.Add(1)
				running.Add(-1)
			},
		})
		s.Start()
		defer s.Close()
		for range 20 {
			elapse(DefaultCooldown)
			s.Refresh(t.Context())
		}
		if calls.Load() < 20 {
			t.Fatalf("%d events", calls.Load())
		}
	})
}

// Attack: a credential in the configured URL that comes out in a log line, a metric or the admin API.
func TestURLCredentialsAreNotShown(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(*issuer){
		"down":    (*issuer).down,
		"html":    func(i *issuer) { i.serve(200, "<html>") },
		"refused": func(i *issuer) { i.serve(http.StatusForbidden, "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var ev events
				i := newIssuer("")
				serve(i)
				s := New(Options{
					URL: "https://us3r:pa55@clerk.example.com/jwks?token=s3cret#s3cret", Client: i.client(), Observe: ev.observe,
				})
				s.Start()
				defer s.Close()
				synctest.Wait()
				e, st := ev.last(t), s.Status()
				_, err := s.KeyRead(t.Context(), "a")
				text := e.Err.Error() + e.URL + st.Err.Error() + st.URL + err.Error()
				for _, secret := range []string{"us3r", "pa55", "s3cret"} {
					if strings.Contains(text, secret) {
						t.Errorf("%q is shown in %q", secret, text)
					}
				}
				if e.URL != "https://clerk.example.com/jwks" || st.URL != e.URL {
					t.Errorf("shown as %q and %q", e.URL, st.URL)
				}
			})
		})
	}
}

func TestUnreadableURLIsAFailedFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		s := New(Options{URL: "https://s3cret:x y/%zz", Observe: ev.observe})
		s.Start()
		defer s.Close()
		synctest.Wait()
		if e := ev.last(t); e.Err == nil || strings.Contains(e.Err.Error()+e.URL, "s3cret") {
			t.Fatalf("event %+v", e)
		}
	})
}
