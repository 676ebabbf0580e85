package tinybird

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const testAPI = "https://api.tinybird.co"

// asked is the fingerprint of what acme's grant, changed, asks.
func asked(t testing.TB, g *Grant, method, query, body string) Fingerprint {
	t.Helper()
	q, err := Build(httptest.NewRecorder(), request(t, method, query, body), g, RequestLimits{})
	if err != nil {
		t.Fatal(err)
	}
	f, ok := FingerprintOf(testAPI, testWorkspace, g, &q)
	if !ok {
		t.Fatalf("%s ?%s %s has no fingerprint", method, query, body)
	}
	return f
}

// TestSameQuestion: what is the same for Tinybird is the same here, whatever clients add to it.
func TestSameQuestion(t *testing.T) {
	t.Parallel()
	g := tenantGrant(t)
	for name, same := range map[string][][3]string{
		"order of parameters": {{"GET", "a=1&b=2&c=3", ""}, {"GET", "c=3&a=1&b=2", ""}},
		"spelling":            {{"GET", "a=%20x%2B", ""}, {"GET", "%61=+x%2b&", ""}, {"GET", "&&a=%20%78%2B", ""}},
		"no value":            {{"GET", "a", ""}, {"GET", "a=", ""}},
		"token in the query":  {{"GET", "a=1", ""}, {"GET", "token=p.one&a=1", ""}, {"GET", "a=1&TOKEN=p.two", ""}, {"GET", "a=1&%74oken", ""}},
		"fixed by the grant":  {{"GET", "a=1", ""}, {"GET", "a=1&organization_id=org_globex", ""}, {"GET", "a=1&user_id=x&__tb__semver=1", ""}},
		"a GET with a body":   {{"GET", "a=1", ""}, {"GET", "a=1", `{"b":2}`}},
		"nothing in the body": {{"POST", "a=1", ""}, {"POST", "a=1", "{}"}, {"POST", "a=1", `{"token":"x"}`}},
		"order of members":    {{"POST", "", `{"a":1,"b":[1,2]}`}, {"POST", "", `{"b":[1,2],"a":1}`}},
		"spelling of members": {{"POST", "", `{"a":"x/"}`}, {"POST", "", ` { "\u0061" : "\u0078\/" , "token":"y"} `}},
	} {
		want := asked(t, g, same[0][0], same[0][1], same[0][2])
		for _, s := range same[1:] {
			if asked(t, g, s[0], s[1], s[2]) != want {
				t.Errorf("%s: %q is another question than %q", name, s, same[0])
			}
		}
	}
}

// TestOtherQuestion: what could have another answer, or is asked by another tenant, is never the same.
func TestOtherQuestion(t *testing.T) {
	t.Parallel()
	seen := make(map[Fingerprint]string)
	add := func(what string, f Fingerprint) {
		if other, ok := seen[f]; ok {
			t.Errorf("%s is the same as %s", what, other)
		}
		seen[f] = what
	}
	g := tenantGrant(t)
	for _, q := range [][3]string{
		{"GET", "", ""},
		{"POST", "", ""},
		{"GET", "a=1", ""},
		{"POST", "a=1", ""},
		{"POST", "", `{"a":1}`},
		{"POST", "", `{"a":"1"}`},
		{"POST", "", `{"a":1.0}`},
		{"GET", "A=1", ""},
		{"GET", "a=2", ""},
		{"GET", "a=", ""},
		{"GET", "a=1&b=", ""},
		{"GET", "a=1%26b=", ""},
		{"GET", "b=1&a=", ""},
		{"GET", "a=1&a=2", ""},
		{"GET", "a=2&a=1", ""},
		{"GET", "a=1&a=1", ""},
		{"GET", "a=1,2", ""},
		{"GET", "aa=1", ""},
		{"GET", "a=a%3D1", ""},
		{"GET", "a=11", ""},
		{"GET", "a=1+", ""},
		{"POST", "", `{"a":[1,2]}`},
		{"POST", "", `{"a":[2,1]}`},
		{"POST", "", `{"a":{"b":1}}`},
		{"POST", "", `{"a":null}`},
		{"POST", "b=1", `{"a":1}`},
		{"POST", "a=1", `{"b":1}`},
		{"POST", "", `{"a":1,"b":1}`},
	} {
		add(fmt.Sprint(q), asked(t, g, q[0], q[1], q[2]))
	}
	for what, change := range map[string]func(*Grant){
		"another tenant's name":  func(g *Grant) { g.TokenName = "org_globex" },
		"another pipe":           func(g *Grant) { g.Pipe = "other" },
		"another format":         func(g *Grant) { g.Format = "csv" },
		"another organization":   func(g *Grant) { g.Fixed[1].Value = "org_globex" },
		"another user":           func(g *Grant) { g.Fixed[0].Value = "user_2" },
		"one fixed value more":   func(g *Grant) { g.Fixed = append(g.Fixed, FixedValue{"zone", "a"}) },
		"one fixed value less":   func(g *Grant) { g.Fixed = g.Fixed[:1] },
		"no fixed value":         func(g *Grant) { g.Fixed = nil },
		"a number":               func(g *Grant) { g.Fixed[0].Value = json.Number("1") },
		"a text of digits":       func(g *Grant) { g.Fixed[0].Value = "1" },
		"a number with a point":  func(g *Grant) { g.Fixed[0].Value = json.Number("1.0") },
		"a boolean":              func(g *Grant) { g.Fixed[0].Value = true },
		"the other boolean":      func(g *Grant) { g.Fixed[0].Value = false },
		"a text like a boolean":  func(g *Grant) { g.Fixed[0].Value = "true" },
		"a value with a length":  func(g *Grant) { g.Fixed[0].Value = "user_1f15:organization_id" },
		"a name of another case": func(g *Grant) { g.Fixed[0].Name = "USer_Id" },
	} {
		g := tenantGrant(t)
		change(g)
		add(what, asked(t, g, "GET", "", ""))
	}
	// What is fixed is not what a client asks for, by the same name and value.
	open := tenantGrant(t)
	open.Fixed = open.Fixed[:1]
	add("an organization that the client names", asked(t, open, "GET", "organization_id=org_acme", ""))

	q := &Question{Method: http.MethodGet}
	for _, realm := range [][2]string{{"https://api.us-east.tinybird.co", testWorkspace}, {testAPI, strings.Replace(testWorkspace, "0", "1", 1)}, {testAPI + testWorkspace, ""}} {
		f, _ := FingerprintOf(realm[0], realm[1], g, q)
		add(fmt.Sprint(realm), f)
	}
}

