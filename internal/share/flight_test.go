package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// TestStampede: a thousand who ask at the same time cost one fetch, which is counted for one of them.
func TestStampede(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		const n = 1000
		o := &origin{answer: numbered, open: make(chan struct{})}
		c := gather(t.Context(), s, o.request(keyOf("q")), n)
		close(o.open)
		counted := 0
		all := c.all()
		for _, one := range all {
			one.want(t, one.out.Result, "answer 1")
			status := "caddy-tinybird; fwd=miss; fwd-status=200; stored"
			if one.out.Result == Collapsed {
				status += "; collapsed"
			}
			one.wantField(t, "Cache-Status", status)
			one.wantField(t, "Age", "")
			if one.out.Upstream.UpstreamStatus != 0 {
				counted++
			}
		}
		fetches, _ := o.count()
		if r := results(all); fetches != 1 || counted != 1 || r[Miss] != 1 || r[Collapsed] != n-1 {
			t.Errorf("%d fetches, of which %d are counted, for %v", fetches, counted, r)
		}
		wantIdle(t, s)
	})
}

// TestStampedeOnStale: however many ask for a stale answer, one fetch refreshes it.
func TestStampedeOnStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered, open: make(chan struct{}, 1)}
		q := o.request(keyOf("q"))
		o.open <- struct{}{}
		ask(t.Context(), s, q).want(t, Miss, "answer 1")
		time.Sleep(ttl) //nolint:forbidigo // the bubble's clock
		for _, one := range gather(t.Context(), s, q, 100).all() {
			one.want(t, Stale, "answer 1")
		}
		close(o.open)
		synctest.Wait()
		if fetches, _ := o.count(); fetches != 2 {
			t.Errorf("%d fetches", fetches)
		}
		ask(t.Context(), s, q).want(t, Hit, "answer 2")
		wantIdle(t, s)
	})
}

// TestLeaderLeaves: the one who came first goes away, and the others get the answer that was asked for.
func TestLeaderLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered, open: make(chan struct{})}
		q := o.request(keyOf("q"))
		ctx, leave := context.WithCancel(t.Context())
		leader := gather(ctx, s, q, 1)
		others := gather(t.Context(), s, q, 10)
		leave()
		gone := leader.all()[0]
		if !errors.Is(gone.err, context.Canceled) || errors.Is(gone.err, forward.ErrAborted) || errors.As(gone.err, new(*apierr.Error)) || gone.out.Result != Miss {
			t.Errorf("%s %v", gone.out.Result, gone.err)
		}
		close(o.open)
		for _, one := range others.all() {
			one.want(t, Collapsed, "answer 1")
		}
		wantIdle(t, s)
	})
}

// TestFlightEndsWhenAllHaveGone: nobody waits, so Tinybird is told to stop, and who comes then does not wait for what was stopped.
func TestFlightEndsWhenAllHaveGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered, open: make(chan struct{})}
		q := o.request(keyOf("q"))
		ctx, leave := context.WithCancel(t.Context())
		c := gather(ctx, s, q, 10)
		leave()
		c.all()
		synctest.Wait()
		if fetches, cancelled := o.count(); fetches != 1 || cancelled != 1 {
			t.Errorf("%d fetches, %d cancelled", fetches, cancelled)
		}
		close(o.open)
		ask(t.Context(), s, q).want(t, Miss, "answer 2")
		wantIdle(t, s)
	})
}

// TestNobodyWaitsForWhatIsEnding: a fetch that was told to stop and has not stopped yet is nothing to wait for.
func TestNobodyWaitsForWhatIsEnding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		stopped := make(chan struct{})
		q := Request{Key: keyOf("q"), TTL: ttl, Fetch: func(context.Context, http.ResponseWriter) (forward.Outcome, error) {
			<-stopped
			return forward.Outcome{}, errNobody
		}}
		ctx, leave := context.WithCancel(t.Context())
		c := gather(ctx, s, q, 1)
		leave()
		c.all()
		o := &origin{answer: numbered}
		ask(t.Context(), s, o.request(keyOf("q"))).want(t, Miss, "answer 1")
		close(stopped)
		synctest.Wait()
		ask(t.Context(), s, o.request(keyOf("q"))).want(t, Hit, "answer 1")
		wantIdle(t, s)
	})
}

// TestAnswerThatCameMeanwhile: who looked just before an answer was kept, and joins just after, does not ask again.
func TestAnswerThatCameMeanwhile(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{})
	o := &origin{answer: numbered}
	q := o.request(keyOf("q"))
	ask(t.Context(), s, q).want(t, Miss, "answer 1")
	f, _, a, st := s.join(q)
	if f != nil || a == nil || st != fresh {
		t.Fatalf("flight %v, answer %v, state %v", f, a, st)
	}
	a.release()
}

