package clerk

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
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

// Attack: a hundred thousand dots, for a parser that makes a list of all segments (CVE-2025-30204).
func TestAttackDots(t *testing.T) { //nolint:paralleltest // AllocsPerRun must not run beside other tests
	dots := strings.Repeat(".", 100_000)
	refusal(t, verify(t, newVerifier(t, Config{}), dots), apierr.TokenInvalid, reasonTokenInvalid)
	large := newVerifier(t, Config{MaxTokenSize: 1 << 20})
	refusal(t, verify(t, large, dots), apierr.TokenInvalid, reasonTokenInvalid)
	refusal(t, verify(t, large, goodToken(t)+dots), apierr.TokenInvalid, reasonTokenInvalid)
	if n := testing.AllocsPerRun(10, func() { _, _ = parse(dots) }); n > 5 {
		t.Errorf("%v allocations for a token of dots", n)
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

// Attack: a kid that is no string, or so long that remembering it costs something. None is asked for.
func TestAttackKid(t *testing.T) {
	t.Parallel()
	for name, kid := range map[string]any{
		"absent": nil, "empty": "", "number": 7, "object": object{"a": 1}, "list": []string{testKid}, "true": true,
		"long": strings.Repeat("k", maxKid+1),
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

// Attack: claims that break a careless reader.
func TestAttackClaims(t *testing.T) {
	t.Parallel()
	now := testNow.Unix()
	raw := func(members string) string {
		return `{"iss":"` + testIssuer + `","sid":"sess_1",` + members + `}`
	}
	exp := `"exp":1767225660`
	for name, c := range map[string]struct {
		claims any
		code   apierr.Code // "" if accepted
		reason string
	}{
		"exp absent":            {testClaims(object{"exp": nil}), apierr.TokenInvalid, reasonVerification},
		"exp null":              {raw(`"sub":"u","exp":null`), apierr.TokenInvalid, reasonVerification},
		"exp a string":          {testClaims(object{"exp": "1999999999"}), apierr.TokenInvalid, reasonVerification},
		"exp true":              {testClaims(object{"exp": true}), apierr.TokenInvalid, reasonVerification},
		"exp 1e400":             {raw(`"sub":"u","exp":1e400`), apierr.TokenInvalid, reasonVerification},
		"exp 1e20":              {raw(`"sub":"u","exp":1e20`), apierr.TokenInvalid, reasonVerification},
		"exp -1e400":            {raw(`"sub":"u","exp":-1e400`), apierr.TokenInvalid, reasonVerification},
		"exp with many digits":  {raw(`"sub":"u","exp":` + strings.Repeat("9", 2000)), apierr.TokenInvalid, reasonVerification},
		"exp a tiny fraction":   {raw(`"sub":"u","exp":1e-999999999`), apierr.TokenExpired, reasonExpired},
		"exp past int64":        {raw(`"sub":"u","exp":9223372036854775808`), apierr.TokenInvalid, reasonVerification},
		"exp negative":          {testClaims(object{"exp": -1}), apierr.TokenExpired, reasonExpired},
		"exp zero":              {testClaims(object{"exp": 0}), apierr.TokenExpired, reasonExpired},
		"exp minus zero":        {raw(`"sub":"u","exp":-0`), apierr.TokenExpired, reasonExpired},
		"exp with an exponent":  {raw(`"sub":"u","exp":1.76722566e9,"iat":1767225600`), "", ""},
		"nbf a string":          {testClaims(object{"nbf": "0"}), apierr.TokenInvalid, reasonVerification},
		"nbf null":              {raw(`"sub":"u",` + exp + `,"nbf":null`), apierr.TokenInvalid, reasonVerification},
		"nbf 1e20":              {raw(`"sub":"u",` + exp + `,"nbf":1e20`), apierr.TokenInvalid, reasonVerification},
		"nbf ahead":             {testClaims(object{"nbf": now + 6}), apierr.TokenNotYetValid, reasonNotActive},
		"nbf within the skew":   {testClaims(object{"nbf": now + 5}), "", ""},
		"iat a list":            {testClaims(object{"iat": []int{1}}), apierr.TokenInvalid, reasonVerification},
		"iat ahead":             {testClaims(object{"iat": now + 6}), apierr.TokenNotYetValid, reasonIssuedLater},
		"iat absent":            {testClaims(object{"iat": nil}), "", ""},
		"long life":             {testClaims(object{"exp": now + 86401}), apierr.TokenInvalid, reasonVerification},
		"life of a day":         {testClaims(object{"exp": now + 86400}), "", ""},
		"long life without iat": {testClaims(object{"iat": nil, "exp": now + 86401}), apierr.TokenInvalid, reasonVerification},
		"life behind an old iat": {
			testClaims(object{"iat": now - 86400, "exp": now + 1}), apierr.TokenInvalid, reasonVerification,
		},
		"sub absent":            {testClaims(object{"sub": nil}), apierr.TokenInvalid, reasonVerification},
		"sub empty":             {testClaims(object{"sub": ""}), apierr.TokenInvalid, reasonVerification},
		"sub a number":          {testClaims(object{"sub": 42}), apierr.TokenInvalid, reasonVerification},
		"sub of a machine":      {testClaims(object{"sub": "mch_1"}), apierr.TokenWrongType, reasonTypeMismatch},
		"sid absent (template)": {testClaims(object{"sid": nil}), apierr.TokenWrongType, reasonTypeMismatch},
		"sid a number":          {testClaims(object{"sid": 1}), apierr.TokenWrongType, reasonTypeMismatch},
		"pending":               {testClaims(object{"sts": "pending"}), apierr.SessionPending, reasonPending},
		"another status":        {testClaims(object{"sts": "revoked"}), apierr.TokenInvalid, reasonVerification},
		"status a list":         {testClaims(object{"sts": []string{"active"}}), apierr.TokenInvalid, reasonVerification},
		"status absent":         {testClaims(object{"sts": nil}), "", ""},
		"impersonated":          {testClaims(object{"act": object{"sub": "user_2"}}), apierr.TokenInvalid, reasonVerification},
		"impersonated, false":   {testClaims(object{"act": false}), apierr.TokenInvalid, reasonVerification},
		"iss absent":            {testClaims(object{"iss": nil}), apierr.TokenWrongIssuer, reasonIssuer},
		"iss of another":        {testClaims(object{"iss": "https://evil.example"}), apierr.TokenWrongIssuer, reasonIssuer},
		"iss with a slash":      {testClaims(object{"iss": testIssuer + "/"}), apierr.TokenWrongIssuer, reasonIssuer},
		"iss in a list":         {testClaims(object{"iss": []string{testIssuer}}), apierr.TokenWrongIssuer, reasonIssuer},
		"sub twice":             {raw(`"sub":"user_1","sub":"user_2",` + exp), apierr.TokenInvalid, reasonTokenInvalid},
		"sub twice, escaped":    {raw(`"sub":"user_1","s\u0075b":"user_2",` + exp), apierr.TokenInvalid, reasonTokenInvalid},
		"twice, nested":         {raw(`"sub":"user_1","o":{"id":"a","id":"b"},` + exp), apierr.TokenInvalid, reasonTokenInvalid},
		"twice, in a list":      {raw(`"sub":"user_1","x":[{"a":1,"a":2}],` + exp), apierr.TokenInvalid, reasonTokenInvalid},
		"trailing data":         {raw(`"sub":"user_1",`+exp) + `{}`, apierr.TokenInvalid, reasonTokenInvalid},
		"not UTF-8":             {raw(`"sub":"user_` + "\xff" + `",` + exp), apierr.TokenInvalid, reasonTokenInvalid},
		"too deep":              {raw(`"sub":"u","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "," + exp), apierr.TokenInvalid, reasonTokenInvalid},
		"a list":                {`[1,2]`, apierr.TokenInvalid, reasonVerification},
		"a string":              {`"user_1"`, apierr.TokenInvalid, reasonVerification},
		"null":                  {`null`, apierr.TokenInvalid, reasonVerification},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := verify(t, newVerifier(t, Config{}), sign(t, keyA(), testHeader(nil), c.claims))
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

// Attack: a custom claim that differs from a registered one in case only, for decoders that do not care.
func TestAttackCaseVariants(t *testing.T) {
	t.Parallel()
	doc := `{"SUB":"user_evil","Sub":"user_evil","sub":"user_1","sid":"sess_1","SID":"sess_evil","iss":"` + testIssuer +
		`","ISS":"https://evil.example","exp":1767225660,"EXP":1,"o":{"id":"org_1","ID":"org_evil"},"O":{"id":"org_evil"},"v":2}`
	id, err := newVerifier(t, Config{}).Verify(t.Context(), sign(t, keyA(), testHeader(nil), doc))
	if err != nil {
		t.Fatal(err)
	}
	if id.UserID != "user_1" || id.SessionID != "sess_1" || id.OrgID != "org_1" {
		t.Errorf("identity %+v", id)
	}
}

// Attack: a token larger than any real one.
func TestAttackOversize(t *testing.T) {
	t.Parallel()
	token := sign(t, keyA(), testHeader(nil), testClaims(object{"x": strings.Repeat("x", 8<<10)}))
	e := refusal(t, verify(t, newVerifier(t, Config{}), token), apierr.TokenInvalid, reasonTokenInvalid)
	if e.Message != failTooLarge.message {
		t.Errorf("message %q", e.Message)
	}
	if err := verify(t, newVerifier(t, Config{MaxTokenSize: 64 << 10}), token); err != nil {
		t.Errorf("with a higher limit: %v", err)
	}
}

// Attack: an opaque credential of another kind where a session token is expected.
func TestAttackOpaque(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"mt_valid", "oat_valid", "ak_valid"} {
		refusal(t, verify(t, newVerifier(t, Config{}), token), apierr.TokenWrongType, reasonTokenInvalid)
	}
}

// Attack: the owner of one accepted instance signs a token in the name of another.
func TestAttackCrossIssuer(t *testing.T) {
	t.Parallel()
	const other = "https://clerk.other.example"
	keysA := newFakeKeys(t, testKid, &keyA().PublicKey)
	keysB := newFakeKeys(t, "ins_B", &keyB().PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keysA}, {URL: other, Keys: keysB}}})

	for name, c := range map[string]struct {
		key    *rsa.PrivateKey
		kid    string
		iss    any
		code   apierr.Code
		reason string
	}{
		"A as A":                    {keyA(), testKid, testIssuer, "", ""},
		"B as B":                    {keyB(), "ins_B", other, "", ""},
		"B as A":                    {keyB(), "ins_B", testIssuer, apierr.TokenInvalid, reasonKidMismatch},
		"B as A under the kid of A": {keyB(), testKid, testIssuer, apierr.TokenInvalid, reasonSignature},
		"A as B":                    {keyA(), testKid, other, apierr.TokenInvalid, reasonKidMismatch},
		"A as nobody":               {keyA(), testKid, "https://clerk.third.example", apierr.TokenWrongIssuer, reasonIssuer},
		"A without iss":             {keyA(), testKid, nil, apierr.TokenWrongIssuer, reasonIssuer},
		"B as nobody":               {keyB(), "ins_B", "https://clerk.third.example", apierr.TokenInvalid, reasonKidMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := verify(t, v, sign(t, c.key, testHeader(object{"kid": c.kid}), testClaims(object{"iss": c.iss})))
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

// Attack: a token of a shared key set in the name of an issuer that is not listed.
func TestSharedKeySet(t *testing.T) {
	t.Parallel()
	const other = "https://clerk.other.example"
	keys := newFakeKeys(t, testKid, &keyA().PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}, {URL: other, Keys: keys}}})
	for _, iss := range []string{testIssuer, other} {
		id, err := v.Verify(t.Context(), sign(t, keyA(), testHeader(nil), testClaims(object{"iss": iss})))
		if err != nil || id.Issuer != iss {
			t.Errorf("%s: %v, %v", iss, id, err)
		}
	}
	refusal(t, verify(t, v, sign(t, keyA(), testHeader(nil), testClaims(object{"iss": "https://x.example"}))), apierr.TokenWrongIssuer, reasonIssuer)
}

// Attack: a key that is too short, or none for RS256, in a key set that lets it through.
func TestAttackUnusableKey(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // the point of the test
	if err != nil {
		t.Skip("this build makes no short keys")
	}
	keys := newFakeKeys(t, testKid, &weak.PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
	refusal(t, verify(t, v, sign(t, weak, testHeader(nil), testClaims(nil))), apierr.TokenInvalid, reasonVerification)

	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys.replace(testKid, testJWK(t, testKid, &curve.PublicKey))
	refusal(t, verify(t, v, goodToken(t)), apierr.TokenInvalid, reasonVerification)

	if _, err := New(Config{Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(&weak.PublicKey)}}}); err == nil {
		t.Error("New accepts a short static key")
	}
}

// An outage is not a signed-out user: 503 with Retry-After, and only while there are no keys at all.
func TestKeysUnavailable(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{errors.New("no key set has been loaded yet"), context.DeadlineExceeded} {
		keys := newFakeKeys(t, testKid, &keyA().PublicKey)
		keys.keys, keys.err = nil, cause
		v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
		e := refusal(t, verify(t, v, goodToken(t)), apierr.KeysUnavailable, reasonKeysFailedToLoad)
		if e.Status != 503 || e.Header.Get("Retry-After") == "" || e.Header.Get("WWW-Authenticate") != "" || !errors.Is(e, cause) {
			t.Errorf("refusal %+v", e)
		}
		keys.mu.Lock()
		keys.keys = map[string]jwkset.JWK{testKid: testJWK(t, testKid, &keyA().PublicKey)}
		keys.mu.Unlock()
		if err := verify(t, v, goodToken(t)); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	}
}

// Clerk's kid names the instance, so a key can be replaced under its kid.
func TestRefreshAfterBadSignature(t *testing.T) {
	t.Parallel()
	keys := newFakeKeys(t, testKid, &keyA().PublicKey)
	v := newVerifier(t, Config{Issuers: []Issuer{{URL: testIssuer, Keys: keys}}})
	token := sign(t, keyB(), testHeader(nil), testClaims(nil))

	refusal(t, verify(t, v, token), apierr.TokenInvalid, reasonSignature)
	if _, refreshes := keys.counts(); refreshes != 1 {
		t.Errorf("%d refreshes, want 1", refreshes)
	}
	keys.mu.Lock()
	keys.next = map[string]jwkset.JWK{testKid: testJWK(t, testKid, &keyB().PublicKey)}
	keys.mu.Unlock()
	for range 2 { // the second time from the cache
		if err := verify(t, v, token); err != nil {
			t.Errorf("after the keys changed: %v", err)
		}
	}
	if _, refreshes := keys.counts(); refreshes != 2 {
		t.Errorf("%d refreshes, want 2", refreshes)
	}
}

func TestAuthorizedParties(t *testing.T) {
	t.Parallel()
	const app = "https://app.example.com"
	for name, c := range map[string]struct {
		mode    string
		parties []string
		azp     any
		ok      bool
	}{
		"strict, equal":            {"", []string{app}, app, true},
		"strict, one of two":       {"strict", []string{"https://x.example", app}, app, true},
		"strict, other":            {"", []string{app}, "https://evil.example", false},
		"strict, absent":           {"", []string{app}, nil, false},
		"strict, empty":            {"", []string{app}, "", false},
		"strict, prefix":           {"", []string{app}, app + ".evil.example", false},
		"strict, port":             {"", []string{app}, app + ":443", false},
		"strict, list":             {"", []string{app}, []string{app}, false},
		"strict, case":             {"", []string{app}, "https://APP.example.com", false},
		"if_present, equal":        {"if_present", []string{app}, app, true},
		"if_present, other":        {"if_present", []string{app}, "https://evil.example", false},
		"if_present, absent":       {"if_present", []string{app}, nil, true},
		"if_present, empty":        {"if_present", []string{app}, "", false},
		"if_present, number":       {"if_present", []string{app}, 0, false},
		"off, other":               {"off", []string{app}, "https://evil.example", true},
		"nothing configured":       {"", nil, "https://evil.example", true},
		"nothing configured, none": {"", nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, Config{AZP: c.mode, AuthorizedParties: c.parties})
			err := verify(t, v, sign(t, keyA(), testHeader(nil), testClaims(object{"azp": c.azp})))
			if c.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refusal(t, err, apierr.TokenWrongParty, reasonParties)
		})
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	now := testNow.Unix()
	zero, minute := time.Duration(0), time.Minute
	for name, c := range map[string]struct {
		config Config
		claims object
		code   apierr.Code
	}{
		"no skew":               {Config{ClockSkew: &zero}, object{"exp": now}, apierr.TokenExpired},
		"no skew, a second":     {Config{ClockSkew: &zero}, object{"exp": now + 1}, ""},
		"default skew":          {Config{}, object{"exp": now - 4}, ""},
		"default skew, over":    {Config{}, object{"exp": now - 5}, apierr.TokenExpired},
		"fraction of a second":  {Config{}, object{"exp": float64(now) - 4.5}, apierr.TokenExpired},
		"a minute of skew":      {Config{ClockSkew: &minute}, object{"exp": now - 59}, ""},
		"lifetime":              {Config{MaxLifetime: time.Minute}, object{"exp": now + 60}, ""},
		"lifetime, over":        {Config{MaxLifetime: time.Minute}, object{"exp": now + 61}, apierr.TokenInvalid},
		"impersonation allowed": {Config{AllowImpersonation: true}, object{"act": object{"sub": "user_2"}}, ""},
		"audience":              {Config{Audiences: []string{"a"}}, object{"aud": "a"}, ""},
		"audience in a list":    {Config{Audiences: []string{"a"}}, object{"aud": []any{1, "a"}}, ""},
		"audience, other":       {Config{Audiences: []string{"a"}}, object{"aud": "b"}, apierr.TokenInvalid},
		"audience, none":        {Config{Audiences: []string{"a"}}, nil, apierr.TokenInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := verify(t, newVerifier(t, c.config), sign(t, keyA(), testHeader(nil), testClaims(c.claims)))
			if c.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refusal(t, err, c.code, "")
		})
	}
}
