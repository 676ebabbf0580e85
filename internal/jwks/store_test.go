package jwks

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// seeded is a store that a set with testURL has filled.
func seeded(t *testing.T, body string) *memStore {
	t.Helper()
	st := &memStore{}
	s := New(Options{URL: testURL, Client: newIssuer(body).client(), Store: st})
	s.Start()
	synctest.Wait()
	s.Close()
	if st.saves != 1 {
		t.Fatalf("%d saves", st.saves)
	}
	return st
}

func TestRestartDuringOutageUsesTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := seeded(t, doc(key("a", "1")))
		saved := time.Now()
		elapse(time.Hour)

		var ev events
		i := newIssuer(doc(key("b", "2")))
		i.down()
		s := started(t, i, Options{Store: st, Observe: ev.observe})
		begin := time.Now()
		mustRead(t, s, "a")
		if d := time.Since(begin); d != 0 {
			t.Fatalf("KeyRead took %v", d)
		}
		status := s.Status()
		if status.Source != SourceStore || !status.Fetched.Equal(saved) || status.Err == nil {
			t.Fatalf("status %+v", status)
		}
		if e := ev.list()[0]; e.Err != nil || e.Source != SourceStore || e.Keys != 1 || !e.Changed {
			t.Fatalf("event %+v", e)
		}

		// The issuer's word replaces the store's, and is looked for as eagerly as without a store.
		i.serve(200, doc(key("b", "2")))
		elapse(firstLoadRetryMax)
		synctest.Wait()
		if _, ok := s.Peek("a"); ok {
			t.Fatal("the stored key outlived the issuer's answer")
		}
		mustRead(t, s, "b")
		if s.Status().Source != SourceNetwork || s.Generation() != 2 {
			t.Fatalf("status %+v", s.Status())
		}
		if d := st.stored(); !strings.Contains(d, `"b"`) || strings.Contains(d, `"a"`) {
			t.Fatalf("stored %s", d)
		}
	})
}

func TestStoredSetThatIsStillGoodKeepsItsGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := seeded(t, doc(key("a", "1")))
		s := started(t, newIssuer(doc(key("a", "1"))), Options{Store: st})
		wantGeneration(t, s, 1)
		if s.Status().Source != SourceNetwork {
			t.Fatal("the issuer was not asked")
		}
	})
}

func TestStoreIsWrittenForFirstAndChangedSetsOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := seeded(t, doc(key("a", "1")))
		i := newIssuer(doc(key("a", "1")))
		s := started(t, i, Options{Store: st, Refresh: time.Hour})
		want := func(saves int) {
			t.Helper()
			synctest.Wait()
			if st.saves != saves {
				t.Fatalf("%d saves, want %d", st.saves, saves)
			}
		}
		want(2)
		elapse(10 * time.Hour)
		want(2)
		i.serve(200, doc())
		elapse(10 * time.Hour)
		want(2)
		i.serve(200, doc(key("a", "1"), key("b", "2")))
		elapse(2 * time.Hour)
		want(3)
		mustRead(t, s, "b")
	})
}

func TestFailedSaveIsReportedAndRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		st := &memStore{saveErr: errors.New("disk full")}
		s := started(t, newIssuer(doc(key("a", "1"))), Options{Store: st, Refresh: time.Hour, Observe: ev.observe})
		mustRead(t, s, "a")
		if e := ev.last(t); e.Source != SourceStore || !errors.Is(e.Err, st.saveErr) || e.Changed {
			t.Fatalf("event %+v", e)
		}
		if s.Status().Err != nil {
			t.Fatal("a failed save counts as a failed fetch")
		}
		st.set(func(m *memStore) { m.saveErr = nil })
		elapse(2 * time.Hour)
		if st.stored() == "" {
			t.Fatal("not saved later")
		}
		n := st.saves
		elapse(10 * time.Hour)
		if st.saves != n {
			t.Fatal("saved again without a change")
		}
	})
}

