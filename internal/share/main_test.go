package share

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ttl = 10 * time.Second

func newStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func keyOf(text string) Key {
	return Key{Question: sha256.Sum256([]byte(text)), Encoding: Identity}
}

// origin is what is asked. Each fetch takes a token from open, if that is set, before it answers.
type origin struct {
	answer func(n int, w http.ResponseWriter) error // n counts from 1
	open   chan struct{}

	mu        sync.Mutex
	fetches   int
	cancelled int
}

func (o *origin) fetch(ctx context.Context, w http.ResponseWriter) (forward.Outcome, error) {
	o.mu.Lock()
	o.fetches++
	n := o.fetches
	o.mu.Unlock()
	if o.open != nil {
		select {
		case <-o.open:
		case <-ctx.Done():
			o.mu.Lock()
			o.cancelled++
			o.mu.Unlock()
			return forward.Outcome{}, context.Cause(ctx)
		}
	}
	return forward.Outcome{UpstreamStatus: http.StatusOK, Duration: time.Second}, o.answer(n, w)
}

func (o *origin) count() (fetches, cancelled int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fetches, o.cancelled
}

// numbered answers with the number of the fetch.
func numbered(n int, w http.ResponseWriter) error { return whole(w, "answer "+strconv.Itoa(n)) }

// whole writes an answer as forward does.
func whole(w http.ResponseWriter, body string) error {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Etag"] = []string{`"` + body + `"`}
	h["Cache-Control"] = []string{"private, no-store"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["X-Ratelimit-Remaining"] = []string{"7"}
	h["X-Db-Exec-Time"] = []string{"1"}
	w.WriteHeader(http.StatusOK)
	_, err := io.WriteString(w, body)
	return err
}

func (o *origin) request(key Key) Request { return Request{Key: key, TTL: ttl, Fetch: o.fetch} }

// client is one request and what came of it.
type client struct {
	*httptest.ResponseRecorder

	out Outcome
	err error
}

func ask(ctx context.Context, s *Store, q Request) *client {
	c := &client{ResponseRecorder: httptest.NewRecorder()}
	c.out, c.err = s.Serve(ctx, c, q)
	return c
}

// want fails unless the client was answered in this way.
func (c *client) want(t testing.TB, result Result, body string) {
	t.Helper()
	if c.err != nil || c.out.Result != result || c.Body.String() != body {
		t.Errorf("%s %q, %v, want %s %q", c.out.Result, c.Body, c.err, result, body)
	}
}

// wantField fails unless the field of the answer has the value.
func (c *client) wantField(t testing.TB, name, value string) {
	t.Helper()
	if got := c.Header().Get(name); got != value {
		t.Errorf("%s: %q, want %q", name, got, value)
	}
}

// crowd is clients that ask at the same time.
type crowd struct {
	wg      sync.WaitGroup
	clients chan *client
}

// gather starts n clients and waits until all that can happen has happened. It needs a bubble.
func gather(ctx context.Context, s *Store, q Request, n int) *crowd {
	c := &crowd{clients: make(chan *client, n)}
	for range n {
		c.wg.Go(func() { c.clients <- ask(ctx, s, q) })
	}
	synctest.Wait()
	return c
}

// all returns what came of them.
func (c *crowd) all() []*client {
	c.wg.Wait()
	close(c.clients)
	var all []*client
	for one := range c.clients {
		all = append(all, one)
	}
	return all
}

// results counts them.
func results(clients []*client) map[Result]int {
	n := make(map[Result]int)
	for _, c := range clients {
		n[c.out.Result]++
	}
	return n
}

// wantIdle fails if a flight goes on, or if memory is taken by anything but what is kept.
func wantIdle(t testing.TB, s *Store) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	flights, refreshes := len(s.flights), s.refreshes
	s.mu.Unlock()
	if flights != 0 || refreshes != 0 {
		t.Errorf("%d flights and %d refreshes go on", flights, refreshes)
	}
	kept := int64(0)
	for a := range s.kept.Values() {
		kept += int64(cap(a.body))
	}
	if _, used := s.Usage(); used != kept {
		t.Errorf("%d bytes are taken, and %d are kept", used, kept)
	}
}

// withETag answers with a validator of the test's own.
type withETag struct {
	http.ResponseWriter

	etag string
}

func (w *withETag) WriteHeader(status int) {
	w.Header().Set("Etag", w.etag)
	w.ResponseWriter.WriteHeader(status)
}

// discard is a client that takes everything.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header          { return d.header }
func (*discard) WriteHeader(int)                {}
func (*discard) Write(part []byte) (int, error) { return len(part), nil }
