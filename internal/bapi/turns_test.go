package bapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// crowd calls n times at once, of which each waits in the transport until it is let go.
type crowd struct {
	started, running atomic.Int64
	leave            chan struct{}
	results          chan error
}

func newCrowd(t *testing.T, c func(*http.Client) *Client, n int) *crowd {
	t.Helper()
	w := &crowd{leave: make(chan struct{}), results: make(chan error, n)}
	client := c(&http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		w.started.Add(1)
		w.running.Add(1)
		defer w.running.Add(-1)
		select {
		case <-w.leave:
			return response(r, http.StatusOK, `{"directives":[]}`), nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	})})
	for range n {
		go func() {
			_, err := client.HandshakePayload(t.Context(), nonce)
			w.results <- err
		}()
	}
	return w
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ set, max int64 }{"set": {3, 3}, "default": {0, 32}, "nonsense": {-1, 32}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const n = 100
				w := newCrowd(t, func(h *http.Client) *Client { return newClient(t, Options{Client: h, MaxConcurrent: int(want.set)}) }, n)
				for done := range int64(n) {
					synctest.Wait()
					if got := w.running.Load(); got != min(want.max, n-done) {
						t.Fatalf("%d run after %d are done", got, done)
					}
					w.leave <- struct{}{}
					if err := <-w.results; err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// The wait for a turn counts as part of the call: nobody waits longer than for a server that hangs.
func TestTimeoutCoversTheWait(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ set, timeout time.Duration }{"set": {time.Minute, time.Minute}, "default": {0, 3 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				leave := make(chan struct{})
				c := newClient(t, Options{MaxConcurrent: 1, Timeout: want.set, Client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					<-leave // whatever the context says, so that nobody else's turn comes
					return response(r, http.StatusOK, `{"directives":[]}`), nil
				})}})
				results := make(chan error, 2)
				ask := func() {
					_, err := c.HandshakePayload(t.Context(), nonce)
					results <- err
				}
				go ask()
				synctest.Wait()
				begin := time.Now()
				go ask()
				err := <-results
				if e := wantError(t, err); e.Status != 0 || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errTurn) || time.Since(begin) != want.timeout {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
				close(leave)
				<-results
			})
		})
	}
}

func TestWaitEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var client *Client
		w := newCrowd(t, func(h *http.Client) *Client {
			client = newClient(t, Options{Client: h, MaxConcurrent: 1})
			return client
		}, 1)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan error)
		go func() {
			_, err := client.RefreshSession(ctx, refresh)
			waited <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-waited; !errors.Is(err, context.Canceled) || !errors.Is(err, errTurn) || w.started.Load() != 1 {
			t.Errorf("%v, %d started", err, w.started.Load())
		}
		w.leave <- struct{}{}
		if err := <-w.results; err != nil {
			t.Error(err)
		}
	})
}

func TestTurnsComeBackAfterFailures(t *testing.T) {
	t.Parallel()
	srv := serve(t, write(http.StatusInternalServerError, ""))
	c := newClient(t, Options{URL: srv.URL, MaxConcurrent: 1})
	for range 3 {
		_, err := c.HandshakePayload(t.Context(), nonce)
		if e := wantError(t, err); e.Status != http.StatusInternalServerError {
			t.Fatal(err)
		}
	}
}

func TestCloseEndsIdleConnections(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 2)
	srv := httptest.NewUnstartedServer(write(http.StatusOK, `{"directives":[]}`))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	c, err := New(Options{URL: srv.URL, SecretKey: secretKey})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.HandshakePayload(t.Context(), nonce); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
		t.Fatal("the connection is not kept")
	default:
	}
	c.Close()
	select {
	case <-closed:
	case <-time.After(10 * time.Second): // by itself it closes after 30
		t.Error("the connection is kept")
	}
	if _, err := c.HandshakePayload(t.Context(), nonce); err != nil {
		t.Errorf("a request that outlives a reload: %v", err)
	}
	c.Close()
}
