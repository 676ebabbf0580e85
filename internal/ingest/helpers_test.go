package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// identity has the values of a map.
type identity map[string]any

func (i identity) Lookup(name string) (any, bool) { v, ok := i[name]; return v, ok }
func (identity) HasRole(string) bool              { return false }
func (identity) HasPermission(string) bool        { return false }
func (identity) HasFeature(string) bool           { return false }
func (identity) HasPlan(string) bool              { return false }

func anyPlaceholder(string) error { return nil }

// grant stamps tenant_id and task with what the session says.
func grant(t testing.TB) *Grant {
	t.Helper()
	p, err := NewPolicy(Config{CheckPlaceholder: anyPlaceholder, Sources: []SourceConfig{{
		Names: []string{"events"}, Token: "append",
		Stamps: []Stamp{{Name: "tenant_id", Value: "{clerk.org.id}"}, {Name: "task", Value: "7", Type: "number"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.Authorize("events", identity{"clerk.org.id": "org_a"})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

const stamps = `"tenant_id":"org_a","task":7}`

// sent gathers what goes up.
type sent struct {
	batches [][]byte
	fail    func(n int) (forward.Receipt, error) // for batch n; nil, and a receipt of 0, take it
}

func (s *sent) send(batch []byte) (forward.Receipt, error) {
	s.batches = append(s.batches, batch)
	if s.fail != nil {
		if r, err := s.fail(len(s.batches)); err != nil {
			return r, err
		}
	}
	return forward.Receipt{Fate: forward.FateTaken, Status: 202, Successful: bytes.Count(batch, []byte("\n"))}, nil
}

func (s *sent) all() string { return string(bytes.Join(s.batches, nil)) }

// run sends a body and returns what went up.
func run(t testing.TB, body io.Reader) (string, Result, *apierr.Error) {
	t.Helper()
	var up sent
	result, err := grant(t).Send(body, up.send)
	if err == nil {
		return up.all(), result, nil
	}
	refusal, ok := errors.AsType[*apierr.Error](err)
	if !ok {
		t.Fatalf("no refusal: %v", err)
	}
	if refusal.Rows == nil {
		t.Fatalf("the refusal does not say what became of the rows: %v", err)
	}
	return up.all(), result, refusal
}

// members is encoding/json's reading of an object, in order.
func members(t testing.TB, row []byte) (names, values []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(row))
	if _, err := d.Token(); err != nil {
		t.Fatalf("%q: %v", row, err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatalf("%q: %v", row, err)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%q: %v", row, err)
		}
		names, values = append(names, name.(string)), append(values, string(v))
	}
	return names, values
}

func lines(up string) []string { return strings.Split(strings.TrimSuffix(up, "\n"), "\n") }
