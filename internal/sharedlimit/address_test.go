package sharedlimit

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

var errUnset = errors.New("it is not set")

// lookUp knows the placeholders of the tests.
func lookUp(placeholder string) (string, error) {
	value, ok := map[string]string{
		"{env.PASSWORD}":  `p@ss:w/o?r#d%2F&=+ {x}`,
		"{env.HOST}":      "redis-1.internal",
		"{env.PORT}":      "6380",
		"{env.DATABASE}":  "3",
		"{env.URL}":       "rediss://edge:secret@redis-1.internal:6380/3\n",
		"{env.BRACES}":    "redis://:{env.PASSWORD}@redis-1.internal",
		"{env.WORD}":      "word",
		"{file./run/pw}":  "from a file",
		"{env.INJECTION}": "evil.example:6379/?a=b@",
	}[placeholder]
	if !ok {
		return "", errUnset
	}
	return value, nil
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]redis.UniversalOptions{
		"redis://redis":                                {Addrs: []string{"redis:6379"}},
		"redis://redis:6380/":                          {Addrs: []string{"redis:6380"}},
		"redis://[::1]/5":                              {Addrs: []string{"[::1]:6379"}, DB: 5},
		"redis://[::1]:7000":                           {Addrs: []string{"[::1]:7000"}},
		"redis://edge@redis":                           {Addrs: []string{"redis:6379"}, Username: "edge"},
		"redis://:a%2Fb%40c@redis":                     {Addrs: []string{"redis:6379"}, Password: "a/b@c"},
		"redis://edge:secret@10.0.0.1:6379/15":         {Addrs: []string{"10.0.0.1:6379"}, Username: "edge", Password: "secret", DB: 15},
		"redis://edge:{env.PASSWORD}@redis":            {Addrs: []string{"redis:6379"}, Username: "edge", Password: `p@ss:w/o?r#d%2F&=+ {x}`},
		"redis://:x{env.PASSWORD}y@redis":              {Addrs: []string{"redis:6379"}, Password: `xp@ss:w/o?r#d%2F&=+ {x}y`},
		"redis://{env.WORD}:{file./run/pw}@redis":      {Addrs: []string{"redis:6379"}, Username: "word", Password: "from a file"},
		"redis://{env.HOST}:{env.PORT}/{env.DATABASE}": {Addrs: []string{"redis-1.internal:6380"}, DB: 3},
		"{env.URL}":                                    {Addrs: []string{"redis-1.internal:6380"}, Username: "edge", Password: "secret", DB: 3},
		"redis://a?cluster=true":                       {Addrs: []string{"a:6379"}, IsClusterMode: true},
		"redis://a?cluster=true&addr=b:7001&addr={env.HOST}:{env.PORT}": {Addrs: []string{"a:6379", "b:7001", "redis-1.internal:6380"}, IsClusterMode: true},
		"redis://:pw@a/2?master_name=main&addr=b:26380&addr=c":          {Addrs: []string{"a:26379", "b:26380", "c:26379"}, Password: "pw", DB: 2, MasterName: "main"},
		"redis://a?master_name={env.WORD}&sentinel_username=s&sentinel_password={env.PASSWORD}": {
			Addrs: []string{"a:26379"}, MasterName: "word", SentinelUsername: "s", SentinelPassword: `p@ss:w/o?r#d%2F&=+ {x}`,
		},
	} {
		a, err := ParseURL(text, lookUp)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := a.Redis
		if !slices.Equal(got.Addrs, want.Addrs) || got.Username != want.Username || got.Password != want.Password || got.DB != want.DB ||
			got.IsClusterMode != want.IsClusterMode || got.MasterName != want.MasterName ||
			got.SentinelUsername != want.SentinelUsername || got.SentinelPassword != want.SentinelPassword {
			t.Errorf("%s:\n got %+v\nwant %+v", text, *got, want)
		}
		if tls := strings.HasPrefix(text, "rediss:") || text == "{env.URL}"; (got.TLSConfig != nil) != tls {
			t.Errorf("%s: TLS %v", text, got.TLSConfig != nil)
		}
		if a.Host != want.Addrs[0] {
			t.Errorf("%s: the host is %q", text, a.Host)
		}
		if _, err := ParseURL(text, nil); err != nil {
			t.Errorf("%s, unresolved: %v", text, err)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		"":                                         errURL,
		"redis":                                    errURL,
		"redis.internal:6379":                      errURL,
		"redis:redis":                              errURL,
		"http://redis":                             errURL,
		"unix:///run/redis.sock":                   errURL,
		"redis://redis#fragment":                   errURL,
		"redis://:pa#ss@redis":                     errURL,
		"redis://:pa/ss@redis":                     errURL,
		"redis://:pa ss@redis":                     errURL,
		"redis://redis/?a=%zz":                     errURL,
		"redis://" + marker + "00":                 errURL,
		"redis://":                                 errHost,
		"redis://:6379":                            errHost,
		"redis://redis:0":                          errHost,
		"redis://redis:65536":                      errHost,
		"redis://redis:{env.WORD}":                 errHost,
		"redis://{env.INJECTION}":                  errHost,
		"redis://redis?cluster=true&addr=:1":       errHost,
		"redis://redis?cluster=true&addr=b@c":      errHost,
		"redis://redis/a":                          errDatabase,
		"redis://redis/-1":                         errDatabase,
		"redis://redis/1/2":                        errDatabase,
		"redis://redis/{env.WORD}":                 errDatabase,
		"redis://redis?skip_verify=true":           errOption,
		"redis://redis?db=1":                       errOption,
		"redis://redis?read_timeout=1s":            errOption,
		"redis://redis?cluster":                    errOption,
		"redis://redis?cluster=yes":                errOption,
		"redis://redis?cluster=true&cluster=true":  errOption,
		"redis://redis?master_name=":               errOption,
		"redis://redis?addr=b:1":                   errSeveral,
		"redis://redis?cluster=true&master_name=a": errBoth,
		"redis://redis?sentinel_password=a":        errSentinel,
		"redis://redis/1?cluster=true":             errCluster,
		"redis://:{http.request.uri}@redis":        errPlaceholder,
		"redis://:{}@redis":                        errPlaceholder,
		"redis://:{env.A B}@redis":                 errPlaceholder,
		"redis://:" + strings.Repeat("{env.A}", 101) + "@redis": errPlaceholder,
		"{http.request.uri}":             errPlaceholder,
		"{env.BRACES}":                   errURL,
		"{env.WORD}":                     errURL,
		"redis://:{env.NOT_THERE}@redis": errUnset,
		"redis://{env.NOT_THERE}":        errUnset,
		"{env.NOT_THERE}":                errUnset,
	} {
		if a, err := ParseURL(text, lookUp); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v, want %v", text, a, err, want)
		}
	}
}

