//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

var jsonPieces = []string{
	`"`, `\`, `\"`, `\u0000`, `\ud83d\ude00`, `\ud800`, `\udc00`, `\/`, `\x`, "\x00", "\x1f", "\x7f", "\u2028", "\ufeff", "\u00e9", "\U0001f600", "\xff", "\xed\xa0\x80", "{", "}", "[", "]", ",", ":", " ", "\n", "\v", "1", "-0", "0.1", "1e400", "-1e-400", "12345678901234567890", "1.7976931348623157e308",
	"9007199254740993", "01", "+1", ".5", "1.", "NaN", "Infinity", "true", "null", "nul", "//", "/**/", `"a":1`, `,"a":2`, `"organization_id":"org_b"`, `"\u006frganization_id":"org_b"`, `"__proto__":{"a":1}`, `"tenant_id":1`, `"TENANT_ID":1`, `"ta\u017fk":1`, `"constructor":1`, `"1":2`, `"":3`, "'a'",
}

// randomJSON is mostly JSON.
func randomJSON(r *rand.Rand, depth int) string {
	list := func(one func() string) string {
		var parts []string
		for range r.IntN(4) {
			parts = append(parts, one())
		}
		return strings.Join(parts, ",")
	}
	if depth == 0 {
		switch r.IntN(4) {
		case 0:
			return []string{"1", "-0", "-0.0", "0.1", "1e400", "-1e400", "1e-400", "12345678901234567890", "9007199254740993", "1E5", "1e+2", "0.30000000000000004", "5e-324", strings.Repeat("9", 400)}[r.IntN(14)]
		case 1:
			return []string{"true", "false", "null", `""`, "{}", "[]"}[r.IntN(6)]
		default:
			return randomText(r)
		}
	}
	if r.IntN(3) == 0 {
		return "[" + list(func() string { return randomJSON(r, depth-1) }) + "]"
	}
	return "{" + list(func() string { return randomText(r) + ":" + randomJSON(r, r.IntN(depth)) }) + "}"
}

func randomText(r *rand.Rand) string {
	texts := []string{"a", "b", "limit", "organization_id", "Organization_Id", "tenant_id", "task", "TASK", "ta\u017fk", "token", "q", "__proto__", "constructor", "1", "", "a.b", "\u00e9", "\u2028", "\U0001f600", "toString", "\u212a", "tenant_id ", " ", "\x7f"}
	text := texts[r.IntN(len(texts))]
	var b strings.Builder
	for _, c := range text {
		if c < 0x10000 && r.IntN(5) == 0 {
			fmt.Fprintf(&b, `\u%04x`, c)
			continue
		}
		b.WriteRune(c)
	}
	return `"` + b.String() + `"`
}

func jsonInputs(t *testing.T, r *rand.Rand) []string {
	t.Helper()
	return inputs(t, r, jsonPieces, func() string { return randomJSON(r, 1+r.IntN(4)) })
}

// canonicalJSON writes a value as the readers do. Numbers are compared as doubles, which is all that Node has.
func canonicalJSON(v any) string {
	switch v := v.(type) {
	case string:
		return `"` + hex.EncodeToString([]byte(v)) + `"`
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		if errors.Is(err, strconv.ErrSyntax) || f == 0 {
			f = 0
		}
		return hex.EncodeToString(binary.BigEndian.AppendUint64(nil, math.Float64bits(f)))
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, canonicalJSON(e))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case map[string]any:
		var parts []string
		for name, e := range v {
			parts = append(parts, hex.EncodeToString([]byte(name))+":"+canonicalJSON(e))
		}
		slices.Sort(parts)
		return "{" + strings.Join(parts, ",") + "}"
	case bool:
		return strconv.FormatBool(v)
	default:
		return "null"
	}
}

// object is Go's reading of a JSON object.
func object(text string) (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v map[string]any
	err := d.Decode(&v)
	return v, err
}

// TestBodyIsReadAlike: the body that goes up is, for Go, Node and Python, the client's without what may not go up, and both read the
// client's own as the edge does.
func TestBodyIsReadAlike(t *testing.T) {
	t.Parallel()
	node, python := startReaders(t)
	g, r := differentialGrant(t), testSeed(t)
	var client, up, believed, whole []string
	for _, raw := range jsonInputs(t, r) {
		req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(raw))
		req.Header.Set("Content-Type", "application/json")
		q, err := tinybird.Build(httptest.NewRecorder(), req, g, tinybird.RequestLimits{})
		if err != nil || raw == "" {
			continue
		}
		theirs, err := object(raw)
		if err != nil {
			t.Errorf("%q is let through, and Go refuses it: %v", raw, err)
			continue
		}
		client, whole = append(client, raw), append(whole, canonicalJSON(theirs))
		for name := range theirs {
			if !mayGoUp(name) {
				delete(theirs, name)
			}
		}
		body := string(q.Body)
		if q.Body == nil {
			body = "{}"
		}
		up, believed = append(up, body), append(believed, canonicalJSON(theirs))
		if ours, err := object(body); err != nil || canonicalJSON(ours) != canonicalJSON(theirs) {
			t.Errorf("Go reads %q, which became of %q, as %v %v", body, raw, ours, err)
		}
	}
	for _, reader := range []*reader{node, python} {
		sameReadings(t, reader.name, client, reader.read(t, "json", up), believed)
		sameReadings(t, reader.name+", of the client's own", client, reader.read(t, "json", client), whole)
	}
	if t.Logf("%d bodies", len(up)); len(up) < differentialCases/20 {
		t.Errorf("only %d of %d bodies went up", len(up), differentialCases)
	}
}