// TestWaitersOwnDeadline: one waits for as long as it may, and not for as long as others.
func TestWaitersOwnDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered, open: make(chan struct{})}
		q := o.request(keyOf("q"))
		patient := gather(t.Context(), s, q, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hasty := ask(ctx, s, q)
		var refusal *apierr.Error
		if !errors.As(hasty.err, &refusal) || refusal.Code != apierr.UpstreamTimeout || refusal.Status != http.StatusGatewayTimeout {
			t.Errorf("%v", hasty.err)
		}
		close(o.open)
		patient.all()[0].want(t, Miss, "answer 1")
	})
}

// TestLateWaiterHasItsOwnTime: who joins a fetch that times out waits for as long as it would have waited for one of its own, and is served if
// Tinybird answers by then. Nobody waits longer, and who came with the fetch, or little after it, is not kept.
func TestLateWaiterHasItsOwnTime(t *testing.T) {
	t.Parallel()
	const limit = 35 * time.Second
	for name, recovered := range map[string]bool{"Tinybird is back": true, "Tinybird still hangs": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t, Options{})
				o := &origin{answer: func(n int, w http.ResponseWriter) error {
					if n > 1 && recovered {
						return numbered(n, w)
					}
					time.Sleep(limit) //nolint:forbidigo // the bubble's clock
					return apierr.New(http.StatusGatewayTimeout, apierr.UpstreamTimeout, "Too late.").Wrap(os.ErrDeadlineExceeded)
				}}
				q := o.request(keyOf("q"))
				began := time.Now()
				first := gather(t.Context(), s, q, 1)
				time.Sleep(time.Second) //nolint:forbidigo // as above
				second := gather(t.Context(), s, q, 3)
				time.Sleep(19 * time.Second) //nolint:forbidigo // as above
				late := gather(t.Context(), s, q, 10)
				for _, one := range append(first.all(), second.all()...) {
					wantTimeout(t, one)
				}
				if took := time.Since(began); took != limit {
					t.Errorf("the first ones waited for %s", took)
				}
				for _, one := range late.all() {
					if recovered {
						if one.err != nil || one.Body.String() != "answer 2" {
							t.Errorf("%q, %v", one.Body, one.err)
						}
						continue
					}
					wantTimeout(t, one)
				}
				want := limit
				if !recovered {
					want += 20 * time.Second
				}
				if took := time.Since(began); took != want {
					t.Errorf("the last ones were answered after %s, want %s", took, want)
				}
				if fetches, _ := o.count(); fetches != 2 {
					t.Errorf("%d fetches", fetches)
				}
				time.Sleep(limit) //nolint:forbidigo // as above
				wantIdle(t, s)
			})
		})
	}
}

// TestRefusedQueryIsNotAskedAgain: Tinybird's own bound on a query is an answer, for late ones too.
func TestRefusedQueryIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{open: make(chan struct{}), answer: func(int, http.ResponseWriter) error {
			return apierr.New(http.StatusGatewayTimeout, apierr.UpstreamTimeout, "Too slow.").Wrap(errors.New("tinybird answered 408"))
		}}
		q := o.request(keyOf("q"))
		first := gather(t.Context(), s, q, 1)
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
		late := gather(t.Context(), s, q, 1)
		close(o.open)
		for _, one := range append(first.all(), late.all()...) {
			wantTimeout(t, one)
		}
		if fetches, _ := o.count(); fetches != 1 {
			t.Errorf("%d fetches", fetches)
		}
		wantIdle(t, s)
	})
}

func wantTimeout(t testing.TB, c *client) {
	t.Helper()
	var refusal *apierr.Error
	if !errors.As(c.err, &refusal) || refusal.Code != apierr.UpstreamTimeout || c.Body.Len() != 0 {
		t.Errorf("%v, %q", c.err, c.Body)
	}
}

// TestFailureIsHandedOutOnce: all who waited get it, each a copy of its own that agrees with its own limits, and nobody after them.
func TestFailureIsHandedOutOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{open: make(chan struct{}), answer: func(n int, w http.ResponseWriter) error {
			if n == 1 {
				return apierr.New(http.StatusTooManyRequests, apierr.RateLimited, "Wait.").With("Retry-After", "3").With("X-RateLimit-Limit", "9")
			}
			return numbered(n, w)
		}}
		q := o.request(keyOf("q"))
		c := gather(t.Context(), s, q, 10)
		close(o.open)
		seen := make(map[*apierr.Error]bool)
		for _, one := range c.all() {
			var refusal *apierr.Error
			if !errors.As(one.err, &refusal) || refusal.Code != apierr.RateLimited || one.Body.Len() != 0 {
				t.Fatalf("%v, %q", one.err, one.Body)
			}
			if seen[refusal] || refusal.Header.Get("Retry-After") != "3" || refusal.Header.Get("X-RateLimit-Limit") != "9" {
				t.Errorf("seen before: %t, %v", seen[refusal], refusal.Header)
			}
			seen[refusal] = true
			refusal.Header.Set("Retry-After", "changed")
		}
		ask(t.Context(), s, q).want(t, Miss, "answer 2")
		wantIdle(t, s)
	})
}

