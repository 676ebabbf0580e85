package audit

import "testing"

// FuzzDefinition holds for every SQL that the analysis ends, and that what it proves is no longer proven once the rows of
// another table are added.
func FuzzDefinition(f *testing.F) {
	for _, sql := range []string{
		"%\nSELECT * FROM events WHERE org = {{String(org, required=True)}} AND (a OR b)",
		"%\nWITH a AS (SELECT 1) SELECT *, x AS y FROM a JOIN b USING (org) WHERE org IN ({{Array(org, 'String')}}) GROUP BY x HAVING org = {{org}}",
		"%\n{% if defined(a) %}SELECT 1{% elif not b == 'x' %}--{% else %}/*{% end %}*/ {# c #} {% for i in split_to_array(l) %}{{i}}{% end %}",
		"%\n{{error('x')}}{% set a = 1 %}SELECT $t$ x $t$, `a``b`, \"c\", 'd\\'e' FROM {{table(x)}}",
		"SELECT a ? b : c, x -> y FROM (SELECT * EXCEPT (z) FROM t) WHERE a BETWEEN 1 AND 2 UNION ALL (SELECT 1) FORMAT JSON;",
		"{{{ {{! {%! }}",
	} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 4<<10 || len(verdicts(t, sql)) > 0 {
			return
		}
		root, lookup := workspace(sql)
		a := newAnalysis(t.Context(), root, []string{"org"}, lookup)
		n, _ := a.node(root, root.Endpoint)
		if len(n.variants) == 0 {
			return // it never runs
		}
		if more := sql + "\nUNION ALL SELECT secret FROM everything"; len(verdicts(t, more)) == 0 {
			t.Errorf("proven: %q", more)
		}
	})
}
