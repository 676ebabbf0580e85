package audit

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tbapi"
)

// workspace makes definitions out of texts: the first is the audited one. Nodes are separated by lines "NODE <name>"; the last
// one is the endpoint.
func workspace(texts ...string) (*tbapi.Definition, func(context.Context, string) (*tbapi.Definition, error)) {
	var root *tbapi.Definition
	all := map[string]*tbapi.Definition{}
	for i, text := range texts {
		d := &tbapi.Definition{Name: "p"}
		if i > 0 {
			d.Name, text, _ = strings.Cut(text, ":")
		}
		if !strings.HasPrefix(text, "NODE ") {
			text = "NODE endpoint\n" + text
		}
		for _, n := range strings.Split(text, "NODE ")[1:] {
			name, sql, _ := strings.Cut(n, "\n")
			d.Nodes = append(d.Nodes, tbapi.Node{Name: name, SQL: sql})
			d.Endpoint = name
		}
		all[d.Name] = d
		if i == 0 {
			root = d
		}
	}
	return root, func(_ context.Context, name string) (*tbapi.Definition, error) {
		if d, ok := all[name]; ok {
			return d, nil
		}
		return nil, tbapi.ErrNoPipe
	}
}

// verdicts are the codes that an analysis finds for org.
func verdicts(t testing.TB, texts ...string) []string {
	t.Helper()
	root, lookup := workspace(texts...)
	a := newAnalysis(t.Context(), root, []string{"org"}, lookup)
	var codes []string
	for _, w := range a.prove("org") {
		codes = append(codes, string(w.code))
	}
	slices.Sort(codes)
	return codes
}