// TestBrokenOffAnswerIsKeptByNobody: an answer that ends too soon is no answer. None of it was sent, so it is a refusal, not a
// broken connection.
func TestBrokenOffAnswerIsKeptByNobody(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]error{
		"lost":              fmt.Errorf("%w: %w", forward.ErrAborted, io.ErrUnexpectedEOF),
		"lost, only an EOF": fmt.Errorf("%w: %w", forward.ErrAborted, io.EOF),
		"any other error":   errors.New("unknown"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t, Options{})
				o := &origin{open: make(chan struct{}), answer: func(n int, w http.ResponseWriter) error {
					if n > 1 {
						return numbered(n, w)
					}
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusOK)
					_, _ = io.WriteString(w, `{"data":[1,2`)
					return broken
				}}
				q := o.request(keyOf("q"))
				c := gather(t.Context(), s, q, 5)
				close(o.open)
				for _, one := range c.all() {
					var refusal *apierr.Error
					if !errors.As(one.err, &refusal) || refusal.Status != http.StatusBadGateway || errors.Is(one.err, forward.ErrAborted) {
						t.Errorf("%v", one.err)
					}
					if one.Body.Len() != 0 || one.Header().Get("Content-Type") != "" {
						t.Errorf("a part of it came down: %v %q", one.Header(), one.Body)
					}
				}
				ask(t.Context(), s, q).want(t, Miss, "answer 2")
				wantIdle(t, s)
			})
		})
	}
}

// TestPanickingFetch: a mistake of ours is a 500 for those who waited, and the end of nothing else.
func TestPanickingFetch(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{})
	o := &origin{answer: func(int, http.ResponseWriter) error { panic("mistake") }}
	c := ask(t.Context(), s, o.request(keyOf("q")))
	if c.err == nil || errors.As(c.err, new(*apierr.Error)) || errors.Is(c.err, forward.ErrAborted) {
		t.Errorf("%v", c.err)
	}
	o.answer = func(int, http.ResponseWriter) error { return nil }
	if c := ask(t.Context(), s, o.request(keyOf("q"))); c.err == nil {
		t.Error("no answer is no error")
	}
}

// TestOnlyWhole200sAreShared: what is no 200, or comes in an encoding that was not asked for, goes to one client as it is.
func TestOnlyWhole200sAreShared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status   int
		encoding string
		body     string
		detail   string
	}{
		"no content":       {204, "", "", "answer-status"},
		"partial":          {206, "", "part", "answer-status"},
		"not modified":     {304, "", "", "answer-status"},
		"another encoding": {200, "br", "packed", "answer-encoding"},
		"gzip, unasked":    {200, "gzip", "packed", "answer-encoding"},
		"two encodings":    {200, "gzip, br", "packed", "answer-encoding"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, Options{})
			o := &origin{answer: func(_ int, w http.ResponseWriter) error {
				w.Header().Set("Content-Encoding", c.encoding)
				w.WriteHeader(c.status)
				_, err := io.WriteString(w, c.body)
				return err
			}}
			for range 2 {
				got := ask(t.Context(), s, o.request(keyOf("q")))
				got.want(t, Miss, c.body)
				got.wantField(t, "Content-Encoding", c.encoding)
				got.wantField(t, "Cache-Status", "caddy-tinybird; fwd=miss; fwd-status="+strconv.Itoa(c.status)+"; detail="+c.detail)
				if got.Code != c.status {
					t.Errorf("status %d", got.Code)
				}
			}
			if fetches, _ := o.count(); fetches != 2 {
				t.Errorf("%d fetches", fetches)
			}
		})
	}
}

// TestRefreshFails: the stale answer stays, the operator is told, and the next client's request tries again.
func TestRefreshFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		failure := apierr.New(http.StatusForbidden, apierr.UpstreamRefused, "No.")
		o := &origin{answer: func(n int, w http.ResponseWriter) error {
			if n == 2 {
				return failure
			}
			return numbered(n, w)
		}}
		var told []error
		q := o.request(keyOf("q"))
		q.Refreshed = func(out forward.Outcome, err error) {
			if out.UpstreamStatus != http.StatusOK {
				t.Errorf("%+v", out)
			}
			told = append(told, err)
		}
		ask(t.Context(), s, q).want(t, Miss, "answer 1")
		time.Sleep(ttl) //nolint:forbidigo // the bubble's clock
		for range 2 {
			c := ask(t.Context(), s, q)
			c.want(t, Stale, "answer 1")
			if c.out.Upstream.UpstreamStatus != 0 {
				t.Error("a fetch in the background is counted for who did not wait for it")
			}
			synctest.Wait()
		}
		ask(t.Context(), s, q).want(t, Hit, "answer 3")
		if len(told) != 2 || !errors.Is(told[0], failure) || told[1] != nil {
			t.Errorf("told: %v", told)
		}
		wantIdle(t, s)
	})
}

