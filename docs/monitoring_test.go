package docs_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// execHandler stands in for the plugin `exec` of events, which is another project's. That the events reach it is shown by
// the tests of caddytinybird.
type execHandler struct {
	Command []string `json:"command"`
}

func (execHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.exec", New: func() caddy.Module { return new(execHandler) }}
}

func (h *execHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	h.Command = d.RemainingArgs()
	if len(h.Command) == 0 {
		return d.ArgErr()
	}
	return nil
}

func (*execHandler) Handle(context.Context, caddy.Event) error { return nil }

// metricRow is a row of the table of metrics. The tests of the binary compare the table with what is exported.
var metricRow = regexp.MustCompile("(?m)^\\| `(caddy_[a-z_]+)` \\| (counter|gauge|histogram) \\|([^|]*)\\|")

// TestQueriesAreOfMetricsThatExist looks for the names and labels of every query and alert in the table of metrics.
func TestQueriesAreOfMetricsThatExist(t *testing.T) {
	t.Parallel()
	p := readPage(t, "monitoring.md")
	labels := make(map[string][]string)
	for _, row := range metricRow.FindAllStringSubmatch(p.section(t, "Metrics"), -1) {
		known := firstGroups(regexp.MustCompile("`([a-z_]+)`"), row[3])
		if row[2] == "histogram" {
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				labels[row[1]+suffix] = append(slices.Clone(known), "le")
			}
			continue
		}
		labels[row[1]] = known
	}
	if len(labels) < 10 {
		t.Fatalf("only %d metrics in the table", len(labels))
	}
	var queries []string
	for _, b := range p.blocks {
		if b.language == "promql" {
			queries = append(queries, b.text)
		}
	}
	for _, a := range alerts(t) {
		queries = append(queries, a.Expr)
	}
	if len(queries) < 10 {
		t.Fatalf("only %d queries", len(queries))
	}
	name := regexp.MustCompile(`caddy_[a-z_]+`)
	label := regexp.MustCompile(`([a-z_]+) *(?:=~|!~|!=|=) *"`)
	by := regexp.MustCompile(`by \(([^)]*)\)`)
	for _, q := range queries {
		if strings.Count(q, "(") != strings.Count(q, ")") || strings.Count(q, "{") != strings.Count(q, "}") || strings.Count(q, `"`)%2 != 0 {
			t.Errorf("unbalanced: %s", q)
		}
		names := name.FindAllString(q, -1)
		used := firstGroups(label, q)
		for _, list := range firstGroups(by, q) {
			used = append(used, strings.Split(strings.ReplaceAll(list, " ", ""), ",")...)
		}
		for _, n := range names {
			known, ok := labels[n]
			if !ok {
				t.Errorf("%s is not measured: %s", n, q)
			}
			for _, l := range used {
				if !slices.Contains(append(known, "job", "instance"), l) {
					t.Errorf("%s has no label %s: %s", n, l, q)
				}
			}
		}
		if len(names) == 0 {
			t.Errorf("a query of nothing: %s", q)
		}
	}
}
