package audit

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

func start(t *testing.T, pipes ...devstack.Pipe) *devstack.Stack {
	t.Helper()
	s, err := devstack.Start(t.Context(), devstack.Options{API: devstack.APIOptions{Pipes: append(devstack.Pipes(), pipes...)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func org() tinybird.FixedParam {
	return tinybird.FixedParam{Name: "organization_id", Value: "{clerk.org.id}"}
}

func options(t *testing.T, s *devstack.Stack, pipes ...tinybird.PipeConfig) Options {
	t.Helper()
	policy, err := tinybird.NewPolicy(tinybird.PolicyConfig{
		FixedParams: []tinybird.FixedParam{org()}, Pipes: pipes, CheckPlaceholder: func(string) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	base, err := url.Parse(s.APIURL)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tinybird.ParseSigningKey(s.API.SigningKey())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return Options{Base: base, Transport: transport, Key: key, WorkspaceID: s.API.WorkspaceID(), Policy: policy, Timeout: 30 * time.Second}
}

func run(t *testing.T, o Options) SiteReport {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// codes are the codes of the checks that were made and did not pass.
func codes(p PipeReport) string {
	var found []string
	for _, c := range p.Checks {
		if c.Status == Fail || c.Status == Unproven {
			found = append(found, string(c.Code))
		}
	}
	return strings.Join(found, " ")
}

func fixedTo(names ...string) []tinybird.FixedParam {
	var list []tinybird.FixedParam
	for _, n := range names {
		list = append(list, tinybird.FixedParam{Name: n, Value: "{clerk.claims." + n + "}"})
	}
	return list
}

// TestGoodPipesPass audits the stand-in's good pipes, with tenants, one of which has rows in each.
func TestGoodPipesPass(t *testing.T) {
	t.Parallel()
	s := start(t)
	o := options(t, s,
		tinybird.PipeConfig{Names: []string{"top_pages", "sales_by_day", "live_events", "org_metrics"}},
		tinybird.PipeConfig{Names: []string{"my_activity"}, FixedParams: fixedTo("user_id")},
		tinybird.PipeConfig{Names: []string{"team_activity"}, FixedParams: fixedTo("team_id")})
	row := s.API.Rows()[0]
	o.Tenants = []Tenant{
		{"": devstack.AcmeID},
		{"organization_id": row.OrganizationID, "user_id": row.UserID, "team_id": row.TeamID},
	}
	r := run(t, o)
	if !r.OK || len(r.Pipes) != 6 {
		t.Errorf("%+v", r)
	}
	for _, p := range r.Pipes {
		if !p.OK || codes(p) != "" {
			t.Errorf("%s: %+v", p.Pipe, p.Checks)
		}
		for _, name := range []string{checkDefinition, checkNobody, checkWithout} {
			if !slices.ContainsFunc(p.Checks, func(c Check) bool { return c.Check == name && c.Status == Pass }) {
				t.Errorf("%s: the check %s did not pass", p.Pipe, name)
			}
		}
	}
}

// TestLeakyPipeFails holds that the pipe which forgets to filter fails by its definition and by each of its answers.
func TestLeakyPipeFails(t *testing.T) {
	t.Parallel()
	o := options(t, start(t), tinybird.PipeConfig{Names: []string{"leaky_report"}})
	o.Tenants = []Tenant{{"": devstack.AcmeID}}
	r := run(t, o)
	if got := codes(r.Pipes[0]); r.OK || got != "not_filtered param_not_required rows_for_nobody readable_without foreign_rows" {
		t.Errorf("%s %+v", got, r.Pipes[0].Checks)
	}
}

// TestOptionalFilterFails holds that the pipe which filters only what is defined fails, though nobody reads rows of it.
func TestOptionalFilterFails(t *testing.T) {
	t.Parallel()
	optional := devstack.Pipe{
		Name: "optional", ID: "t_optional", Params: []devstack.Param{{Name: "organization_id", Type: devstack.TypeString}},
		Nodes: []devstack.Node{{Name: "endpoint", SQL: "%\nSELECT organization_id FROM events WHERE 1 {% if defined(organization_id) %} AND organization_id = {{String(organization_id)}} {% end %}"}},
		Run: func(q devstack.Query) devstack.Result {
			return rowsWhere(q, func(r devstack.Row) bool {
				return !q.Defined("organization_id") || r.OrganizationID == q.String("organization_id")
			})
		},
	}
	r := run(t, options(t, start(t, optional), tinybird.PipeConfig{Names: []string{"optional"}}))
	if got := codes(r.Pipes[0]); got != "some_branches param_not_required readable_without" {
		t.Errorf("%s %+v", got, r.Pipes[0].Checks)
	}
}

func rowsWhere(q devstack.Query, keep func(devstack.Row) bool) devstack.Result {
	res := devstack.Result{Columns: []devstack.Column{{Name: "organization_id", Type: "String"}}}
	for _, r := range q.Rows {
		if keep(r) {
			res.Rows = append(res.Rows, []any{r.OrganizationID})
		}
	}
	return res
}

// TestClientParameterOpensBranch holds that a branch which drops the filter is found by reading, too: the definition says the
// parameter is `mode`, and the values are guessed from the template.
func TestClientParameterOpensBranch(t *testing.T) {
	t.Parallel()
	pipe := devstack.Pipe{
		Name: "modes", Params: []devstack.Param{{Name: "organization_id", Type: devstack.TypeString, Required: true}, {Name: "mode", Type: devstack.TypeString}},
		Nodes: []devstack.Node{{Name: "endpoint", SQL: "%\nSELECT organization_id FROM events {% if mode == 'all' %} WHERE {{String(organization_id, required=True)}} != '' " +
			"{% else %} WHERE organization_id = {{String(organization_id, required=True)}} {% end %}"}},
		Run: func(q devstack.Query) devstack.Result {
			return rowsWhere(q, func(r devstack.Row) bool {
				return q.String("mode") == "all" || r.OrganizationID == q.String("organization_id")
			})
		},
	}
	s := start(t, pipe)
	r := run(t, options(t, s, tinybird.PipeConfig{Names: []string{"modes"}}))
	if got := codes(r.Pipes[0]); got != "not_equality rows_for_nobody" {
		t.Errorf("%s %+v", got, r.Pipes[0].Checks)
	}
	// The edge lets the parameter through to no client, so it is not tried.
	r = run(t, options(t, s, tinybird.PipeConfig{Names: []string{"modes"}, Params: []string{"other"}}))
	if got := codes(r.Pipes[0]); got != "not_equality" {
		t.Errorf("with params: %s", got)
	}
}

// TestForgottenOrganization holds that a pipe which filters by the user and forgets the organization is found by reading with one of
// the two replaced.
func TestForgottenOrganization(t *testing.T) {
	t.Parallel()
	pipe := devstack.Pipe{
		Name: "mine", Params: []devstack.Param{{Name: "organization_id", Type: devstack.TypeString, Required: true}, {Name: "user_id", Type: devstack.TypeString, Required: true}},
		Nodes: []devstack.Node{{Name: "endpoint", SQL: "%\nSELECT organization_id FROM events WHERE user_id = {{String(user_id, required=True)}} -- {{String(organization_id, required=True)}}"}},
		Run: func(q devstack.Query) devstack.Result {
			return rowsWhere(q, func(r devstack.Row) bool { return r.UserID == q.String("user_id") })
		},
	}
	s := start(t, pipe)
	o := options(t, s, tinybird.PipeConfig{Names: []string{"mine"}, FixedParams: fixedTo("user_id")})
	row := s.API.Rows()[0]
	o.Tenants = []Tenant{{"organization_id": row.OrganizationID, "user_id": row.UserID}, {"": "alone"}}
	r := run(t, o)
	if got := codes(r.Pipes[0]); got != "not_filtered rows_for_nobody" {
		t.Errorf("%s %+v", got, r.Pipes[0].Checks)
	}
}

// TestTotalsOfNothing holds that a row of zeros is nothing, and a row of anything else is not.
func TestTotalsOfNothing(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{"a":0,"b":0.0,"c":null,"d":"","e":false,"f":[],"g":{},"h":"1970-01-01","i":"1970-01-01 00:00:00.000","j":"0.00"}`: true,
		`{"a":1}`: false, `{"a":"x"}`: false, `{"a":[0]}`: false, `{"a":true}`: false, `{"a":"0","b":"nan"}`: false, `{"a":"1970-01-02"}`: false,
	} {
		var row map[string]any
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&row); err != nil {
			t.Fatal(err)
		}
		if blank(row) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
}

// TestTotals holds that a pipe that answers with totals is read as nobody's when they are zero, and that a single row of others'
// totals is a leak.
func TestTotals(t *testing.T) {
	t.Parallel()
	total := func(name string, keep func(org string, r devstack.Row) bool) devstack.Pipe {
		return devstack.Pipe{
			Name: name, Params: []devstack.Param{{Name: "organization_id", Type: devstack.TypeString, Required: true}},
			Nodes: []devstack.Node{{Name: "endpoint", SQL: "%\nSELECT count() FROM events WHERE organization_id = {{String(organization_id, required=True)}}"}},
			Run: func(q devstack.Query) devstack.Result {
				n := uint64(0)
				for _, r := range q.Rows {
					if keep(q.String("organization_id"), r) {
						n++
					}
				}
				return devstack.Result{Columns: []devstack.Column{{Name: "n", Type: "UInt64"}}, Rows: [][]any{{n}}}
			},
		}
	}
	s := start(t,
		total("own_total", func(org string, r devstack.Row) bool { return r.OrganizationID == org }),
		total("whole_total", func(string, devstack.Row) bool { return true }))
	o := options(t, s, tinybird.PipeConfig{Names: []string{"own_total", "whole_total"}})
	o.Tenants = []Tenant{{"": devstack.AcmeID}}
	r := run(t, o)
	for i, want := range []string{"", "rows_for_nobody"} {
		if got := codes(r.Pipes[i]); got != want {
			t.Errorf("%s: %s", r.Pipes[i].Pipe, got)
		}
	}
}

// TestMissingPipes holds that a pipe that is not there, or not published, is a finding.
func TestMissingPipes(t *testing.T) {
	t.Parallel()
	r := run(t, options(t, start(t), tinybird.PipeConfig{Names: []string{"draft_report", "nowhere"}}, tinybird.PipeConfig{Names: []string{"top_pages"}, Unrestricted: true}))
	for i, want := range []string{"pipe_missing", "pipe_missing", ""} {
		if got := codes(r.Pipes[i]); got != want || r.Pipes[i].OK != (want == "") {
			t.Errorf("%s: %+v", r.Pipes[i].Pipe, r.Pipes[i].Checks)
		}
	}
}

// TestAllowUnproven holds that what is not proven is a failure unless it is allowed, and that what is refuted stays one.
func TestAllowUnproven(t *testing.T) {
	t.Parallel()
	pipe := devstack.Pipe{
		Name: "lowered", Params: []devstack.Param{{Name: "organization_id", Type: devstack.TypeString, Required: true}},
		Nodes: []devstack.Node{{Name: "endpoint", SQL: "%\nSELECT 1 FROM events WHERE lower(organization_id) = {{String(organization_id, required=True)}}"}},
		Run:   func(q devstack.Query) devstack.Result { return rowsWhere(q, func(devstack.Row) bool { return false }) },
	}
	o := options(t, start(t, pipe), tinybird.PipeConfig{Names: []string{"lowered"}})
	if r := run(t, o); r.OK || codes(r.Pipes[0]) != "not_proven" {
		t.Errorf("%+v", r)
	}
	o.Unproven = true
	if r := run(t, o); !r.OK {
		t.Errorf("allowed: %+v", r)
	}
}

// TestCouldNotRun holds that an audit that cannot be made is an error that shows no token.
func TestCouldNotRun(t *testing.T) {
	t.Parallel()
	s := start(t)
	pipes := tinybird.PipeConfig{Names: []string{"top_pages"}}
	for name, tt := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"another key":       {change: func(o *Options) { o.Key, _ = tinybird.ParseSigningKey(devstack.NewSigningKey(o.WorkspaceID)) }, want: "workspace admin token"},
		"another workspace": {change: func(o *Options) { o.WorkspaceID = "00000000-0000-4000-8000-000000000000" }, want: "workspace_id"},
		"nobody listens":    {change: func(o *Options) { o.Base = &url.URL{Scheme: "http", Host: "127.0.0.1:1"} }, want: "127.0.0.1:1"},
		"a bad tenant":      {change: func(o *Options) { o.Tenants = []Tenant{{"": " "}} }, want: "--tenant"},
	} {
		o := options(t, s, pipes)
		tt.change(&o)
		_, err := Run(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		} else if secret.Looks(err.Error()) {
			t.Errorf("%s: the error shows a token: %v", name, err)
		}
	}
}

// TestReport holds the text for people, and that JSON has the same.
func TestReport(t *testing.T) {
	t.Parallel()
	var r Report
	r.Add(run(t, options(t, start(t), tinybird.PipeConfig{Names: []string{"top_pages", "leaky_report"}})))
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"  top_pages: isolated\n    ✓ every branch filters by organization_id and requires it\n",
		"  leaky_report: NOT isolated\n    ✗ not_filtered: organization_id: `events` is read without it (node endpoint)\n",
		"✗ rows_for_nobody: a tenant that does not exist reads 3 rows\n",
		"4 checks passed, 4 failed, 0 not proven, 0 skipped\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("there is no %q in\n%s", want, text.String())
		}
	}
	if r.OK || r.Failed != 4 {
		t.Errorf("%+v", r)
	}
}
