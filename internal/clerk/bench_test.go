package clerk

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// junkTokens are what anybody can send: tokens for the right kid, whose signature is wrong. Those after the
// first are as costly to decode as their size allows.
func junkTokens(t testing.TB) map[string]string {
	t.Helper()
	members := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < 5<<10; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	claims := func(more string) string {
		return `{"iss":"` + testIssuer + `","sub":"user_1","iat":1767225600,"exp":1767225660,` + more + `}`
	}
	return map[string]string{
		"plain":           sign(t, keyB(), testHeader(nil), testClaims(nil)),
		"list":            sign(t, keyB(), testHeader(nil), claims(`"x":[`+strings.Repeat("0,", 5<<9)+`0]`)),
		"members":         sign(t, keyB(), testHeader(nil), claims(members(`"%d":0,`)+`"x":0`)),
		"escaped members": sign(t, keyB(), testHeader(nil), claims(members(`"\u0069\u0073\u0073%d":0,`)+`"x":0`)),
		"objects":         sign(t, keyB(), testHeader(nil), claims(`"x":[`+strings.Repeat(`{"":{}},`, 600)+`0]`)),
		"header":          sign(t, keyB(), testHeader(object{"x": make([]int, 300)}), testClaims(nil)),
	}
}

// Attack: a forged token full of what is costly to decode, tens of thousands of allocations in 8 KB. Before the
// signature it costs what any other token costs.
func TestAttackHeavyJunk(t *testing.T) { //nolint:paralleltest // AllocsPerRun must not run beside other tests
	for name, token := range junkTokens(t) {
		if len(token) > defaultMaxToken {
			t.Fatalf("%s: %d bytes are refused for their size", name, len(token))
		}
		v := newVerifier(t, Config{})
		refusal(t, verify(t, v, token), apierr.TokenInvalid, reasonSignature)
		if n := testing.AllocsPerRun(20, func() { _, _ = parse(token) }); n > 30 {
			t.Errorf("%s: %v allocations before the signature", name, n)
		}
	}
}

func BenchmarkJunk(b *testing.B) {
	for name, token := range junkTokens(b) {
		b.Run(name, func(b *testing.B) {
			v := newVerifier(b, Config{})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

// A cookie header full of cookies that are not Clerk's.
func BenchmarkCookies(b *testing.B) {
	v := newVerifier(b, Config{PublishableKey: testKey})
	r := request(b, "/", map[string][]string{"Cookie": {strings.Repeat("a=1;", 15<<10) + "__client_uat=0"}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Authenticate(r); err == nil {
			b.Fatal("accepted")
		}
	}
}

// Sessions that were never seen before.
func BenchmarkVerifyCold(b *testing.B) {
	v := newVerifier(b, Config{MaxIdentities: 100})
	tokens := make([]string, 512)
	for i := range tokens {
		tokens[i] = sign(b, keyA(), testHeader(nil), testClaims(object{"jti": strconv.Itoa(i)}))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := v.Verify(b.Context(), tokens[i%len(tokens)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
