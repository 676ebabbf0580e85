package devstack

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"
)

func ask(t *testing.T, a *API, pipe, query string, fixed map[string]any) document {
	t.Helper()
	w := do(a, http.MethodGet, "/v0/pipes/"+pipe+".json?"+query, "", bearer(t, a, pipe, fixed)...)
	if w.Code != 200 {
		t.Fatalf("%s: %d %s", pipe, w.Code, w.Body)
	}
	return decode(t, w.Body)
}

func TestRowsAreTheSameEveryTime(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	b, _ := newTestAPI(APIOptions{})
	rows := a.Rows()
	if !reflect.DeepEqual(rows, b.Rows()) || len(rows) != 3600 {
		t.Errorf("%d rows, or they differ", len(rows))
	}
	for _, r := range rows {
		if r.TS.After(start) || r.TS.Before(start.AddDate(0, 0, -30)) {
			t.Fatalf("row at %s", r.TS)
		}
	}
	if !slices.IsSortedFunc(rows, func(x, y Row) int { return x.TS.Compare(y.TS) }) {
		t.Error("not in order")
	}
}

func TestLiveRows(t *testing.T) {
	t.Parallel()
	a, c := newTestAPI(APIOptions{LiveEvery: 2 * time.Second})
	b, d := newTestAPI(APIOptions{LiveEvery: 2 * time.Second})
	c.Advance(time.Second)
	if n := len(a.Rows()); n != 3600 {
		t.Errorf("%d rows after a second", n)
	}
	for range 5 {
		c.Advance(3 * time.Second)
		a.Rows()
	}
	d.Advance(16 * time.Second)
	if !reflect.DeepEqual(a.Rows(), b.Rows()) || len(a.Rows()) != 3608 {
		t.Errorf("%d rows, or asking has changed them", len(a.Rows()))
	}
	c.Advance(-time.Hour)
	c.Advance(10 * 365 * 24 * time.Hour)
	if n := len(a.Rows()); n > 3608+maxCatch+1 {
		t.Errorf("%d rows after ten years", n)
	}
}

// count counts rows without the pipes' own code.
func count(a *API, ok func(Row) bool) (n float64) {
	for _, r := range a.Rows() {
		if ok(r) {
			n++
		}
	}
	return n
}

func sum(d document, column string) (n float64) {
	for _, r := range d.Data {
		if v, ok := r[column].(float64); ok {
			n += v
		}
	}
	return n
}

func TestPipesCountTheirTenantOnly(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	for _, org := range []string{AcmeID, GlobexID, InitechID} {
		fixed := map[string]any{"organization_id": org}
		mine := func(r Row) bool { return r.OrganizationID == org }
		if got, want := sum(ask(t, a, "top_pages", "", fixed), "views"), count(a, mine); got != want {
			t.Errorf("top_pages: %v views, want %v", got, want)
		}
		sold := count(a, func(r Row) bool { return mine(r) && r.AmountCents > 0 })
		if got := sum(ask(t, a, "sales_by_day", "", fixed), "orders"); got != sold {
			t.Errorf("sales_by_day: %v orders, want %v", got, sold)
		}
		// The team exists in all three.
		ops := count(a, func(r Row) bool { return mine(r) && r.TeamID == TeamOps })
		withTeam := maps.Clone(fixed)
		withTeam["team_id"] = TeamOps
		if got := sum(ask(t, a, "team_activity", "", withTeam), "events"); got != ops || ops == 0 {
			t.Errorf("team_activity: %v events, want %v", got, ops)
		}
		withTeam["team_id"] = TeamOps + "," + TeamSales
		if got := sum(ask(t, a, "team_activity", "", withTeam), "events"); got != count(a, mine) {
			t.Errorf("team_activity of both: %v events", got)
		}
		// A user of Acme has no activity elsewhere.
		withUser := maps.Clone(fixed)
		withUser["user_id"] = adaID
		if d := ask(t, a, "my_activity", "limit=1000", withUser); (d.Rows > 0) != (org == AcmeID) {
			t.Errorf("my_activity in %s: %d rows", org, d.Rows)
		}
		if d := ask(t, a, "org_metrics", "", fixed); d.Rows != 12 {
			t.Errorf("org_metrics: %d rows", d.Rows)
		}
	}
}

func TestLeakyReportLeaks(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	d := ask(t, a, "leaky_report", "", acme())
	if d.Rows != 3 {
		t.Errorf("%d organizations: the pipe's purpose is to leak", d.Rows)
	}
}

func TestDatesAndLimit(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	d := ask(t, a, "sales_by_day", "date_from=2026-04-20&date_to=2026-04-22", acme())
	if d.Rows == 0 || d.Rows > 3 {
		t.Fatalf("%d days", d.Rows)
	}
	for _, r := range d.Data {
		if day, ok := r["day"].(string); !ok || day < "2026-04-20" || day > "2026-04-22" {
			t.Errorf("day %v", r["day"])
		}
	}
	if d := ask(t, a, "top_pages", "limit=2", acme()); d.Rows != 2 || *d.BeforeLimit != 6 {
		t.Errorf("%+v", d)
	}
	if d := ask(t, a, "top_pages", "limit=-2", acme()); d.Rows != 0 {
		t.Errorf("%d rows", d.Rows)
	}
	latest := ask(t, a, "live_events", "limit=2", acme())
	if first, ok := latest.Data[0]["ts"].(string); !ok || first < latest.Data[1]["ts"].(string) {
		t.Error("the latest should come first")
	}
}

func TestPipesDeclareWhatTheyNeed(t *testing.T) {
	t.Parallel()
	for _, p := range Pipes() {
		has := slices.ContainsFunc(p.Params, func(d Param) bool { return d.Name == "organization_id" && d.Required })
		if has == (p.Name == "leaky_report") {
			t.Errorf("%s: organization_id required: %t", p.Name, has)
		}
	}
}
