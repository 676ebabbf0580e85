package clerk

import (
	"maps"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

func newTestMatcher(t testing.TB, patterns ...string) *pathMatcher {
	t.Helper()
	m, err := newPathMatcher(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPathPatterns: each answer is what path-to-regexp 6 gives, as the SDK bundles it.
func TestPathPatterns(t *testing.T) {
	t.Parallel()
	type params = map[string]string
	for pattern, paths := range map[string]map[string]params{
		"/": {"/": {}, "//": {}, "": nil, "/a": nil, "///": nil},
		"/me": {
			"/me": {}, "/me/": {}, "/ME": {}, "/mE/": {},
			"/me//": nil, "/me/x": nil, "/mee": nil, "/x/me": nil, "me": nil, "": nil, "/": nil, "/%6De": nil, "/me%2F": nil, "/me\n": nil,
		},
		"/a.b$c/":    {"/a.b$c/": {}, "/a.b$c//": {}, "/a.b$c": nil, "/axb$c/": nil},
		"/caf%C3%A9": {"/caf%C3%A9": {}, "/caf%c3%a9": {}, "/café": nil},
		"/orgs/:id": {
			"/orgs/org_1":   {"id": "org_1"},
			"/orgs/org_1/":  {"id": "org_1"},
			"/ORGS/Org_1":   {"id": "Org_1"},
			"/orgs/a%2Fb":   {"id": "a%2Fb"}, // the SDK compares it as it stands
			"/orgs/%zz":     {"id": "%zz"},
			"/orgs/..":      {"id": ".."},
			"/orgs/:id":     {"id": ":id"},
			"/orgs/":        nil,
			"/orgs":         nil,
			"/orgs//":       nil,
			"/orgs/a/b":     nil,
			"/orgs/a//":     nil,
			"/x/orgs/org_1": nil,
		},
		"/orgs/:id/(.*)": {
			"/orgs/org_1/":      {"id": "org_1", "0": ""},
			"/orgs/org_1/a":     {"id": "org_1", "0": "a"},
			"/orgs/org_1/a/b/":  {"id": "org_1", "0": "a/b/"},
			"/orgs/org_1//orgs": {"id": "org_1", "0": "/orgs"},
			"/orgs/org_1":       nil,
			"/orgs//a":          nil,
		},
		"/o/:slug/files/:name.:ext": {
			"/o/acme/files/a.txt":    {"slug": "acme", "name": "a", "ext": "txt"},
			"/o/acme/files/a.b.txt/": {"slug": "acme", "name": "a.b", "ext": "txt"},
			"/o/acme/files/a":        nil,
		},
		"/team-:slug":       {"/team-a": {"slug": "a"}, "/team-": nil, "/Team-a-b": {"slug": "a-b"}},
		"/:a-:b":            {"/x-y": {"a": "x", "b": "y"}, "/x-y-z": {"a": "x-y", "b": "z"}, "/x-": nil},
		"/:a-(.*)":          {"/x-y-z": {"a": "x", "0": "y-z"}},
		"/:a-.:b":           {"/x-.y": {"a": "x", "b": "y"}},
		"/v.:b":             {"/v.1": {"b": "1"}, "/v.1.2": nil},
		"/v./:b":            {"/v./1.2": {"b": "1.2"}},
		"/a.b/:id":          {"/a.b/1": {"id": "1"}, "/axb/1": nil},
		"/(.*)x:b":          {"/axb": {"0": "a", "b": "b"}, "/axbXc": {"0": "axb", "b": "c"}, "/ax": nil},
		"/(.*)d:b":          {"/d1": {"0": "", "b": "1"}},
		"/:a]:b":            {"/x]y": {"a": "x", "b": "y"}},
		"/:rest(.*)":        {"/": {"rest": ""}, "/a/b/": {"rest": "a/b/"}},
		"(.*)":              {"": {"0": ""}, "/a/b": {"0": "/a/b"}},
		"/(.*)/x/(.*)":      {"/a/x/b": {"0": "a", "1": "b"}, "/x/x/x/x": {"0": "x/x", "1": "x"}},
		"/:id/:id":          {"/a/b": {"id": "b"}},
		"/:ID_2":            {"/a": {"ID_2": "a"}},
		"/s/:slug/settings": {"/s/acme/settings": {"slug": "acme"}, "/s/acme/Settings/": {"slug": "acme"}, "/s/acme/settingsx": nil},
	} {
		m := newTestMatcher(t, pattern)
		for path, want := range paths {
			got, ok := m.match(path)
			if ok != (want != nil) || !maps.Equal(got, want) {
				t.Errorf("%s, %q: %q, %v; want %q", pattern, path, got, ok, want)
			}
		}
	}
}

func TestFirstPatternWins(t *testing.T) {
	t.Parallel()
	m := newTestMatcher(t, "/orgs/:id", "/orgs/:slug", "/orgs/:slug/(.*)")
	if got, ok := m.match("/orgs/a"); !ok || !maps.Equal(got, map[string]string{"id": "a"}) {
		t.Errorf("got %v, %v", got, ok)
	}
	if got, ok := m.match("/orgs/a/b"); !ok || got["slug"] != "a" {
		t.Errorf("got %v, %v", got, ok)
	}
}

func TestNoPatternsMatchNothing(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*pathMatcher{"nil": nil, "empty": newTestMatcher(t)} {
		for _, path := range []string{"", "/", "/me"} {
			if _, ok := m.match(path); ok {
				t.Errorf("%s: %q matches", name, path)
			}
		}
	}
}

func TestPatternsThatAreRefused(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"":                   "start with a slash",
		"orgs/:id":           "start with a slash",
		":id":                "start with a slash",
		"https://a/orgs/:id": "start with a slash",
		"/orgs/*":            `"*" is not supported`,
		"/orgs/:id*":         `"*" is not supported`,
		"/orgs/:id+":         `"+" is not supported`,
		"/orgs/:id?":         `"?" is not supported`,
		"/orgs(.*)?":         `"?" is not supported`,
		"/orgs{/:id}":        `"{" is not supported`,
		"/orgs}":             `"}" is not supported`,
		"/orgs/(\\d+)":       `"(" is not supported`,
		"/orgs/:id(\\d+)":    `"(" is not supported`,
		"/orgs/(.*":          `"(" is not supported`,
		"/orgs/(.+)":         `"(" is not supported`,
		"/orgs/(.*))":        `")" is not supported`,
		`/orgs/\:id`:         `"\\" is not supported`,
		"/orgs/:":            "a name of letters",
		"/orgs/:/x":          "a name of letters",
		"/orgs/:é":           "a name of letters",
		"/:a:b":              "text has to stand between two parameters before :b",
		"/(.*):b":            "text has to stand between two parameters before :b",
		"/:a--:b":            "only one character, or a slash",
		"/:a-x.b:c":          "only one character, or a slash",
		"/a b":               "percent-encoded",
		"/é":                 "percent-encoded",
		"/a#b":               "percent-encoded",
		"/a|b":               "percent-encoded",
		"/a\x00":             "percent-encoded",
	} {
		_, err := newPathMatcher([]string{"/fine", pattern})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", pattern, err, want)
		}
		if checkOrganizationPattern(pattern) == nil {
			t.Errorf("%s: a pattern of an organization", pattern)
		}
	}
}

func TestOrganizationPattern(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]bool{
		"/orgs/:id": true, "/orgs/:slug": true, "/orgs/:slug/(.*)": true, "/:id(.*)": true, "/x/:a/:slug": true, "/:id/:slug": true,
		"/orgs": false, "/orgs/(.*)": false, "/orgs/:identity": false, "/orgs/:ID": false, "/orgs/id": false, "/slug/:x": false, "/orgs/:slugs/(.*)": false,
	} {
		if err := checkOrganizationPattern(pattern); (err == nil) != want {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// Attack: a long path that a backtracking matcher goes through again and again.
func TestPathPatternsTakeLinearTime(t *testing.T) {
	t.Parallel()
	m := newTestMatcher(t, "/(.*)a(.*)a(.*)a(.*)a(.*)a(.*)a(.*)b", "/:a-:b-:c-:d/(.*)/x/(.*)/y")
	begin := time.Now()
	if _, ok := m.match("/" + strings.Repeat("a-", 8<<10) + "c"); ok {
		t.Error("matches")
	}
	// Backtracking takes longer than the age of the universe.
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

var patternParameter = regexp.MustCompile(`:[0-9A-Za-z_]+(\(\.\*\))?|\(\.\*\)`)

// FuzzPathPattern: a pattern without parameters matches itself, and the parameters of a match put into the pattern give
// the path back.
func FuzzPathPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"/orgs/:id/(.*)", "/orgs/org_1/a/b"},
		{"/s/:slug", "/S/acme/"},
		{"/:a.:b", "/x.y.z"},
		{"/:a-:b", "/x-y-z"},
		{"/:rest(.*)", "/%zz//"},
		{"(.*)x:b", "/axXb"},
		{"/me%20_~!$&',;=@[]", "/me"},
		{"/a*", "/a"},
		{"/:a:b{}", "/"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		m, err := newPathMatcher([]string{pattern})
		if organization := checkOrganizationPattern(pattern); err != nil {
			if organization == nil {
				t.Fatal("a pattern of an organization, and none at all")
			}
			return
		}
		path = (&url.URL{Path: path}).EscapedPath()
		if !patternParameter.MatchString(pattern) {
			for _, same := range []string{pattern, pattern + "/", strings.ToUpper(pattern), strings.ToLower(pattern)} {
				if got, ok := m.match(same); !ok || len(got) != 0 {
					t.Fatalf("%q does not match %q: %v", pattern, same, got)
				}
			}
			if _, ok := m.match(path); ok != (strings.EqualFold(path, pattern) || strings.EqualFold(path, pattern+"/")) {
				t.Fatalf("%q, %q: %v", pattern, path, ok)
			}
			return
		}
		got, ok := m.match(path)
		if !ok {
			return
		}
		if names := m.patterns[0].names; len(got) != len(names) {
			return // a repeated name has only its last value
		}
		n := -1
		again := patternParameter.ReplaceAllStringFunc(pattern, func(p string) string {
			n++
			value := got[m.patterns[0].names[n]]
			if p[0] == ':' && p[len(p)-1] != ')' && (value == "" || strings.Contains(value, "/")) {
				t.Fatalf("%q, %q: %s is %q", pattern, path, p, value)
			}
			return value
		})
		if !strings.EqualFold(again, path) && !strings.EqualFold(again+"/", path) {
			t.Fatalf("%q, %q: the parameters %q give %q", pattern, path, got, again)
		}
	})
}
