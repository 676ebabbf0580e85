package tinybird

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	testWorkspace = "01234567-89ab-cdef-0123-456789abcdef"
	testKey       = "p.eyJ1IjoiMDEyMzQ1NjctODlhYi1jZGVmLTAxMjMtNDU2Nzg5YWJjZGVmIn0.c2lnbmF0dXJlLW9mLXRoZS1rZXk"
)

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newMinter(t testing.TB, o MinterOptions) (*Minter, *clock) {
	t.Helper()
	c := &clock{t: time.Unix(1_800_000_000, 0)}
	o.Key, o.WorkspaceID, o.Now = []byte(testKey), testWorkspace, c.Now
	m, err := NewMinter(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, c
}

func mint(t testing.TB, m *Minter, g *Grant, rps int) (string, bool) {
	t.Helper()
	token, cached, err := m.Mint(g, rps)
	if err != nil {
		t.Fatal(err)
	}
	return token, cached
}

// payload checks the signature by hand and returns the token's header and claims as they were written.
func payload(t testing.TB, token string) (header, claims string) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	mac := hmac.New(sha256.New, []byte(testKey))
	mac.Write([]byte(parts[0] + "." + parts[1]))
	if base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) != parts[2] {
		t.Fatal("the signature is wrong")
	}
	var out [2]string
	for i := range out {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		out[i] = string(b)
	}
	return out[0], out[1]
}

