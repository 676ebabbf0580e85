package jwks

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A save that failed must not wait for the next refresh, which may be a day away.
func TestFailedSaveIsRetriedWithoutAFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		st := &memStore{saveErr: errors.New("disk full")}
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{Store: st, Refresh: 24 * time.Hour, Observe: ev.observe})
		elapse(time.Hour)
		synctest.Wait()
		if st.saves < 10 || st.saves > 20 {
			t.Errorf("%d saves in an hour", st.saves)
		}
		if e := ev.last(t); !errors.Is(e.Err, st.saveErr) || e.Source != SourceStore || e.Next != saveRetryMax {
			t.Errorf("event %+v", e)
		}
		st.set(func(m *memStore) { m.saveErr = nil })
		elapse(saveRetryMax)
		synctest.Wait()
		if st.stored() != string(s.Document()) {
			t.Errorf("stored %q", st.stored())
		}
		wantFetches(t, i, 1)
	})
}

// A storage that hangs while the keys rotate: what it gets in the end is the newest document, and each key that
// requests ask for meanwhile is found without waiting for the storage.
func TestHungSaveHoldsUpNoFetchAndNoNewerDocument(t *testing.T) {
	t.Parallel()
	for name, patience := range map[string]time.Duration{
		"shorter than a save may take": saveTimeout / 2,
		"longer than a save may take":  time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				hang := make(chan struct{})
				st := &memStore{}
				i := newIssuer(doc(key("a", "1")))
				s := started(t, i, Options{Store: st, Cooldown: time.Millisecond, Refresh: 24 * time.Hour})
				st.set(func(m *memStore) { m.hang = hang })
				begin := time.Now()
				for _, kid := range []string{"b", "c", "d"} {
					elapse(time.Millisecond)
					i.serve(200, doc(key(kid, kid)))
					mustRead(t, s, kid)
				}
				if d := time.Since(begin); d != 3*time.Millisecond {
					t.Errorf("the keys took %v", d)
				}
				elapse(patience)
				st.set(func(m *memStore) { m.hang = nil })
				close(hang)
				elapse(saveRetryMax)
				synctest.Wait()
				if !strings.Contains(st.stored(), `"kid":"d"`) || st.stored() != string(s.Document()) {
					t.Errorf("stored %q", st.stored())
				}
			})
		})
	}
}

// What the storage still does with a load that was given up must cost the first save no more than that.
func TestSaveComesRightAfterAHungLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		st := &memStore{hang: hang}
		s := New(Options{URL: testURL, Client: newIssuer(doc(key("a", "1"))).client(), Store: st})
		s.Start()
		defer s.Close()
		elapse(saveTimeout / 2)
		mustRead(t, s, "a")
		st.set(func(m *memStore) { m.hang = nil })
		close(hang)
		synctest.Wait()
		if st.saves != 1 || st.stored() != string(s.Document()) {
			t.Errorf("%d saves, stored %q", st.saves, st.stored())
		}
	})
}

// The owner of a set seeds another with the keys it has, whatever became of the storage.
func TestDocumentSeedsAnotherSet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bare := `{"kty":"RSA","kid":"<&>","n":"` + b64(modulus(2048, "3")) + `","e":"AQAB"}`
		first := New(Options{URL: testURL, Client: newIssuer(doc(key("a", "1"), key("b", "2"), bare)).client()})
		if first.Document() != nil {
			t.Fatal("a document without keys")
		}
		first.Start()
		defer first.Close()
		synctest.Wait()
		text := first.Document()

		down := newIssuer("")
		down.down()
		second := started(t, down, Options{Store: &memStore{doc: text, saveErr: errors.New("disk full")}})
		for _, kid := range []string{"a", "b", "<&>"} {
			k, other := mustRead(t, first, kid), mustRead(t, second, kid)
			if k.Marshal().N != other.Marshal().N {
				t.Errorf("the key %q differs", kid)
			}
		}
		if second.Confirmed() {
			t.Error("confirmed by nobody")
		}
		if !bytes.Equal(second.Document(), text) {
			t.Errorf("the document of the second set is %s instead of %s", second.Document(), text)
		}

		third := New(Options{
			URL: testURL + "?other", Client: down.client(), Store: &memStore{doc: text},
		})
		third.Start()
		defer third.Close()
		synctest.Wait()
		if third.Generation() != 0 || third.Document() != nil {
			t.Error("a set of another URL took the keys")
		}
	})
}

// The document of a set is what its store gets.
func TestDocumentIsWhatIsSaved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &memStore{}
		s := started(t, newIssuer(doc(key("a", "1"))), Options{Store: st})
		if text := s.Document(); len(text) == 0 || st.stored() != string(text) {
			t.Fatalf("stored %q, the document is %q", st.stored(), text)
		}
	})
}

// slowStore takes as long to save as its context lasts.
type slowStore struct{ memStore }

func (*slowStore) Save(ctx context.Context, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

// A reload must not be reported as a broken storage, nor wait for a slow one.
func TestCloseDuringSave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		s := started(t, newIssuer(doc(key("a", "1"))), Options{Store: &slowStore{}, Observe: ev.observe})
		begin := time.Now()
		s.Close()
		if d := time.Since(begin); d != 0 {
			t.Errorf("Close took %v", d)
		}
		if e := ev.list(); len(e) != 1 || e[0].Err != nil {
			t.Errorf("events %+v", e)
		}
	})
}

// An owner whose storage is another one now has the present keys saved there, without a fetch; before there are keys
// there is nothing to save.
func TestPersistSavesWithoutAFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := &memStore{}
		i := newIssuer(doc(key("a", "1")))
		s := New(Options{URL: testURL, Client: i.client(), Store: st})
		s.Persist()
		s.Persist()
		s.Start()
		t.Cleanup(s.Close)
		mustRead(t, s, "a")
		synctest.Wait()
		st.set(func(m *memStore) { m.doc = nil })
		s.Persist()
		synctest.Wait()
		if st.stored() != string(s.Document()) || st.stored() == "" {
			t.Errorf("stored %q", st.stored())
		}
		wantFetches(t, i, 1)
	})
}
