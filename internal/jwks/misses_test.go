package jwks

import (
	"strconv"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Attack: an endless stream of new key ids, to fill the memory.
func TestMissesAreBounded(t *testing.T) {
	t.Parallel()
	m := newMisses(256)
	for n := range 10_000 {
		m.add(strconv.Itoa(n), 1, start)
		if l := m.len(); l > 256 {
			t.Fatalf("%d misses after %d", l, n+1)
		}
	}
	if len(m.byKID) != 256 || m.order.Len() != 256 {
		t.Fatalf("index %d, list %d", len(m.byKID), m.order.Len())
	}
	if m.has("9743", 1, start) || !m.has("9744", 1, start) || !m.has("9999", 1, start) {
		t.Fatal("not the last 256 are remembered")
	}
}

func TestMissesForgetTheLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	m := newMisses(2)
	m.add("a", 1, start)
	m.add("b", 1, start)
	m.has("a", 1, start)
	m.add("c", 1, start)
	if !m.has("a", 1, start) || m.has("b", 1, start) || !m.has("c", 1, start) {
		t.Fatal("the wrong one is gone")
	}
}

func TestMissesExpire(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		age  time.Duration
		want bool
	}{
		{"now", 0, true},
		{"just before", missTTL - 1, true},
		{"just then", missTTL, false},
		{"clock went back", -1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMisses(2)
			m.add("a", 1, start)
			if got := m.has("a", 1, start.Add(c.age)); got != c.want {
				t.Fatalf("got %v", got)
			}
			if m.len() == 1 != c.want {
				t.Fatal("an expired miss is kept")
			}
		})
	}
}

func TestMissesBelongToOneGeneration(t *testing.T) {
	t.Parallel()
	m := newMisses(2)
	m.add("a", 1, start)
	if m.has("a", 2, start) {
		t.Fatal("known for a generation it was not looked up in")
	}
	m.add("b", 2, start)
	if m.len() != 1 || m.has("a", 1, start) {
		t.Fatal("the old generation is kept")
	}
	m.add("c", 1, start)
	if m.has("c", 1, start) || m.has("c", 2, start) || m.len() != 1 {
		t.Fatal("a late miss of the old generation is kept")
	}
}
