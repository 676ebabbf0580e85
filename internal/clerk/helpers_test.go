package clerk

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"go.uber.org/goleak"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testIssuer = "https://clerk.example.com"
	testKid    = "ins_2abcDEFghiJKLmnoPQRstuVWXyz"
	testKey    = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k" // clerk.example.com
	testSuffix = "_naoXFJnI"
	testDevKey = "pk_test_aGFwcHktb3R0ZXItNDIuY2xlcmsuYWNjb3VudHMuZGV2JA" // happy-otter-42.clerk.accounts.dev
)

// testNow is the time at which the tests' tokens are issued.
var testNow = time.Unix(1767225600, 0)

var (
	keyA = sync.OnceValue(generateKey)
	keyB = sync.OnceValue(generateKey)
)

func generateKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

type object = map[string]any

func testHeader(more object) object {
	h := object{"alg": "RS256", "typ": "JWT", "kid": testKid, "cat": categorySession}
	return merge(h, more)
}

func testClaims(more object) object {
	now := testNow.Unix()
	c := object{
		"iss": testIssuer, "sub": "user_1", "sid": "sess_1", "azp": "https://app.example.com",
		"iat": now, "nbf": now - 10, "exp": now + 60, "v": 2, "sts": "active",
	}
	return merge(c, more)
}

// merge overwrites members of o; nil removes one.
func merge(o, more object) object {
	maps.Copy(o, more)
	maps.DeleteFunc(o, func(_ string, v any) bool { return v == nil })
	return o
}

func segment(t testing.TB, v any) string {
	t.Helper()
	raw, isRaw := v.(string)
	if !isRaw {
		doc, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		raw = string(doc)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(raw))
}

// sign makes a token of a header and claims, each an object or text that is taken as it is.
func sign(t testing.TB, key *rsa.PrivateKey, header, claims any) string {
	t.Helper()
	input := segment(t, header) + "." + segment(t, claims)
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// goodToken is a token that every verifier of these tests accepts.
func goodToken(t testing.TB) string {
	t.Helper()
	return sign(t, keyA(), testHeader(nil), testClaims(nil))
}

// fakeKeys is a key set whose every answer a test decides.
type fakeKeys struct {
	*jwkset.MemoryJWKSet

	mu         sync.Mutex
	keys       map[string]jwkset.JWK
	next       map[string]jwkset.JWK // what a refresh brings
	generation uint64
	err        error // of KeyRead, for all but the keys at hand
	hidden     bool  // Peek knows nothing yet
	reads      int
	refreshes  int
	block      chan struct{} // if set, KeyRead and Refresh wait for it
	waiting    atomic.Int64  // those who do
}

var _ KeySet = (*fakeKeys)(nil)

func newFakeKeys(t testing.TB, kid string, key *rsa.PublicKey) *fakeKeys {
	t.Helper()
	return &fakeKeys{MemoryJWKSet: jwkset.NewMemoryStorage(), keys: map[string]jwkset.JWK{kid: testJWK(t, kid, key)}, generation: 1}
}

func testJWK(t testing.TB, kid string, key any) jwkset.JWK {
	t.Helper()
	jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid, ALG: jwkset.AlgRS256}})
	if err != nil {
		t.Fatal(err)
	}
	return jwk
}

func (k *fakeKeys) KeyRead(ctx context.Context, kid string) (jwkset.JWK, error) {
	k.mu.Lock()
	k.reads++
	block := k.block
	k.mu.Unlock()
	if err := k.await(ctx, block); err != nil {
		return jwkset.JWK{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hidden = false
	if jwk, ok := k.keys[kid]; ok {
		return jwk, nil
	}
	if k.err != nil {
		return jwkset.JWK{}, k.err
	}
	return jwkset.JWK{}, jwkset.ErrKeyNotFound
}

// await waits for the channel, unless there is none.
func (k *fakeKeys) await(ctx context.Context, block <-chan struct{}) error {
	if block == nil {
		return nil
	}
	k.waiting.Add(1)
	defer k.waiting.Add(-1)
	select {
	case <-block:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hold makes all who ask for keys wait, as while they are fetched, until it is released.
func (k *fakeKeys) hold() (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	block := make(chan struct{})
	k.hidden, k.block = true, block
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.block = nil
		close(block)
	}
}

func (k *fakeKeys) Peek(kid string) (jwkset.JWK, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	jwk, ok := k.keys[kid]
	return jwk, ok && !k.hidden
}

func (k *fakeKeys) Refresh(ctx context.Context) bool {
	k.mu.Lock()
	k.refreshes++
	block := k.block
	k.mu.Unlock()
	if k.await(ctx, block) != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next == nil {
		return false
	}
	k.keys, k.next = k.next, nil
	k.generation++
	return true
}

func (k *fakeKeys) Generation() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.generation
}

// replace puts another key in the place of all.
func (k *fakeKeys) replace(kid string, jwk jwkset.JWK) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = map[string]jwkset.JWK{kid: jwk}
	k.generation++
}

func (k *fakeKeys) counts() (reads, refreshes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reads, k.refreshes
}

// newVerifier returns a verifier for the tests' issuer whose clock stands still, unless the configuration says
// otherwise.
func newVerifier(t testing.TB, c Config) *Verifier {
	t.Helper()
	if c.Issuers == nil {
		c.Issuers = []Issuer{{URL: testIssuer, Keys: newFakeKeys(t, testKid, &keyA().PublicKey)}}
	}
	if c.Now == nil {
		c.Now = func() time.Time { return testNow }
	}
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// refusal checks that err is a refusal with this code and reason; an empty reason is not compared.
func refusal(t *testing.T, err error, code apierr.Code, reason string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want a refusal with code %s", err, code)
	}
	if e.Code != code || (reason != "" && e.Reason != reason) {
		t.Errorf("refused with %s (%s; %v), want %s (%s)", e.Code, e.Reason, e.Err, code, reason)
	}
	return e
}

var (
	_ KeySet    = (*jwks.Set)(nil)
	_ confirmer = (*jwks.Set)(nil)
)
