package clerk

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

func verify(t *testing.T, v *Verifier, token string) error {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	return err
}

// Attack: "alg": "none" and no signature, in the spellings that have worked against others.
func TestAttackAlgNone(t *testing.T) {
	t.Parallel()
	for _, alg := range []any{"none", "None", "NONE", "nOnE", "", nil, false, 0} {
		v := newVerifier(t, Config{})
		body := segment(t, testHeader(object{"alg": alg})) + "." + segment(t, testClaims(nil)) + "."
		refusal(t, verify(t, v, body), apierr.TokenInvalid, reasonAlgorithm)
		signed := sign(t, keyA(), testHeader(object{"alg": alg}), testClaims(nil))
		refusal(t, verify(t, v, signed), apierr.TokenInvalid, reasonAlgorithm)
	}
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(&keyA().PublicKey)}}})
	body := segment(t, object{"alg": "none"}) + "." + segment(t, testClaims(nil)) + "."
	refusal(t, verify(t, v, body), apierr.TokenInvalid, reasonAlgorithm)
}

// Attack: an HMAC with the public key, which everybody has, as its secret.
func TestAttackHMACWithPublicKey(t *testing.T) {
	t.Parallel()
	pub := &keyA().PublicKey
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{
		"PEM":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"DER":     der,
		"modulus": pub.N.Bytes(),
		"n":       []byte(base64.RawURLEncoding.EncodeToString(pub.N.Bytes())),
	}
	for name, secret := range secrets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for alg, reason := range map[string]string{"HS256": reasonAlgorithm, "RS256": reasonSignature} {
				input := segment(t, testHeader(object{"alg": alg})) + "." + segment(t, testClaims(nil))
				mac := hmac.New(sha256.New, secret)
				mac.Write([]byte(input))
				token := input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
				refusal(t, verify(t, newVerifier(t, Config{}), token), apierr.TokenInvalid, reason)
				static := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(pub)}}})
				refusal(t, verify(t, static, token), apierr.TokenInvalid, reason)
			}
		})
	}
}

// Attack: a right signature of another kind under the right key.
func TestAttackOtherSignatures(t *testing.T) {
	t.Parallel()
	key := keyA()
	for alg, reason := range map[string]string{"RS256": reasonSignature, "PS256": reasonAlgorithm, "RS512": reasonVerification} {
		input := segment(t, testHeader(object{"alg": alg})) + "." + segment(t, testClaims(nil))
		long := sha512.Sum512([]byte(input))
		rs512, err := rsa.SignPKCS1v15(nil, key, crypto.SHA512, long[:])
		if err != nil {
			t.Fatal(err)
		}
		short := sha256.Sum256([]byte(input))
		ps256, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, short[:], nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, sig := range [][]byte{rs512, ps256, {}} {
			token := input + "." + base64.RawURLEncoding.EncodeToString(sig)
			refusal(t, verify(t, newVerifier(t, Config{}), token), apierr.TokenInvalid, reason)
		}
	}
}

