//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// answer is the JSON of a pipe.
type answer struct {
	Meta []struct{ Name, Type string } `json:"meta"`
	Data []map[string]any              `json:"data"`
	Rows int                           `json:"rows"`
}

func (r reply) answer(t *testing.T) answer {
	t.Helper()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", r.StatusCode, r.body)
	}
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.UseNumber()
	var a answer
	if err := dec.Decode(&a); err != nil {
		t.Fatalf("%v: %.500s", err, r.body)
	}
	if len(a.Meta) == 0 || a.Rows != len(a.Data) {
		t.Fatalf("not the shape of Tinybird's answers: %.500s", r.body)
	}
	return a
}

// sum adds up a column.
func (a answer) sum(t *testing.T, column string) int {
	t.Helper()
	total := 0
	for _, row := range a.Data {
		n, ok := row[column].(json.Number)
		if !ok {
			t.Fatalf("%s is %v", column, row[column])
		}
		i, err := n.Int64()
		if err != nil {
			t.Fatal(err)
		}
		total += int(i)
	}
	return total
}

// only fails the test when a row has another value in the column.
func (a answer) only(t *testing.T, column string, want ...string) {
	t.Helper()
	if len(a.Data) == 0 {
		t.Fatal("no rows, so the test shows nothing")
	}
	for _, row := range a.Data {
		text, _ := row[column].(string)
		ok := false
		for _, w := range want {
			ok = ok || text == w
		}
		if !ok {
			t.Fatalf("%s is %v, want only %v", column, row[column], want)
		}
	}
}

// TestEngineScopes reads a million rows of a thousand tenants at each of the three levels, and finds exactly the tenant's.
func TestEngineScopes(t *testing.T) {
	t.Parallel()
	e, c := engineEdge(t, scopedPipes)
	if n := c.number(t, "SELECT count() FROM events"); n < 1_000_000 {
		t.Fatalf("%d rows", n)
	}
	if n := c.number(t, "SELECT uniqExact(organization_id) FROM events"); n < manyTenants {
		t.Fatalf("%d tenants", n)
	}
	for _, n := range []int{0, 1, 499, 999} {
		org, user, team := fmt.Sprintf("org_%04d", n), fmt.Sprintf("user_%d_7", n), "team_2"
		token := e.member(t, org, user, team)

		pages := e.askAs(t, token, "/v0/pipes/org_pages.json?limit=1000").answer(t)
		if got, want := pages.sum(t, "views"), c.number(t, "SELECT count() FROM events WHERE organization_id = '"+org+"'"); got != want || want != 1000 {
			t.Errorf("%s: %d views, want %d", org, got, want)
		}
		for _, row := range pages.Data {
			if path, _ := row["path"].(string); !strings.HasPrefix(path, "/"+org+"/") {
				t.Fatalf("%s reads the page %s", org, path)
			}
		}
		teams := e.askAs(t, token, "/v0/pipes/team_activity.json").answer(t)
		teams.only(t, "organization_id", org)
		teams.only(t, "team_id", team)
		if got, want := teams.sum(t, "events"), c.number(t, "SELECT count() FROM events WHERE organization_id = '"+org+"' AND team_id = 'team_2'"); got != want {
			t.Errorf("%s: %d events of the team, want %d", org, got, want)
		}
		mine := e.askAs(t, token, "/v0/pipes/user_activity.json?limit=100000").answer(t)
		mine.only(t, "organization_id", org)
		mine.only(t, "user_id", user)
		if want := c.number(t, "SELECT count() FROM events WHERE organization_id = '"+org+"' AND user_id = '"+user+"'"); mine.Rows != want || want == 0 {
			t.Errorf("%s: %d events of the user, want %d", org, mine.Rows, want)
		}
	}
	// Several teams, of which the ids exist in every organization.
	teams := e.askAs(t, e.member(t, "org_0123", "user_1", "team_0", "team_4"), "/v0/pipes/team_activity.json").answer(t)
	teams.only(t, "organization_id", "org_0123")
	teams.only(t, "team_id", "team_0", "team_4")
	// The people of the demo.
	e.get(t, "ada", "/v0/pipes/user_activity.json").answer(t).only(t, "organization_id", devstack.AcmeID)
	e.get(t, "cleo", "/v0/pipes/user_activity.json").answer(t).only(t, "organization_id", devstack.GlobexID)
}

