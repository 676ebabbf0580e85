package devstack

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

func orgParam() Param { return Param{Name: "organization_id", Type: TypeString, Required: true} }

func dateParams() []Param {
	return []Param{{Name: "date_from", Type: TypeDate}, {Name: "date_to", Type: TypeDate}}
}

func limitParam(def string) Param { return Param{Name: "limit", Type: TypeInt32, Default: def} }

// Pipes returns the pipes of the stand-in's workspace. All but leaky_report filter by what they require.
func Pipes() []Pipe {
	list := []Pipe{
		{Name: "top_pages", ID: "t_top0pages", Params: append(dateParams(), orgParam(), limitParam("10")), Run: topPages},
		{Name: "sales_by_day", ID: "t_sales0by0day", Params: append(dateParams(), orgParam()), Run: salesByDay},
		{Name: "my_activity", ID: "t_my0activity", Params: []Param{
			orgParam(), {Name: "user_id", Type: TypeString, Required: true}, limitParam("20"),
		}, Run: myActivity},
		{Name: "team_activity", ID: "t_team0activity", Params: []Param{
			orgParam(), {Name: "team_id", Type: TypeArray, Required: true},
		}, Run: teamActivity},
		{Name: "live_events", ID: "t_live0events", Params: []Param{orgParam(), limitParam("20")}, Run: liveEvents},
		{Name: "org_metrics", ID: "t_org0metrics", Params: []Param{orgParam()}, Run: orgMetrics},
		{Name: "leaky_report", ID: "t_leaky0report", Params: []Param{{Name: "organization_id", Type: TypeString}}, Run: leakyReport},
		{Name: "draft_report", ID: "t_draft0report", Params: []Param{orgParam()}},
	}
	definitions := nodes()
	for i := range list {
		list[i].Nodes = definitions[list[i].Name]
	}
	return list
}

// where keeps the rows of the organization, and of the days if they are given, that ok keeps as well.
func where(q Query, ok func(Row) bool) []Row {
	org := q.String("organization_id")
	from, hasFrom := q.Date("date_from")
	to, hasTo := q.Date("date_to")
	var kept []Row
	for _, r := range q.Rows {
		if r.OrganizationID != org || (hasFrom && r.TS.Before(from)) || (hasTo && !r.TS.Before(to.AddDate(0, 0, 1))) {
			continue
		}
		if ok == nil || ok(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

func amount(cents uint64) float64 { return float64(cents) / 100 }

func limit(q Query, res Result) Result {
	res.Limited, res.BeforeLimit = true, len(res.Rows)
	res.Rows = res.Rows[:min(len(res.Rows), max(q.Int("limit"), 0))]
	return res
}

func topPages(q Query) Result {
	type page struct {
		path     string
		views    uint64
		visitors map[string]bool
	}
	pages := map[string]*page{}
	rows := where(q, nil)
	for _, r := range rows {
		p := pages[r.Path]
		if p == nil {
			p = &page{path: r.Path, visitors: map[string]bool{}}
			pages[r.Path] = p
		}
		p.views++
		p.visitors[r.UserID] = true
	}
	res := Result{Columns: []Column{{"path", "String"}, {"views", "UInt64"}, {"visitors", "UInt64"}}, RowsRead: len(rows)}
	sorted := slices.SortedFunc(maps.Values(pages), func(a, b *page) int {
		return cmp.Or(cmp.Compare(b.views, a.views), cmp.Compare(a.path, b.path))
	})
	for _, p := range sorted {
		res.Rows = append(res.Rows, []any{p.path, p.views, uint64(len(p.visitors))})
	}
	return limit(q, res)
}

func salesByDay(q Query) Result {
	type day struct{ orders, cents uint64 }
	days := map[time.Time]day{}
	rows := where(q, func(r Row) bool { return r.AmountCents > 0 })
	for _, r := range rows {
		at := r.TS.UTC().Truncate(24 * time.Hour)
		days[at] = day{days[at].orders + 1, days[at].cents + r.AmountCents}
	}
	res := Result{Columns: []Column{{"day", "Date"}, {"orders", "UInt64"}, {"amount", "Float64"}}, RowsRead: len(rows)}
	for _, at := range slices.SortedFunc(maps.Keys(days), time.Time.Compare) {
		res.Rows = append(res.Rows, []any{at, days[at].orders, amount(days[at].cents)})
	}
	return res
}

func myActivity(q Query) Result {
	rows := where(q, func(r Row) bool { return r.UserID == q.String("user_id") })
	res := Result{RowsRead: len(rows), Columns: []Column{
		{"ts", "DateTime"}, {"path", "String"}, {"amount", "Float64"}, {"country", "String"},
	}}
	for _, r := range slices.Backward(rows) {
		res.Rows = append(res.Rows, []any{r.TS, r.Path, amount(r.AmountCents), r.Country})
	}
	return limit(q, res)
}

func teamActivity(q Query) Result {
	type key struct{ team, user string }
	type sum struct{ events, cents uint64 }
	sums := map[key]sum{}
	teams := q.List("team_id")
	rows := where(q, func(r Row) bool { return slices.Contains(teams, r.TeamID) })
	for _, r := range rows {
		k := key{r.TeamID, r.UserID}
		sums[k] = sum{sums[k].events + 1, sums[k].cents + r.AmountCents}
	}
	res := Result{RowsRead: len(rows), Columns: []Column{
		{"team_id", "String"}, {"user_id", "String"}, {"events", "UInt64"}, {"amount", "Float64"},
	}}
	for _, k := range slices.SortedFunc(maps.Keys(sums), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.team, b.team), cmp.Compare(a.user, b.user))
	}) {
		res.Rows = append(res.Rows, []any{k.team, k.user, sums[k].events, amount(sums[k].cents)})
	}
	return res
}

