package clerk

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// clock is a clock that a test moves.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.at.Store(testNow.UnixNano())
	return c
}

func (c *clock) now() time.Time { return time.Unix(0, c.at.Load()) }

func (c *clock) set(t time.Time) { c.at.Store(t.UnixNano()) }

// Attack: keep a token alive past its end by using it.
func TestCacheDoesNotLengthenLife(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys(t, testKid, &keyA().PublicKey)
	c := newClock()
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}, Now: c.now})
	token := goodToken(t) // exp is a minute away, and 5 s of skew are forgiven
	for _, after := range []time.Duration{0, 30 * time.Second, 64 * time.Second, 65*time.Second - 1} {
		c.set(testNow.Add(after))
		if err := verify(t, v, token); err != nil {
			t.Errorf("after %v: %v", after, err)
		}
	}
	if reads, _ := keys.counts(); reads != 1 {
		t.Errorf("%d verifications, want 1 and then the cache", reads)
	}
	for _, after := range []time.Duration{65 * time.Second, time.Hour} {
		c.set(testNow.Add(after))
		refusal(t, verify(t, v, token), apierr.TokenExpired, reasonExpired)
	}
	c.set(testNow) // a clock that is set back does not bring the entry back unverified
	before, _ := keys.counts()
	if err := verify(t, v, token); err != nil {
		t.Error(err)
	}
	if reads, _ := keys.counts(); reads == before {
		t.Error("an entry that had expired was used again")
	}
}

// Attack: use a token after the key that signed it was withdrawn.
func TestCacheDiesWithItsKey(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys(t, testKid, &keyA().PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
	token := goodToken(t)
	if err := verify(t, v, token); err != nil {
		t.Fatal(err)
	}
	keys.replace("ins_other", testJWK(t, "ins_other", &keyB().PublicKey))
	refusal(t, verify(t, v, token), apierr.TokenInvalid, reasonKidMismatch)
	keys.replace(testKid, testJWK(t, testKid, &keyB().PublicKey))
	refusal(t, verify(t, v, token), apierr.TokenInvalid, reasonSignature)
}

// Attack: the keys change while a token is being verified with the old ones; its entry must not be good under
// the new ones.
func TestCacheGenerationIsThatBeforeTheKey(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys(t, testKid, &keyA().PublicKey)
	stale := &staleKeys{fakeKeys: keys}
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: stale}}})
	stale.after = func() { keys.replace(testKid, testJWK(t, testKid, &keyB().PublicKey)) }
	token := goodToken(t)
	if err := verify(t, v, token); err != nil {
		t.Fatal(err)
	}
	refusal(t, verify(t, v, token), apierr.TokenInvalid, reasonSignature)
}

// staleKeys returns a key and then calls after, once.
type staleKeys struct {
	*fakeKeys

	after func()
}

func (k *staleKeys) KeyRead(ctx context.Context, kid string) (jwk jwkset.JWK, err error) {
	jwk, err = k.fakeKeys.KeyRead(ctx, kid)
	if after := k.after; after != nil {
		k.after = nil
		after()
	}
	return jwk, err
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, Config{MaxIdentities: 8})
	for i := range 40 {
		if err := verify(t, v, sign(t, keyA(), testHeader(nil), testClaims(object{"sub": fmt.Sprintf("user_%d", i)}))); err != nil {
			t.Fatal(err)
		}
	}
	v.cache.entries.CleanUp()
	if n := v.cache.entries.EstimatedSize(); n > 8 {
		t.Errorf("%d entries, want at most 8", n)
	}
}

// The first request with a new token may leave; those that wait with it still get its answer.
func TestCancelledCallerFailsNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := newFakeKeys(t, testKid, &keyA().PublicKey)
		release := keys.hold()
		v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
		token := goodToken(t)

		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() {
			_, err := v.Verify(ctx, token)
			first <- err
		}()
		synctest.Wait() // it has begun
		var others sync.WaitGroup
		for range 8 {
			others.Go(func() {
				if _, err := v.Verify(context.Background(), token); err != nil {
					t.Errorf("another caller: %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		refusal(t, <-first, apierr.KeysUnavailable, "")
		release()
		others.Wait()
		v.Close()
	})
}

// gate is a clock that stops whoever reads it for the n-th time.
type gate struct {
	calls atomic.Int64
	n     int64
	stop  func()
}

func (g *gate) now() time.Time {
	if g.calls.Add(1) == g.n {
		g.stop()
	}
	return testNow
}

// Those who come with the same new token while it is verified do not verify it themselves.
func TestVerifiedOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		g := &gate{n: 2, stop: func() { <-open }} // the first one is in its verification
		v := newVerifier(t, Config{Now: g.now})
		token := goodToken(t)
		ids := make([]*Identity, 9)
		var all sync.WaitGroup
		for i := range ids {
			all.Go(func() {
				var err error
				if ids[i], err = v.Verify(t.Context(), token); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(open)
		all.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Error("verified more than once")
			}
		}
		v.Close()
	})
}

// Attack: a token signed with a key that was just replaced, sent together with many that are signed with the new
// one. Whoever verifies with old keys decides for nobody who was given new ones.
func TestSharedVerificationIsOfOneGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		g := &gate{n: 2, stop: func() { <-open }}
		v := newVerifier(t, Config{Now: g.now})
		c := v.candidate(goodToken(t))
		old := make(chan *failure, 1)
		go func() {
			_, f := v.share(c, v.issuers[0], signer{key: newRSAKey(&keyB().PublicKey), alg: algorithm, generation: 0})
			old <- f
		}()
		synctest.Wait()
		current := make(chan *failure, 1)
		go func() {
			_, f := v.share(c, v.issuers[0], signer{key: newRSAKey(&keyA().PublicKey), alg: algorithm, generation: 1})
			current <- f
		}()
		synctest.Wait()
		v.cache.entries.InvalidateAll() // or the other one would find this answer
		close(open)
		if f := <-current; f != nil {
			t.Errorf("by the new key: %v", f)
		}
		if f := <-old; f == nil || f.reason != reasonSignature {
			t.Errorf("by the old key: %v", f)
		}
		v.Close()
	})
}

// A bug in the verification is a refusal for those who wait for it, and ends nothing else.
func TestPanicIsARefusal(t *testing.T) {
	t.Parallel()
	g := &gate{n: 2, stop: func() { panic("boom") }}
	v := newVerifier(t, Config{Now: g.now})
	e := refusal(t, verify(t, v, goodToken(t)), apierr.Internal, "")
	if e.Status != 500 {
		t.Errorf("status %d", e.Status)
	}
	if err := verify(t, v, goodToken(t)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestVerifierStaysUsableAfterClose(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, Config{})
	v.Close()
	v.Close()
	for range 2 {
		if err := verify(t, v, goodToken(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	var got []apierr.Code
	v := newVerifier(t, Config{Observe: func(c apierr.Code) { got = append(got, c) }})
	_ = verify(t, v, goodToken(t))
	_ = verify(t, v, goodToken(t))
	_ = verify(t, v, "x")
	_, _ = v.Authenticate(request(t, "/", nil))
	_, _ = v.Authenticate(request(t, "/", map[string][]string{"Authorization": {"Bearer " + goodToken(t)}}))
	want := []apierr.Code{"", "", apierr.TokenInvalid, apierr.TokenMissing, ""}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("observed %q, want %q", got, want)
	}
}

func BenchmarkVerifyCached(b *testing.B) {
	v := newVerifier(b, Config{})
	token := goodToken(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