// TestRefreshIsJoined: who comes after the stale answer's end waits for the refresh that is under way.
func TestRefreshIsJoined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered, open: make(chan struct{}, 1)}
		q := o.request(keyOf("q"))
		o.open <- struct{}{}
		ask(t.Context(), s, q).want(t, Miss, "answer 1")
		time.Sleep(2*ttl - 1) //nolint:forbidigo // the bubble's clock
		ask(t.Context(), s, q).want(t, Stale, "answer 1")
		time.Sleep(time.Nanosecond) //nolint:forbidigo // the bubble's clock
		late := gather(t.Context(), s, q, 3)
		s.Close() // the background gives up, and they do not
		synctest.Wait()
		close(o.open)
		for _, one := range late.all() {
			one.want(t, Collapsed, "answer 2")
		}
		if fetches, cancelled := o.count(); fetches != 2 || cancelled != 0 {
			t.Errorf("%d fetches, %d cancelled", fetches, cancelled)
		}
		wantIdle(t, s)
	})
}

// TestRefreshIsNotForEver: what nobody waits for ends after a minute.
func TestRefreshIsNotForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered, open: make(chan struct{}, 1)}
		q := o.request(keyOf("q"))
		q.TTL = time.Hour
		var told error
		q.Refreshed = func(_ forward.Outcome, err error) { told = err }
		o.open <- struct{}{}
		ask(t.Context(), s, q).want(t, Miss, "answer 1")
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock
		ask(t.Context(), s, q).want(t, Stale, "answer 1")
		time.Sleep(refreshPatience) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		if _, cancelled := o.count(); cancelled != 1 {
			t.Error("the fetch goes on")
		}
		wantIdle(t, s)
		if !errors.Is(told, errSlow) {
			t.Errorf("told: %v", told)
		}
	})
}

// TestRefreshesAreBounded: stale answers to many questions do not make as many fetches at once.
func TestRefreshesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered}
		const n = 3 * maxRefreshes
		for i := range n {
			ask(t.Context(), s, o.request(keyOf(strconv.Itoa(i))))
		}
		time.Sleep(ttl) //nolint:forbidigo // the bubble's clock
		o.open = make(chan struct{})
		for i := range n {
			if c := ask(t.Context(), s, o.request(keyOf(strconv.Itoa(i)))); c.out.Result != Stale {
				t.Errorf("%s", c.out.Result)
			}
		}
		synctest.Wait()
		if fetches, _ := o.count(); fetches != n+maxRefreshes {
			t.Errorf("%d fetches at once", fetches-n)
		}
		close(o.open)
		wantIdle(t, s)
	})
}

// TestClose: what goes on in the background ends, and nothing is kept for a config that is gone. Who waits gets the answer.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered, open: make(chan struct{}, 1)}
		o.open <- struct{}{}
		ask(t.Context(), s, o.request(keyOf("a"))).want(t, Miss, "answer 1")
		time.Sleep(ttl) //nolint:forbidigo // the bubble's clock
		ask(t.Context(), s, o.request(keyOf("a"))).want(t, Stale, "answer 1")
		synctest.Wait()
		waiting := gather(t.Context(), s, o.request(keyOf("b")), 3)
		s.Close()
		synctest.Wait()
		if fetches, cancelled := o.count(); fetches != 3 || cancelled != 1 {
			t.Errorf("%d fetches, %d cancelled", fetches, cancelled)
		}
		close(o.open)
		for _, one := range waiting.all() {
			one.want(t, one.out.Result, "answer 3")
			if status := one.Header().Get("Cache-Status"); strings.Contains(status, "stored") {
				t.Errorf("Cache-Status: %s", status)
			}
		}
		for _, key := range []string{"a", "b"} {
			late := ask(t.Context(), s, o.request(keyOf(key)))
			late.want(t, Bypass, "")
			late.wantField(t, "Cache-Status", "caddy-tinybird; fwd=bypass")
		}
		if answers, bytes := s.Usage(); answers != 0 || bytes != 0 {
			t.Errorf("%d answers with %d bytes are left", answers, bytes)
		}
		wantIdle(t, s)
		s.Close()
	})
}