// The claims are exactly these, in this order, and nothing else of Clerk's token.
func TestMintClaims(t *testing.T) {
	t.Parallel()
	m, _ := newMinter(t, MinterOptions{})
	const start = `{"workspace_id":"` + testWorkspace + `","name":"`
	tests := []struct {
		name string
		g    *Grant
		rps  int
		want string
	}{
		{
			"tenant", tenantGrant(t), 0,
			start + `org_acme","exp":1800000060,"scopes":[{"type":"PIPES:READ","resource":"top_pages",` +
				`"fixed_params":{"User_Id":"user_1","organization_id":"org_acme"}}]}`,
		},
		{
			"types and limit",
			&Grant{Count: Count{Rate: &RateSpec{RPS: "{rps}"}}, Pipe: "a", TokenName: "n:a", Fixed: []FixedValue{
				{"b", true}, {"n", json.Number("90071992547409931.50")}, {"s", "\"\\<é\u2028{x}"},
			}},
			50,
			start + `n:a","exp":1800000060,"scopes":[{"type":"PIPES:READ","resource":"a",` +
				`"fixed_params":{"b":true,"n":90071992547409931.50,"s":"\"\\\u003cé\u2028{x}"}}],"limits":{"rps":50}}`,
		},
		{
			"unrestricted", &Grant{Pipe: "a", TokenName: "user_1"}, 0,
			start + `user_1","exp":1800000060,"scopes":[{"type":"PIPES:READ","resource":"a"}]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			token, cached := mint(t, m, tt.g, tt.rps)
			header, claims := payload(t, token)
			if header != `{"alg":"HS256","typ":"JWT"}` || claims != tt.want || cached {
				t.Errorf("%v %s\n got %s\nwant %s", cached, header, claims, tt.want)
			}
			// Another implementation reads it, too.
			if _, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return []byte(testKey), nil },
				jwt.WithValidMethods([]string{"HS256"}), jwt.WithTimeFunc(func() time.Time { return time.Unix(1_800_000_059, 0) })); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMintKeepsTokensForTwoThirdsOfTheirLife(t *testing.T) {
	t.Parallel()
	m, c := newMinter(t, MinterOptions{TTL: 30 * time.Second})
	g := tenantGrant(t)
	first, _ := mint(t, m, g, 5)
	c.Add(20 * time.Second)
	if token, cached := mint(t, m, tenantGrant(t), 5); !cached || token != first {
		t.Error("a third of its life is left, but it is minted anew")
	}
	c.Add(time.Nanosecond)
	second, cached := mint(t, m, g, 5)
	if cached || second == first {
		t.Error("less than a third is left, but it is used")
	}
	if _, claims := payload(t, second); !strings.Contains(claims, `"exp":1800000051,`) {
		t.Errorf("claims %s", claims) // 50 s and a nanosecond, rounded up
	}
	// A clock that was set back must not make a token live longer than it would.
	c.Add(-10 * time.Minute)
	third, cached := mint(t, m, g, 5)
	if cached || third == second {
		t.Error("a token from the future is used")
	}
	m.Close()
	if _, cached := mint(t, m, g, 5); cached {
		t.Error("a token survives Close")
	}
}

// Attack: two tenants whose grants collide in the cache, so that one is served the other's token.
func TestMintNeverMixesGrants(t *testing.T) {
	t.Parallel()
	m, _ := newMinter(t, MinterOptions{})
	grant := func(pipe, name string, fixed ...FixedValue) *Grant {
		return &Grant{Pipe: pipe, TokenName: name, Fixed: fixed}
	}
	grants := []*Grant{
		grant("a", "n"), grant("b", "n"), grant("a", "m"), grant("an1", "n"), grant("a", "n1:nf1:x"), grant("a", "nf:xs:1"), grant("a", "n:n"),
		grant("a", "n", FixedValue{"x", "1"}), grant("a", "n", FixedValue{"x", json.Number("1")}),
		grant("a", "n", FixedValue{"x", "true"}), grant("a", "n", FixedValue{"x", true}), grant("a", "n", FixedValue{"x", false}),
		grant("a", "n", FixedValue{"x", "1"}, FixedValue{"y", "2"}), grant("a", "n", FixedValue{"x", "1f1:ys1:2"}),
		grant("a", "n", FixedValue{"X", "1"}), grant("a", "nf1:x", FixedValue{"s1", "1"}), grant("a", "n", FixedValue{"x", "12"}),
		grant("a", "n", FixedValue{"x1", "2"}), grant("a", "n", FixedValue{"x", json.Number("1.0")}),
	}
	seen := map[string]int{}
	for i, g := range grants {
		for _, rps := range []int{0, 1, 11} {
			key := i*100 + rps
			token, cached := mint(t, m, g, rps)
			if cached {
				t.Errorf("grant %d is served another one's token", key)
			}
			_, claims := payload(t, token)
			if other, ok := seen[claims]; ok {
				t.Errorf("grants %d and %d make the same token", other, key)
			}
			seen[claims] = key
			if again, cached := mint(t, m, g, rps); !cached || again != token {
				t.Errorf("grant %d is not kept", key)
			}
		}
	}
}

// Attack: a rate that resolved to 0 or less, which Tinybird takes for no limit.
func TestMintNeverSignsALimitAway(t *testing.T) {
	t.Parallel()
	m, _ := newMinter(t, MinterOptions{})
	limited := tenantGrant(t)
	limited.Rate = &RateSpec{RPS: "{rps}"}
	for _, rps := range []int{0, -1, MaxRPS + 1} {
		if token, _, err := m.Mint(limited, rps); err == nil || token != "" {
			t.Errorf("signed with %d requests per second", rps)
		}
	}
	if _, _, err := m.Mint(tenantGrant(t), -1); err == nil {
		t.Error("signed with -1 requests per second")
	}
}

func TestMintRefusesUnusableGrants(t *testing.T) {
	t.Parallel()
	m, _ := newMinter(t, MinterOptions{})
	for name, g := range map[string]*Grant{
		"nil": nil, "empty": {}, "no name": {Pipe: "a"}, "no pipe": {TokenName: "n"}, "bad pipe": {Pipe: "*", TokenName: "n"},
		"control in name": {Pipe: "a", TokenName: "n\n"}, "long name": {Pipe: "a", TokenName: rep("n", 2000)},
		"empty value":     {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"x", ""}}},
		"nil value":       {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"x", nil}}},
		"other value":     {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"x", 1}}},
		"list value":      {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"x", []any{"a"}}}},
		"no number":       {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"x", json.Number(`1},"y":{`)}}},
		"broken text":     {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"x", "\xff"}}},
		"doubled":         {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"x", "1"}, {"x", "2"}}},
		"unsorted":        {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"y", "1"}, {"x", "2"}}},
		"reserved":        {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{"Token", "1"}}},
		"name with quote": {Pipe: "a", TokenName: "n", Fixed: []FixedValue{{`x"`, "1"}}},
	} {
		if token, _, err := m.Mint(g, 0); err == nil || token != "" {
			t.Errorf("%s: signed", name)
		} else if strings.Contains(err.Error(), testKey) {
			t.Errorf("%s: the error holds the key", name)
		}
	}
}

// P6: whatever is asked for, no more tokens are kept than configured.
func TestMintIsBounded(t *testing.T) {
	t.Parallel()
	const most = 50
	m, _ := newMinter(t, MinterOptions{MaxTokens: most})
	for i := range 2000 {
		mint(t, m, &Grant{Pipe: "a", TokenName: "user_" + strconv.Itoa(i)}, 0)
	}
	m.tokens.CleanUp()
	if n := m.tokens.EstimatedSize(); n > most || n == 0 {
		t.Errorf("%d tokens are kept", n)
	}
}

func TestMintConcurrently(t *testing.T) {
	t.Parallel()
	m, c := newMinter(t, MinterOptions{TTL: 3 * time.Second, MaxTokens: 8})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				name := "user_" + strconv.Itoa((i+j)%16)
				token, _, err := m.Mint(&Grant{Pipe: "a", TokenName: name}, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if _, claims := payload(t, token); !strings.Contains(claims, `"name":"`+name+`",`) {
					t.Errorf("%s is served %s", name, claims)
				}
				c.Add(10 * time.Millisecond)
			}
		})
	}
	wg.Wait()
}

