package clerk

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// tally counts what a verifier observes.
type tally struct {
	mu    sync.Mutex
	codes map[apierr.Code]int
}

func (o *tally) observe(c apierr.Code) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.codes == nil {
		o.codes = make(map[apierr.Code]int)
	}
	o.codes[c]++
}

// Attack: request after request while the keys are being fetched, each of which leaves at once. Nothing of them
// may stay, and an outage that nobody had is not reported.
func TestAttackAbandonedRequests(t *testing.T) {
	t.Parallel()
	good, forged := goodToken(t), sign(t, keyB(), testHeader(nil), testClaims(nil))
	for name, c := range map[string]struct {
		token string
		known bool // the key is at hand, and it is the refresh that takes its time
	}{
		"while the keys are loaded":   {good, false},
		"while they are loaded again": {forged, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				keys := newFakeKeys(t, testKid, &keyA().PublicKey)
				release := keys.hold()
				held := &slowRefresh{fakeKeys: keys, known: c.known}
				var seen tally
				v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: held}}, Observe: seen.observe})
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				for range 100 {
					all.Go(func() {
						_, err := v.Verify(ctx, c.token)
						if e := refusal(t, err, apierr.KeysUnavailable, reasonKeysFailedToLoad); !errors.Is(e, context.Canceled) {
							t.Errorf("the error does not say that the caller left: %v", e)
						}
					})
				}
				synctest.Wait()
				if n := keys.waiting.Load(); n != 100 {
					t.Errorf("%d wait for the keys", n)
				}
				cancel()
				synctest.Wait()
				if n := keys.waiting.Load(); n != 0 {
					t.Errorf("%d still wait for the keys", n)
				}
				release()
				all.Wait()
				if len(seen.codes) != 0 {
					t.Errorf("observed %v", seen.codes)
				}
				v.Close()
			})
		})
	}
}

// slowRefresh has its key at hand if it is known, and only waits where fakeKeys does otherwise.
type slowRefresh struct {
	*fakeKeys

	known bool
}

func (k *slowRefresh) Peek(kid string) (jwkset.JWK, bool) {
	if k.known {
		return k.keys[kid], true
	}
	return k.fakeKeys.Peek(kid)
}

func (k *slowRefresh) KeyRead(ctx context.Context, kid string) (jwkset.JWK, error) {
	if k.known {
		return k.keys[kid], nil
	}
	return k.fakeKeys.KeyRead(ctx, kid)
}

// A caller that has no more time is told that the keys were not there in time, and that is counted.
func TestDeadlineIsObserved(t *testing.T) {
	t.Parallel()
	cause := errors.New("the server is shutting down")
	for name, c := range map[string]struct {
		context func(context.Context) (context.Context, context.CancelFunc)
		is      []error
	}{
		"deadline": {
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			},
			[]error{context.DeadlineExceeded},
		},
		"ended by someone else": {
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancelCause(ctx)
				cancel(cause)
				return ctx, func() {}
			},
			[]error{context.Canceled, cause},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				keys := newFakeKeys(t, testKid, &keyA().PublicKey)
				keys.hold()
				var seen tally
				v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}, Observe: seen.observe})
				ctx, cancel := c.context(t.Context())
				defer cancel()
				_, err := v.Verify(ctx, goodToken(t))
				refusal(t, err, apierr.KeysUnavailable, reasonKeysFailedToLoad)
				for _, is := range c.is {
					if !errors.Is(err, is) {
						t.Errorf("%v is not %v", err, is)
					}
				}
				if seen.codes[apierr.KeysUnavailable] != 1 {
					t.Errorf("observed %v", seen.codes)
				}
				v.Close()
			})
		})
	}
}

// hookedKeys runs hooks at the moments at which keys may change behind a verification's back.
type hookedKeys struct {
	*fakeKeys

	unconfirmed     atomic.Bool
	refreshed       func() // before Refresh looks
	beforeConfirmed func()
	afterConfirmed  func()
}

var _ confirmer = (*hookedKeys)(nil)

func (k *hookedKeys) Refresh(ctx context.Context) bool {
	if k.refreshed != nil {
		k.refreshed()
	}
	return k.fakeKeys.Refresh(ctx)
}

func (k *hookedKeys) Confirmed() bool {
	if k.beforeConfirmed != nil {
		k.beforeConfirmed()
	}
	confirmed := !k.unconfirmed.Load()
	if k.afterConfirmed != nil {
		k.afterConfirmed()
	}
	return confirmed
}

