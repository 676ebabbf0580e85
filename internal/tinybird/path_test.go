package tinybird

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	for p, want := range map[string][2]string{
		"/v0/pipes/top_pages.json":                {"top_pages", "json"},
		"/v0/pipes/_.csvwithnames":                {"_", "csvwithnames"},
		"/v0/pipes/T_9.ndjson":                    {"T_9", "ndjson"},
		"/v0/pipes/a.whatever":                    {"a", "whatever"}, // for the policy to refuse
		"/v0/pipes/" + rep("a", 128) + ".json":    {rep("a", 128), "json"},
		"/v0/pipes/token.json":                    {"token", "json"},
		"/v0/pipes/openapi.json":                  {"openapi", "json"}, // for the policy to refuse
		"/v0/pipes/t_0123456789abcdef.prometheus": {"t_0123456789abcdef", "prometheus"},
	} {
		pipe, format, ok := ParsePath(p)
		if !ok || pipe != want[0] || format != want[1] {
			t.Errorf("ParsePath(%q) = %q, %q, %v", p, pipe, format, ok)
		}
	}
}

// P3: a path that could be read in two ways is no path of a pipe.
func TestP3PathInAnyOtherSpellingIsNotFound(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"", "/", "/v0/pipes", "/v0/pipes/", "/v0/pipes/a", "/v0/pipes/a.", "/v0/pipes/.json", "v0/pipes/a.json",
		"/v0/pipes/a.json/",          // a trailing slash
		"/v0/pipes/a.json/../b.json", // traversal to another pipe
		"/v0/pipes/../sql",           // traversal to SQL
		"/v0/pipes/../pipes/a.json",
		"/v0/pipes/./a.json",
		"/v0/pipes//a.json", "//v0/pipes/a.json", "/v0//pipes/a.json", // empty segments
		"/v0/pipes/%61.json",         // an escaped letter
		"/v0/pipes/a%2ejson",         // an escaped dot
		"/v0/pipes/a%2e%2e%2fsql",    // escaped traversal
		"/v0/pipes/a.json%00",        // a NUL
		"/v0/pipes/a.json%3Ftoken=x", // an escaped query
		"/v0/pipes/a.json?token=x", "/v0/pipes/a.json#x", "/v0/pipes/a.json;x=y",
		"/v0/pipes/a b.json", "/v0/pipes/a\\b.json", "/v0/pipes/a\n.json", "/v0/pipes/a.json\n",
		"/v0/pipes/a.b.json", "/v0/pipes/a..json", "/v0/pipes/a.json.json",
		"/V0/pipes/a.json", "/v0/Pipes/a.json", "/v0/pipes/a.JSON", "/v0/pipes/a.js0n",
		"/v0/pipes/1a.json", "/v0/pipes/a-b.json", "/v0/pipes/ä.json", "/v0/pipes/\u212a.json", // Kelvin sign
		"/v0/pipes/a/data.json", "/v0/pipes/a/nodes", "/v0/sql", "/v0/tokens", "/v1/pipes/a.json",
		"http://x/v0/pipes/a.json", "/x/v0/pipes/a.json",
		"/v0/pipes/" + rep("a", 129) + ".json", "/v0/pipes/a." + rep("j", 33),
	} {
		if pipe, format, ok := ParsePath(p); ok || pipe != "" || format != "" {
			t.Errorf("ParsePath(%q) = %q, %q, %v", p, pipe, format, ok)
		}
	}
}

// P3: the upstream path is made of the grant's strings, whatever the request's URL says.
func TestP3PathIsConstructed(t *testing.T) {
	t.Parallel()
	g := tenantGrant(t)
	for _, u := range []*url.URL{
		{Path: "/v0/sql"},
		{Path: "/v0/pipes/other.json", RawPath: "/v0/pipes/other%2ejson"},
		{Path: "/v0/pipes/top_pages.json/../../sql"},
		{Opaque: "//evil.example/v0/sql"},
		{Scheme: "http", Host: "evil.example", Path: "/x"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL = u
		q, err := Build(httptest.NewRecorder(), r, g, RequestLimits{})
		if err != nil {
			t.Fatal(err)
		}
		if q.Path != "/v0/pipes/top_pages.json" {
			t.Errorf("%v: path %q", u, q.Path)
		}
	}
}

// The policy's own strings are used, so that what goes up does not share memory with the request.
func TestP3GrantHoldsThePolicysStrings(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, tenantConfig())
	for _, bad := range []string{"top_pages\x00", "top_pages.json", "../top_pages", "TOP_PAGES"} {
		if _, err := p.Authorize(bad, "json", acme()); err == nil {
			t.Errorf("%q is granted", bad)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{
		"/v0/pipes/top_pages.json", "/v0/pipes/a.b.json", "/v0/pipes/a%2ejson", "/v0/pipes/../a.json", "/v0/pipes//a.json", "/v0/sql",
	} {
		f.Add(seed)
	}
	shape := regexp.MustCompile(`\A/v0/pipes/([A-Za-z_][A-Za-z0-9_]*)\.([a-z]+)\z`)
	f.Fuzz(func(t *testing.T, p string) {
		pipe, format, ok := ParsePath(p)
		m := shape.FindStringSubmatch(p)
		if ok != (m != nil && len(m[1]) <= maxName && len(m[2]) <= 32) {
			t.Fatalf("ParsePath(%q) = %v, the expression says %v", p, ok, m != nil)
		}
		if !ok {
			return
		}
		if pipe != m[1] || format != m[2] {
			t.Fatalf("ParsePath(%q) = %q, %q", p, pipe, format)
		}
		// net/url and path have nothing to decode, clean or split off.
		u, err := url.ParseRequestURI(p)
		if err != nil || u.Path != p || u.EscapedPath() != p || u.RawQuery != "" || path.Clean(p) != p {
			t.Fatalf("net/url reads %q as %+v, %v", p, u, err)
		}
	})
}

func rep(s string, n int) string { return strings.Repeat(s, n) }
