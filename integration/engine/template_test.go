package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// render is what a template makes of parameters: SQL, or the text of a refusal.
func render(t *testing.T, template string, params map[string]string) string {
	t.Helper()
	parsed, err := ParseTemplate(template)
	if err == nil {
		var out string
		if out, err = parsed.Render(params); err == nil {
			return out
		}
	}
	e, ok := errors.AsType[*devstack.QueryError](err)
	if !ok || e.Status < 400 || e.Code != 0 {
		t.Fatalf("%q: no refusal of a template: %v", template, err)
	}
	return "! " + e.Text
}

func TestRender(t *testing.T) {
	t.Parallel()
	params := map[string]string{
		"org": "acme", "n": "5", "day": "2026-01-02", "at": "2026-01-02 03:04:05", "list": "a,b", "ints": "1,-2", "yes": "true",
		"no": "FALSE", "f": "1.50", "empty": "", "big": "18446744073709551615", "cols": "a, t.b", "mode": "day",
	}
	const required = "! Template Syntax Error: Required parameter is not defined"
	for template, want := range map[string]string{
		// Not a template.
		"SELECT {{String(org)}}": "SELECT {{String(org)}}",

		// Values.
		"%{{String(org)}}":              "'acme'",
		"%{{String(empty)}}":            "''",
		"%{{String(none, 'x')}}":        "'x'",
		"%{{String(none, default='')}}": "''",
		"%{{String(org, 'x', description='a', required=True, enum=['a'], example='b', format='c')}}": "'acme'",
		"%{{org}}":                "'acme'",
		"%{{Int32(n)}}":           "toInt32('5')",
		"%{{Int(n)}}":             "5",
		"%{{Int32(none, -3)}}":    "toInt32('-3')",
		"%{{UInt64(big)}}":        "toUInt64('18446744073709551615')",
		"%{{UInt256(big)}}":       "toUInt256('18446744073709551615')",
		"%{{Float64(f)}}":         "toFloat64('1.5')",
		"%{{Float64(n)}}":         "toFloat64('5.0')",
		"%{{Float32(none, 1e3)}}": "! Template Syntax Error: invalid syntax at \"e3\", line 1",
		"%{{Date(day)}}":          "'2026-01-02'",
		"%{{DateTime(at)}}":       "'2026-01-02 03:04:05'",
		"%{{DateTime64(none, '2026-01-02 03:04:05.678')}}":                            "'2026-01-02 03:04:05.678'",
		"%{{Boolean(yes)}},{{Boolean(no)}},{{Boolean(none)}},{{Boolean(none, True)}}": "1,0,0,1",
		"%{{Array(list)}}":                        "['a','b']",
		"%{{Array(list, 'String')}}":              "['a','b']",
		"%{{Array(empty)}}":                       "['']",
		"%{{Array(ints, 'Int32')}}":               "[1,-2]",
		"%{{Array(none, 'Int32', '7')}}":          "[7]",
		"%{{Array(none, 'String', default='q')}}": "['q']",
		"%{{columns(cols)}}":                      "`a`,`t`.`b`",
		"%{{columns(none, 'x')}}":                 "`x`",
		"%{{column(none, 'x')}}":                  "`x`",
		"%{{Int32(n)}} {{!x}} {%!x%} {#no#}|":     "toInt32('5') {{x}} {%x%} |",

		// What does not fit, in Tinybird's words.
		"%{{String(none)}}": required + ". Check the parameters none. Please provide a value or set a default value in the pipe code.",
		"%{{String(a)}}{{Int32(b)}}{{Array(c, 'String')}}{{Int8(d, 1)}}": required + ". Check the parameters a, b and c. Please provide a value or set a default value in the pipe code.",
		"%{{String('' + none)}}":            "! Template Syntax Error: unsupported operand type(s) for +: 'str' and 'NoneType'",
		"%{{none}}":                         "! Template Syntax Error: expression \"none\" evaluated to null",
		"%{{testisasuperlongthingandmore}}": "! Template Syntax Error: expression \"testisasuperlongthin...\" evaluated to null",
		"%{{Int32(org)}}":                   "! Template Syntax Error: Error validating 'acme' to type Int32",
		"%{{Int32(big)}}":                   "! Template Syntax Error: Error validating '18446744073709551615' to type Int32",
		"%{{UInt8(ints)}}":                  "! Template Syntax Error: Error validating '1,-2' to type UInt8",
		"%{{Date(at)}}":                     "! Template Syntax Error: Error validating '2026-01-02 03:04:05' to type Date",
		"%{{DateTime(day)}}":                "! Template Syntax Error: Error validating '2026-01-02' to type DateTime",
		"%{{Array(empty, 'Int32')}}":        "! Template Syntax Error: Error validating [][0] (empty string) to type Int32",
		"%{{Array(list, 'Int32')}}":         "! Template Syntax Error: Error validating [a,b][0] (a) to type Int32",
		"%{{columns(none)}}":                "! Template Syntax Error: Missing columns() default value, use `columns(column_names, 'default_column_name')`",
		"%{{error('Oh')}}":                  "! Oh",
		"%{{custom_error('Oh', 404)}}":      "! Oh",

		// Conditions.
		"%{% if defined(org) %}a{% else %}b{% end %}":                                     "a",
		"%{% if defined(none) %}a{% elif defined(org) and not defined(none) %}b{% end %}": "b",
		"%{% if mode == 'hour' %}h{% elif mode == \"day\" %}d{% else %}m{% end %}":        "d",
		"%{% if none == 'a' or mode != 'day' %}a{% end %}.":                               ".",
		"%{% if mode in ['day', 'hour'] and mode not in [] %}a{% end %}":                  "a",
		"%{% if Int32(n, 1) > 4 and Float64(f) <= 1.5 %}a{% end %}":                       "a",
		"%{% if n == 5 %}a{% else %}text{% end %}":                                        "text",
		"%{% if not (not org) %}a{% end %}{% if not (org == 'acme') %}b{% end %}":         "a",
		"%{% if none is None and org is not None %}a{% end %}":                            "a",
		"%{% if none < 3 %}a{% end %}":                                                    "! Template Syntax Error: '<' not supported between instances of 'NoneType' and 'int'",
		"%{% if defined(org) %}{% if defined(none) %}a{% else %}b{% end %}{% end %}c":     "bc",
		"%{% if defined(none) %}{{error('not reached')}}{% end %}a":                       "a",
		"%{% if Boolean(no, 0) or Boolean(none, 0) %}a{% else %}b{% end %}":               "b",
		"%{% if empty %}a{% elif defined(empty) %}b{% end %}":                             "b",

		// Loops and variables.
		"%{% set x = split_to_array(list) %}{% for last, e in enumerate_with_last(x) %}{{e}}{% if not last %},{% end %}{% end %}": "'a','b'",
		"%{% for e in split_to_array(none, 'p|q', separator='|') %}{{column(e)}}{% end %}":                                        "`p``q`",
		"%{% set x = org + '!' %}{{x}}": "'acme!'",
		"%{% for e in org %}{% end %}":  "! Template Syntax Error: 'str' object is not iterable",
		"%{{split_to_array(list)}}":     "! Template Syntax Error: expression \"split_to_array(list)\" is a list; loop over it, or use Array()",

		// What is not understood is said, never skipped.
		"%{% if defined(org) %}":                     "! Template Syntax Error: Missing {% end %} block for if at line 1",
		"%\n{% for a in b %}":                        "! Template Syntax Error: Missing {% end %} block for " + "for at line 2",
		"%{% end %}":                                 "! Template Syntax Error: Extra {% end %} block at line 1",
		"%{% if a %}{% else %}{% elif b %}{% end %}": "! Template Syntax Error: {% elif %} after {% else %} at line 1",
		"%{% while True %}{% end %}":                 "! Template Syntax Error: {% while %} is not understood, line 1",
		"%{% import os %}":                           "! Template Syntax Error: import is forbidden at line 1",
		"%{{os.popen('id')}}":                        "! Template Syntax Error: \".popen('id')\" is not understood, line 1",
		"%{{whatever(org)}}":                         "! Template Syntax Error: 'whatever' is not a valid function, line 1",
		"%{{sql_and(a=org)}}":                        "! Template Syntax Error: 'sql_and' is not a valid function, line 1",
		"%{{table(org)}}":                            "! Template Syntax Error: 'table' is not a valid function, line 1",
		"%{{String(org, wrong=1)}}":                  "! Template Syntax Error: String() got an unexpected keyword argument 'wrong', line 1",
		"%{{String(org":                              "! Template Syntax Error: Missing end }} at line 1",
		"%{{ }}":                                     "! Template Syntax Error: invalid syntax at the end of an expression, line 1",
	} {
		if got := render(t, template, params); got != want {
			t.Errorf("%s\n got %s\nwant %s", template, got, want)
		}
	}
}

