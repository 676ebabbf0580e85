package caddytinybird

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// TestP7LoadsWithoutNetworkAndKeepsState: a config loads while Clerk and Tinybird cannot be reached, and a reload keeps
// the keys and the counts, whatever rejected configs came in between.
func TestP7LoadsWithoutNetworkAndKeepsState(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	limit := func(h *Handler) { h.RateLimit = &RateLimit{RPS: "1", Burst: 1000} }
	before := newEdge(t, stack, limit)
	onlyTenant(t, before.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	onlyTenant(t, before.get(t, "cleo", "/v0/pipes/live_events.json"), "globex")
	// What is counted here takes 900 seconds to run out.
	for range 900 {
		if _, err := before.limiter.Allow(devstack.AcmeID, ratelimit.Limit{RPS: 1, Burst: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	fetches := stack.Issuer.Fetches()
	stack.Issuer.SetDown(true)

	// Rejected configs must give back only what they took.
	for range 20 {
		h := testHandler(t, stack)
		limit(h)
		h.Pipes = append(h.Pipes, Pipe{Names: []string{"top_pages"}})
		if err := provision(t, newContext(t, storageDir(t)), h); err == nil {
			t.Fatal("a pipe listed twice was accepted")
		}
		// Caddy cleans up at once what it could not provision.
		if err := h.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	after := newEdge(t, stack, limit)
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	// Asked of the limiter, because the header of an answer may be Tinybird's.
	left, err := after.limiter.Allow(devstack.AcmeID, ratelimit.Limit{RPS: 1, Burst: 1000})
	if err != nil || left.Remaining > 500 {
		t.Errorf("%d requests left after the reload: the count was lost (%v)", left.Remaining, err)
	}
	if got := after.get(t, "ben", "/v0/pipes/live_events.json"); got.StatusCode == http.StatusUnauthorized {
		t.Errorf("the keys were lost: %s", got.body)
	}
	if n := stack.Issuer.Fetches(); n != fetches {
		t.Errorf("%d key fetches during the reload", n-fetches)
	}
	// A request of the old config that Caddy had accepted is still answered.
	if got := before.get(t, "ben", "/v0/pipes/live_events.json"); got.StatusCode >= http.StatusInternalServerError || got.StatusCode == http.StatusUnauthorized {
		t.Errorf("a request of the old config: status %d, %s", got.StatusCode, got.body)
	}
}

// TestP7ChangedSettingKeepsKeys: a reload that changes how often keys are fetched finds the keys there were.
func TestP7ChangedSettingKeepsKeys(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	before := newEdge(t, stack, nil)
	onlyTenant(t, before.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	stack.Issuer.SetDown(true)
	after := newEdge(t, stack, func(h *Handler) { h.Clerk.JWKSRefresh = 7200e9 })
	onlyTenant(t, after.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
}

// TestP7ProvisionNeedsNoNetwork: nothing answers at any address of the config, and it loads all the same.
func TestP7ProvisionNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	stack.Issuer.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Stop: devstack.HangBeforeHeader} })
	h := testHandler(t, stack)
	h.Upstream = "http://127.0.0.1:1"
	done := make(chan error, 1)
	go func() { done <- provision(t, newContext(t, storageDir(t)), h) }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("loading a config waits for the network")
	}
}

// TestP7RejectedConfigKeepsStorage: a config that is rejected after it acquired the keys leaves no trace: keys that change
// later are saved where the running config saves them.
func TestP7RejectedConfigKeepsStorage(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	kept, rejected := t.TempDir(), t.TempDir()
	e := newEdgeIn(t, stack, kept, nil)
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")

	bad := testHandler(t, stack)
	bad.Pipes = append(bad.Pipes, Pipe{Names: []string{"top_pages"}})
	if err := provision(t, newContext(t, rejected), bad); err == nil {
		t.Fatal("a pipe listed twice was accepted")
	}
	if err := bad.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if err := stack.Issuer.Rotate(false); err != nil {
		t.Fatal(err)
	}
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	awaitSaved(t, kept, stack.Issuer)
	// The last config that uses the keys ends.
	if err := e.Cleanup(); err != nil {
		t.Fatal(err)
	}
	stack.Issuer.SetDown(true)
	onlyTenant(t, newEdgeIn(t, stack, kept, nil).get(t, "ada", "/v0/pipes/live_events.json"), "acme")
}

// TestP7RejectedConfigKeepsCounters: a rejected config that asks for fewer counters evicts none of the running one's.
func TestP7RejectedConfigKeepsCounters(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	running := newEdge(t, stack, func(h *Handler) { h.RateLimit = &RateLimit{RPS: "1"} })
	const tenants = 3 * ratelimit.MinMaxKeys
	for n := range tenants {
		if _, err := running.limiter.Allow(strconv.Itoa(n), ratelimit.Limit{RPS: 1, Burst: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	bad := testHandler(t, stack)
	bad.Limits = &Limits{Counters: 1}
	bad.Errors = "html"
	if err := provision(t, newContext(t, storageDir(t)), bad); err == nil {
		t.Fatal("errors html was accepted")
	}
	if err := bad.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if n := running.limiter.Evicted(); n != 0 {
		t.Errorf("%d counters were evicted for a config that was rejected", n)
	}
}

// TestP7NewStorageGetsKeys: a config that keeps its data elsewhere finds the keys there after a restart.
func TestP7NewStorageGetsKeys(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	first, second := t.TempDir(), t.TempDir()
	for _, storage := range []string{first, second} {
		onlyTenant(t, newEdgeIn(t, stack, storage, nil).get(t, "ada", "/v0/pipes/live_events.json"), "acme")
		awaitSaved(t, storage, stack.Issuer)
	}
}

// TestP7KeysChangeBesideRejectedConfig: keys that change while a config is provisioned that is rejected in the end are saved
// for the one that stays.
func TestP7KeysChangeBesideRejectedConfig(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	kept, rejected := t.TempDir(), t.TempDir()
	e := newEdgeIn(t, stack, kept, nil)
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")

	bad := testHandler(t, stack)
	bad.Errors = "html"
	if err := provision(t, newContext(t, rejected), bad); err == nil {
		t.Fatal("errors html was accepted")
	}
	if err := stack.Issuer.Rotate(false); err != nil {
		t.Fatal(err)
	}
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	awaitSaved(t, rejected, stack.Issuer)
	if err := bad.Cleanup(); err != nil {
		t.Fatal(err)
	}
	awaitSaved(t, kept, stack.Issuer)
}

// TestP7OldKeysAreNotSavedOverNewOnes: two sets of one address, with different settings, have one place in the storage. The one that has
// not met a rotation yet, and is saved again by a reload, takes nothing of the other's away.
func TestP7OldKeysAreNotSavedOverNewOnes(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	storage := storageDir(t)
	old := newEdgeIn(t, stack, storage, nil)
	onlyTenant(t, old.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	if err := stack.Issuer.Rotate(false); err != nil {
		t.Fatal(err)
	}
	other := newEdgeIn(t, stack, storage, func(h *Handler) { h.Clerk.JWKSRefresh = 7200e9 })
	onlyTenant(t, other.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	awaitSaved(t, storage, stack.Issuer)

	set := keySetOf(t, old.Clerk)
	doc := set.Document()
	if bytes.Contains(doc, []byte(stack.Issuer.KeyID())) {
		t.Fatal("the old set has the new key")
	}
	if err := set.Save(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	doc, err := set.users.newest().storage.Load(t.Context(), set.path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(doc, []byte(stack.Issuer.KeyID())) {
		t.Error("the new key is not in the storage any more")
	}
}

// keySetOf returns the first key set of the settings.
func keySetOf(t *testing.T, c *Clerk) *keySet {
	t.Helper()
	var set *keySet
	keySets.Range(func(key, value any) bool {
		if key == c.acquired[0] {
			set, _ = value.(*keySet)
		}
		return set == nil
	})
	if set == nil {
		t.Fatal("there is no such key set")
	}
	return set
}

// TestP7OldKeysAreNotSavedOverAnotherEdges: edges that have one storage have one place in it for the keys of an address. One that cannot
// reach Clerk, and saves again because its config was reloaded, takes nothing away that another one has saved since.
func TestP7OldKeysAreNotSavedOverAnotherEdges(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	running := keySetOf(t, e.Clerk)
	own, fetched := running.Document(), running.Status().Fetched
	// One that is not started, so that it saves when it is told to and not at other times.
	set := newKeySet(jwks.Options{URL: running.url}, nil)
	t.Cleanup(set.Close)
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	set.use(keySetUser{log: zap.NewNop(), storage: storage})
	at := func(when time.Time) []byte {
		return bytes.Replace(own, []byte(`"fetched":"`+fetched.Format(time.RFC3339Nano)), []byte(`"fetched":"`+when.Format(time.RFC3339Nano)), 1)
	}
	now := time.Now()
	if bytes.Equal(at(now), own) {
		t.Fatalf("the time is not found in %s", own)
	}
	for name, tt := range map[string]struct {
		there []byte
		kept  bool
	}{
		"newer":                     {at(now), true},
		"older":                     {at(now.Add(-time.Hour)), false},
		"of a clock ahead":          {at(now.Add(time.Hour)), false},
		"of another address":        {bytes.Replace(at(now), []byte(`"source":"`), []byte(`"source":"0`), 1), false},
		"without a key":             {append(at(now)[:bytes.Index(at(now), []byte(`"keys":`))], `"keys":[]}`...), false},
		"broken off":                {at(now)[:200], false},
		"nothing":                   {nil, false},
		"the same":                  {own, true},
		"without a time of its own": {at(time.Time{}), false},
	} {
		if tt.there == nil {
			if err := storage.Delete(t.Context(), set.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		} else if err := storage.Store(t.Context(), set.path, tt.there); err != nil {
			t.Fatal(err)
		}
		if err := set.Save(t.Context(), own); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := own
		if tt.kept {
			want = tt.there
		}
		if got, err := storage.Load(t.Context(), set.path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %s", name, err, got)
		}
	}
}

// TestP7KeysOfAClosingSetCount: a set that ends with its config has fetched the newest keys, and those must not be replaced in the
// storage by what another set of the address fetched before.
func TestP7KeysOfAClosingSetCount(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	fetched := func() *keySet {
		set := newKeySet(jwks.Options{URL: stack.IssuerURL + "/.well-known/jwks.json"}, nil)
		set.use(keySetUser{log: zap.NewNop(), storage: &certmagic.FileStorage{Path: t.TempDir()}})
		set.Start()
		t.Cleanup(set.Close)
		if _, err := set.KeyRead(t.Context(), "unknown"); err == nil || !set.Confirmed() {
			t.Fatalf("the keys are not there: %v", err)
		}
		return set
	}
	first, second := fetched(), fetched()
	second.Close()
	if !second.newer(first) || first.newer(second) {
		t.Error("what was fetched first counts as newer than what a closed set has")
	}
}
