package ratelimit

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// enter enters and fails the test if that is an error.
func enter(t *testing.T, g *Gate, key string, most int) (Place, bool) {
	t.Helper()
	p, ok, err := g.Enter(key, most)
	if err != nil {
		t.Fatalf("Enter(%q, %d): %v", key, most, err)
	}
	return p, ok
}

// wantInside fails the test unless that many requests of that many keys are inside.
func wantInside(t *testing.T, g *Gate, requests, keys int) {
	t.Helper()
	if r, k := g.Inside(); r != requests || k != keys {
		t.Errorf("%d requests of %d keys are inside, want %d of %d", r, k, requests, keys)
	}
}

func TestGateCountsEachKeyApart(t *testing.T) {
	t.Parallel()
	g := NewGate()
	var places []Place
	for _, key := range []string{"a", "b"} {
		for range 3 {
			p, ok := enter(t, g, key, 3)
			if !ok {
				t.Fatalf("%s was turned away with places left", key)
			}
			places = append(places, p)
		}
		if _, ok := enter(t, g, key, 3); ok {
			t.Errorf("a fourth request of %s was let in", key)
		}
	}
	wantInside(t, g, 6, 2)
	places[0].Leave()
	if _, ok := enter(t, g, "b", 3); ok {
		t.Error("a place of a was given to b")
	}
	p, ok := enter(t, g, "a", 3)
	if !ok {
		t.Error("a place that was left is not free")
	}
	p.Leave()
	for i := range places {
		places[i].Leave()
	}
	wantInside(t, g, 0, 0)
}

// A place that was left twice must not free another request's.
func TestGateLeaveTwice(t *testing.T) {
	t.Parallel()
	g := NewGate()
	first, _ := enter(t, g, "a", 2)
	second, _ := enter(t, g, "a", 2)
	first.Leave()
	first.Leave()
	wantInside(t, g, 1, 1)
	second.Leave()
	var none Place
	none.Leave()
	wantInside(t, g, 0, 0)
}

// A bound that changes applies to the next request, whatever those inside came in under.
func TestGateChangedBound(t *testing.T) {
	t.Parallel()
	g := NewGate()
	var places [5]Place
	for i := range places {
		places[i], _ = enter(t, g, "a", 5)
	}
	if _, ok := enter(t, g, "a", 2); ok {
		t.Error("let in over the lowered bound")
	}
	for i := range places[:4] {
		places[i].Leave()
	}
	if _, ok := enter(t, g, "a", 2); !ok {
		t.Error("turned away under the lowered bound")
	}
	if _, ok := enter(t, g, "a", 3); !ok {
		t.Error("turned away under the raised bound")
	}
}

func TestGateRefusesWhatCannotBeCounted(t *testing.T) {
	t.Parallel()
	g := NewGate()
	for _, c := range []struct {
		key  string
		most int
		want error
	}{{"", 1, ErrNoKey}, {"a", 0, ErrLimit}, {"a", -1, ErrLimit}} {
		if p, ok, err := g.Enter(c.key, c.most); ok || !errors.Is(err, c.want) || p != (Place{}) {
			t.Errorf("Enter(%q, %d): %v, %v, want %v", c.key, c.most, ok, err, c.want)
		}
	}
	wantInside(t, g, 0, 0)
}

// Attack: many long names, each with a request under way or turned away, to fill the memory.
func TestGateRemembersNobodyWhoLeft(t *testing.T) {
	t.Parallel()
	g := NewGate()
	long := strings.Repeat("x", 10_000)
	for i := range 1000 {
		p, ok := enter(t, g, fmt.Sprint(long, i), 1)
		if _, again := enter(t, g, fmt.Sprint(long, i), 1); !ok || again {
			t.Fatal("a long name is not counted by itself")
		}
		if i == 0 {
			for at := range g.shards {
				for key := range g.shards[at].inside {
					if len(key) > maxKeySize {
						t.Errorf("a key of %d bytes is kept", len(key))
					}
				}
			}
		}
		p.Leave()
	}
	wantInside(t, g, 0, 0)
}

func TestGateHoldsUnderConcurrency(t *testing.T) {
	t.Parallel()
	const most = 7
	g := NewGate()
	var inside, over, entered atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 500 {
				p, ok, err := g.Enter("a", most)
				if err != nil {
					t.Error(err)
					return
				}
				if !ok {
					continue
				}
				entered.Add(1)
				if inside.Add(1) > most {
					over.Add(1)
				}
				inside.Add(-1)
				p.Leave()
			}
		})
	}
	wg.Wait()
	if over.Load() != 0 || entered.Load() == 0 {
		t.Errorf("%d times more than %d were inside, of %d that entered", over.Load(), most, entered.Load())
	}
	wantInside(t, g, 0, 0)
}

func TestSetBusyHeaders(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	SetBusyHeaders(h, 4)
	want := map[string]string{
		"RateLimit-Policy": `"concurrency";q=4;qu="concurrent-requests"`, "RateLimit": `"concurrency";r=0;t=1`,
		"X-RateLimit-Limit": "4", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1", "Retry-After": "1",
	}
	for name, value := range want {
		if got := h.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	Result{Allowed: true, Limit: Limit{RPS: 10, Burst: 10}, Remaining: 9}.SetHeaders(h)
	SetBusyHeaders(h, 4)
	if got := h.Values("RateLimit-Policy"); len(got) != 1 || got[0] != `"default";q=10;w=1, `+want["RateLimit-Policy"] {
		t.Errorf("with a rate: %q", got)
	}
	if got := h.Get("X-RateLimit-Remaining"); got != "0" {
		t.Errorf("%s remaining of a full house", got)
	}
}

func BenchmarkGate(b *testing.B) {
	g := NewGate()
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("org_%026d", i)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if p, ok, _ := g.Enter(keys[i%len(keys)], 10); ok {
				p.Leave()
			}
		}
	})
}
