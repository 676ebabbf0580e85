package audit

import (
	"slices"
	"strings"
	"testing"
)

// TestLeaks holds that SQL which reads like a filter and is none is not proven. What is SQL alone was mostly tried in ClickHouse, with
// its old and its new analyzer, and returned rows of other tenants; what templates put out is as in Tinybird's CLI.
func TestLeaks(t *testing.T) {
	t.Parallel()
	const org = "{{String(org, required=True)}}"
	const mine = "SELECT * FROM events WHERE org = " + org
	for name, sql := range map[string]string{
		// The condition is not one that always holds.
		"AND inside CASE":            "SELECT * FROM events WHERE CASE WHEN a AND org = " + org + " AND b THEN 1 ELSE 1 END",
		"OR before an AND in ON":     "SELECT * FROM events e LEFT JOIN users u ON e.id = u.id OR e.alt = u.id AND e.org = u.org WHERE e.org = " + org,
		"CASE in ON":                 "SELECT * FROM events e JOIN users u ON CASE WHEN a AND e.org = u.org AND b THEN 1 ELSE 1 END WHERE e.org = " + org,
		"totals before HAVING":       "SELECT org, sum(x) FROM events GROUP BY org, day WITH TOTALS HAVING org = " + org + " SETTINGS totals_mode = 'before_having'",
		"a separator that is chosen": "SELECT * FROM events WHERE org IN splitByChar({{String(by)}}, " + org + ")",
		"a CASE begins in a branch":  "SELECT * FROM events WHERE 1 {% if defined(a) %} AND CASE WHEN 1 {% end %} AND org = " + org + " {% if defined(a) %} AND 1 THEN 1 ELSE 1 END {% end %}",

		// An alias has the column's name.
		"an alias inside SELECT":            "SELECT length(" + org + " AS org), secret FROM events WHERE org = " + org,
		"an alias inside WHERE":             "SELECT * FROM events WHERE (" + org + " AS org) != '' AND org = " + org,
		"an alias inside ORDER BY":          "SELECT * FROM events WHERE org = " + org + " ORDER BY (" + org + " AS org)",
		"an alias in a branch":              "SELECT * FROM events WHERE org = " + org + " {% if defined(o) %} AND ({{String(o)}} AS org) != '' {% end %}",
		"an alias in REPLACE":               "SELECT * REPLACE (" + org + " AS org) FROM events WHERE org = " + org,
		"an alias in WITH, before a UNION":  "WITH " + org + " AS org SELECT 1 AS a UNION ALL SELECT secret FROM events WHERE org = " + org,
		"an alias in WITH, and a subquery":  "WITH " + org + " AS org SELECT * FROM (SELECT secret FROM events WHERE org = " + org + ")",
		"an alias in WITH, and a WITH":      "WITH " + org + " AS org, a AS (SELECT secret FROM events WHERE org = " + org + ") SELECT * FROM a",
		"an alias in ARRAY JOIN":            "SELECT * FROM events ARRAY JOIN [" + org + "] AS org WHERE org = " + org,
		"elements of an array":              "SELECT * FROM events ARRAY JOIN orgs WHERE orgs = " + org,
		"an alias that a client chooses":    "SELECT {{String(label)}} AS {{column(c, 'x')}}, secret FROM events WHERE org = " + org,
		"a chosen alias inside":             "SELECT length({{String(label)}} AS {{column(c, 'x')}}), secret FROM events WHERE org = " + org,
		"an alias chosen before":            "SELECT * FROM (SELECT org, secret, {{String(label)}} AS {{column(c, 'x')}} FROM events) WHERE org = " + org,
		"an alias of a column that is held": "SELECT * FROM users u JOIN (SELECT id, org, partner AS org FROM (" + mine + ") m) e ON u.org = e.org",

		// A subquery or function brings more rows.
		"a subquery with a name in WHERE": "SELECT total, x FROM events WHERE org = " + org + " AND ((SELECT sum(x) FROM events) AS total) > 0",
		"a subquery with a name in ON":    "SELECT total FROM (" + mine + ") a JOIN (" + mine + ") b ON a.id = b.id AND ((SELECT sum(x) FROM events) AS total) > 0",
		"a subquery in ARRAY JOIN":        "SELECT s FROM events ARRAY JOIN (SELECT groupArray(secret) FROM events) AS s WHERE org = " + org,
		"a subquery in numbers()":         "SELECT count(), " + org + " FROM numbers(assumeNotNull((SELECT sum(x) FROM events)))",
		"a subquery that means another":   "SELECT (SELECT sum(x) FROM users WHERE e.org = " + org + ") FROM events e WHERE org = " + org,
		"joinGet":                         "SELECT joinGet('secrets', 'secret', id) FROM events WHERE org = " + org,
		"dictGet":                         "SELECT dictGet('secrets', 'secret', id) FROM events WHERE org = " + org,
		"IN a table":                      "SELECT id IN secrets FROM events WHERE org = " + org,
		"a table before its name":         "WITH a AS (SELECT * FROM b), b AS (" + mine + ") SELECT * FROM a",

		// Rows of several tenants are in one.
		"a window inside":         "SELECT * FROM (SELECT org, round(sum(x) OVER (), 2) AS total FROM events) WHERE org = " + org,
		"a window in WITH":        "SELECT * FROM (WITH sum(x) OVER () AS total SELECT org, total FROM events) WHERE org = " + org,
		"the row after":           "SELECT * FROM (SELECT org, neighbor(secret, 1) AS n FROM events ORDER BY x) WHERE org = " + org,
		"rows that are filled in": "SELECT * FROM (SELECT org, secret FROM events ORDER BY x WITH FILL INTERPOLATE (secret AS secret)) WHERE org = " + org,
		"totals before":           "SELECT * FROM (SELECT org, day, sum(x) FROM events GROUP BY org, day WITH TOTALS) WHERE org = " + org,
		"columns that change":     "SELECT * FROM (SELECT org, partner FROM events UNION ALL SELECT partner, org FROM events) WHERE org = " + org,
		"columns in any order":    "SELECT * FROM (SELECT * FROM events UNION ALL SELECT * FROM users) WHERE org = " + org,
		"columns after a star":    "SELECT * FROM (SELECT *, org AS o FROM events UNION ALL SELECT *, org AS o FROM users) WHERE o = " + org,
		"held columns that change": "SELECT * FROM users u JOIN (SELECT org, partner FROM events WHERE org = " + org +
			" UNION ALL SELECT partner, org FROM events WHERE org = " + org + ") e ON u.org = e.org",
		"USING with another table": "SELECT * FROM events e JOIN users u USING (id) JOIN orgs o USING (org) WHERE o.org = " + org,
		"USING of another column":  "SELECT * FROM (SELECT id, org FROM events WHERE tenant = " + org + ") e JOIN users u USING (id) JOIN orgs o USING (org) WHERE u.org = " + org,

		// ClickHouse reads another text than a person.
		"a comment in a comment":      "SELECT * FROM events /* /* */ WHERE org = " + org + " -- */",
		"a comment that overlaps":     "SELECT * FROM events /* /*/ WHERE org = " + org + " -- */",
		"a comment of two slashes":    "SELECT * FROM events WHERE 1 // AND org = " + org,
		"a space that does not break": mine + " AND x\u00a0OR\u00a0y",
		"a word with dollars":         mine + " AND a$x$ OR b$x$ = 1",
		"a word in two pieces":        mine + " AND x O{# #}R y",
		"a mark in two pieces":        "SELECT * FROM events WHERE 1 -{# #}- AND org = " + org + "\n",
		"a branch in a comment":       mine + " -- {% if defined(x) %} AND x \n AND 1 {% end %} OR 1",
		"a branch in a string":        mine + " AND x = '{% if defined(x) %} AND ' OR '1' = '{% end %}'",

		// What a client sends is more than a value.
		"a parameter in a comment":      mine + " /* AND name = {{String(q)}} */",
		"a parameter in a string":       mine + " AND name = '{{String(q)}}'",
		"a parameter in a quoted name":  "SELECT \"{{String(q)}}\" FROM events WHERE org = " + org,
		"sql_unescape of everything":    mine + " AND name LIKE {{sql_unescape(String(q))}}",
		"sql_unescape of quotes":        mine + " AND name LIKE {{sql_unescape(String(q), \"'\")}}",
		"sql_unescape in a variable":    "{% set f = sql_unescape(String(q)) %}" + mine + " AND name LIKE {{f}}",
		"sql_unescape in a loop":        mine + " {% for f in [sql_unescape(String(q))] %} AND name LIKE {{f}} {% end %}",
		"sql_unescape in a branch":      mine + " {% if defined(q) %} AND name LIKE {{sql_unescape(String(q))}} {% end %}",
		"a hint that is sent":           "SELECT * FROM events {{backend_hint(String(q))}} WHERE org = " + org,
		"a name without quotes":         "SELECT {{table(q)}} FROM events WHERE org = " + org,
		"an alias that is sent":         "SELECT {{columns(q, 'x', 'max')}} FROM events WHERE org = " + org,
		"a quote that is chosen":        "SELECT {{symbol(q, '')}} FROM events WHERE org = " + org,
		"a line comment that ends":      "SELECT * FROM events WHERE org = " + org + " -- {{max_threads(1)}} OR 1",
		"conditions that look the same": "SELECT * FROM events {% if x == \"a' or y=='b\" %} WHERE org = " + org + " {% end %} {% if not (x == 'a' or y == 'b') %} WHERE org = " + org + " {% end %}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if len(verdicts(t, "%\n"+sql)) == 0 {
				t.Errorf("proven: %s", sql)
			}
		})
	}
}

