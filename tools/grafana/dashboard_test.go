package grafana

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// errUnread is about what Grafana's types would keep as it is, without looking into it.
var errUnread = errors.New("not looked into; register its kind in this test")

// read reads a dashboard as strictly as Grafana's types allow: an unknown member, a missing one and a value of another type are
// errors, in the options of the panels and in the queries too.
func read(content []byte) error {
	var strict, d dashboard.Dashboard
	// The library returns an empty list, and not nil, when there is nothing to say, and then leaves the panels out. So what it finds
	// to say comes from this reading, and the panels from the next.
	if err := strict.UnmarshalJSONStrict(content); err != nil && err.Error() != "" {
		return err
	}
	if err := json.Unmarshal(content, &d); err != nil {
		return err
	}
	if len(d.Panels) == 0 {
		return errUnread
	}
	for _, p := range d.Panels {
		if p.RowPanel != nil {
			continue
		}
		switch p.Panel.Options.(type) {
		case *stat.Options, *timeseries.Options:
		default:
			return fmt.Errorf("panel %q: %w", *p.Panel.Title, errUnread)
		}
		for _, target := range p.Panel.Targets {
			if _, ok := target.(*prometheus.Dataquery); !ok {
				return fmt.Errorf("a query of %q, a %T: %w", *p.Panel.Title, target, errUnread)
			}
		}
	}
	return d.Validate()
}

// TestDashboardIsGrafanas reads the dashboard by Grafana's schema, and sees that a wrong one would be noticed.
func TestDashboardIsGrafanas(t *testing.T) {
	t.Parallel()
	runtime := cog.NewRuntime() // that of the process
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())

	content, err := os.ReadFile(filepath.Join("..", "..", "ops", "grafana", "caddy-tinybird.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := read(content); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"a member of the dashboard": {`"schemaVersion"`, `"schema_version"`},
		"a member of a panel":       {`"description"`, `"describes"`},
		"an option of a panel":      {`"graphMode"`, `"graph_mode"`},
		"a value of an option":      {`"colorMode": "value"`, `"colorMode": 7`},
		"a style of a graph":        {`"drawStyle"`, `"drawstyle"`},
		"a member of a query":       {`"expr"`, `"expression"`},
		"a kind of panel":           {`"type": "timeseries"`, `"type": "graph"`},
		"a kind of query":           {`"type": "prometheus"`, `"type": "loki"`},
		"a place":                   {`"h": 8`, `"height": 8`},
	} {
		wrong := bytes.ReplaceAll(content, []byte(change[0]), []byte(change[1]))
		if bytes.Equal(wrong, content) {
			t.Errorf("%s: %s is not there, so the test shows nothing", name, change[0])
		}
		if err := read(wrong); err == nil {
			t.Errorf("%s was accepted: %s", name, change[1])
		}
	}
}