// TestDefinitions holds the verdict about many small pipes. No code is a proof.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	const org = "{{String(org, required=True)}}"
	for name, tt := range map[string]struct {
		sql  string
		want string
	}{
		// What is proven.
		"plain":                       {"%\nSELECT * FROM events WHERE org = " + org, ""},
		"reversed":                    {"%\nSELECT * FROM events WHERE " + org + " = org", ""},
		"prewhere":                    {"%\nSELECT * FROM events PREWHERE org = " + org + " WHERE x = 1", ""},
		"parentheses":                 {"%\nSELECT * FROM events WHERE ((org = (" + org + ")) AND (a OR b))", ""},
		"in":                          {"%\nSELECT * FROM events WHERE org IN (" + org + ")", ""},
		"in an array":                 {"%\nSELECT * FROM events WHERE org IN {{Array(org, 'String', required=True)}}", ""},
		"in an array, parentheses":    {"%\nSELECT * FROM events WHERE org IN ({{Array(org, 'String', required=True)}})", ""},
		"has":                         {"%\nSELECT * FROM events WHERE has({{Array(org, 'String', required=True)}}, org)", ""},
		"toString":                    {"%\nSELECT * FROM events WHERE toString(org) = " + org, ""},
		"quoted column":               {"%\nSELECT * FROM `events` WHERE e.`org id` = " + org, ""},
		"both sides of an OR":         {"%\nSELECT * FROM events WHERE (org = " + org + " AND a) OR (org = " + org + " AND b)", ""},
		"between before it":           {"%\nSELECT * FROM events WHERE ts BETWEEN 1 AND 2 AND org = " + org, ""},
		"optional narrowing":          {"%\nSELECT * FROM events WHERE org = " + org + "{% if defined(day) %} AND day = {{Date(day)}} {% elif x %} AND y IN (1, 2) {% end %} LIMIT {{Int32(limit, 10)}}", ""},
		"each branch filters":         {"%\nSELECT * FROM events {% if defined(x) %} WHERE x AND org = " + org + " {% else %} WHERE org = " + org + " {% end %}", ""},
		"required by an error":        {"%\n{% if not defined(org) %}{{error('org is required')}}{% end %}SELECT * FROM events WHERE org = {{String(org)}}", ""},
		"the other branch is refused": {"%\nSELECT * FROM events {% if defined(org) %} WHERE org = {{String(org)}} {% else %} {{custom_error('no')}} {% end %}", ""},
		"union":                       {"%\nSELECT * FROM a WHERE org = " + org + " UNION ALL SELECT * FROM b WHERE org = " + org, ""},
		"subquery filters":            {"%\nSELECT count() FROM (SELECT * FROM events WHERE org = " + org + ")", ""},
		"around a subquery":           {"%\nSELECT * FROM (SELECT org, day, count() FROM events GROUP BY org, day) WHERE org = " + org, ""},
		"cte":                         {"%\nWITH mine AS (SELECT * FROM events WHERE org = " + org + ") SELECT count() FROM mine", ""},
		"having a key":                {"%\nSELECT org, count() FROM events GROUP BY org HAVING org = " + org, ""},
		"join of two filtered":        {"%\nSELECT * FROM (SELECT * FROM a WHERE org = " + org + ") x JOIN (SELECT * FROM b WHERE org = " + org + ") y ON x.id = y.id", ""},
		"join on the tenant":          {"%\nSELECT * FROM a JOIN b ON a.id = b.id AND a.org = b.org WHERE a.org = " + org, ""},
		"join using the tenant":       {"%\nSELECT * FROM a JOIN b USING (id, org) WHERE a.org = " + org, ""},
		"left join on the tenant":     {"%\nSELECT * FROM (SELECT * FROM a WHERE org = " + org + ") a LEFT JOIN b ON a.org = b.org", ""},
		"both filtered in where":      {"%\nSELECT * FROM a, b WHERE a.org = " + org + " AND b.org = " + org, ""},
		"no data":                     {"%\nSELECT number FROM numbers(10) WHERE " + org + " != ''", ""},
		"comment with a quote":        {"%\nSELECT * FROM events -- it's\nWHERE org = " + org, ""},
		"star except":                 {"%\nSELECT * EXCEPT (secret) FROM events WHERE org = " + org, ""},
		"narrowing by a subquery":     {"%\nSELECT * FROM events WHERE org = " + org + " AND user IN (SELECT id FROM users)", ""},
		"settings in the template":    {"%\n{{max_threads(2)}} SELECT * FROM events WHERE org = " + org, ""},

		"final and alias":             {"%\nSELECT e.x FROM events AS e FINAL WHERE e.org = " + org, ""},
		"array join":                  {"%\nSELECT t FROM events ARRAY JOIN tags AS t WHERE org = " + org, ""},
		"clauses after it":            {"%\nSELECT DISTINCT x FROM db.events WHERE org = " + org + " ORDER BY x WITH FILL LIMIT 1 BY org LIMIT {{Int32(n, 5)}} SETTINGS a = 1 FORMAT JSON;", ""},
		"totals after it":             {"%\nSELECT x, count() FROM events WHERE org = " + org + " GROUP BY x WITH TOTALS HAVING count() > 1", ""},
		"from first":                  {"%\nFROM events SELECT * WHERE org = " + org, ""},
		"columns with names of words": {"%\nSELECT format, window, offset FROM events WHERE settings = 1 AND org = " + org, ""},
		"window after the filter":     {"%\nSELECT sum(x) OVER (PARTITION BY d) FROM events WHERE org = " + org, ""},

		// What is refuted.
		"not at all":                 {"%\nSELECT * FROM events", "param_unused"},
		"no template":                {"SELECT * FROM events WHERE org = {{String(org, required=True)}}", "param_unused"},
		"if defined":                 {"%\nSELECT * FROM events WHERE 1 {% if defined(org) %} AND org = {{String(org)}} {% end %}", "param_not_required some_branches"},
		"if defined, required":       {"%\nSELECT * FROM events WHERE 1 {% if defined(org) %} AND org = " + org + " {% end %}", "param_not_required some_branches"},
		"elif without":               {"%\nSELECT * FROM events {% if a == 'x' %} WHERE org = " + org + " {% elif a == 'y' %} WHERE a = 'y' {% else %} WHERE org = " + org + " {% end %}", "param_not_required some_branches"},
		"nested without":             {"%\nSELECT * FROM events {% if defined(a) %} {% if defined(b) %} WHERE org = " + org + " {% end %} {% else %} WHERE org = " + org + " {% end %}", "param_not_required some_branches"},
		"a client's OR":              {"%\nSELECT * FROM events WHERE org = " + org + "{% if defined(all) %} OR 1 {% end %}", "filter_weakened"},
		"a client's UNION":           {"%\nSELECT * FROM events WHERE org = " + org + "{% if defined(all) %} UNION ALL SELECT * FROM events {% end %}", "some_branches"},
		"a client's comment":         {"%\nSELECT * FROM events WHERE {% if defined(all) %} 1 -- {% end %} AND org = " + org, "some_branches"},
		"a client's comment, narrow": {"%\nSELECT * FROM events WHERE 1 {% if defined(all) %} AND 1 -- {% end %} AND org = " + org, "some_branches"},
		"in a line comment":          {"%\nSELECT * FROM events -- WHERE org = " + org, "not_filtered"},
		"in a block comment":         {"%\nSELECT * FROM events /* WHERE org = " + org + " */", "not_filtered"},
		"in a hash comment":          {"%\nSELECT * FROM events # WHERE org = " + org, "not_filtered"},
		"in a string":                {"%\nSELECT * FROM events WHERE ' org = " + org + " ' != ''", "not_filtered"},
		"in a heredoc":               {"%\nSELECT * FROM events WHERE $x$ org = " + org + " $x$ != ''", "not_filtered"},
		"in SELECT":                  {"%\nSELECT " + org + " AS org, * FROM events", "not_filtered"},
		"in LIMIT":                   {"%\nSELECT * FROM events LIMIT {{Int32(org, required=True)}}", "not_filtered"},
		"OR":                         {"%\nSELECT * FROM events WHERE org = " + org + " OR 1", "filter_weakened"},
		"OR after AND":               {"%\nSELECT * FROM events WHERE a AND org = " + org + " OR b", "filter_weakened"},
		"OR in parentheses":          {"%\nSELECT * FROM events WHERE a AND (org = " + org + " OR public)", "filter_weakened"},
		"one arm of a UNION":         {"%\nSELECT * FROM a WHERE org = " + org + " UNION ALL SELECT * FROM b", "not_filtered"},
		"arm in parentheses":         {"%\n(SELECT * FROM a WHERE org = " + org + ") UNION DISTINCT (SELECT * FROM b)", "not_filtered"},
		"not equal":                  {"%\nSELECT * FROM events WHERE org != " + org, "not_equality"},
		"not equal, other sign":      {"%\nSELECT * FROM events WHERE org <> " + org, "not_equality"},
		"NOT":                        {"%\nSELECT * FROM events WHERE NOT org = " + org, "not_equality"},
		"NOT in parentheses":         {"%\nSELECT * FROM events WHERE NOT (org = " + org + ")", "not_equality"},
		"NOT IN":                     {"%\nSELECT * FROM events WHERE org NOT IN (" + org + ")", "not_equality"},
		"LIKE":                       {"%\nSELECT * FROM events WHERE org LIKE '%' || " + org + " || '%'", "not_equality"},
		"greater":                    {"%\nSELECT * FROM events WHERE org >= " + org, "not_equality"},
		"a default":                  {"%\nSELECT * FROM events WHERE org = {{String(org, 'acme')}}", "param_has_default param_not_required"},
		"a default by name":          {"%\nSELECT * FROM events WHERE org = {{String(org, default='acme', required=True)}}", "param_has_default param_not_required"},
		"a default of an array":      {"%\nSELECT * FROM events WHERE org IN {{Array(org, 'String', 'acme')}}", "param_has_default param_not_required"},
		"not required":               {"%\nSELECT * FROM events WHERE org = {{String(org)}}", "param_not_required"},
		"not required, bare":         {"%\nSELECT * FROM events WHERE org = {{org}}", "param_not_required"},
		"set by the template":        {"%\n{% set org = 'acme' %}SELECT * FROM events WHERE org = " + org, "param_overridden"},
		"set in a loop":              {"%\nSELECT * FROM events WHERE org = " + org + "{% for org in JSON(list) %} AND 1 {% end %}", "param_overridden"},
		"a scalar subquery":          {"%\nSELECT *, (SELECT sum(x) FROM events) AS total FROM events WHERE org = " + org, "not_filtered"},
		"a scalar in WITH":           {"%\nWITH (SELECT sum(x) FROM events) AS total SELECT total, * FROM events WHERE org = " + org, "not_filtered"},
		"an unfiltered cte":          {"%\nWITH everything AS (SELECT * FROM events) SELECT count() FROM everything WHERE " + org + " = 'x'", "not_proven"},
		"a table function":           {"%\nSELECT * FROM s3('https://x') WHERE a = 1 AND " + org + " = 'a'", "not_proven"},

		"left join of everything":    {"%\nSELECT * FROM a LEFT JOIN (SELECT * FROM b WHERE org = " + org + ") b ON a.org = b.org", "not_filtered"},
		"right join, filtered in ON": {"%\nSELECT * FROM numbers(1) n RIGHT JOIN a ON n.number = a.id AND a.org = " + org, "not_filtered"},
		"an OR after an AND":         {"%\nSELECT * FROM events WHERE org = " + org + "{% if defined(all) %} AND a OR b {% end %}", "filter_weakened"},
		"refused only sometimes":     {"%\nSELECT * FROM events WHERE org = {{String(org)}} {% if not defined(org) %} {% if x %} {{error('no')}} {% end %} {% end %}", "param_not_required"},

		// What cannot be decided.
		"an alias in its place":     {"%\nSELECT " + org + " AS org, x FROM events WHERE org = " + org, "not_proven"},
		"an alias in WITH":          {"%\nWITH " + org + " AS org SELECT x FROM events WHERE org = " + org, "not_proven"},
		"a constant":                {"%\nSELECT * FROM events WHERE 'a' = " + org, "not_proven"},
		"itself":                    {"%\nSELECT * FROM events WHERE " + org + " = " + org, "not_proven"},
		"lower":                     {"%\nSELECT * FROM events WHERE lower(org) = lower(" + org + ")", "not_proven"},
		"ternary":                   {"%\nSELECT * FROM events WHERE x ? 1 : a AND org = " + org, "not_proven"},
		"compared again":            {"%\nSELECT * FROM events WHERE org = " + org + " = 0", "not_proven"},
		"inside if()":               {"%\nSELECT * FROM events WHERE if(org = " + org + ", 1, 1)", "not_proven"},
		"between takes the AND":     {"%\nSELECT * FROM events WHERE ts BETWEEN 1 AND org = " + org, "not_proven"},
		"IN with others":            {"%\nSELECT * FROM events WHERE org IN (" + org + ", 'public')", "not_proven"},
		"a rounded number":          {"%\nSELECT * FROM events WHERE org = {{Float32(org, required=True)}}", "not_proven"},
		"a variable":                {"%\n{% set o = String(org, required=True) %}SELECT * FROM events WHERE org = {{o}}", "not_filtered param_not_required"},
		"a column chosen":           {"%\nSELECT * FROM events WHERE {{column(c, 'org')}} = " + org, "not_proven"},
		"a table chosen":            {"%\nSELECT * FROM {{table(t)}} WHERE org = " + org, "not_proven"},
		"aggregated before":         {"%\nSELECT * FROM (SELECT any(org) AS org, count() FROM events) WHERE org = " + org, "not_proven"},
		"grouped by another":        {"%\nSELECT * FROM (SELECT day, any(org) org, count() FROM events GROUP BY day) WHERE org = " + org, "not_proven"},
		"renamed constant before":   {"%\nSELECT * FROM (SELECT 'x' AS org, y FROM events) WHERE org = " + org, "not_proven"},
		"a window before":           {"%\nSELECT * FROM (SELECT org, sum(x) OVER () AS total FROM events) WHERE org = " + org, "not_proven"},
		"having no key":             {"%\nSELECT day, count() FROM events GROUP BY day HAVING org = " + org, "not_proven"},
		"join without":              {"%\nSELECT * FROM a JOIN b ON a.id = b.id WHERE a.org = " + org, "not_proven"},
		"cross join":                {"%\nSELECT * FROM a, b WHERE a.org = " + org, "not_proven"},
		"right join":                {"%\nSELECT * FROM (SELECT * FROM a WHERE org = " + org + ") a RIGHT JOIN b ON a.org = b.org", "not_filtered"},
		"left join, filtered in ON": {"%\nSELECT * FROM a LEFT JOIN b ON a.id = b.id AND a.org = " + org, "not_filtered"},
		"whose column":              {"%\nSELECT * FROM a JOIN b ON a.id = b.id WHERE org = " + org, "not_proven"},
		"sql_and":                   {"%\nSELECT * FROM events WHERE {{sql_and(org=String(org, required=True))}}", "not_proven"},
		"an unclosed if":            {"%\nSELECT * FROM events {% if a %} WHERE org = " + org, "not_proven"},
		"an unclosed tag":           {"%\nSELECT * FROM events WHERE org = {{String(org", "not_proven"},
		"an unclosed string":        {"%\nSELECT * FROM events WHERE org = " + org + " AND a = 'x", "not_proven"},
		"an unclosed bracket":       {"%\nSELECT * FROM events WHERE (org = " + org, "not_proven"},
		"else twice":                {"%\n{% if a %}{% else %}{% else %}{% end %} SELECT 1 FROM a", "not_proven"},
		"an unknown tag":            {"%\n{% include 'x' %} SELECT 1 FROM a", "not_proven"},
		"no select":                 {"%\nSHOW TABLES", "not_proven"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := strings.Join(verdicts(t, tt.sql), " "); got != tt.want {
				t.Errorf("got %q, want %q\n%s", got, tt.want, tt.sql)
			}
		})
	}
}