// A value stays a value: whatever it holds, its literal ends where it was meant to.
func TestRenderHostileValues(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`' OR '1'='1`:  `'\' OR \'1\'=\'1'`,
		`\' OR 1=1 --`: `'\\\' OR 1=1 --'`,
		`\`:            `'\\'`,
		"a`b\"c%":      "'a\\`b\\\"c\\%'",
		"\x00\r\n\t":   `'\0\r\n\t'`,
		`{{error(1)}}`: `'{{error(1)}}'`,
		"it’s":         "'it’s'",
	} {
		if got := render(t, "%{{String(x)}}", map[string]string{"x": value}); got != want {
			t.Errorf("%q became %s, want %s", value, got, want)
		}
		if got := render(t, "%{{Array(x)}}", map[string]string{"x": value}); got != "["+want+"]" {
			t.Errorf("%q became %s", value, got)
		}
	}
	// The check of a DateTime looks at the beginning only, as Tinybird's does; the quotes do the rest.
	if got := render(t, "%{{DateTime(x)}}", map[string]string{"x": `2026-01-01 00:00:00' OR 1=1`}); got != `'2026-01-01 00:00:00\' OR 1=1'` {
		t.Error(got)
	}
	if got := render(t, "%{{columns(x)}}", map[string]string{"x": "a`, (SELECT 1) AS `b, \"c\\"}); got != "`a\\``,`(SELECT 1) AS \\`b`,`c\\\\`" {
		t.Error(got)
	}
}

