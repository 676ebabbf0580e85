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
		keys.hidden, keys.block, keys.blocked = true, make(chan struct{}), make(chan struct{}, 9)
		v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
		token := goodToken(t)

		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() {
			_, err := v.Verify(ctx, token)
			first <- err
		}()
		<-keys.blocked // it has begun
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
		keys.mu.Lock()
		block := keys.block
		keys.block = nil
		keys.mu.Unlock()
		close(block)
		others.Wait()
		if reads, _ := keys.counts(); reads != 2 { // one that waited, and golang-jwt's
			t.Errorf("the key was read %d times, want one verification", reads)
		}
		v.Close()
	})
}

// A bug in the verification costs the request, not the process.
func TestPanicIsARefusal(t *testing.T) {
	t.Parallel()
	keys := &staleKeys{fakeKeys: newFakeKeys(t, testKid, &keyA().PublicKey), after: func() { panic("boom") }}
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
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