// TestNodes holds the verdict about pipes of several nodes, and about pipes that read others.
func TestNodes(t *testing.T) {
	t.Parallel()
	const org = "{{String(org, required=True)}}"
	for name, tt := range map[string]struct {
		texts []string
		want  string
	}{
		"the first node filters":     {[]string{"NODE a\n%\nSELECT * FROM events WHERE org = " + org + "\nNODE b\nSELECT count() FROM a"}, ""},
		"the last node filters":      {[]string{"NODE a\nSELECT org, x FROM events\nNODE b\n%\nSELECT count() FROM a WHERE org = " + org}, ""},
		"the last, renamed":          {[]string{"NODE a\nSELECT org AS tenant, x FROM events\nNODE b\n%\nSELECT count() FROM a WHERE tenant = " + org}, ""},
		"totals, then filtered":      {[]string{"NODE a\nSELECT any(org) AS tenant, count() FROM events\nNODE b\n%\nSELECT * FROM a WHERE tenant = " + org}, "not_proven"},
		"one of two nodes":           {[]string{"NODE a\n%\nSELECT * FROM events WHERE org = " + org + "\nNODE b\n%\nSELECT * FROM a UNION ALL SELECT * FROM events"}, "not_filtered"},
		"a node nobody reads":        {[]string{"NODE a\n%\nSELECT * FROM events WHERE org = " + org + "\nNODE b\nSELECT * FROM events"}, "param_unused"},
		"optional in a node":         {[]string{"NODE a\n%\nSELECT * FROM events {% if defined(org) %} WHERE org = " + org + " {% end %}\nNODE b\n%\nSELECT count(), " + org + " FROM a"}, "some_branches"},
		"another pipe filters":       {[]string{"SELECT count() FROM mine", "mine:%\nSELECT * FROM events WHERE org = " + org}, ""},
		"another pipe does not":      {[]string{"%\nSELECT count(), " + org + " FROM theirs", "theirs:SELECT * FROM events"}, "not_filtered"},
		"nodes that read each other": {[]string{"NODE a\nSELECT * FROM b\nNODE b\nSELECT * FROM a"}, "not_proven"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := strings.Join(verdicts(t, tt.texts...), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