// A password that stands in the config itself is told apart from one of a placeholder.
func TestLiteralPassword(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"redis://redis":                                   false,
		"redis://edge@redis":                              false,
		"redis://edge:secret@redis":                       true,
		"redis://:secret@{env.HOST}":                      true,
		"redis://edge:{env.PASSWORD}@redis":               false,
		"{env.URL}":                                       false,
		"redis://redis?master_name=a&sentinel_password=b": true,
		"redis://redis?master_name=a&sentinel_password={env.PASSWORD}": false,
	} {
		if a, err := ParseURL(text, lookUp); err != nil || a.Literal != want {
			t.Errorf("%s: %+v, %v", text, a, err)
		}
	}
}

// FuzzParseURL: whatever the text, the parser ends with hosts to connect to, or with an error that shows nothing of it.
func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"redis://edge:planted@redis:6379/1", "rediss://:planted@[::1]", "redis://:pl/anted@redis", "redis://a?cluster=true&addr=b:1", "{env.URL}",
		"redis://:{env.PASSWORD}@{env.HOST}:{env.PORT}", "redis://a?master_name=b&sentinel_password=planted", "planted", "redis://a#planted", "redis://" + marker + "99",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseURL(text, lookUp)
		if err != nil {
			for _, known := range []error{errURL, errPlaceholder, errHost, errDatabase, errOption, errSeveral, errBoth, errSentinel, errCluster, errUnset} {
				if err.Error() == known.Error() {
					return
				}
			}
			t.Fatalf("%q: %v", text, err)
		}
		for _, addr := range a.Redis.Addrs {
			if strings.ContainsAny(addr, "@/?# \n") || !strings.Contains(addr, ":") {
				t.Errorf("%q: the address %q", text, addr)
			}
		}
		if strings.Contains(a.Host, marker) || strings.Contains(a.Redis.Password, marker+"0") && !strings.Contains(text, "31415") {
			t.Errorf("%q: a mark is left: %+v", text, a)
		}
		if _, err := ParseURL(text, nil); err != nil && !strings.Contains(text, "{") {
			t.Errorf("%q: refused while it is not resolved: %v", text, err)
		}
	})
}
