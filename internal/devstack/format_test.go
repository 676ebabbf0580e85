package devstack

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

func TestContentTypesAndBodies(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	auth := bearer(t, a, "live_events", acme())
	want := map[string]string{
		"json":         "application/json; charset=UTF-8",
		"ndjson":       "application/x-ndjson",
		"csv":          "text/csv; charset=UTF-8; header=absent",
		"csvwithnames": "text/csv; charset=UTF-8; header=present",
		"parquet":      "application/octet-stream",
	}
	for ext, typ := range want {
		w := do(a, http.MethodGet, "/v0/pipes/live_events."+ext+"?limit=3", "", auth...)
		if w.Code != 200 || w.Header().Get("Content-Type") != typ {
			t.Errorf("%s: %d %s", ext, w.Code, w.Header().Get("Content-Type"))
		}
		var rows int
		switch ext {
		case "json":
			d := decode(t, w.Body)
			rows = len(d.Data)
			if d.Rows != 3 || *d.BeforeLimit != 1800 || d.Statistics.RowsRead != 1800 || d.Meta[0].Name != "ts" || d.Meta[0].Type != "DateTime" {
				t.Errorf("json: %+v", d)
			}
		case "ndjson":
			for line := range strings.Lines(w.Body.String()) {
				var o map[string]any
				if err := json.Unmarshal([]byte(line), &o); err != nil || len(o) != 5 {
					t.Errorf("ndjson: %s %v", line, err)
				}
				rows++
			}
		case "csv", "csvwithnames":
			list, err := csv.NewReader(w.Body).ReadAll()
			if err != nil {
				t.Error(err)
			}
			if ext == "csvwithnames" {
				if !slices.Equal(list[0], []string{"ts", "user_id", "path", "amount", "country"}) {
					t.Errorf("header %v", list[0])
				}
				list = list[1:]
			}
			rows = len(list)
		case "parquet":
			rows = len(readParquet(t, w.Body.Bytes()))
		}
		if rows != 3 {
			t.Errorf("%s: %d rows", ext, rows)
		}
	}
}

func TestUnlimitedHasNoCountBeforeTheLimit(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	d := decode(t, do(a, http.MethodGet, "/v0/pipes/sales_by_day.json", "", bearer(t, a, "sales_by_day", acme())...).Body)
	if d.BeforeLimit != nil || d.Rows == 0 {
		t.Errorf("%+v", d)
	}
}

type parquetRow struct {
	TS     time.Time         `parquet:"ts,timestamp"`
	Day    int32             `parquet:"day,date"`
	Path   string            `parquet:"path"`
	Views  uint64            `parquet:"views"`
	Amount float64           `parquet:"amount"`
	Labels map[string]string `parquet:"labels"`
}

func readParquet(t *testing.T, file []byte) []parquet.Row {
	t.Helper()
	f, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	var all []parquet.Row
	for _, g := range f.RowGroups() {
		rows := g.Rows()
		buf := make([]parquet.Row, 100)
		for {
			n, err := rows.ReadRows(buf)
			for _, r := range buf[:n] {
				all = append(all, r.Clone())
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}
	return all
}

func TestParquetReadsBack(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"a": "b", "c": "d"}
	res := Result{
		Columns: []Column{
			{"ts", "DateTime"},
			{"day", "Date"},
			{"path", "String"},
			{"views", "UInt64"},
			{"amount", "Float64"},
			{"labels", "Map(String, String)"},
		},
		Rows: [][]any{
			{start, start, "/ä", uint64(1) << 63, 12.5, labels},
			{start.Add(time.Hour), start.AddDate(0, 0, 1), "", uint64(0), -1.0, map[string]string{}},
		},
	}
	file, err := encodeParquet(res)
	if err != nil {
		t.Fatal(err)
	}
	r := parquet.NewGenericReader[parquetRow](bytes.NewReader(file))
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := make([]parquetRow, 3)
	n, err := r.Read(got)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if n != 2 {
		t.Fatalf("%d rows", n)
	}
	want := parquetRow{start, int32(start.Unix() / 86400), "/ä", 1 << 63, 12.5, labels}
	got[0].TS = got[0].TS.UTC()
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("row %+v, want %+v", got[0], want)
	}
	if got[1].Day != want.Day+1 || got[1].Path != "" || got[1].Amount != -1 {
		t.Errorf("row %+v", got[1])
	}
	f, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, field := range f.Schema().Fields() {
		names = append(names, field.Name())
	}
	if !slices.Equal(names, []string{"ts", "day", "path", "views", "amount", "labels"}) {
		t.Errorf("columns %v", names)
	}
}

func TestEmptyResults(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	auth := bearer(t, a, "live_events", map[string]any{"organization_id": "org_nobody"})
	for ext := range formats() {
		if ext == "prometheus" {
			continue
		}
		w := do(a, http.MethodGet, "/v0/pipes/live_events."+ext, "", auth...)
		if w.Code != 200 {
			t.Errorf("%s: %d %s", ext, w.Code, w.Body)
		}
		if ext == "json" && !strings.Contains(w.Body.String(), `"data":[]`) {
			t.Errorf("json: %s", w.Body)
		}
		if ext == "parquet" && len(readParquet(t, w.Body.Bytes())) != 0 {
			t.Error("parquet has rows")
		}
	}
}

func TestPrometheus(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	w := do(a, http.MethodGet, "/v0/pipes/org_metrics.prometheus", "", bearer(t, a, "org_metrics", acme())...)
	text := w.Body.String()
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for _, want := range []string{
		"# HELP events_total Events of the last 30 days.\n# TYPE events_total counter\nevents_total{country=\"DE\"} ",
		"# TYPE sales_amount gauge\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Count(text, "# TYPE") != 2 {
		t.Errorf("TYPE lines repeat in\n%s", text)
	}
	w = do(a, http.MethodGet, "/v0/pipes/top_pages.prometheus", "", bearer(t, a, "top_pages", acme())...)
	if w.Code != 400 || !strings.Contains(w.Body.String(), "'name'") {
		t.Errorf("a pipe of another shape: %d %s", w.Code, w.Body)
	}
}

func TestPrometheusEdges(t *testing.T) {
	t.Parallel()
	got, err := encodePrometheus(Result{
		Columns: []Column{{"name", "String"}, {"value", "Float64"}, {"timestamp", "UInt64"}, {"labels", "Map(String, String)"}},
		Rows:    [][]any{{"m", 1.5, uint64(7), map[string]string{"a": "x\"\n\\"}}, {"m", 2.0, uint64(8), map[string]string{}}},
	})
	if want := "m{a=\"x\\\"\\n\\\\\"} 1.5 7\nm 2 8\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	_, err = encodePrometheus(Result{
		Columns: []Column{{"name", "String"}, {"value", "Float64"}, {"labels", "String"}},
		Rows:    [][]any{{"m", 1.5, "x"}},
	})
	if err == nil {
		t.Error("labels that are no map should be refused")
	}
}

func TestCSVQuotes(t *testing.T) {
	t.Parallel()
	got := encodeCSV(Result{
		Columns: []Column{{"a", "String"}, {"n", "UInt64"}, {"m", "Map(String, String)"}, {"d", "Date"}},
		Rows:    [][]any{{`x"y`, uint64(5), map[string]string{"k": "v"}, start}},
	}, false)
	if want := "\"x\"\"y\",5,\"{'k':'v'}\",\"2026-05-04\"\n"; string(got) != want {
		t.Errorf("%s", got)
	}
}
