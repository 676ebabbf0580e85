package engine

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

func TestParseDatasource(t *testing.T) {
	t.Parallel()
	d, err := ParseDatasource("events", `
# a comment
DESCRIPTION >
    Two
    lines

SCHEMA >
    `+"`id` UInt64 `json:$.id`,"+`
    `+"at DateTime64(3, 'UTC') `json:$.meta.at` DEFAULT now(),"+`
    plain Nullable(String)

ENGINE "MergeTree"
ENGINE_PARTITION_KEY "toYYYYMM(at)"
ENGINE_SORTING_KEY "id, at"
`)
	want := &Datasource{
		Name: "events", Description: "Two\nlines", Engine: "MergeTree", SortingKey: "id, at", PartitionKey: "toYYYYMM(at)",
		Columns: []Column{
			{"id", "UInt64", "$.id", ""}, {"at", "DateTime64(3, 'UTC')", "$.meta.at", "now()"}, {"plain", "Nullable(String)", "", ""},
		},
	}
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, d, want)
	}
}

func TestParsePipe(t *testing.T) {
	t.Parallel()
	p, err := ParsePipe("report", "DESCRIPTION >\n\tAbout\n\nNODE a\nSQL >\n\t%\n\tSELECT\n\t\t1\n\nNODE b\nDESCRIPTION >\n\tLast\nSQL >\n\tSELECT 2\nTYPE ENDPOINT\n")
	want := &Pipe{Name: "report", Description: "About", Nodes: []Node{
		{Name: "a", SQL: "%\nSELECT\n\t1"}, {Name: "b", Description: "Last", SQL: "SELECT 2", Kind: KindEndpoint},
	}}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, p, want)
	}
}

