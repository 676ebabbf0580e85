package tinybird

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestBuildQuery(t *testing.T) {
	t.Parallel()
	g := tenantGrant(t)
	tests := []struct {
		raw, want string
		dropped   int
	}{
		{"", "", 0},
		{"&&", "", 0},
		{"a=1", "a=1", 0},
		{"a=1&a=2&b=3&a=4", "a=1&a=2&b=3&a=4", 0}, // arrays of Tinybird's SDK
		{"&a=1&&b=2&", "a=1&b=2", 0},
		{"a", "a=", 0},
		{"a=b=c", "a=b%3Dc", 0},
		{"a=x+y%20z", "a=x+y+z", 0},
		{"%61=%41", "a=A", 0},
		{"a=%2526token%253Dx", "a=%2526token%253Dx", 0}, // decoded once, encoded once
		{"a=%26token%3Dx", "a=%26token%3Dx", 0},
		{"a=%00%0a", "a=%00%0A", 0},
		{"a=é", "a=%C3%A9", 0},
		{"from=ts-sdk&limit=10", "from=ts-sdk&limit=10", 0},
		{"=1", "", 1},
		{"a-b=1&a.b=1&a[]=1&1a=1&é=1&" + rep("a", 129) + "=1", "", 6},
		{"tokens=1&my_token=2&q2=3&_tb_=4&token_=5", "tokens=1&my_token=2&q2=3&_tb_=4&token_=5", 0},
	}
	for _, tt := range tests {
		got, dropped, err := buildQuery(tt.raw, g.lets)
		if err != nil || got != tt.want || dropped != tt.dropped {
			t.Errorf("buildQuery(%q) = %q, %d, %v; want %q, %d", tt.raw, got, dropped, err, tt.want, tt.dropped)
		}
	}
}

// P1 and P2: what two parsers could read differently is refused as a whole, not guessed at.
func TestBuildQueryRefusesAmbiguity(t *testing.T) {
	t.Parallel()
	g := tenantGrant(t)
	for _, raw := range []string{
		"a=1;token=x", // a separator to older parsers
		";", "a=1%3B;b=2",
		"a=%", "a=%4", "a=%zz", "a=%u0041", "%=1", // bad escapes
		"token=%zz",                   // also in what would be left out
		"a=%ff", "%c0%80=1", "a=\xff", // not UTF-8, overlong NUL
		"to%00ken=x", "token%00=x", "%0atoken=x", "token%0d=x", "token%c2%85=x", // names with control characters
		"a=1\r\nX: y", "a=\x00", "a=\x7f", // raw control characters
	} {
		if got, _, err := buildQuery(raw, g.lets); err == nil || got != "" {
			t.Errorf("buildQuery(%q) = %q, %v", raw, got, err)
		} else if strings.Contains(err.Error(), raw) && len(raw) > 3 {
			t.Errorf("the error quotes the query: %v", err)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "a=1&b=2", "a=1&a=2", "token=x&a=1", "%74oken=x", "TOKEN=x", "a=%26token%3Dx", "a;token=x", "organization_id=x", "a=%zz",
		"__tb__x=1&__TB__y=2&Q=3&PipeLine=4&user_id=5", "a=+%2B&b", "to\u212aen=1", "%E2%84%AA=1", "=&=&&", "a=%00", "a%00=1",
	} {
		f.Add(seed)
	}
	g := tenantGrant(f)
	f.Fuzz(func(t *testing.T, raw string) {
		out, dropped, err := buildQuery(raw, g.lets)
		theirs, theirErr := url.ParseQuery(raw)
		if err != nil {
			return
		}
		if theirErr != nil {
			t.Fatalf("%q passes, but net/url says %v", raw, theirErr)
		}
		// What goes up is what net/url reads in the request, less what may not.
		kept, total := 0, 0
		ours, err := url.ParseQuery(out)
		if err != nil {
			t.Fatalf("net/url refuses %q: %v", out, err)
		}
		for name, values := range theirs {
			total += len(values)
			if !g.lets(name) {
				continue
			}
			kept += len(values)
			if strings.Join(ours[name], "\x00,") != strings.Join(values, "\x00,") {
				t.Fatalf("%q: %s is %q, net/url says %q", raw, name, ours[name], values)
			}
		}
		count := 0
		for name, values := range ours {
			count += len(values)
			if forbidden(name) || !validName(name) {
				t.Fatalf("%q lets %q through as %q", raw, name, out)
			}
			for _, v := range values {
				if !utf8.ValidString(v) {
					t.Fatalf("%q: broken text goes up", raw)
				}
			}
		}
		if count != kept || total != kept+dropped {
			t.Fatalf("%q: %d of %d parameters kept, %d dropped, %d go up", raw, kept, total, dropped, count)
		}
		if again, n, err := buildQuery(out, g.lets); err != nil || n != 0 || again != out {
			t.Fatalf("%q is no fixed point: %q, %d, %v", out, again, n, err)
		}
		if strings.ContainsAny(out, "; \x00#\r\n") {
			t.Fatalf("unescaped bytes in %q", out)
		}
	})
}