// Attack: should the header's check ever be passed, the algorithm at the signature is pinned, and the header is
// judged again with what was signed.
func TestAttackAlgorithmAtTheSignature(t *testing.T) {
	t.Parallel()
	open := func(token string) *failure {
		p, err := parse(token)
		if err != nil {
			t.Fatal(err)
		}
		_, f := p.open(signer{key: newRSAKey(&keyA().PublicKey), alg: algorithm})
		return f
	}
	for _, alg := range []string{"none", "HS256", "PS256", "ES256", "EdDSA"} {
		if f := open(sign(t, keyA(), testHeader(object{"alg": alg}), testClaims(nil))); f == nil || f.reason != reasonAlgorithm {
			t.Errorf("%s: %v", alg, f)
		}
	}
	input := segment(t, testHeader(object{"alg": "RS512"})) + "." + segment(t, testClaims(nil))
	sum := sha512.Sum512([]byte(input))
	right, err := rsa.SignPKCS1v15(nil, keyA(), crypto.SHA512, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	if f := open(input + "." + base64.RawURLEncoding.EncodeToString(right)); f == nil || f.reason != reasonSignature {
		t.Errorf("a right signature of RS512: %v", f)
	}
}

// Attack: a hundred thousand dots, for a parser that makes a list of all segments (CVE-2025-30204).
func TestAttackDots(t *testing.T) { //nolint:paralleltest // AllocsPerRun must not run beside other tests
	dots := strings.Repeat(".", 100_000)
	refusal(t, verify(t, newVerifier(t, Config{}), dots), apierr.TokenInvalid, reasonTokenInvalid)
	large := newVerifier(t, Config{MaxTokenSize: 1 << 20})
	refusal(t, verify(t, large, dots), apierr.TokenInvalid, reasonTokenInvalid)
	refusal(t, verify(t, large, goodToken(t)+dots), apierr.TokenInvalid, reasonTokenInvalid)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := testing.AllocsPerRun(10, func() { _, _ = parse(dots) })
	runtime.ReadMemStats(&after)
	if bytes := after.TotalAlloc - before.TotalAlloc; n > 5 || bytes > 64<<10 {
		t.Errorf("%v allocations, %d bytes in eleven parses of a token of dots", n, bytes)
	}
}

// Attack: another spelling of the same token, for a filter or a list of revoked tokens that compares text, and
// for decoders that skip what they do not like.
func TestAttackEncodings(t *testing.T) {
	t.Parallel()
	token := goodToken(t)
	parts := strings.Split(token, ".")
	head, body, sig := parts[0], parts[1], parts[2]
	last := sig[len(sig)-1]
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	stray := alphabet[strings.IndexByte(alphabet, last)+1] // 342 characters hold 2052 bits: the last 4 are unused
	for name, bad := range map[string]string{
		"stray bits":           head + "." + body + "." + sig[:len(sig)-1] + string(stray),
		"padded signature":     token + "==",
		"padded header":        head + "=." + body + "." + sig,
		"newline in signature": head + "." + body + "." + sig[:9] + "\n" + sig[9:],
		"CR LF in the claims":  head + "." + body[:8] + "\r\n" + body[8:] + "." + sig,
		"newline at the end":   token + "\n",
		"space at the end":     token + " ",
		"space in front":       " " + token,
		"NUL":                  head + "." + body + "." + sig + "\x00",
		"tab in the header":    head[:3] + "\t" + head[3:] + "." + body + "." + sig,
		"escape":               token + "\x1b[2J",
		"DEL":                  token + "\x7f",
		"standard alphabet":    head + "." + body + "." + strings.NewReplacer("-", "+", "_", "/").Replace(sig[:340]) + "+/",
		"not ASCII":            token + "é",
		"four segments":        token + "." + sig,
		"JWE shape":            token + ".a.b",
		"two segments":         head + "." + body,
		"one segment":          head,
		"empty":                "",
		"only dots":            "..",
		"empty claims":         head + ".." + sig,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := refusal(t, verify(t, newVerifier(t, Config{}), bad), apierr.TokenInvalid, reasonTokenInvalid)
			if name != "empty" && len(bad) > 20 && strings.Contains(e.Error(), bad[:20]) {
				t.Errorf("the error quotes the token: %v", e)
			}
		})
	}
	if err := verify(t, newVerifier(t, Config{}), token); err != nil {
		t.Errorf("the token itself: %v", err)
	}
}

// Attack: a header that asks for other rules, or brings its own key.
func TestAttackHeader(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header object
		code   apierr.Code
		reason string
	}{
		"unknown crit":       {object{"crit": []string{"exp"}, "exp": 1}, apierr.TokenInvalid, reasonTokenInvalid},
		"empty crit":         {object{"crit": []string{}}, apierr.TokenInvalid, reasonTokenInvalid},
		"crit of odd type":   {object{"crit": "b64"}, apierr.TokenInvalid, reasonTokenInvalid},
		"b64":                {object{"b64": false}, apierr.TokenInvalid, reasonTokenInvalid},
		"b64 true":           {object{"b64": true}, apierr.TokenInvalid, reasonTokenInvalid},
		"typ in lower case":  {object{"typ": "jwt"}, apierr.TokenInvalid, reasonTokenInvalid},
		"typ of an object":   {object{"typ": object{"a": 1}}, apierr.TokenInvalid, reasonTokenInvalid},
		"ES256":              {object{"alg": "ES256"}, apierr.TokenInvalid, reasonAlgorithm},
		"alg in lower case":  {object{"alg": "rs256"}, apierr.TokenInvalid, reasonAlgorithm},
		"alg in a list":      {object{"alg": []string{"RS256"}}, apierr.TokenInvalid, reasonAlgorithm},
		"typ absent":         {object{"typ": nil}, "", ""},
		"a key of its own":   {object{"jwk": object{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "jku": "https://evil.example", "x5u": "https://evil.example"}, "", ""},
		"category absent":    {object{"cat": nil}, "", ""},
		"category ignored":   {object{"cat": categoryIgnored}, "", ""},
		"template":           {object{"cat": "cl_B7d4PD222AAA"}, apierr.TokenWrongType, reasonTypeMismatch},
		"machine":            {object{"cat": categoryM2M}, apierr.TokenWrongType, reasonTypeMismatch},
		"unknown category":   {object{"cat": "cl_UNKNOWN"}, apierr.TokenWrongType, reasonTypeMismatch},
		"category a number":  {object{"cat": 1}, apierr.TokenWrongType, reasonTypeMismatch},
		"category an object": {object{"cat": object{}}, apierr.TokenWrongType, reasonTypeMismatch},
		"OAuth":              {object{"typ": "at+jwt"}, apierr.TokenWrongType, reasonTypeMismatch},
		"OAuth, long form":   {object{"typ": "application/at+jwt"}, apierr.TokenWrongType, reasonTypeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := verify(t, newVerifier(t, Config{}), sign(t, keyA(), testHeader(c.header), testClaims(nil)))
			if c.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refusal(t, err, c.code, c.reason)
		})
	}
}