// TestNarrowedGrantIsAnotherQuestion: a template's token that fixes more than the config does has its own answers.
func TestNarrowedGrantIsAnotherQuestion(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, tenantConfig())
	const scope = `[{"type":"PIPES:READ","resource":"top_pages","fixed_params":{"organization_id":"org_acme"%s}}]`
	seen := make(map[Fingerprint]string)
	for _, more := range []string{``, `,"country":"DE"`, `,"country":"FR"`, `,"country":1`, `,"days":1`, `,"country":"DE","days":1`} {
		g, err := narrow(p, fmt.Sprintf(scope, more))
		if err != nil {
			t.Fatal(err)
		}
		f := asked(t, g, "GET", "", "")
		if other, ok := seen[f]; ok {
			t.Errorf("%q is the same as %q", more, other)
		}
		seen[f] = more
	}
}

// TestUnrestrictedPipeIsNotShared: all tenants may see the same rows, and yet none learns that another asked for them.
func TestUnrestrictedPipeIsNotShared(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, PolicyConfig{Pipes: []PipeConfig{{Names: []string{"top_pages"}, Unrestricted: true}}})
	var seen []Fingerprint
	for _, org := range []string{"org_acme", "org_globex"} {
		g, err := p.Authorize("top_pages", "json", subject{values: map[string]any{"clerk.org.id": org, "clerk.user.id": "user_1"}})
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, asked(t, g, "GET", "", ""))
	}
	if seen[0] == seen[1] {
		t.Error("two tenants share an answer")
	}
}

// TestNoFingerprint: what Mint would not sign is never shared.
func TestNoFingerprint(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*Grant, *Question){
		"no name":         func(g *Grant, _ *Question) { g.TokenName = "" },
		"no value":        func(g *Grant, _ *Question) { g.Fixed[0].Value = nil },
		"a list":          func(g *Grant, _ *Question) { g.Fixed[0].Value = []any{"a"} },
		"an integer":      func(g *Grant, _ *Question) { g.Fixed[0].Value = 1 },
		"not sorted":      func(g *Grant, _ *Question) { slices.Reverse(g.Fixed) },
		"no object":       func(_ *Grant, q *Question) { q.Body = []byte("[]") },
		"a broken object": func(_ *Grant, q *Question) { q.Body = []byte("{") },
	} {
		g, q := tenantGrant(t), &Question{Method: http.MethodPost, Body: []byte("{}")}
		change(g, q)
		if _, ok := FingerprintOf(testAPI, testWorkspace, g, q); ok {
			t.Errorf("%s has one", what)
		}
	}
}