// What is not understood is refused with its line, and not left out.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const schema = "SCHEMA >\n  a String `json:$.a`\nENGINE \"MergeTree\"\nENGINE_SORTING_KEY \"a\"\n"
	for text, want := range map[string]string{
		"":                                "needs SCHEMA",
		schema + "ENGINE_TTL \"1\"\n":     "line 5: ENGINE_TTL",
		schema + "ENGINE \"MergeTree\"\n": "line 5: ENGINE is unknown or there twice",
		"SCHEMA >\n  a\n":                 "line 1: \"a\" is no column",
		"SCHEMA >\n\nENGINE \"x\"":        "line 1: the block of SCHEMA is empty",
		"  SCHEMA >":                      "line 1 is indented",
		strings.Replace(schema, "MergeTree", "Null", 1): "needs SCHEMA, ENGINE \"MergeTree\"",
	} {
		if _, err := ParseDatasource("x", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                                      "one node has to be an endpoint or a copy, not 0",
		"SQL >\n  SELECT 1":                     "SQL before the first NODE",
		"NODE a b":                              "\"a b\" is no name",
		"NODE a\nTYPE endpoint":                 "node a has no SQL",
		"NODE a\nSQL >\n  1\nTYPE materialized": "type \"materialized\" is not understood",
		"NODE a\nSQL >\n  1\nTYPE endpoint\nCACHE 5":                           "line 5: CACHE 5 is unknown",
		"NODE a\nSQL >\n  1\nTYPE copy":                                        "TYPE copy and TARGET_DATASOURCE go together",
		"NODE a\nSQL >\n  1\nTYPE endpoint\nNODE a\nSQL >\n  2":                "node a has no SQL or is there twice",
		"NODE a\nSQL >\n  1\nTYPE endpoint\nNODE b\nSQL >\n  2\nTYPE endpoint": "not 2",
	} {
		if _, err := ParsePipe("x", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// A statement has the nodes that the endpoint needs and no other, before the queries of its own.
func TestStatement(t *testing.T) {
	t.Parallel()
	p, err := LoadProject(fstest.MapFS{"endpoints/report.pipe": {Data: []byte(`
NODE a
SQL >
    SELECT 1

NODE unused
SQL >
    %
    SELECT {{String(nobody)}}

NODE b
SQL >
    %
    SELECT {{Int32(x, 2)}} FROM a

NODE last
SQL >
    WITH c AS (SELECT 3) SELECT * FROM b, c
TYPE endpoint
`)}})
	if err != nil {
		t.Fatal(err)
	}
	const result = "WITH a AS (\nSELECT 1\n),\nb AS (\n\nSELECT toInt32('2') FROM a\n),\nc AS (SELECT 3) SELECT * FROM b, c"
	for q, want := range map[*devstack.Question]string{
		{Pipe: "report"}:                         result,
		{Pipe: "report", SQL: "SELECT 1 FROM _"}: "WITH _ AS (\n" + result + "\n)\nSELECT 1 FROM _",
		{SQL: "SELECT 1"}:                        "SELECT 1",
		{SQL: "%SELECT {{Int8(x, 1)}}"}:          "SELECT toInt8('1')",
	} {
		if got, err := p.Statement(*q); err != nil || got != want {
			t.Errorf("%+v: %v\n got %s\nwant %s", q, err, got, want)
		}
	}
	if _, err := p.Statement(devstack.Question{Pipe: "other"}); err == nil {
		t.Error("a pipe that there is not has a statement")
	}
}

// The project that is deployed is understood, whole.
func TestProject(t *testing.T) {
	t.Parallel()
	p, err := LoadProject(os.DirFS("../tinybird"))
	if err != nil {
		t.Fatal(err)
	}
	copies, err := p.copyStatements()
	if err != nil || len(copies) != 2 || len(p.createStatements()) != 3 {
		t.Errorf("%d copies, %v", len(copies), err)
	}
	params := map[string]string{"organization_id": "o'", "user_id": "u", "team_id": "a,b", "organization_slug": "s"}
	for _, pipe := range p.Pipes() {
		got, err := p.Statement(devstack.Question{Pipe: pipe.Name, Params: params})
		if err != nil || strings.Contains(got, "{") {
			t.Errorf("%s: %v\n%s", pipe.Name, err, got)
		}
		if _, err := p.Statement(devstack.Question{Pipe: pipe.Name}); (err == nil) != (pipe.Name == "leaky_report" || pipe.Name == "optional_report") {
			t.Errorf("%s without parameters: %v", pipe.Name, err)
		}
	}
}

func TestRowsForAppend(t *testing.T) {
	t.Parallel()
	d := &Datasource{Columns: []Column{
		{"id", "UInt64", "$.id", ""}, {"name", "Nullable(String)", "$.who.name", ""}, {"kind", "String", "$.kind", "'x'"},
	}}
	for in, want := range map[string]string{
		`{"id":18446744073709551615,"who":{"name":"ada"},"kind":"k","more":1}`: `{"id":18446744073709551615,"kind":"k","name":"ada"}`,
		`{"id":1,"who":null,"kind":null}`:                                      `{"id":1}`,
		`{"who":{"name":"ada"}}`:                                               "",
		`{"id":null}`:                                                          "",
		`[]`:                                                                   "",
		`nonsense`:                                                             "",
	} {
		got, ok := d.row([]byte(in))
		if ok != (want != "") || string(got) != want {
			t.Errorf("%s: %s, %v", in, got, ok)
		}
	}
}

// FuzzDatafiles: a file is read or refused.
func FuzzDatafiles(f *testing.F) {
	for _, name := range []string{"datasources/events.datasource", "copies/fill_events.pipe", "endpoints/team_report.pipe", "endpoints/search_events.pipe"} {
		text, err := os.ReadFile("../tinybird/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParsePipe("x", text); err == nil && p.node(KindEndpoint) == nil && p.node(KindCopy) == nil {
			t.Error("a pipe for nothing")
		}
		if d, err := ParseDatasource("x", text); err == nil && len(d.Columns) == 0 {
			t.Error("a data source of nothing")
		}
	})
}