// Attack: a header with members that are named twice, or larger than any real one.
func TestAttackHeaderForms(t *testing.T) {
	t.Parallel()
	members := `"alg":"RS256","kid":"` + testKid + `"`
	fill := func(n int) string { return `{` + members + `,"x":"` + strings.Repeat("x", n) + `"}` }
	room := maxHeader*3/4 - len(fill(0))
	for name, c := range map[string]struct {
		header string
		ok     bool
	}{
		"plain":                {`{` + members + `}`, true},
		"alg twice":            {`{"alg":"none",` + members + `}`, false},
		"alg twice, escaped":   {`{"\u0061lg":"none",` + members + `}`, false},
		"kid twice":            {`{` + members + `,"kid":"x"}`, false},
		"another twice":        {`{` + members + `,"x":1,"x":2}`, false},
		"another twice, below": {`{` + members + `,"x":{"y":1,"y":2}}`, false},
		"crit escaped":         {`{` + members + `,"cr\u0069t":["exp"]}`, false},
		"other case":           {`{` + members + `,"ALG":"none","Kid":"x","CRIT":[]}`, true},
		"as large as may be":   {fill(room), true},
		"larger":               {fill(room + 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := verify(t, newVerifier(t, Config{}), sign(t, keyA(), c.header, testClaims(nil)))
			if c.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refusal(t, err, apierr.TokenInvalid, reasonTokenInvalid)
		})
	}
}

// Attack: a kid that is no string, or so long that remembering it costs something. None is asked for.
func TestAttackKid(t *testing.T) {
	t.Parallel()
	for name, kid := range map[string]any{
		"absent": nil, "empty": "", "number": 7, "object": object{"a": 1}, "list": []string{testKid}, "true": true,
		"long": strings.Repeat("k", jwks.MaxKID+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := newFakeKeys(t, testKid, &keyA().PublicKey)
			v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
			token := sign(t, keyA(), testHeader(object{"kid": kid}), testClaims(nil))
			refusal(t, verify(t, v, token), apierr.TokenInvalid, reasonKidMismatch)
			if reads, _ := keys.counts(); reads != 0 {
				t.Errorf("%d keys were asked for", reads)
			}
			static := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(&keyA().PublicKey)}}})
			if err := verify(t, static, token); err != nil {
				t.Errorf("with a fixed key the kid plays no part: %v", err)
			}
		})
	}
	nameless := newFakeKeys(t, "", &keyA().PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: nameless}}})
	refusal(t, verify(t, v, sign(t, keyA(), testHeader(object{"kid": nil}), testClaims(nil))), apierr.TokenInvalid, reasonKidMismatch)
	for _, kid := range []string{"__proto__", "constructor", "../" + testKid, testKid + "\x00"} {
		keys := newFakeKeys(t, testKid, &keyA().PublicKey)
		v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
		refusal(t, verify(t, v, sign(t, keyA(), testHeader(object{"kid": kid}), testClaims(nil))), apierr.TokenInvalid, reasonKidMismatch)
	}
}

// Attack: junk that makes the verifier ask the issuer for keys. Only a header that can be a session token's does.
func TestAttackFetches(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]object{
		"alg": {"alg": "none"}, "typ": {"typ": "x"}, "crit": {"crit": []string{"x"}}, "category": {"cat": "x"}, "no kid": {"kid": nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := newFakeKeys(t, testKid, &keyA().PublicKey)
			v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
			junk := sign(t, keyA(), merge(testHeader(object{"kid": "ins_unknown"}), header), testClaims(nil))
			if verify(t, v, junk) == nil {
				t.Error("accepted")
			}
			if reads, refreshes := keys.counts(); reads+refreshes != 0 {
				t.Errorf("%d reads and %d refreshes", reads, refreshes)
			}
		})
	}
}

// Attack: an opaque credential of another kind where a session token is expected.
func TestAttackOpaque(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"mt_valid", "oat_valid", "ak_valid"} {
		refusal(t, verify(t, newVerifier(t, Config{}), token), apierr.TokenWrongType, reasonTokenInvalid)
	}
}

// Attack: a URL of very many parameters, which anybody can have sent through a handshake. Writing it anew takes memory by its length, and
// not by the square of it.
func TestAttackManyParameters(t *testing.T) { //nolint:paralleltest // what others allocate would count
	u := &url.URL{Scheme: "https", Host: "app.example.com", Path: "/", RawQuery: strings.Repeat("\xff&", 8<<10)}
	taken := func(do func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if n := taken(func() { _ = without(u) }); n > 8<<20 {
		t.Errorf("%d bytes for a query of %d", n, len(u.RawQuery))
	}
	if n := taken(func() { _ = with(u) }); n > 8<<20 {
		t.Errorf("%d bytes for a query of %d", n, len(u.RawQuery))
	}
}
