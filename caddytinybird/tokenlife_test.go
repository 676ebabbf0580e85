package caddytinybird

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// agingEdge is an edge whose minted tokens, and Tinybird with it, go by a clock that the test can put forward.
func agingEdge(t *testing.T, configure func(*Handler)) (e *edge, pass func(time.Duration)) {
	t.Helper()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	stack := newStack(t, devstack.Options{API: devstack.APIOptions{Now: now}})
	e = newEdge(t, stack, configure)
	m, err := tinybird.NewMinter(tinybird.MinterOptions{Key: []byte(stack.API.SigningKey()), WorkspaceID: stack.API.WorkspaceID(), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	e.minter = &pooledMinter{m}
	return e, func(d time.Duration) { ahead.Add(int64(d)) }
}

// tokensUsed is how often a token was asked for.
func (e *edge) tokensUsed() uint64 {
	s := e.minter.CacheStats()
	return s.Hits + s.Misses
}

// holdsFirst has Tinybird keep the first request waiting until the channel is closed.
func (e *edge) holdsFirst() (goOn chan struct{}) {
	first, goOn := make(chan struct{}, 1), make(chan struct{})
	first <- struct{}{}
	e.stack.API.Fail(func(*http.Request) *devstack.Fault {
		select {
		case <-first:
			<-goOn
		default:
		}
		return nil
	})
	return goOn
}

// Attack: a client takes longer over its body than a minted token lives, so that Tinybird refuses the edge's own token. The client would
// be told that only the operator can help, and the operator that the signing key is wrong.
func TestAttackBodyOutlivesTheToken(t *testing.T) {
	t.Parallel()
	e, pass := agingEdge(t, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
		liveEvents, e.bearer(t, "ada")); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") { // the body is being read
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	pass(2 * tinybird.DefaultTTL)
	if _, err := c.Write([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// Attack: a client's slow queries take all connections that the operator allows, and who waits for one waits longer than a minted token
// lives.
func TestAttackQueueOutlivesTheToken(t *testing.T) {
	t.Parallel()
	for name, configure := range map[string]func(*Handler){"alone": func(*Handler) {}, "shared": cached} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, pass := agingEdge(t, func(h *Handler) {
				configure(h)
				h.TransportRaw = []byte(`{"protocol":"http","max_conns_per_host":1}`)
			})
			goOn := e.holdsFirst()
			ends := make(chan reply, 2)
			ask := func(target string) {
				r := e.request(t, "ada", http.MethodGet, target, nil)
				go func() { ends <- e.do(t, r) }()
			}
			ask(liveEvents)
			await(t, "a request at Tinybird", func() bool { return len(e.stack.API.Requests()) == 1 })
			before := e.tokensUsed()
			ask(liveEvents + "?n=2")
			uses := uint64(1)
			if e.sharing != nil {
				uses = 2 // once more for the fetch
			}
			await(t, "another token", func() bool { return e.tokensUsed() == before+uses })
			pass(2 * tinybird.DefaultTTL)
			close(goOn)
			for range 2 {
				onlyTenant(t, <-ends, "acme")
			}
			e.asked(t, 2)
		})
	}
}

// TestShareWaitOutlivesTheToken: who waited for an answer that then cannot be shared is forwarded by itself, with a token that is good
// at that time.
func TestShareWaitOutlivesTheToken(t *testing.T) {
	t.Parallel()
	e, pass := agingEdge(t, func(h *Handler) {
		cached(h)
		h.Limits = &Limits{CacheEntrySize: 1}
	})
	goOn := e.holdsFirst()
	ends := make(chan reply, 2)
	ask := func(user string) {
		r := e.request(t, user, http.MethodGet, liveEvents, nil)
		go func() { ends <- e.do(t, r) }()
	}
	ask("ada")
	await(t, "a request at Tinybird", func() bool { return len(e.stack.API.Requests()) == 1 })
	before := e.tokensUsed()
	ask("ben")
	await(t, "another token", func() bool { return e.tokensUsed() > before })
	pass(2 * tinybird.DefaultTTL)
	close(goOn)
	for range 2 {
		onlyTenant(t, <-ends, "acme")
	}
	e.asked(t, 2)
}

// TestShareAsksAgainWithAGoodToken: who came late to a fetch that times out asks anew, with a token that is good at that time.
func TestShareAsksAgainWithAGoodToken(t *testing.T) {
	t.Parallel()
	e, pass := agingEdge(t, func(h *Handler) {
		cached(h)
		h.TransportRaw = []byte(`{"protocol":"http","response_header_timeout":"1s"}`)
	})
	first := make(chan struct{}, 1)
	first <- struct{}{}
	e.stack.API.Fail(func(*http.Request) *devstack.Fault {
		select {
		case <-first:
			return &devstack.Fault{Stop: devstack.HangBeforeHeader}
		default:
			return nil
		}
	})
	began := time.Now()
	ends := map[string]chan reply{"ada": make(chan reply, 1), "ben": make(chan reply, 1)}
	ask := func(user string) {
		r := e.request(t, user, http.MethodGet, liveEvents, nil)
		go func() { ends[user] <- e.do(t, r) }()
	}
	ask("ada")
	await(t, "a request at Tinybird", func() bool { return len(e.stack.API.Requests()) == 1 })
	await(t, "a part of its time", func() bool { return time.Since(began) > 500*time.Millisecond })
	before := e.tokensUsed()
	ask("ben")
	await(t, "another token", func() bool { return e.tokensUsed() > before })
	pass(2 * tinybird.DefaultTTL)
	if got := <-ends["ada"]; got.StatusCode != http.StatusGatewayTimeout || got.code(t) != "upstream_timeout" {
		t.Errorf("status %d: %s", got.StatusCode, got.body)
	}
	onlyTenant(t, <-ends["ben"], "acme")
	e.asked(t, 2)
}
