package devstack

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// The filters that several pipes share, in Tinybird's template language.
const (
	ofOrg  = "WHERE organization_id = {{String(organization_id, required=True)}}"
	ofDays = "\n{% if defined(date_from) %} AND toDate(ts) >= {{Date(date_from)}} {% end %}" +
		"\n{% if defined(date_to) %} AND toDate(ts) <= {{Date(date_to)}} {% end %}"
)

// nodes is what the pipes' functions do, as SQL, by the pipe's name. What is read is events, whose columns are those of Row.
func nodes() map[string][]Node {
	endpoint := func(sql string) []Node { return []Node{{Name: "endpoint", SQL: "%\n" + sql, Endpoint: true}} }
	return map[string][]Node{
		"top_pages": endpoint("SELECT path, count() AS views, uniqExact(user_id) AS visitors\nFROM events\n" + ofOrg + ofDays +
			"\nGROUP BY path ORDER BY views DESC, path LIMIT {{Int32(limit, 10)}}"),
		"sales_by_day": {
			{Name: "sales", SQL: "%\nSELECT * FROM events\n" + ofOrg + ofDays},
			{Name: "endpoint", SQL: "SELECT toDate(ts) AS day, count() AS orders, sum(amount_cents) / 100 AS amount\n" +
				"FROM sales WHERE amount_cents > 0\nGROUP BY day ORDER BY day", Endpoint: true},
		},
		"my_activity": endpoint("SELECT ts, path, amount_cents / 100 AS amount, country\nFROM events\n" + ofOrg +
			"\nAND user_id = {{String(user_id, required=True)}}\nORDER BY ts DESC LIMIT {{Int32(limit, 20)}}"),
		"team_activity": endpoint("SELECT team_id, user_id, count() AS events, sum(amount_cents) / 100 AS amount\nFROM events\n" + ofOrg +
			"\nAND team_id IN {{Array(team_id, 'String', required=True)}}\nGROUP BY team_id, user_id ORDER BY team_id, user_id"),
		"live_events": endpoint("SELECT ts, user_id, path, amount_cents / 100 AS amount, country\nFROM events\n" + ofOrg +
			"\nORDER BY ts DESC LIMIT {{Int32(limit, 20)}}"),
		"org_metrics": {
			{Name: "countries", SQL: "%\nSELECT country, count() AS n, sum(amount_cents) / 100 AS amount\nFROM events\n" + ofOrg + "\nGROUP BY country"},
			{Name: "endpoint", SQL: "SELECT 'events_total' AS name, toFloat64(n) AS value, 'Events of the last 30 days.' AS help, 'counter' AS type,\n" +
				"map('country', country) AS labels\nFROM countries\nUNION ALL\n" +
				"SELECT 'sales_amount', amount, 'Sales of the last 30 days.', 'gauge', map('country', country)\nFROM countries", Endpoint: true},
		},
		"leaky_report": endpoint("{% if defined(organization_id) %} {% set asked = String(organization_id) %} {% end %}\n" +
			"SELECT organization_id, count() AS events, sum(amount_cents) / 100 AS amount\nFROM events\nGROUP BY organization_id ORDER BY organization_id"),
		"draft_report": {{Name: "step", SQL: "%\nSELECT count() AS events FROM events\n" + ofOrg}},
	}
}

// definition answers GET /v0/pipes/<name> in the shape of Tinybird's document "Pipes API".
func (a *API) definition(name string, out *answer) *refusal {
	p, ok := a.pipes[name]
	if !ok {
		return &refusal{status: http.StatusNotFound, text: "The pipe '" + name + "' does not exist", doc: docPipe}
	}
	type node struct {
		ID           string   `json:"id"`
		Name         string   `json:"name"`
		SQL          string   `json:"sql"`
		Description  *string  `json:"description"`
		Materialized *string  `json:"materialized"`
		Dependencies []string `json:"dependencies"`
		NodeType     string   `json:"node_type"`
		CreatedAt    string   `json:"created_at"`
	}
	doc := struct {
		ID       string  `json:"id"`
		Name     string  `json:"name"`
		Type     string  `json:"type"`
		Endpoint *string `json:"endpoint"`
		Nodes    []node  `json:"nodes"`
	}{ID: p.ID, Name: p.Name, Type: "default", Nodes: []node{}}
	for i, n := range p.Nodes {
		id := p.ID + "_" + n.Name
		kind := "standard"
		if n.Endpoint || i == len(p.Nodes)-1 && p.Run != nil && !p.published() {
			doc.Type, doc.Endpoint, kind = "endpoint", &id, "endpoint"
		}
		doc.Nodes = append(doc.Nodes, node{
			ID: id, Name: n.Name, SQL: n.SQL, Dependencies: dependencies(n.SQL), NodeType: kind, CreatedAt: "2026-01-01 00:00:00.000000",
		})
	}
	return a.document(out, doc)
}

var readFrom = regexp.MustCompile(`(?i)\b(?:FROM|JOIN)\s+([A-Za-z_]\w*)`)

// dependencies are the names that a node reads, each once.
func dependencies(sql string) []string {
	names := []string{}
	for _, m := range readFrom.FindAllStringSubmatch(sql, -1) {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, m[1]) }) {
			names = append(names, m[1])
		}
	}
	return names
}