// Attack: a rotation, timed by a flood of forged tokens: someone else's refresh replaces the keys after this
// token's signature was looked at and before its own refresh, which then finds nothing new. The token is valid.
func TestKeysThatChangeBeforeTheRefresh(t *testing.T) {
	t.Parallel()
	for name, hook := range map[string]func(k *hookedKeys, rotate func()){
		"before the refresh":          func(k *hookedKeys, rotate func()) { k.refreshed = rotate },
		"after it":                    func(k *hookedKeys, rotate func()) { k.afterConfirmed = rotate },
		"and are confirmed with that": func(k *hookedKeys, rotate func()) { k.beforeConfirmed = rotate },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := &hookedKeys{fakeKeys: newFakeKeys(t, testKid, &keyB().PublicKey)}
			keys.unconfirmed.Store(true)
			hook(keys, sync.OnceFunc(func() {
				keys.replace(testKid, testJWK(t, testKid, &keyA().PublicKey))
				keys.unconfirmed.Store(false)
			}))
			v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
			for range 2 { // the second time from the cache
				if err := verify(t, v, goodToken(t)); err != nil {
					t.Error(err)
				}
			}
			if _, refreshes := keys.counts(); refreshes != 1 {
				t.Errorf("%d refreshes, want 1", refreshes)
			}
		})
	}
}

// Attack: none; a restart during an outage of the issuer, after a rotation. By the stored keys every new token
// is forged, and 401 would sign everybody out. Until the issuer was reached nobody can say.
func TestWrongByUnconfirmedKeys(t *testing.T) {
	t.Parallel()
	keys := &hookedKeys{fakeKeys: newFakeKeys(t, testKid, &keyA().PublicKey)}
	keys.unconfirmed.Store(true)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
	if err := verify(t, v, goodToken(t)); err != nil {
		t.Errorf("a token that is right by the stored keys: %v", err)
	}
	token := sign(t, keyB(), testHeader(nil), testClaims(nil))
	e := refusal(t, verify(t, v, token), apierr.KeysUnavailable, reasonKeysFailedToLoad)
	if e.Status != 503 || e.Header.Get("Retry-After") == "" || !errors.Is(e, errUnconfirmed) {
		t.Errorf("%+v", e)
	}
	if _, refreshes := keys.counts(); refreshes != 1 {
		t.Errorf("%d refreshes, want 1", refreshes)
	}
	// What is wrong with a token apart from its signature does not depend on the keys.
	expired := sign(t, keyA(), testHeader(nil), testClaims(object{"exp": testNow.Unix() - 60}))
	refusal(t, verify(t, v, expired), apierr.TokenExpired, reasonExpired)

	keys.unconfirmed.Store(false)
	refusal(t, verify(t, v, token), apierr.TokenInvalid, reasonSignature)
}

// The same with the key set that is used: keys from before the restart, and an issuer that is down.
func TestRestartDuringAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		doc, err := json.Marshal(jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{testJWK(t, testKid, &keyA().PublicKey).Marshal()}})
		if err != nil {
			t.Fatal(err)
		}
		var store keyStore
		start := func(server *keyServer) *jwks.Set {
			set := jwks.New(jwks.Options{
				URL: "https://clerk.test/.well-known/jwks.json", Store: &store, Client: &http.Client{Transport: server},
			})
			set.Start()
			synctest.Wait()
			return set
		}
		start(&keyServer{doc: doc}).Close()
		set := start(&keyServer{down: true})
		defer set.Close()
		v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: set}}})
		if err := verify(t, v, goodToken(t)); err != nil {
			t.Errorf("by the stored key: %v", err)
		}
		for name, token := range map[string]string{
			"new key under the old kid": sign(t, keyB(), testHeader(nil), testClaims(nil)),
			"new kid":                   sign(t, keyB(), testHeader(object{"kid": "ins_new"}), testClaims(nil)),
		} {
			if e := refusal(t, verify(t, v, token), apierr.KeysUnavailable, reasonKeysFailedToLoad); e.Status != http.StatusServiceUnavailable {
				t.Errorf("%s: status %d", name, e.Status)
			}
		}
		v.Close()
	})
}

// keyStore outlives a restart.
type keyStore struct{ doc []byte }

func (s *keyStore) Load(context.Context) ([]byte, error) { return s.doc, nil }

func (s *keyStore) Save(_ context.Context, doc []byte) error {
	s.doc = doc
	return nil
}

// A key that cannot be read again between the look for it and the signature is judged as before: unknown is
// refused, and a client that left is not.
func TestKeyThatGoesAway(t *testing.T) {
	t.Parallel()
	for name, left := range map[string]bool{"replaced": false, "left": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			keys := &vanishingKeys{fakeKeys: newFakeKeys(t, testKid, &keyA().PublicKey), gone: func() {
				if left {
					cancel()
				}
			}}
			v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
			_, err := v.Verify(ctx, goodToken(t))
			want := apierr.TokenInvalid
			if left {
				want = apierr.KeysUnavailable
			}
			if e := refusal(t, err, want, ""); left != errors.Is(e, context.Canceled) {
				t.Errorf("%v", e)
			}
		})
	}
}

// vanishingKeys shows its keys and then does not give them.
type vanishingKeys struct {
	*fakeKeys

	gone func()
}

func (k *vanishingKeys) KeyRead(context.Context, string) (jwkset.JWK, error) {
	k.gone()
	return jwkset.JWK{}, jwkset.ErrKeyNotFound
}