func sameReadings(t *testing.T, name string, sent, readings, want []string) {
	t.Helper()
	for n, reading := range readings {
		if reading != want[n] {
			t.Errorf("%s reads what became of %q as %s, not %s", name, sent[n], reading, want[n])
		}
	}
}

// stampedRows sends bodies of rows through what stamps them, and returns the rows that go up.
func stampedRows(t *testing.T) []string {
	t.Helper()
	p, err := ingest.NewPolicy(ingest.Config{CheckPlaceholder: func(string) error { return nil }, Sources: []ingest.SourceConfig{{
		Names: []string{"events"}, Token: "append",
		Stamps: []ingest.Stamp{{Name: "tenant_id", Value: "{clerk.org.id}"}, {Name: "task", Value: "7", Type: tinybird.TypeNumber}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.Authorize("events", tenantIdentity{})
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, raw := range jsonInputs(t, testSeed(t)) {
		_, _ = g.Send(strings.NewReader(raw), func(batch []byte) (forward.Receipt, error) {
			n := 0
			for line := range bytes.Lines(batch) {
				rows = append(rows, strings.TrimSuffix(string(line), "\n"))
				n++
			}
			return forward.Receipt{Status: http.StatusAccepted, Successful: n}, nil
		})
	}
	if t.Logf("%d rows", len(rows)); len(rows) < differentialCases/20 {
		t.Errorf("only %d rows of %d bodies went up", len(rows), differentialCases)
	}
	return rows
}

// TestRowsAreReadAlike: each stamped row is one line, which Go, Node and Python read alike, with the tenant's mark in it and none of
// another's.
func TestRowsAreReadAlike(t *testing.T) {
	t.Parallel()
	node, python := startReaders(t)
	rows := stampedRows(t)
	believed := make([]string, len(rows))
	for n, row := range rows {
		v, err := object(row)
		if err != nil || v["tenant_id"] != "org_a" || v["task"] != json.Number("7") {
			t.Errorf("Go reads the row %q as %v %v", row, v, err)
		}
		for name := range v {
			if name != "tenant_id" && name != "task" && (strings.EqualFold(name, "tenant_id") || strings.EqualFold(name, "task")) {
				t.Errorf("the row %q has %q as well", row, name)
			}
		}
		believed[n] = canonicalJSON(v)
	}
	for _, reader := range []*reader{node, python} {
		sameReadings(t, reader.name, rows, reader.read(t, "json", rows), believed)
	}
}

// TestEngineRowsAreReadAlike: ClickHouse reads the tenant's mark out of every stamped row that it can read.
func TestEngineRowsAreReadAlike(t *testing.T) {
	t.Parallel()
	c := clickhouse(t)
	rows := stampedRows(t)
	read := 0
	for part := range slices.Chunk(rows, 500) {
		text := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(strings.Join(part, "\n"))
		answer, err := c.Query(t.Context(), devstack.Question{Format: "JSONEachRow", SQL: "SELECT tenant_id, toString(task) AS task, count() AS n FROM " +
			"format(JSONEachRow, 'tenant_id Nullable(String), task Nullable(Float64)', '" + text + "') GROUP BY tenant_id, task " +
			"SETTINGS input_format_skip_unknown_fields = 1, input_format_allow_errors_ratio = 1, output_format_json_quote_64bit_integers = 0"})
		if err != nil {
			t.Fatalf("%v\n%.2000s", err, text)
		}
		for line := range bytes.Lines(answer) {
			var row struct {
				Tenant *string `json:"tenant_id"`
				Task   *string `json:"task"`
				N      int     `json:"n"`
			}
			if err := json.Unmarshal(line, &row); err != nil || row.Tenant == nil || *row.Tenant != "org_a" || row.Task == nil || *row.Task != "7" {
				t.Errorf("ClickHouse reads %s %v", line, err)
			}
			read += row.N
		}
	}
	if t.Logf("ClickHouse read %d of %d rows", read, len(rows)); read < len(rows)*9/10 {
		t.Errorf("ClickHouse read %d of %d rows", read, len(rows))
	}
}
