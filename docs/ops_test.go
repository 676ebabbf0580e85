package docs_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// alert is one of the rules of ops/prometheus.
type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal([]byte(read(t, "../ops/prometheus/caddy-tinybird.rules.yml")), &file); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// leadsHere fails the test unless an address is that of a page of this repository, and of a heading there.
func leadsHere(t *testing.T, what, address string) {
	t.Helper()
	path, ok := strings.CutPrefix(address, repository(t)+"/blob/main/")
	if !ok {
		t.Errorf("%s leads to %q", what, address)
		return
	}
	path, fragment, _ := strings.Cut(path, "#")
	p := readPage(t, "../"+path)
	if fragment != "" && !p.anchors()[fragment] {
		t.Errorf("%s leads to %s, and %s has no such heading", what, address, path)
	}
}

// TestAlertsAreDescribed: the page lists the alerts with their severities, and each leads to where it is explained.
func TestAlertsAreDescribed(t *testing.T) {
	t.Parallel()
	p := readPage(t, "monitoring.md")
	row := regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| (critical|warning) \\|")
	var listed, have []string
	for _, cells := range row.FindAllStringSubmatch(p.section(t, "Alerts"), -1) {
		listed = append(listed, cells[1]+" "+cells[2])
	}
	for _, a := range alerts(t) {
		have = append(have, a.Alert+" "+a.Labels["severity"])
		for _, name := range []string{"summary", "description"} {
			if a.Annotations[name] == "" {
				t.Errorf("%s has no %s", a.Alert, name)
			}
		}
		leadsHere(t, a.Alert, a.Annotations["runbook_url"])
	}
	sameSet(t, "the table of alerts", have, listed)
}

// TestOnCallNamesWhatThereIs: what the page for the night says that one sees is an alert, a metric or a code that there is. The links are
// looked at by TestLinksResolve.
func TestOnCallNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	known := stringConstants(t, "../internal/apierr/apierr.go", "Code")
	for _, a := range alerts(t) {
		known = append(known, a.Alert)
	}
	monitoring, onCall := readPage(t, "monitoring.md"), readPage(t, "on-call.md")
	known = append(known, firstGroups(regexp.MustCompile("(?m)^\\| `(caddy_[a-z_]+)` \\|"), monitoring.section(t, "Metrics"))...)
	table := onCall.section(t, "The table")
	named := firstGroups(regexp.MustCompile("(?:[Aa]lerts? |, |[0-9]{3} |; |, or )`([A-Z][A-Za-z]+|caddy_[a-z_]+|[a-z]+_[a-z_]+)`"), table)
	if len(named) < 20 {
		t.Fatalf("only %d names were found", len(named))
	}
	for _, name := range named {
		if !slices.Contains(known, name) && name != "last_error" {
			t.Errorf("on-call.md says %s, which is no alert, metric or code", name)
		}
	}
}

// TestDashboardExplainsItself: each panel says what it shows and what to do, and leads to the page about it; no two share a number or a place.
func TestDashboardExplainsItself(t *testing.T) {
	t.Parallel()
	type link struct{ URL string }
	var dashboard struct {
		Links  []link
		Panels []struct {
			ID                       int
			Type, Title, Description string
			Links                    []link
			GridPos                  struct{ H, W, X, Y int }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "../ops/grafana/caddy-tinybird.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	ids, places := make(map[int]bool), make(map[[2]int]string)
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("%s has the number of another panel", p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if at[0] >= 24 || places[at] != "" {
					t.Fatalf("%s stands where %q is, or outside", p.Title, places[at])
				}
				places[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if strings.Count(p.Description, ".") < 2 || len(p.Links) != 1 {
			t.Errorf("%s does not say what to do, or leads nowhere", p.Title)
		}
		dashboard.Links = append(dashboard.Links, p.Links...)
	}
	if len(ids) < 20 {
		t.Fatalf("only %d panels", len(ids))
	}
	for _, l := range dashboard.Links {
		leadsHere(t, "the dashboard", l.URL)
	}
}
