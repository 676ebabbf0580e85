package caddytinybird

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/goleak"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// liveEdge is a whole Caddy in this process, which is loaded with one config after the other.
type liveEdge struct {
	stack   *devstack.Stack
	address string
	client  *http.Client
	key     string
	storage string
}

// newLiveEdge prepares one; load loads it.
func newLiveEdge(t *testing.T) *liveEdge {
	t.Helper()
	stack := newStack(t, devstack.Options{})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	return &liveEdge{
		stack: stack, address: free.Addr().String(), key: secretFile(t, stack.API.SigningKey()), storage: t.TempDir(),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

// config is a Caddyfile that differs from the others by its number alone.
func (e *liveEdge) config(n int) string {
	return fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	log {
		output discard
	}
	storage file_system %s
	clerk {
		publishable_key %s
		issuer %s
	}
}
http://%s {
	header X-Generation %d
	tinybird {
		signing_key %s
		workspace_id %s
		upstream %s
		fixed_param organization_id {clerk.org.id}
		pipe live_events
		pipe sales_by_day {
			concurrency 1
		}
		pipe top_pages {
			rate_limit 1 burst 1000
		}
	}
}
`, e.storage, e.stack.Issuer.PublishableKey(), e.stack.IssuerURL, e.address, n, e.key, e.stack.API.WorkspaceID(), e.stack.APIURL)
}

func (e *liveEdge) load(t *testing.T, caddyfile string) error {
	t.Helper()
	adapted, _, err := adapt(t, caddyfile)
	if err != nil {
		return err
	}
	provisioning.Lock()
	defer provisioning.Unlock()
	return caddy.Load(adapted, true)
}

// get asks as a user. Caddy closes its old listener with a reload, and with it the connections that it had not accepted yet: what
// was never answered with a byte is asked again. Whether Caddy had accepted it the integration tests look at.
func (e *liveEdge) get(ctx context.Context, token, target string) (*http.Response, error) {
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.address+target, http.NoBody)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := e.client.Do(r)
		if err == nil {
			resp.Body.Close()
			return resp, nil
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			return nil, err
		}
	}
}

// heapInUse is what the garbage collector leaves.
func heapInUse() uint64 {
	var m runtime.MemStats
	for range 2 { // what has a finalizer goes with the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestP7ManyReloads: the config is loaded anew again and again while clients ask and one request is under way all the time, each
// time after one that is rejected. No request fails, no counter and no request under way is forgotten, and neither
// goroutines nor memory are left behind. The integration tests have a thousand reloads of the binary.
//
//nolint:paralleltest // there is one Caddy in a process, and its goroutines and memory are looked at
func TestP7ManyReloads(t *testing.T) {
	const reloads, warmUp = 50, 10
	e := newLiveEdge(t)
	h := hold(t, e.stack)
	token := map[string]string{}
	for _, user := range []string{"ada", "cleo"} {
		text, err := e.stack.Issuer.Token(user, devstack.Lifetime(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		token[user] = text
	}
	before := goleak.IgnoreCurrent()
	defer e.client.CloseIdleConnections()
	if err := e.load(t, e.config(0)); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			if err := caddy.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
	defer stop()
	begin := time.Now()
	for range 900 {
		limiterOf(t, e.stack).count(t, devstack.AcmeID+"\x00top_pages")
	}
	under := make(chan error, 1)
	go func() {
		resp, err := e.get(t.Context(), token["ada"], "/v0/pipes/sales_by_day.json?hold")
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", resp.StatusCode)
		}
		under <- err
	}()
	<-h.arrived

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var answered atomic.Int64
	for n := range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				resp, err := e.get(t.Context(), token[[]string{"ada", "cleo"}[n%2]], "/v0/pipes/live_events.json?limit=1")
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("under load: %v %v", resp, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	var heap uint64
	for n := 1; n <= reloads; n++ {
		if err := e.load(t, rejectedConfig(e.config(n), n)); err == nil {
			t.Fatal("a config that should be rejected was accepted")
		}
		if err := e.load(t, e.config(n)); err != nil {
			t.Fatal(err)
		}
		resp, err := e.get(t.Context(), token["ada"], "/v0/pipes/sales_by_day.json")
		if err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("X-Generation") != fmt.Sprint(n) {
			t.Fatalf("reload %d: the request under way is forgotten: %v %v", n, resp, err)
		}
		if n == warmUp {
			heap = heapInUse()
		}
	}
	cancel()
	clients.Wait()
	if grown := int64(heapInUse()) - int64(heap); grown > (reloads-warmUp)*64<<10 {
		t.Errorf("%d bytes more after %d reloads", grown, reloads-warmUp)
	} else {
		t.Logf("%d bytes more after %d reloads; %d requests were answered", grown, reloads-warmUp, answered.Load())
	}
	h.release()
	if err := <-under; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	left := limiterOf(t, e.stack).count(t, devstack.AcmeID+"\x00top_pages")
	if most := 100 + int(time.Since(begin).Seconds()) + 1; left > most {
		t.Errorf("%d left, at most %d were expected: the count was lost", left, most)
	}
	stop()
	if err := e.stack.Close(); err != nil {
		t.Error(err)
	}
	// Caddy waits for up to 5 s for a connection that has not sent a request yet, and CertMagic's locks sleep for as long before they see
	// that they are not needed anymore. What is left after that is a leak.
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := goleak.Find(before)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// rejectedConfig is a config that fails: while it is read, while it is prepared, and while it is started.
func rejectedConfig(config string, n int) string {
	return []string{
		strings.Replace(config, "pipe live_events", "pipe live_events top_pages", 1),
		strings.Replace(config, "signing_key {file.", "signing_key {file./nowhere", 1),
		strings.Replace(config, "upstream http://", "upstream http://p.eyJ1IjoieCJ9.", 1),
		config + "http://taken.test {\n\tbind unix//nowhere/at/all/s\n\trespond taken\n}\n",
	}[n%4]
}

// limiterOf is the limiter of the stand-in's workspace, as the running config has it.
func limiterOf(t *testing.T, stack *devstack.Stack) *pooledLimiter {
	t.Helper()
	l, release, err := acquire(limiters, stack.API.WorkspaceID(), func() (*pooledLimiter, error) {
		return nil, fmt.Errorf("nobody has a limiter for %s", stack.API.WorkspaceID())
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	return l
}

// count counts one request at one a second, a thousand at once, and returns how many are left.
func (l *pooledLimiter) count(t *testing.T, counter string) int {
	t.Helper()
	r, err := l.Allow(counter, ratelimit.Limit{RPS: 1, Burst: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return r.Remaining
}
