package clerk

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

func TestCookie(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"none":                {nil, ""},
		"alone":               {[]string{"@=1"}, "1"},
		"among others":        {[]string{"x=0; @=1; b=2"}, "1"},
		"without a space":     {[]string{"x=0;@=1"}, "1"},
		"space around":        {[]string{" \t @ = 1 \t; b=2"}, "1"},
		"first counts":        {[]string{"@=1; @=2"}, "1"},
		"first counts, empty": {[]string{"@=; @=2"}, ""},
		"second line":         {[]string{"b=1", "@=2"}, "2"},
		"crumbs (RFC 9113)":   {[]string{"b=1", "@=2", "@=3; c=4"}, "2"},
		"equals in the value": {[]string{"@=1=2"}, "1=2"},
		"no equals":           {[]string{"@; @=2"}, "2"},
		"quotes stay":         {[]string{`@="1"`}, `"1"`},
		"decoded":             {[]string{"@=%31%3B%20b%3D2"}, "1; b=2"},
		"decoded once":        {[]string{"@=%2531"}, "%31"},
		"plus stays":          {[]string{"@=1+2"}, "1+2"},
		"malformed stays":     {[]string{"@=%3"}, "%3"},
		"not UTF-8 stays":     {[]string{"@=%ff"}, "%ff"},
		"exact name":          {[]string{"&=1; x@=2; @x=2; @_=2; =3"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, name := range cookieNames {
				for _, suffix := range []string{"", "12345678"} {
					full := name
					if suffix != "" {
						full += "_" + suffix
					}
					var lines []string
					for _, line := range c.lines {
						lines = append(lines, strings.NewReplacer("@", full, "&", strings.ToUpper(full)).Replace(line))
					}
					got := readCookies(http.Header{"Cookie": lines}, suffix)
					if value := got.chosen(suffix != "")[i]; value != c.want {
						t.Errorf("%s is %q, want %q", full, value, c.want)
					}
					got.chosen(suffix != "")[i] = ""
					if got != (jars{}) {
						t.Errorf("%s counts as another one, too: %q", full, got)
					}
				}
			}
		})
	}
}

// An instance's suffix can be anything that is eight characters long.
func TestCookiesWithOddSuffix(t *testing.T) {
	t.Parallel()
	h := http.Header{"Cookie": {"__refresh=a; __refresh__refresh=b; __clerk_db_jwt=c; __clerk_db_jwt__refresh=d; _=e; __=f"}}
	want := jars{plain: jar{cookieRefresh: "a", cookieDevBrowser: "c"}, own: jar{cookieRefresh: "b", cookieDevBrowser: "d"}}
	if got := readCookies(h, "_refresh"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := readCookies(http.Header{"Cookie": {"__session_=x"}}, ""); got != (jars{}) {
		t.Errorf("without a suffix: %q", got)
	}
}

// Attack: a megabyte of cookies, to keep the edge busy with looking for one. It counts as none, wherever in it
// Clerk's are.
func TestAttackManyCookies(t *testing.T) {
	t.Parallel()
	session := "__session=" + goodToken(t) + "; __client_uat=1"
	fill := func(n int) string { return strings.Repeat("a=1;", n/4) }
	for name, c := range map[string]struct {
		lines []string
		read  bool
	}{
		"at the limit":       {[]string{session + ";" + fill(maxCookies)[:maxCookies-len(session)-1]}, true},
		"in front":           {[]string{session + ";" + fill(maxCookies)}, false},
		"at the end":         {[]string{fill(maxCookies) + session}, false},
		"in lines":           {[]string{session, fill(maxCookies / 2), fill(maxCookies / 2)}, false},
		"ten thousand lines": {append(slices.Repeat([]string{"a=1; bcd"}, 10_000), session), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, Config{})
			_, err := v.Authenticate(request(t, "/", http.Header{"Cookie": c.lines}))
			if c.read {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refusal(t, err, apierr.TokenMissing, reasonNoSession)
		})
	}
}

// Attack: cookies by the thousand, each of which the header used to be searched for. One reading is one reading.
func TestCookiesAreReadOnce(t *testing.T) {
	t.Parallel()
	r := &visit{Request: request(t, "/", http.Header{"Cookie": {"__session=a"}})}
	v := newVerifier(t, Config{})
	first := v.cookies(r)
	r.Header.Set("Cookie", "__session=b")
	if again := v.cookies(r); again != first || again.plain[cookieSession] != "a" {
		t.Errorf("read again: %q", again)
	}
}

func TestParseClientUAT(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"": 0, "0": 0, "-0": 0, "abc": 0, "1767225600": 1767225600, "12abc": 12, " 12": 12, "+12": 12, "-5": -5, "1.9": 1,
		"--5": 0, "9223372036854775807": math.MaxInt64, "9223372036854775808": math.MaxInt64, "99999999999999999999999": math.MaxInt64,
	} {
		if got := parseClientUAT(text); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}
