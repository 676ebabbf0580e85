package engine

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// TestRender compares what templates become with what Tinybird's documents say that they become.
func TestRender(t *testing.T) {
	t.Parallel()
	given := map[string]string{"org": "acme", "n": "5", "list": "a,b", "empty": "", "quote": `it's \ "x"`, "day": "2026-01-02", "flag": "true"}
	for name, c := range map[string]struct{ template, want string }{
		"no template":          {"SELECT '{{x}}'", "SELECT '{{x}}'"},
		"text":                 {"%\nSELECT 1", "\nSELECT 1"},
		"a parameter":          {"% {{String(org)}}", " 'acme'"},
		"a quote":              {"% {{String(quote)}}", ` 'it\'s \\ "x"'`},
		"a default":            {"% {{String(nope, 'x')}} {{Int32(nope, 3)}} {{Int32(nope, default=4)}}", " 'x' 3 4"},
		"a default of a list":  {"% {{Array(nope, 'String', 'x,y')}}", " ['x','y']"},
		"nothing":              {"% {{String(nope)}}", " ''"},
		"numbers":              {"% {{Int32(n)}} {{UInt8(n)}} {{Float64(n)}}", " 5 5 5"},
		"a list":               {"% {{Array(list, 'String')}}", " ['a','b']"},
		"a date":               {"% {{Date(day)}}", " '2026-01-02'"},
		"a boolean":            {"% {{Boolean(flag)}} {{Boolean(nope, False)}}", " 1 0"},
		"a bare name":          {"% {{org}}", " 'acme'"},
		"a comment":            {"% a{# {{String(nope, required=True)}} #}b", " ab"},
		"defined":              {"% {% if defined(org) %}a{% else %}b{% end %}", " a"},
		"defined but empty":    {"% {% if defined(empty) %}a{% else %}b{% end %}", " a"},
		"not defined":          {"% {% if not defined(nope) %}a{% end %}", " a"},
		"elif":                 {"% {% if n == '4' %}4{% elif n == '5' %}5{% else %}other{% end %}", " 5"},
		"else":                 {"% {% if n == '4' %}4{% elif n == '6' %}6{% else %}other{% end %}", " other"},
		"nested":               {"% {% if defined(org) %}{% if defined(nope) %}a{% else %}b{% end %}{% end %}", " b"},
		"and, or":              {"% {% if defined(org) and (n == '4' or n == '5') %}a{% end %}", " a"},
		"typed condition":      {"% {% if Int32(n) > 4 and Int32(n) <= 5 and Float64(n, 1.5) != 6 %}a{% end %}", " a"},
		"in a list":            {"% {% if org in ['x', 'acme'] %}a{% end %}", " a"},
		"a brace of SQL":       {"% SELECT map('a', {'b'}) {", " SELECT map('a', {'b'}) {"},
		"required and given":   {"% {{String(org, description='whose', required=True)}}", " 'acme'"},
		"a required default":   {"% {{String(nope, 'x', required=True)}}", " 'x'"},
		"error in another arm": {"% {% if defined(nope) %}{{error('no')}}{% end %}a", " a"},
	} {
		p, err := parseTemplate(c.template)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := p.render(given)
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// TestRenderRefuses: what Tinybird answers 400 to is an Error with its words.
func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	given := map[string]string{"n": "x", "big": "2147483648", "day": "2026-02-30", "inf": "1e999"}
	for template, want := range map[string]string{
		"% {{String(org, required=True)}}": "Required parameter is not defined. Check the parameters org",
		"% {{Int32(n)}}":                   "Error validating 'x' to type Int32",
		"% {{Int32(big)}}":                 "Error validating '2147483648' to type Int32",
		"% {{UInt8(n, 256)}}":              "Error validating 'x' to type UInt8",
		"% {{Date(day)}}":                  "Error validating '2026-02-30' to type Date",
		"% {{Float64(inf)}}":               "Error validating '1e999' to type Float64",
		"% {{error('not today')}}":         "not today",
		"% {{Unknown(n)}}":                 "Unknown is not understood here",
	} {
		p, err := parseTemplate(template)
		if err != nil {
			t.Fatalf("%s: %v", template, err)
		}
		_, err = p.render(given)
		if refusal, ok := errors.AsType[*Error](err); !ok || !strings.Contains(refusal.Text, want) {
			t.Errorf("%s: %v, want %q", template, err, want)
		}
	}
}

// TestTemplatesThatAreNone: a mistake in a template is found when it is loaded.
func TestTemplatesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, template := range []string{
		"% {% if defined(x) %}", "% {% end %}", "% {% else %}", "% {{String(x}}", "% {{x", "% {% if %}{% end %}", "% {% if x %}{% else %}{% elif y %}{% end %}",
		"% {% for x in y %}{% end %}", "% {{String('x)}}", "% {{a b}}", "% {{" + strings.Repeat("(", 200) + "}}",
	} {
		if _, err := parseTemplate(template); err == nil {
			t.Errorf("%q is accepted", template)
		}
	}
}