func liveEvents(q Query) Result {
	rows := where(q, nil)
	res := Result{RowsRead: len(rows), Columns: []Column{
		{"ts", "DateTime"}, {"user_id", "String"}, {"path", "String"}, {"amount", "Float64"}, {"country", "String"},
	}}
	for _, r := range slices.Backward(rows) {
		res.Rows = append(res.Rows, []any{r.TS, r.UserID, r.Path, amount(r.AmountCents), r.Country})
	}
	return limit(q, res)
}

// orgMetrics has the columns that the format prometheus asks for.
func orgMetrics(q Query) Result {
	counts, cents := map[string]uint64{}, map[string]uint64{}
	rows := where(q, nil)
	for _, r := range rows {
		counts[r.Country]++
		cents[r.Country] += r.AmountCents
	}
	res := Result{RowsRead: len(rows), Columns: []Column{
		{"name", "String"}, {"value", "Float64"}, {"help", "String"}, {"type", "String"}, {"labels", "Map(String, String)"},
	}}
	countries := slices.Sorted(maps.Keys(counts))
	for _, c := range countries {
		res.Rows = append(res.Rows, []any{
			"events_total", float64(counts[c]), "Events of the last 30 days.", "counter", map[string]string{"country": c},
		})
	}
	for _, c := range countries {
		res.Rows = append(res.Rows, []any{
			"sales_amount", amount(cents[c]), "Sales of the last 30 days.", "gauge", map[string]string{"country": c},
		})
	}
	return res
}

// leakyReport declares organization_id and forgets to use it. Tinybird neither notices nor minds: a fixed
// parameter isolates nothing here. It is what an audit of pipes has to find.
func leakyReport(q Query) Result {
	type sum struct{ events, cents uint64 }
	sums := map[string]sum{}
	for _, r := range q.Rows {
		sums[r.OrganizationID] = sum{sums[r.OrganizationID].events + 1, sums[r.OrganizationID].cents + r.AmountCents}
	}
	res := Result{RowsRead: len(q.Rows), Columns: []Column{
		{"organization_id", "String"}, {"events", "UInt64"}, {"amount", "Float64"},
	}}
	for _, org := range slices.Sorted(maps.Keys(sums)) {
		res.Rows = append(res.Rows, []any{org, sums[org].events, amount(sums[org].cents)})
	}
	return res
}