func TestNewMinter(t *testing.T) {
	t.Parallel()
	good := MinterOptions{Key: []byte(testKey), WorkspaceID: testWorkspace}
	for name, change := range map[string]func(*MinterOptions){
		"no key": func(o *MinterOptions) { o.Key = nil }, "short key": func(o *MinterOptions) { o.Key = []byte("admin") },
		"no workspace": func(o *MinterOptions) { o.WorkspaceID = "" }, "bad workspace": func(o *MinterOptions) { o.WorkspaceID = "x" },
		"negative ttl": func(o *MinterOptions) { o.TTL = -1 }, "tiny ttl": func(o *MinterOptions) { o.TTL = time.Millisecond },
		"negative size": func(o *MinterOptions) { o.MaxTokens = -1 },
	} {
		o := good
		change(&o)
		if _, err := NewMinter(o); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "eyJ") || strings.Contains(err.Error(), `"admin"`) {
			t.Errorf("%s: the error holds the key: %v", name, err)
		}
	}
	m, err := NewMinter(good)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	before := time.Now()
	token, _ := mint(t, m, &Grant{Pipe: "a", TokenName: "n"}, 0)
	var c struct{ Exp int64 }
	if _, claims := payload(t, token); json.Unmarshal([]byte(claims), &c) != nil || c.Exp < before.Add(DefaultTTL).Unix() {
		t.Errorf("claims %s", claims)
	}
}

func FuzzMintKey(f *testing.F) {
	f.Add("a", "n", "x", "1", "b", "m", "y", "2")
	f.Add("a", "n", "x", "1", "a", "n1:x", "x", "1")
	f.Fuzz(func(t *testing.T, p1, n1, f1, v1, p2, n2, f2, v2 string) {
		a := &Grant{Pipe: p1, TokenName: n1, Fixed: []FixedValue{{f1, v1}}}
		b := &Grant{Pipe: p2, TokenName: n2, Fixed: []FixedValue{{f2, v2}}}
		if (cacheKeyOf(a.TokenName, 1, []*Grant{a}) == cacheKeyOf(b.TokenName, 1, []*Grant{b})) != (p1 == p2 && n1 == n2 && f1 == f2 && v1 == v2) {
			t.Fatalf("%+v and %+v share a key", a, b)
		}
	})
}
