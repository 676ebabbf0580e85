package clerk

import (
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// TestConfiguredClaimsAreNamed: the operator, whose config is at fault or not, sees what the token has instead.
func TestConfiguredClaimsAreNamed(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		config Config
		claims object
	}{
		`the token's azp is "https://other.example.com"`:        {Config{}, object{"azp": "https://other.example.com"}},
		`the token has no azp`:                                  {Config{AZP: "strict"}, object{"azp": nil}},
		`the token's azp is no text`:                            {Config{}, object{"azp": 7}},
		`the token's azp is "` + strings.Repeat("x", 200) + `"`: {Config{}, object{"azp": strings.Repeat("x", 999)}},
	} {
		c.config.AuthorizedParties = []string{"https://app.example.com"}
		want += "; accepted: https://app.example.com"
		_, err := newVerifier(t, c.config).Verify(t.Context(), sign(t, keyA(), testHeader(nil), testClaims(c.claims)))
		if e := refusal(t, err, apierr.TokenWrongParty, reasonParties); !strings.HasSuffix(e.Error(), ": "+want) {
			t.Errorf("%v, want %s", e, want)
		}
	}
	many := []string{"https://1.example", "https://2.example", "https://3.example", "https://4.example", "https://5.example", "https://6.example", "https://7.example"}
	r := rules{parties: many}
	if got := r.accepted(); got != strings.Join(many[:5], ", ")+" and 2 more" {
		t.Errorf("seven parties are named %s", got)
	}
	_, err := newVerifier(t, Config{}).Verify(t.Context(), sign(t, keyA(), testHeader(nil), testClaims(object{"iss": "https://elsewhere.example.com"})))
	if e := refusal(t, err, apierr.TokenWrongIssuer, reasonIssuer); !strings.HasSuffix(e.Error(), `: the token's iss is "https://elsewhere.example.com"`) {
		t.Errorf("%v", e)
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
		"too deep":              {raw(`"sub":"u","x":` + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1) + "," + exp), apierr.TokenInvalid, reasonTokenInvalid},
		"a list":                {`[1,2]`, apierr.TokenInvalid, reasonVerification},
		"a string":              {`"user_1"`, apierr.TokenInvalid, reasonVerification},
		"null":                  {`null`, apierr.TokenInvalid, reasonVerification},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := verify(t, newVerifier(t, Config{MaxTokenSize: 64 << 10}), sign(t, keyA(), testHeader(nil), c.claims))
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