// TestEngineTemplates takes every way through the templates.
func TestEngineTemplates(t *testing.T) {
	t.Parallel()
	e, _ := engineEdge(t, scopedPipes)
	token := e.member(t, "org_0042", "user_1")
	rows := map[string]int{}
	for _, period := range []string{"hour", "day", "month", ""} {
		a := e.askAs(t, token, "/v0/pipes/views_over_time.json?period="+period).answer(t)
		if got := a.sum(t, "views"); got != 1000 {
			t.Errorf("period %q: %d views", period, got)
		}
		rows[period] = a.Rows
	}
	if rows["hour"] <= rows["day"] || rows["day"] <= rows["month"] || rows["month"] != 3 {
		t.Errorf("rows %v", rows)
	}
	defaults := e.askAs(t, token, "/v0/pipes/typed.json").answer(t)
	given := e.askAs(t, token, "/v0/pipes/typed.json?text=it%27s&small=-1&big=-9223372036854775808&huge=1&ratio=2.5&flag=false&day=2025-12-31&moment=2025-12-31%2023:59:59&list=x&list=y&list=z").answer(t)
	for name, want := range map[string][2]string{
		"text": {"none", "it's"}, "small": {"7", "-1"}, "big": {"9007199254740993", "-9223372036854775808"}, "huge": {"18446744073709551615", "1"},
		"ratio": {"0.5", "2.5"}, "flag": {"1", "0"}, "day": {"2026-01-02", "2025-12-31"}, "moment": {"2026-01-02 03:04:05", "2025-12-31 23:59:59"},
		"list": {"[a b]", "[x y z]"}, "sequence": {"18446744073709551573", "18446744073709551573"},
	} {
		for i, a := range []answer{defaults, given} {
			if got := fmt.Sprint(a.Data[0][name]); got != want[i] {
				t.Errorf("%s is %s, want %s", name, got, want[i])
			}
		}
	}
}

// TestAttackEngineParameters: what a client writes into the parameters that it may set stays a value, whatever it looks
// like, and what it writes into those that it may not set is not heard.
func TestAttackEngineParameters(t *testing.T) {
	t.Parallel()
	e, c := engineEdge(t, scopedPipes)
	const org = "org_0007"
	token := e.member(t, org, "user_7_7", "team_1")
	for _, value := range []string{
		"' OR 1=1 --", `\' OR 1=1 --`, `\\' OR 1=1 --`, "') OR (1=1", "1 OR 1=1", "1; DROP TABLE events", "org_0008", "{{String(x)}}", "{% if 1 %}",
		"'||(SELECT any(organization_id) FROM events)||'", "a\u0000b"[:1], "ÿ'", "%27 OR 1=1", "\u2019 OR 1=1",
	} {
		for _, name := range []string{"country", "limit", "date_from", "period", "text", "small", "big", "ratio", "flag", "day", "moment", "list", "organization_id", "team_id", "user_id", "token", "q", "__tb__semver"} {
			for _, pipe := range []string{"org_pages", "team_activity", "user_activity", "views_over_time", "typed"} {
				got := e.askAs(t, token, "/v0/pipes/"+pipe+".json?"+name+"="+url.QueryEscape(value))
				if got.StatusCode == http.StatusBadRequest {
					continue // no such number or date
				}
				for _, row := range got.answer(t).Data {
					if id, ok := row["organization_id"]; ok && id != org && id != "" {
						t.Fatalf("%s?%s=%s: a row of %v", pipe, name, value, id)
					}
					if path, ok := row["path"].(string); ok && !strings.HasPrefix(path, "/"+org+"/") {
						t.Fatalf("%s?%s=%s: a row with the path %s", pipe, name, value, path)
					}
				}
			}
		}
	}
	if n := c.number(t, "SELECT count() FROM events"); n < 1_000_000 {
		t.Errorf("%d rows are left", n)
	}
}

