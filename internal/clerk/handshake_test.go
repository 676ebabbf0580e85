package clerk

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestAttackPlantedCount: a sibling of the site plants a count of redirects from which a browser would count up for ever.
func TestAttackPlantedCount(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int{
		"": 0, "0": 0, "2": 2, "3": 3, "-1": -1, "-3": -3, "%33": 3,
		"-4": maxRedirects, "-99999999999": maxRedirects, "-9223372036854775808": maxRedirects, "-99999999999999999999": maxRedirects,
		"99999999999999999999": maxRedirects, "abc": maxRedirects, "1.5": maxRedirects, "0x1": maxRedirects,
	} {
		h := http.Header{"Cookie": {countCookie + "=" + value}}
		if got := redirectCount(h); got != want {
			t.Errorf("%q: %d, want %d", value, got, want)
		}
	}
	both := http.Header{"Cookie": {countCookie + "=1; " + countCookie + "=-99"}}
	if got := redirectCount(both); got != maxRedirects {
		t.Errorf("the planted one beside the site's own: %d", got)
	}
}

// TestAttackHostOfPublicURL: nothing in a request's target runs into the host of the address a browser is to return to.
func TestAttackHostOfPublicURL(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"/":                          "http://app.example.com/",
		"//evil.example/x":           "http://app.example.com//evil.example/x",
		"/\\\\evil.example":          "http://app.example.com/%5C%5Cevil.example",
		"/@evil.example":             "http://app.example.com/@evil.example",
		"/a|b^c":                     "http://app.example.com/a|b^c",
		"/a|b\"c":                    "http://app.example.com/a%7Cb%22c",
		"/%2f%2fevil.example?x=y":    "http://app.example.com/%2f%2fevil.example?x=y",
		"*":                          "http://app.example.com/",
		"http://u:p@app.example.com": "http://app.example.com/",
		"http:.evil.example":         "http://app.example.com/",
	} {
		u, err := url.Parse(target)
		if target == "*" {
			u, err = &url.URL{Path: "*"}, nil
		}
		if strings.HasPrefix(target, "//") { // as a server reads it
			u, err = url.ParseRequestURI(target)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := without(PublicURL(&http.Request{URL: u, Host: "app.example.com"}, false)); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}
