package jwks

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// modulus is an odd number of exactly that many bits. Nothing is signed here, so it need not be a product of primes.
func modulus(bits int, seed string) *big.Int {
	var b []byte
	for i := 0; len(b) < bits/8+1; i++ {
		sum := sha256.Sum256(fmt.Append(nil, seed, i))
		b = append(b, sum[:]...)
	}
	n := new(big.Int).SetBytes(b)
	n.Rsh(n, uint(n.BitLen()-bits))
	return n.SetBit(n, 0, 1).SetBit(n, bits-1, 1)
}

func b64(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }

// key is one usable member of a set; the same material means the same key.
func key(kid, material string) string {
	return fmt.Sprintf(`{"use":"sig","kty":"RSA","kid":%q,"alg":"RS256","n":%q,"e":"AQAB"}`,
		kid, b64(modulus(2048, material)))
}

func doc(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// issuer is a RoundTripper that answers as an issuer would, without a network.
type issuer struct {
	mu      sync.Mutex
	status  int
	header  http.Header
	body    string
	err     error
	hold    chan struct{} // if set, an answer waits for it, or for the end of the request's context
	times   []time.Time   // of the fetches
	aborted int
}

func newIssuer(body string) *issuer { return &issuer{status: http.StatusOK, body: body} }

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.times = append(i.times, time.Now())
	hold := i.hold
	i.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			i.mu.Lock()
			i.aborted++
			i.mu.Unlock()
			return nil, r.Context().Err()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return nil, i.err
	}
	h := i.header
	if h == nil {
		h = http.Header{}
	}
	return &http.Response{
		StatusCode: i.status, Header: h, Body: io.NopCloser(strings.NewReader(i.body)), Request: r,
	}, nil
}

// serve changes the answer; down makes every fetch fail.
func (i *issuer) serve(status int, body string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status, i.body, i.err = status, body, nil
}

func (i *issuer) down() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = errors.New("connection refused")
}

func (i *issuer) holdBack(c chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hold = c
}

func (i *issuer) fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.times)
}

func (i *issuer) fetchTimes() []time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]time.Time(nil), i.times...)
}

func (i *issuer) client() *http.Client { return &http.Client{Transport: i} }

// memStore is a Store in memory.
type memStore struct {
	mu      sync.Mutex
	doc     []byte
	loadErr error
	saveErr error
	saves   int
	hang    chan struct{} // if set, operations wait for it and ignore their context
}

func (m *memStore) enter() (loadErr, saveErr error) {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	if hang != nil {
		<-hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.loadErr, m.saveErr
}

func (m *memStore) Load(context.Context) ([]byte, error) {
	if err, _ := m.enter(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.doc == nil {
		return nil, fmt.Errorf("load: %w", fs.ErrNotExist)
	}
	return m.doc, nil
}

func (m *memStore) Save(_ context.Context, doc []byte) error {
	_, err := m.enter()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	if err != nil {
		return err
	}
	m.doc = append([]byte(nil), doc...)
	return nil
}

func (m *memStore) set(f func(*memStore)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

func (m *memStore) stored() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.doc)
}

// events collects what a set reports.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) observe(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// list returns the events so far. An event follows what it tells of, so a test lets the background come to rest first.
func (e *events) list() []Event {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Event(nil), e.all...)
}

func (e *events) last(t *testing.T) Event {
	t.Helper()
	all := e.list()
	if len(all) == 0 {
		t.Fatal("no event")
	}
	return all[len(all)-1]
}

const testURL = "https://clerk.example.com/.well-known/jwks.json"

// elapse lets time pass; in a synctest bubble that takes none.
func elapse(d time.Duration) { <-time.After(d) }

// The checks below report with Errorf, because tests call them from many goroutines.

func mustRead(t *testing.T, s *Set, kid string) jwkset.JWK {
	t.Helper()
	k, err := s.KeyRead(t.Context(), kid)
	if err != nil {
		t.Errorf("KeyRead(%q): %v", kid, err)
	} else if k.Marshal().KID != kid {
		t.Errorf("KeyRead(%q) returned the key %q", kid, k.Marshal().KID)
	}
	return k
}

func wantUnknown(t *testing.T, s *Set, kid string) {
	t.Helper()
	_, err := s.KeyRead(t.Context(), kid)
	if !errors.Is(err, jwkset.ErrKeyNotFound) || errors.Is(err, ErrNoKeys) {
		t.Errorf("KeyRead(%q): %v, want ErrKeyNotFound", kid, err)
	}
}

func wantNoKeys(t *testing.T, s *Set, kid string) {
	t.Helper()
	_, err := s.KeyRead(t.Context(), kid)
	if !errors.Is(err, ErrNoKeys) || errors.Is(err, jwkset.ErrKeyNotFound) {
		t.Errorf("KeyRead(%q): %v, want ErrNoKeys", kid, err)
	}
}

func wantFetches(t *testing.T, i *issuer, n int) {
	t.Helper()
	if got := i.fetches(); got != n {
		t.Fatalf("%d fetches, want %d", got, n)
	}
}

func wantGeneration(t *testing.T, s *Set, gen uint64) {
	t.Helper()
	if got := s.Generation(); got != gen {
		t.Fatalf("generation %d, want %d", got, gen)
	}
}