// TestAttackEngineTenantName: a tenant's own name is a value, too, whatever is in it.
func TestAttackEngineTenantName(t *testing.T) {
	t.Parallel()
	e, _ := engineEdge(t, scopedPipes)
	for _, org := range []string{"' OR 1=1 --", `\`, `\' OR 1=1 --`, "org_0001' OR organization_id = 'org_0002", "{{String(x)}}", "org_000%"} {
		for _, pipe := range []string{"org_pages", "user_activity", "views_over_time"} {
			if a := e.askAs(t, e.member(t, org, "user_1"), "/v0/pipes/"+pipe+".json").answer(t); a.Rows != 0 {
				t.Errorf("%s reads %d rows of %s", org, a.Rows, pipe)
			}
		}
	}
}

// TestEngineFormats: the engine's own bytes come down unharmed in all formats.
func TestEngineFormats(t *testing.T) {
	t.Parallel()
	e, c := engineEdge(t, scopedPipes)
	const org = "org_0100"
	token := e.member(t, org, "user_1")
	pages, err := c.query(t.Context(), "SELECT path, count() AS views, uniqExact(user_id) AS visitors FROM events WHERE organization_id = '"+org+"' GROUP BY path ORDER BY views DESC, path LIMIT 10", "CSV")
	if err != nil {
		t.Fatal(err)
	}
	for format, check := range map[string]func([]byte) error{
		"csv":          func(b []byte) error { return same(b, pages) },
		"csvwithnames": func(b []byte) error { return same(b, append([]byte("\"path\",\"views\",\"visitors\"\n"), pages...)) },
		"ndjson": func(b []byte) error {
			if n := bytes.Count(b, []byte("\n")); n != 10 {
				return fmt.Errorf("%d lines", n)
			}
			return nil
		},
		"parquet": func(b []byte) error {
			f, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)))
			if err == nil && f.NumRows() != 10 {
				err = fmt.Errorf("%d rows", f.NumRows())
			}
			return err
		},
	} {
		got := e.askAs(t, token, "/v0/pipes/org_pages."+format)
		if got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", format, got.StatusCode, got.body)
		} else if err := check(got.body); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
	got := e.askAs(t, token, "/v0/pipes/org_metrics.prometheus")
	if !bytes.Contains(got.body, []byte("# TYPE events_total counter\n")) || !bytes.Contains(got.body, []byte(`events_total{country="DE"} `)) {
		t.Errorf("prometheus: %d %s", got.StatusCode, got.body)
	}
}

func same(got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("got\n%s\nwant\n%s", got, want)
	}
	return nil
}

// TestEngineMistakes shows what the edge cannot do for a pipe: a fixed parameter that the SQL takes no notice of isolates
// nothing. `caddy tinybird audit` is what finds it.
func TestEngineMistakes(t *testing.T) {
	t.Parallel()
	e, _ := engineEdge(t, scopedPipes)
	token := e.member(t, "org_0200", "user_1")
	if a := e.askAs(t, token, "/v0/pipes/forgets_to_filter.json").answer(t); a.Rows < manyTenants {
		t.Errorf("%d rows: the mistake is gone", a.Rows)
	}
	// The edge never leaves the parameter out, so this one is safe behind it, and nowhere else.
	e.askAs(t, token, "/v0/pipes/filters_if_defined.json").answer(t).only(t, "organization_id", "org_0200")
}

// TestEngineRefusals: what the template or ClickHouse refuses is the client's 400, and its text stays here.
func TestEngineRefusals(t *testing.T) {
	t.Parallel()
	e, _ := engineEdge(t, `
	pipe org_pages {
		unrestricted
	}
	pipe typed {
		fixed_param organization_id {clerk.org.id}
	}
`)
	for target, why := range map[string]string{
		"/v0/pipes/org_pages.json":                     "a required parameter is missing",
		"/v0/pipes/typed.json?small=1e3":               "no Int32",
		"/v0/pipes/typed.json?day=yesterday":           "no date",
		"/v0/pipes/typed.json?big=9223372036854775808": "too large for an Int64",
		"/v0/pipes/typed.prometheus":                   "not the columns of Prometheus",
	} {
		got := e.get(t, "ada", target)
		if code, _ := got.refusal(t); got.StatusCode != http.StatusBadRequest || code != "query_refused" {
			t.Errorf("%s (%s): %d %s", target, why, got.StatusCode, got.body)
		}
		if bytes.Contains(got.body, []byte("SELECT")) || bytes.Contains(got.body, []byte("organization_id")) {
			t.Errorf("%s: the answer shows SQL: %s", target, got.body)
		}
	}
}
