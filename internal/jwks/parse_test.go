package jwks

import (
	"crypto/rsa"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
)

func TestParseSetKeepsUsableKeys(t *testing.T) {
	t.Parallel()
	n := b64(modulus(2048, "1"))
	for name, k := range map[string]string{
		"as Clerk writes it": key("a", "1"),
		"least":              `{"kty":"RSA","kid":"a","n":"` + n + `","e":"AQAB"}`,
		"null members":       `{"kty":"RSA","kid":"a","use":null,"alg":null,"key_ops":null,"n":"` + n + `","e":"AQAB"}`,
		"key_ops":            `{"kty":"RSA","kid":"a","key_ops":["verify"],"n":"` + n + `","e":"AQAB"}`,
		"exponent 3":         `{"kty":"RSA","kid":"a","n":"` + n + `","e":"Aw"}`,
		"largest exponent":   `{"kty":"RSA","kid":"a","n":"` + n + `","e":"f____w"}`,
		"8192 bits":          `{"kty":"RSA","kid":"a","n":"` + b64(modulus(8192, "1")) + `","e":"AQAB"}`,
		"leading zero octet": `{"kty":"RSA","kid":"a","n":"` + b64zero(modulus(2048, "1")) + `","e":"AQAB"}`,
		// What else a key brings along is not looked at, so it cannot be wrong either.
		"strange members": strings.Replace(key("a", "1"), "{", `{"x5c":["!"],"x5u":5,"N":"AAAA","KID":"b","ext":{},`, 1),
	} {
		keys, skipped, err := ParseSet([]byte(doc(k)))
		if err != nil || len(keys) != 1 || skipped != 0 {
			t.Errorf("%s: %d keys, %d skipped, %v", name, len(keys), skipped, err)
			continue
		}
		pub, ok := keys[0].Key().(*rsa.PublicKey)
		if !ok || keys[0].Marshal().KID != "a" {
			t.Errorf("%s: %T with kid %q", name, keys[0].Key(), keys[0].Marshal().KID)
			continue
		}
		if pub.N.BitLen() == 2048 && pub.N.Cmp(modulus(2048, "1")) != 0 {
			t.Errorf("%s: another modulus", name)
		}
	}
}

func b64zero(n *big.Int) string { return b64url(append([]byte{0}, n.Bytes()...)) }

func TestParseSetSkipsUnusableKeysOneByOne(t *testing.T) {
	t.Parallel()
	good := key("a", "1")
	n := b64(modulus(2048, "2"))
	with := func(kid, n, e string) string { return fmt.Sprintf(`{"kty":"RSA","kid":%q,"n":%q,"e":%q}`, kid, n, e) }
	for name, bad := range map[string]string{
		"oct":                       `{"kty":"oct","kid":"b","alg":"HS256","k":"c2VjcmV0"}`,
		"EC":                        `{"kty":"EC","crv":"P-256","kid":"b","alg":"ES256","x":"AA","y":"AA"}`,
		"Ed25519":                   `{"kty":"OKP","crv":"Ed25519","kid":"b","x":"AA"}`,
		"no kty":                    strings.Replace(key("b", "2"), `"kty"`, `"ktx"`, 1),
		"kty in other case":         strings.Replace(key("b", "2"), `"RSA"`, `"rsa"`, 1),
		"member name in other case": strings.Replace(key("b", "2"), `"kid"`, `"KID"`, 1),
		"for encryption":            strings.Replace(key("b", "2"), `"sig"`, `"enc"`, 1),
		"ES256":                     strings.Replace(key("b", "2"), "RS256", "ES256", 1),
		"PS256":                     strings.Replace(key("b", "2"), "RS256", "PS256", 1),
		"alg none":                  strings.Replace(key("b", "2"), "RS256", "none", 1),
		"HS256":                     strings.Replace(key("b", "2"), "RS256", "HS256", 1),
		"alg no string":             strings.Replace(key("b", "2"), `"RS256"`, "256", 1),
		"only signs":                strings.Replace(key("b", "2"), "{", `{"key_ops":["sign"],`, 1),
		"no operations":             strings.Replace(key("b", "2"), "{", `{"key_ops":[],`, 1),
		"private":                   strings.Replace(key("b", "2"), "{", `{"d":"AQAB",`, 1),
		"no kid":                    fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, n),
		"empty kid":                 with("", n, "AQAB"),
		"kid no string":             fmt.Sprintf(`{"kty":"RSA","kid":1,"n":%q,"e":"AQAB"}`, n),
		"long kid":                  with(strings.Repeat("k", MaxKID+1), n, "AQAB"),
		"taken kid":                 key("a", "2"),
		"1024 bits":                 with("b", b64(modulus(1024, "2")), "AQAB"),
		"2047 bits":                 with("b", b64(modulus(2047, "2")), "AQAB"),
		"2047 bits, padded to 2048": with("b", b64zero(modulus(2047, "2")), "AQAB"),
		// Attack: a modulus so large that one verification takes seconds.
		"8193 bits":            with("b", b64(modulus(8193, "2")), "AQAB"),
		"even modulus":         with("b", b64(new(big.Int).Lsh(modulus(2048, "2"), 1)), "AQAB"),
		"no modulus":           `{"kty":"RSA","kid":"b","e":"AQAB"}`,
		"no exponent":          fmt.Sprintf(`{"kty":"RSA","kid":"b","n":%q}`, n),
		"exponent 0":           with("b", n, "AA"),
		"exponent 1":           with("b", n, "AQ"),
		"exponent 2":           with("b", n, "Ag"),
		"even exponent":        with("b", n, "AQAA"),
		"exponent over 31 bit": with("b", n, "gAAAAQ"),
		// Attack: an exponent of 65 bits that becomes 3 when it is cut down to 64.
		"exponent that wraps around": with("b", n, b64url([]byte{1, 0, 0, 0, 0, 0, 0, 0, 3})),
		"padded base64":              with("b", n+"==", "AQAB"),
		"standard base64":            with("b", "++//"+n[4:], "AQAB"),
		"line break in base64":       with("b", n[:10]+"\n"+n[10:], "AQAB"),
		"stray bits in base64":       with("b", n, "AQAC="),
		"not canonical base64":       with("b", n, "Ax"),
		"null":                       `null`,
		"number":                     `1`,
		"array":                      `[]`,
		"empty":                      `{}`,
	} {
		for where, body := range map[string]string{"after": doc(good, bad), "before": doc(bad, good)} {
			if where == "after" && name == "taken kid" {
				continue // then the other one counts
			}
			keys, skipped, err := ParseSet([]byte(body))
			if err != nil || len(keys) != 1 || skipped != 1 {
				t.Errorf("%s, %s: %d keys, %d skipped, %v", name, where, len(keys), skipped, err)
				continue
			}
			if k := keys[0].Marshal(); k.KID != "a" || k.N != b64(modulus(2048, "1")) {
				t.Errorf("%s, %s: the wrong key is kept", name, where)
			}
		}
	}
}

func TestParseSetRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":            "",
		"null":               "null",
		"array":              "[" + key("a", "1") + "]",
		"one key":            key("a", "1"),
		"no keys":            "{}",
		"keys in other case": strings.Replace(doc(key("a", "1")), "keys", "Keys", 1),
		"keys null":          `{"keys":null}`,
		"keys an object":     `{"keys":{}}`,
		"keys a string":      `{"keys":"` + "x" + `"}`,
		"empty set":          doc(),
		"nothing usable":     doc(`{"kty":"oct","k":"c2VjcmV0"}`, "{}"),
		"trailing data":      doc(key("a", "1")) + "{}",
		"byte order mark":    "\ufeff" + doc(key("a", "1")),
		"HTML":               "<html>c2VjcmV0</html>",
		"cut off":            doc(key("a", "1"))[:200],
	} {
		keys, _, err := ParseSet([]byte(text))
		if err == nil || len(keys) != 0 {
			t.Errorf("%s: %d keys, %v", name, len(keys), err)
			continue
		}
		if strings.ContainsAny(err.Error(), "\n<") || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: the error quotes the document: %v", name, err)
		}
	}
}

func TestParseSetKeepsTheOrder(t *testing.T) {
	t.Parallel()
	keys, skipped, err := ParseSet([]byte(doc(key("c", "1"), "{}", key("a", "2"), key("c", "3"), key("b", "1"))))
	if err != nil || skipped != 2 || len(keys) != 3 {
		t.Fatalf("%d keys, %d skipped, %v", len(keys), skipped, err)
	}
	if a, b, c := keys[0].Marshal().KID, keys[1].Marshal().KID, keys[2].Marshal().KID; a+b+c != "cab" {
		t.Fatalf("order %s %s %s", a, b, c)
	}
}

func FuzzParseSet(f *testing.F) {
	for _, s := range []string{
		doc(), doc(key("a", "1")), doc(key("a", "1"), key("b", "2")), doc(key("a", "1"), key("a", "2"), "null"),
		`{"keys":[{"kty":"oct","k":"AA"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"e"}]}`,
		`{"keys":null}`, `{"keys":[[]]}`, "null", "<html>", "",
		doc(strings.Replace(key("a", "1"), "AQAB", "AQAAAAAAAAAD", 1)),
		doc(strings.Replace(key("a", "1"), "{", `{"d":"AA","key_ops":["verify"],"x5c":[""],`, 1)),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, skipped, err := ParseSet(text)
		if (err == nil) != (len(keys) > 0) || skipped < 0 {
			t.Fatalf("%d keys, %d skipped, %v", len(keys), skipped, err)
		}
		seen := map[string]bool{}
		for _, k := range keys {
			m := k.Marshal()
			pub, ok := k.Key().(*rsa.PublicKey)
			if !ok || checkRSA(pub) != nil {
				t.Fatalf("unusable key %+v", m)
			}
			if m.KID == "" || seen[m.KID] || m.D != "" || (m.USE != "" && m.USE != "sig") || (m.ALG != "" && !slices.Contains(algorithms, m.ALG.String())) {
				t.Fatalf("unusable key %+v", m)
			}
			seen[m.KID] = true
		}
	})
}
