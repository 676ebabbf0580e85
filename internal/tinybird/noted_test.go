package tinybird

import (
	"fmt"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// TestNotedIsWhatBuildDid: the names are told by what became of them, each once, and neither a value nor what may be a secret is.
func TestNotedIsWhatBuildDid(t *testing.T) {
	t.Parallel()
	many := make([]string, 0, 40)
	for n := range 40 {
		many = append(many, fmt.Sprintf("p%d=1", n))
	}
	first := strings.Split(strings.ReplaceAll(strings.Join(many[:16], " "), "=1", ""), " ")
	long := strings.Repeat("a", maxNotedName)
	for name, c := range map[string]struct {
		query, body    string
		taken, dropped []string
	}{
		"nothing":            {},
		"both":               {query: "days=7&org=x&Token=t&days=8", taken: []string{"days"}, dropped: []string{"org", "Token"}},
		"query and body":     {query: "days=7&ORG=x", body: `{"limit":1,"q":"SELECT","days":2}`, taken: []string{"days", "limit"}, dropped: []string{"ORG", "q"}},
		"no parameter names": {query: "org[]=x&a.b=1&%20=2&=3", dropped: []string{"_other"}},
		"long ones":          {query: long + "=1&" + long + "a=1", taken: []string{long, "_other"}},
		"many":               {query: strings.Join(many, "&"), taken: append(first, "_other")},
	} {
		g := &Grant{Pipe: "p", Format: "json", Fixed: []FixedValue{{Name: "org", Value: "org_1"}}}
		var got Noted
		g.Note(&got)
		method := "GET"
		if c.body != "" {
			method = "POST"
		}
		r := httptest.NewRequest(method, "/v0/pipes/p.json?"+c.query, strings.NewReader(c.body))
		r.Header.Set("Content-Type", "application/json")
		q, err := Build(httptest.NewRecorder(), r, g, RequestLimits{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := (Noted{c.taken, c.dropped}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: noted %v, want %v", name, got, want)
		}
		for _, taken := range got.Taken {
			if taken != notedOther && !strings.Contains("&"+q.RawQuery, "&"+taken+"=") && !strings.Contains(string(q.Body), `"`+taken+`":`) {
				t.Errorf("%s: %s is noted as taken and did not go up: %q %q", name, taken, q.RawQuery, q.Body)
			}
		}
	}
}
