//go:build integration

package integration

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// ids reads the column event_id, all digits of it, of an answer with the columns event_id and path.
var ids = map[string]func(t *testing.T, body []byte) []string{
	"json": func(t *testing.T, body []byte) (all []string) {
		t.Helper()
		var doc struct {
			Meta []struct{ Name, Type string }
			Data []struct {
				ID   json.Number `json:"event_id"`
				Path string      `json:"path"`
			}
			Rows        int  `json:"rows"`
			BeforeLimit *int `json:"rows_before_limit_at_least"`
			Statistics  *struct {
				Elapsed   float64 `json:"elapsed"`
				RowsRead  int     `json:"rows_read"`
				BytesRead int     `json:"bytes_read"`
			} `json:"statistics"`
		}
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		if len(doc.Meta) != 2 || doc.Meta[0].Type != "UInt64" || doc.Rows != len(doc.Data) || doc.BeforeLimit == nil || doc.Statistics == nil {
			t.Errorf("another shape: %.300s", body)
		}
		for _, r := range doc.Data {
			all = append(all, r.ID.String())
		}
		return all
	},
	"ndjson": func(t *testing.T, body []byte) (all []string) {
		t.Helper()
		for line := range bytes.Lines(body) {
			var r struct {
				ID json.Number `json:"event_id"`
			}
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			all = append(all, r.ID.String())
		}
		return all
	},
	"csv": csvIDs,
	"csvwithnames": func(t *testing.T, body []byte) []string {
		t.Helper()
		all := csvIDs(t, body)
		if all[0] != "event_id" {
			t.Fatalf("the first line starts with %q", all[0])
		}
		return all[1:]
	},
	"parquet": func(t *testing.T, body []byte) (all []string) {
		t.Helper()
		rows, err := parquet.Read[struct {
			ID   uint64 `parquet:"event_id"`
			Path string `parquet:"path"`
		}](bytes.NewReader(body), int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			text, err := json.Marshal(r.ID)
			if err != nil || !strings.HasPrefix(r.Path, "/"+devstack.AcmeID) {
				t.Fatalf("%v %v", r, err)
			}
			all = append(all, string(text))
		}
		return all
	},
}

func csvIDs(t *testing.T, body []byte) (all []string) {
	t.Helper()
	lines, err := csv.NewReader(bytes.NewReader(body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		all = append(all, l[0])
	}
	return all
}

// ClickHouse's own formats pass through whole: each parses, and no digit of a 64-bit number is lost.
func TestEngineFormats(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, enginePipes)
	var want []string
	for _, r := range e.sql(t, "SELECT toString(event_id) AS id FROM events WHERE organization_id = '%s' AND country = 'JP' ORDER BY ts, event_id", devstack.AcmeID) {
		id, _ := r["id"].(string)
		want = append(want, id)
	}
	if len(want) < 100 {
		t.Fatalf("%d rows", len(want))
	}
	for format, parse := range ids {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			got := e.get(t, "ada", "/v0/pipes/search_events."+format+"?countries=JP&fields=event_id,path&limit=100000")
			if got.StatusCode != http.StatusOK {
				t.Fatalf("status %d: %.300s", got.StatusCode, got.body)
			}
			if all := parse(t, got.body); !slices.Equal(all, want) {
				t.Errorf("%d ids of %d: %.200v\n%.200v", len(all), len(want), all, want)
			}
		})
	}
	t.Run("prometheus", func(t *testing.T) {
		t.Parallel()
		got := e.get(t, "ada", "/v0/pipes/org_metrics.prometheus")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(got.body))
		if err != nil || got.StatusCode != http.StatusOK {
			t.Fatalf("status %d, %v: %s", got.StatusCode, err, got.body)
		}
		var sum float64
		for _, m := range families["events_total"].GetMetric() {
			sum += m.GetCounter().GetValue()
		}
		if all := e.sql(t, "SELECT toFloat64(count()) AS n FROM events WHERE organization_id = '%s'", devstack.AcmeID); all[0]["n"] != sum {
			t.Errorf("%v events of %v", sum, all[0]["n"])
		}
	})
}

// A 64-bit number keeps its digits on the way up as well.
func TestEngineBigNumbersAsParameters(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, enginePipes)
	id, _ := e.sql(t, "SELECT toString(max(event_id)) AS id FROM events WHERE organization_id = '%s'", devstack.AcmeID)[0]["id"].(string)
	for name, r := range map[string]*http.Request{
		"in the query": e.request(t, "ada", http.MethodGet, "/v0/pipes/search_events.ndjson?event_id="+id, ""),
		"in a body":    e.request(t, "ada", http.MethodPost, "/v0/pipes/search_events.ndjson", `{"event_id":`+id+`}`),
		"in a list":    e.request(t, "ada", http.MethodPost, "/v0/pipes/search_events.ndjson", `{"event_ids":[`+id+`,7]}`),
	} {
		got := e.do(t, r)
		if all := ids["ndjson"](t, got.body); len(all) != 1 || all[0] != id {
			t.Errorf("%s: %s found %v", name, id, all)
		}
	}
}
