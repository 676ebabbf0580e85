package jwks

import (
	"errors"
	"testing"
	"testing/synctest"
)

// Attack: junk tokens, each fetch for which would repeat the operator's warning about a key that cannot be used.
func TestSkippedKeysAreNewsOnlyOnce(t *testing.T) {
	t.Parallel()
	good, bad := key("a", "1"), `{"kty":"EC"}`
	synctest.Test(t, func(t *testing.T) {
		var ev events
		i := newIssuer(doc(good, bad))
		s := started(t, i, Options{Observe: ev.observe, Store: &memStore{saveErr: errors.New("disk full")}})
		for n, c := range []struct {
			body    string
			skipped int
			changed bool
		}{
			{doc(good, bad), 1, false},
			{doc(good, bad), 1, false},
			{"<html>", 0, false}, // a failure is news of its own kind
			{doc(bad, bad), 2, false},
			{doc(good, bad), 1, false},
			{doc(good, bad, bad), 2, true},
			{doc(good, bad, bad), 2, false},
			{doc(good), 0, true},
			{doc(good), 0, false},
			{doc(good, bad), 1, true},
		} {
			i.serve(200, c.body)
			elapse(DefaultCooldown)
			s.Refresh(t.Context())
			synctest.Wait()
			e := lastFrom(t, &ev, SourceNetwork)
			if e.Skipped != c.skipped || e.SkippedChanged != c.changed {
				t.Errorf("fetch %d: event %+v", n, e)
			}
		}
		if e := ev.list()[0]; e.Skipped != 1 || !e.SkippedChanged {
			t.Errorf("first event %+v", e)
		}
		if e := lastFrom(t, &ev, SourceStore); e.Err == nil || e.SkippedChanged {
			t.Errorf("failed save: %+v", e)
		}
	})
}

func TestNothingSkippedIsNoNews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		started(t, newIssuer(doc(key("a", "1"))), Options{Observe: ev.observe})
		if e := ev.last(t); e.SkippedChanged {
			t.Errorf("event %+v", e)
		}
	})
}

func lastFrom(t *testing.T, ev *events, source string) (last Event) {
	t.Helper()
	for _, e := range ev.list() {
		if e.Source == source {
			last = e
		}
	}
	return last
}
