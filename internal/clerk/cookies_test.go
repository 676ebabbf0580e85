package clerk

import (
	"math"
	"net/http"
	"testing"
)

func TestCookie(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"none":                {nil, ""},
		"alone":               {[]string{"a=1"}, "1"},
		"among others":        {[]string{"x=0; a=1; b=2"}, "1"},
		"without a space":     {[]string{"x=0;a=1"}, "1"},
		"space around":        {[]string{" \t a = 1 \t; b=2"}, "1"},
		"first counts":        {[]string{"a=1; a=2"}, "1"},
		"first counts, empty": {[]string{"a=; a=2"}, ""},
		"second line":         {[]string{"b=1", "a=2"}, "2"},
		"equals in the value": {[]string{"a=1=2"}, "1=2"},
		"no equals":           {[]string{"a; a=2"}, "2"},
		"quotes stay":         {[]string{`a="1"`}, `"1"`},
		"decoded":             {[]string{"a=%31%3B%20b%3D2"}, "1; b=2"},
		"decoded once":        {[]string{"a=%2531"}, "%31"},
		"plus stays":          {[]string{"a=1+2"}, "1+2"},
		"malformed stays":     {[]string{"a=%3"}, "%3"},
		"not UTF-8 stays":     {[]string{"a=%ff"}, "%ff"},
		"exact name":          {[]string{"A=1; aa=2; =3"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := cookie(http.Header{"Cookie": c.lines}, "a"); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
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