// TestProject reads the project that the integration tests run, and knows its mistakes by name.
func TestProject(t *testing.T) {
	t.Parallel()
	p, err := Load(os.DirFS("../tinybird"))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Datasources) != 2 || len(p.Pipes) < 9 {
		t.Fatalf("%d data sources and %d pipes", len(p.Datasources), len(p.Pipes))
	}
	if schema := strings.Join(p.Schema(), "\n"); !strings.Contains(schema, "CREATE TABLE `events` (`organization_id` String, ") || !strings.Contains(schema, "ORDER BY (organization_id, ts)") {
		t.Error(schema)
	}
	for i := range p.Pipes {
		pipe := &p.Pipes[i]
		sql, err := pipe.Render(map[string]string{"organization_id": "o'rg", "team_id": "a,b", "tenant_id": "t"})
		if err != nil {
			t.Errorf("%s: %v", pipe.Name, err)
		}
		if forgets := pipe.Name == "forgets_to_filter" || pipe.Name == "tracked_pages"; strings.Contains(sql, `'o\'rg'`) == forgets {
			t.Errorf("%s: %s", pipe.Name, sql)
		}
	}
}

// TestFilesThatAreNotUnderstood are errors that name the file, never skipped.
func TestFilesThatAreNotUnderstood(t *testing.T) {
	t.Parallel()
	good := fstest.MapFS{
		"datasources/d.datasource": {Data: []byte("SCHEMA >\n    `a` String `json:$.a`\n\nENGINE \"MergeTree\"\n")},
		"endpoints/p.pipe":         {Data: []byte("NODE n\nSQL >\n    SELECT 1\n\nTYPE endpoint\n")},
	}
	if _, err := Load(good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"datasources/x.datasource": "SCHEMA >\n    `a` String `json:$.b`\n", "datasources/y.datasource": "INDEXES >\n    x\n",
		"datasources/z.datasource": "DESCRIPTION x\n", "endpoints/x.pipe": "NODE n\nSQL >\n    % {{\n", "endpoints/y.pipe": "SQL >\n    SELECT 1\n",
		"endpoints/z.pipe": "NODE n\nSQL >\n    SELECT 1\nTYPE materialized\n", "endpoints/w.pipe": "DESCRIPTION x\n",
	} {
		bad := fstest.MapFS{name: {Data: []byte(text)}}
		maps.Copy(bad, good)
		if _, err := Load(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzTemplate: whatever a template and a value are, a value stays within one literal of ClickHouse.
func FuzzTemplate(f *testing.F) {
	f.Add("% {% if defined(x) %}{{String(x)}}{% else %}b{% end %}", "it's")
	f.Add("% {{Array(x, 'String')}} {{Int32(x, 1)}}", `\',`)
	f.Add("% {# #}{{x}}{", "")
	f.Fuzz(func(t *testing.T, text, given string) {
		if p, err := parseTemplate(text); err == nil {
			_, _ = p.render(map[string]string{"x": given})
		}
		p, err := parseTemplate("% {{String(x)}}")
		if err != nil {
			t.Fatal(err)
		}
		sql, err := p.render(map[string]string{"x": given})
		if err != nil {
			t.Fatal(err)
		}
		literal := strings.TrimPrefix(sql, " ")
		if end := endOfLiteral(literal); end != len(literal) {
			t.Errorf("%q becomes %q, which ends at %d", given, literal, end)
		}
	})
}

// endOfLiteral reads a text as ClickHouse does: to the first quote that is neither escaped nor doubled.
func endOfLiteral(sql string) int {
	for i := 1; i < len(sql); i++ {
		switch {
		case sql[i] == '\\':
			i++
		case sql[i] == '\'' && i+1 < len(sql) && sql[i+1] == '\'':
			i++
		case sql[i] == '\'':
			return i + 1
		}
	}
	return -1
}
