package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// FuzzRows: whatever a body is, each row that goes up is one line of valid JSON with each stamp once, however one compares names,
// and otherwise the row that was sent. How the body arrives makes no difference.
func FuzzRows(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}{"tenant_id":2}`, "[{\"a\":[1,2.50]},\r\n{\"TENANT_ID\":null}]", "{\"tenant\\u005fid\":1,\"a\":\"x\\ny\"}\n", `{"taſk":1,"tasK":2,"TENANT_İD":3}`,
		`{"a":1,"a":2}`, "\xef\xbb\xbf{}", `{"a":"\ud83d\ude00\ud800"}`, `{"a":{"tenant_id":{"b":[]}}}`, `[{}`, `{"a":"}{"}`, `{"a":1e400,"b":-0.0}`, "[]", `{"\u0000":1}`,
	} {
		f.Add([]byte(seed))
	}
	g := grant(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		var up sent
		result, err := g.Send(bytes.NewReader(body), up.send)
		var small sent
		again, err2 := g.Send(iotest.OneByteReader(bytes.NewReader(body)), small.send)
		if again != result || up.all() != small.all() || text(err) != text(err2) {
			t.Fatalf("%q differs byte by byte: %+v %v, %+v %v", body, result, err, again, err2)
		}
		if err != nil {
			if refusal, ok := errors.AsType[*apierr.Error](err); !ok || refusal.Rows == nil || !utf8.Valid(refusal.Body()) {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		theirs := decodeRows(t, body)
		ours := lines(up.all())
		if len(theirs) != len(ours) || result.Successful != len(ours) {
			t.Fatalf("%q has %d rows, %d went up", body, len(theirs), len(ours))
		}
		for n, line := range ours {
			checkRow(t, line, theirs[n])
		}
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// decodeRows is encoding/json's reading of a body.
func decodeRows(t *testing.T, body []byte) []json.RawMessage {
	t.Helper()
	var rows []json.RawMessage
	if bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) {
		if err := json.Unmarshal(body, &rows); err != nil {
			t.Fatalf("%q passes, but encoding/json refuses it: %v", body, err)
		}
		return rows
	}
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		var row json.RawMessage
		err := d.Decode(&row)
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatalf("%q passes, but encoding/json refuses it: %v", body, err)
		}
		rows = append(rows, row)
	}
}

func checkRow(t *testing.T, line string, sent []byte) {
	t.Helper()
	if !json.Valid([]byte(line)) || strings.ContainsAny(line, "\n\r") {
		t.Fatalf("%q is not one line of JSON", line)
	}
	names, values := members(t, []byte(line))
	stamped := map[string]string{"tenant_id": `"org_a"`, "task": "7"}
	for field, value := range stamped {
		count := 0
		for n, name := range names {
			if anyCase(name, field) {
				count++
				if name != field || values[n] != value {
					t.Fatalf("%q has %s = %s", line, name, values[n])
				}
			}
		}
		if count != 1 {
			t.Fatalf("%q has %s %d times", line, field, count)
		}
	}
	theirNames, theirValues := members(t, sent)
	var wantNames, wantValues []string
	for n, name := range theirNames {
		if !anyCase(name, "tenant_id") && !anyCase(name, "task") {
			wantNames, wantValues = append(wantNames, name), append(wantValues, canonical(t, theirValues[n]))
		}
	}
	kept := len(names) - len(stamped)
	gotValues := slices.Clone(values[:kept])
	for n := range gotValues {
		gotValues[n] = canonical(t, gotValues[n])
	}
	if !slices.Equal(names[:kept], wantNames) || !slices.Equal(gotValues, wantValues) {
		t.Fatalf("%q became %q", sent, line)
	}
}

// anyCase compares names in every way that ignores letter case.
func anyCase(name, field string) bool {
	// The field is in lower case.
	return strings.EqualFold(name, field) || strings.ToLower(strings.ToUpper(name)) == field || strings.ToLower(name) == field
}

// canonical is a value as encoding/json writes it, numbers with their digits.
func canonical(t *testing.T, value string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(value))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"name=events&wait=true", "name=a&name=b", "n%61me=x&token=y", "a;b", "%zz", "format=json"} {
		f.Add(seed)
	}
	p, err := NewPolicy(Config{Sources: []SourceConfig{{Names: []string{"events"}, Stamps: []Stamp{{Name: "o", Value: "x"}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query string) {
		target, err := p.Target(eventsPath, query, 0)
		if err != nil {
			return
		}
		if _, err := p.Authorize(target.Datasource, identity{}); (err == nil) != (target.Datasource == "events") {
			t.Fatalf("%q writes to %q", query, target.Datasource)
		}
	})
}

func BenchmarkStamp(b *testing.B) {
	g := grant(b)
	row := []byte(`{"timestamp":"2026-01-02T03:04:05.678Z","action":"page_hit","version":"1","session_id":"0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9","tenant_id":"x","payload":"{\"user-agent\":\"Mozilla/5.0\",\"locale\":\"en-US\",\"pathname\":\"/pricing\"}","n":12345,"tags":["a","b"]}`)
	dst := make([]byte, 0, 2*len(row))
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.stamp(dst, row); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkSend(b *testing.B) {
	g := grant(b)
	body := []byte(strings.Repeat(`{"timestamp":"2026-01-02T03:04:05.678Z","action":"page_hit","session_id":"0a1b2c3d-4e5f-6071","n":12345}`+"\n", 100_000))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var up sent
		up.batches = up.batches[:0]
		if _, err := g.Send(bytes.NewReader(body), up.send); err != nil {
			b.Fatal(err)
		}
	}
}