// TestPlainPipesStayProven holds that none of that is held against pipes that do it as it should be.
func TestPlainPipesStayProven(t *testing.T) {
	t.Parallel()
	const org = "{{String(org, required=True)}}"
	const mine = "SELECT * FROM events WHERE org = " + org
	for name, sql := range map[string]string{
		"CASE beside it":               mine + " AND CASE WHEN a AND b THEN 1 ELSE 0 END = 1",
		"CASE in a branch":             mine + " {% if defined(a) %} AND CASE WHEN a AND b THEN 1 END {% end %}",
		"a chosen alias of a total":    "SELECT {% for last, c in enumerate_with_last(l) %} countIf(x) AS {{column(c)}} {% if not last %},{% end %} {% end %} FROM events WHERE org = " + org,
		"CAST":                         "SELECT CAST(x AS String) AS y FROM events WHERE org = " + org + " AND CAST(z AS Date) = today()",
		"comments":                     mine + " -- it's {{String(q, '')}} // \n /* and so on */ AND x",
		"sql_unescape for LIKE":        mine + " AND name LIKE {{sql_unescape(String(q), '%')}}",
		"columns that are chosen":      "SELECT {{columns(c, 'a,b')}}, {{column(d, 'x')}} FROM events WHERE org = " + org,
		"parameters with such names":   mine + " AND a = {{String(table)}} AND b = {{Int32(columns, 1)}}",
		"hints":                        "SELECT * FROM events {{backend_hint('x')}} WHERE org = " + org + " {% if defined(a) %} {{max_threads(2)}} AND a {% end %}",
		"a UNION of the same columns":  "SELECT * FROM (SELECT day, org FROM events UNION ALL SELECT at, tenant FROM users) WHERE org = " + org,
		"a UNION of the same table":    "SELECT * FROM (SELECT * FROM events WHERE a UNION ALL SELECT * FROM events WHERE b) WHERE org = " + org,
		"a name of its own":            "WITH events AS (" + mine + ") SELECT count() FROM events",
		"names after each other":       "WITH a AS (" + mine + "), b AS (SELECT * FROM a), 5 AS n SELECT n, count() FROM b",
		"a name for an array":          "WITH ['x', 'y'] AS ids SELECT id IN ids, id IN tuple(1, 2) FROM events WHERE org = " + org,
		"USING the tenant, everywhere": "SELECT * FROM events e JOIN users u USING (id, org) JOIN orgs o USING (org) WHERE e.org = " + org,
		"an array beside it":           "SELECT tag FROM events ARRAY JOIN tags AS tag, others JOIN users USING (org) WHERE events.org = " + org + " AND tag = 'x'",
		"a subquery of the tenant":     "SELECT x / (SELECT sum(x) FROM events WHERE org = " + org + ") FROM events AS e WHERE e.org = " + org,
		"a part of a column's name":    "SELECT * FROM events WHERE payload.org = " + org,
		"a string with letters":        mine + " AND name = 'Größe' AND `süß` = 1 -- schön\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := verdicts(t, "%\n"+sql); len(got) > 0 {
				t.Errorf("%s: %s", strings.Join(got, " "), sql)
			}
		})
	}
}

// TestUnpublishedPipe holds that a pipe without an endpoint is not taken for a data source, whose columns are what they are.
func TestUnpublishedPipe(t *testing.T) {
	t.Parallel()
	root, lookup := workspace("%\nSELECT * FROM draft WHERE org = {{String(org, required=True)}}", "draft:SELECT any(org) AS org, count() FROM events")
	draft, err := lookup(t.Context(), "draft")
	if err != nil {
		t.Fatal(err)
	}
	draft.Endpoint = ""
	a := newAnalysis(t.Context(), root, []string{"org"}, lookup)
	if whys := a.prove("org"); len(whys) != 1 || whys[0].code != CodeNotProven {
		t.Errorf("%+v", whys)
	}
}

// TestAliasesIn holds that aliases are found in brackets, and those of a query are not.
func TestAliasesIn(t *testing.T) {
	t.Parallel()
	sql, err := lexSQL([]piece{{text: "f(g(a AS b) + 1 AS `c d`) + (SELECT 1 AS e) + [2 AS h]"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := aliasesIn(sql.tokens); !slices.Equal(got, []string{"c d", "b", "h"}) && !slices.Equal(got, []string{"b", "c d", "h"}) {
		t.Errorf("%q", got)
	}
}