func TestBadStoreDocumentIsReportedAndIgnored(t *testing.T) {
	t.Parallel()
	// As another set would have written it, for the fingerprint of its own URL.
	other := New(Options{URL: "https://clerk.example.org/.well-known/jwks.json"})
	foreign := `{"source":"` + other.fingerprint() + `","keys":[` + key("f", "9") + `]}`
	own := New(Options{URL: testURL}).fingerprint()
	for _, c := range []struct {
		name string
		doc  string
		err  error
	}{
		{"cut off", `{"source":"` + own + `","keys":[{"kty":"RS`, nil},
		{"binary", "\x00\xff\x1f\x8b", nil},
		{"html", "<html>", nil},
		{"empty set", `{"source":"` + own + `","keys":[]}`, nil},
		{"unusable keys", `{"source":"` + own + `","keys":[{"kty":"oct","kid":"f","k":"c2VjcmV0"}]}`, nil},
		{"too large", `{"source":"` + own + `","keys":[` + key("f", "9") + `]}` + strings.Repeat(" ", 2<<20), nil},
		{"wrong type", `{"source":1,"keys":[` + key("f", "9") + `]}`, nil},
		// Attack: one issuer's keys in another's place (clerk/javascript#9394).
		{"of another issuer", foreign, nil},
		{"of nobody", doc(key("f", "9")), nil},
		{"storage down", "", errors.New("permission denied")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var ev events
				hold := make(chan struct{})
				i := newIssuer(doc(key("a", "1")))
				i.holdBack(hold)
				st := &memStore{doc: []byte(c.doc), loadErr: c.err}
				s := New(Options{URL: testURL, Client: i.client(), Store: st, Observe: ev.observe})
				s.Start()
				defer s.Close()
				synctest.Wait()
				if e := ev.last(t); e.Source != SourceStore || e.Err == nil || e.Keys != 0 || e.Changed {
					t.Fatalf("event %+v", e)
				}
				if _, ok := s.Peek("f"); ok || s.Generation() != 0 {
					t.Fatal("a key of the bad document is trusted")
				}
				close(hold)
				mustRead(t, s, "a")
				wantUnknown(t, s, "f")
			})
		})
	}
}

func TestEmptyStoreIsNoEvent(t *testing.T) {
	t.Parallel()
	for name, st := range map[string]*memStore{"not there": {}, "no bytes": {doc: []byte{}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var ev events
				started(t, newIssuer(doc(key("a", "1"))), Options{Store: st, Observe: ev.observe})
				if all := ev.list(); len(all) != 1 || all[0].Source != SourceNetwork {
					t.Fatalf("events %+v", all)
				}
			})
		})
	}
}

// Attack: private and symmetric key material in the issuer's document that spreads into the storage of the edge.
func TestOnlyUsablePublicKeysAreStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := seeded(t, doc(
			key("a", "1"),
			`{"kty":"oct","kid":"o","k":"c2VjcmV0c2VjcmV0"}`,
			strings.Replace(key("p", "2"), `"use"`, `"d":"cHJpdmF0ZXByaXZhdGU","use"`, 1),
		))
		var d map[string]any
		if err := json.Unmarshal([]byte(st.stored()), &d); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"c2VjcmV0", "cHJpdmF0Z"} {
			if strings.Contains(st.stored(), secret) {
				t.Errorf("%q is stored", secret)
			}
		}
		if keys, skipped, err := ParseSet([]byte(st.stored())); err != nil || len(keys) != 1 || skipped != 0 {
			t.Errorf("stored %s", st.stored())
		}
	})
}

// A storage that hangs, even one that ignores its context, must stop neither keys nor Close.
func TestHungStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ev events
		hang := make(chan struct{})
		st := &memStore{hang: hang}
		i := newIssuer(doc(key("a", "1")))
		s := New(Options{URL: testURL, Client: i.client(), Store: st, Refresh: time.Minute, Observe: ev.observe})
		begin := time.Now()
		s.Start()
		mustRead(t, s, "a")
		if d := time.Since(begin); d > loadTimeout+storeGrace {
			t.Fatalf("the first key took %v", d)
		}
		elapse(10 * time.Minute)
		if n := i.fetches(); n < 8 {
			t.Fatalf("%d fetches", n)
		}
		if !slices.ContainsFunc(ev.list(), func(e Event) bool { return errors.Is(e.Err, errStoreBusy) }) {
			t.Fatalf("events %+v", ev.list())
		}

		st.set(func(m *memStore) { m.hang = nil })
		close(hang)
		elapse(saveRetryMax)
		synctest.Wait()
		if st.stored() == "" {
			t.Fatal("not saved after the storage came back")
		}

		hang = make(chan struct{})
		st.set(func(m *memStore) { m.hang = hang })
		i.serve(200, doc(key("b", "2")))
		elapse(90 * time.Second)
		begin = time.Now()
		s.Close()
		if d := time.Since(begin); d > saveTimeout {
			t.Fatalf("Close took %v", d)
		}
		mustRead(t, s, "b")
		close(hang)
	})
}