// A loop or a deep template cannot eat the machine.
func TestRenderBounds(t *testing.T) {
	t.Parallel()
	if got := render(t, "%"+strings.Repeat("{% if x %}", 100), nil); !strings.Contains(got, "too deep") {
		t.Error(got)
	}
	if got := render(t, "%{{"+strings.Repeat("(", 100)+"}}", nil); !strings.Contains(got, "too deep") {
		t.Error(got)
	}
	long := map[string]string{"x": strings.Repeat(",", 10_000)}
	if got := render(t, "%{% for a in split_to_array(x) %}{{String(x)}}{% end %}", long); !strings.Contains(got, "too long") {
		t.Errorf("%.100s", got)
	}
}

func TestFloatText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"1": "1.0", "0.25": "0.25", "1e15": "1000000000000000.0", "1e16": "1e+16", "1e-5": "1e-05", "0.0001": "0.0001",
		"nan": "nan", "-inf": "-inf", "1e999": "inf", "-0": "-0.0",
	} {
		f, ok := fraction(in)
		if got := floatText(f); !ok || got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for _, bad := range []string{"", "0x1", "1_0", "one"} {
		if _, ok := fraction(bad); ok {
			t.Errorf("%q is a number", bad)
		}
	}
}

// literalEnd is where a literal of ClickHouse that starts the text ends, or -1.
func literalEnd(text string) int {
	for n := 1; n < len(text); n++ {
		switch text[n] {
		case '\\':
			n++
		case text[0]:
			return n + 1
		}
	}
	return -1
}

// FuzzValues: no value gets out of its literal, or out of its name.
func FuzzValues(f *testing.F) {
	for _, seed := range []string{"", "'", `\`, `\'`, "''", "`", "\x00", "2026-01-01 00:00:00' OR 1=1", "1", "a,b", `"`} {
		f.Add(seed)
	}
	templates := map[string]*Template{}
	for _, typ := range []string{"String(x)", "DateTime(x)", "DateTime64(x)", "Date(x)", "column(x)", "x"} {
		t, err := ParseTemplate("%{{" + typ + "}}")
		if err != nil {
			f.Fatal(err)
		}
		templates[typ] = t
	}
	f.Fuzz(func(t *testing.T, value string) {
		for typ, template := range templates {
			out, err := template.Render(map[string]string{"x": value})
			if err != nil {
				continue
			}
			for rest := out; ; {
				end := literalEnd(rest)
				if end < 0 {
					t.Fatalf("%s of %q is %s", typ, value, out)
				}
				if end == len(rest) {
					break
				}
				if typ != "column(x)" || rest[end] != '.' {
					t.Fatalf("%s of %q is %s", typ, value, out)
				}
				rest = rest[end+1:]
			}
		}
	})
}

// FuzzTemplate: a template is parsed and rendered, or refused, in bounded time.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"%{{String(x, 'a', description=\"b\", required=True)}}", "%{% if defined(x) and not y == 'z' %}a{% elif x > 1.5 %}b{% else %}c{% end %}",
		"%{% for last, e in enumerate_with_last(split_to_array(x, 'a,b')) %}{{column(e)}}{% end %}", "%{% set x = [1, -2] + y %}{{x}}", "%{#a#}{{!b}}",
		"%{{Array(x, 'Int32', '1,2')}} {{columns(x, 'a')}} {{error('e')}}", "plain",
	} {
		f.Add(seed, "1")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		_ = render(t, text, map[string]string{"x": value, "y": value})
	})
}