// question is what an encoding says.
type question struct {
	api, workspace, name, pipe, format, method string

	fixed []FixedValue
	query map[string][]string
	body  map[string]string
}

// decode reads an encoding. That there is one way to do so, and that it yields all that decides an answer, is what keeps different
// questions apart.
func decode(t testing.TB, b []byte) question {
	t.Helper()
	next := func(kinds string) (kind byte, text string) {
		colon := bytes.IndexByte(b, ':')
		n, err := strconv.Atoi(string(b[1:colon]))
		if err != nil || !strings.ContainsRune(kinds, rune(b[0])) || len(b) < colon+1+n {
			t.Fatalf("%q does not begin with one of %s", b, kinds)
		}
		kind, text, b = b[0], string(b[colon+1:colon+1+n]), b[colon+1+n:]
		return kind, text
	}
	q := question{query: map[string][]string{}, body: map[string]string{}}
	_, q.api = next("a")
	_, q.workspace = next("w")
	_, q.name = next("n")
	_, q.pipe = next("p")
	for b[0] == 'f' {
		_, name := next("f")
		f := FixedValue{Name: name}
		switch kind, text := next("sdb"); kind {
		case 's':
			f.Value = text
		case 'd':
			f.Value = json.Number(text)
		case 'b':
			f.Value = text == "true"
		}
		q.fixed = append(q.fixed, f)
	}
	_, q.format = next("e")
	_, q.method = next("m")
	for len(b) > 0 && b[0] == 'q' {
		_, pair := next("q")
		name, value, _ := strings.Cut(pair, "=")
		value, err := url.QueryUnescape(value)
		if err != nil {
			t.Fatal(err)
		}
		q.query[name] = append(q.query[name], value)
	}
	for len(b) > 0 {
		_, name := next("k")
		_, q.body[name] = next("v")
	}
	return q
}

// FuzzFingerprint: what is encoded is, read back, all that was asked, by readings of the query and the body that are not ours.
func FuzzFingerprint(f *testing.F) {
	var many strings.Builder // so many that sorting them takes more than looking at them in turn
	for i := range 40 {
		fmt.Fprintf(&many, "x=%d&y=%d&", i, -i)
	}
	f.Add("org_acme", "organization_id", "org_acme", byte(0), "json", "a=1&b=2&a=3", `{"a":1,"b":{"c":[1,"x"]}}`)
	f.Add("n1:a", "a", "1", byte(1), "csv", "q=1&token=x&a=%26q1%3Ab", `{"k1:a":"v1:b"}`)
	f.Add("a", "b", "true", byte(2), "parquet", "", "")
	f.Add("a", "b", "c", byte(3), "json", many.String(), "")
	f.Fuzz(func(t *testing.T, name, fixedName, fixedValue string, kind byte, format, query, body string) {
		g := &Grant{Pipe: "top_pages", Format: format, TokenName: name}
		switch kind % 4 {
		case 0:
			g.Fixed = []FixedValue{{fixedName, fixedValue}}
		case 1:
			g.Fixed = []FixedValue{{fixedName, json.Number(fixedValue)}}
		case 2:
			g.Fixed = []FixedValue{{fixedName, fixedValue == "true"}}
		}
		q := &Question{Method: http.MethodPost}
		var err error
		if q.RawQuery, _, err = buildQuery(query, g.lets); err != nil {
			return
		}
		if q.Body, _, err = buildObject([]byte(body), g.lets); err != nil {
			q.Body = nil
		}
		if _, ok := FingerprintOf(testAPI, testWorkspace, g, q); !ok {
			return
		}
		encoded, _ := appendQuestion(nil, testAPI, testWorkspace, g, q)
		got := decode(t, encoded)
		want := question{
			api: testAPI, workspace: testWorkspace, name: name, pipe: g.Pipe, format: format, method: http.MethodPost,
			fixed: g.Fixed, query: map[string][]string{}, body: map[string]string{},
		}
		values, err := url.ParseQuery(q.RawQuery)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(want.query, values)
		if q.Body != nil {
			var members map[string]json.RawMessage
			if err := json.Unmarshal(q.Body, &members); err != nil {
				t.Fatal(err)
			}
			for name, value := range members {
				want.body[name] = string(value)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v\nwas encoded as %q, which says\n%+v", want, encoded, got)
		}
	})
}

func BenchmarkFingerprint(b *testing.B) {
	g := tenantGrant(b)
	q := &Question{Method: http.MethodGet, RawQuery: "date_from=2026-01-01&date_to=2026-01-31&country=DE&limit=10"}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := FingerprintOf(testAPI, testWorkspace, g, q); !ok {
			b.Fatal("none")
		}
	}
}
