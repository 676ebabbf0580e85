package clerk

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

func request(t testing.TB, target string, h http.Header) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	maps.Copy(r.Header, h)
	return r
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	good := goodToken(t)
	forged := sign(t, keyB(), testHeader(nil), testClaims(nil))
	expired := sign(t, keyA(), testHeader(nil), testClaims(object{"exp": testNow.Unix() - 60, "iat": testNow.Unix() - 120}))
	template := sign(t, keyA(), testHeader(object{"cat": "cl_B7d4PD222AAA"}), testClaims(nil))
	uat := "__client_uat=" + strconv.FormatInt(testNow.Unix()-100, 10)
	type headers = http.Header
	auth := func(values ...string) headers { return headers{"Authorization": values} }
	cookies := func(values ...string) headers { return headers{"Cookie": values} }
	both := func(a, c string) headers { return headers{"Authorization": {a}, "Cookie": {c}} }
	queryLast := []Source{{Kind: SourceHeader}, {Kind: SourceCookie}, {Kind: SourceQuery, Name: "token"}}
	queryFirst := []Source{{Kind: SourceQuery, Name: "token"}, {Kind: SourceCookie}, {Kind: SourceHeader}}

	for name, c := range map[string]struct {
		config Config
		target string
		header headers
		code   apierr.Code // "" if accepted
		reason string
	}{
		"nothing":                      {Config{}, "/", nil, apierr.TokenMissing, reasonNoSession},
		"bearer":                       {Config{}, "/", auth("Bearer " + good), "", ""},
		"bare token":                   {Config{}, "/", auth(good), "", ""},
		"space around":                 {Config{}, "/", auth(" Bearer " + good + " "), "", ""},
		"empty":                        {Config{}, "/", auth(""), apierr.TokenMissing, reasonNoSession},
		"blank":                        {Config{}, "/", auth("  "), apierr.TokenMissing, reasonNoSession},
		"other scheme":                 {Config{}, "/", auth("Basic dXNlcjpwdw=="), apierr.TokenMissing, reasonNoSession},
		"lower-case scheme":            {Config{}, "/", auth("bearer " + good), apierr.TokenMissing, reasonNoSession},
		"two spaces":                   {Config{}, "/", auth("Bearer  " + good), apierr.TokenInvalid, reasonTokenInvalid},
		"a tab":                        {Config{}, "/", auth("Bearer\t" + good), apierr.TokenInvalid, reasonTokenInvalid},
		"scheme alone":                 {Config{}, "/", auth("Bearer"), apierr.TokenInvalid, reasonTokenInvalid},
		"two joined":                   {Config{}, "/", auth("Bearer " + good + ", Bearer " + good), apierr.TokenInvalid, reasonTokenInvalid},
		"opaque":                       {Config{}, "/", auth("Bearer ak_secret"), apierr.TokenWrongType, reasonTokenInvalid},
		"forged over a good cookie":    {Config{}, "/", both("Bearer "+forged, "__session="+good+"; "+uat), apierr.TokenInvalid, reasonSignature},
		"good over a forged cookie":    {Config{}, "/", both("Bearer "+good, "__session="+forged+"; "+uat), "", ""},
		"other scheme and a cookie":    {Config{}, "/", both("Basic eDp5", "__session="+good+"; "+uat), "", ""},
		"empty and a cookie":           {Config{}, "/", both("", "__session="+good+"; "+uat), "", ""},
		"expired":                      {Config{}, "/", auth("Bearer " + expired), apierr.TokenExpired, "session-token-expired-refresh-non-eligible-no-refresh-cookie"},
		"expired, could be refreshed":  {Config{PublishableKey: testKey}, "/", both("Bearer "+expired, "__refresh"+testSuffix+"=r"), apierr.TokenExpired, "session-token-expired-refresh-missing-api-client"},
		"cookie":                       {Config{}, "/", cookies("__session=" + good + "; " + uat), "", ""},
		"cookies in two lines":         {Config{}, "/", cookies("__session="+good, uat), "", ""},
		"session without client_uat":   {Config{}, "/", cookies("__session=" + good), apierr.TokenMissing, reasonNoClientUAT},
		"client_uat without session":   {Config{}, "/", cookies(uat), apierr.TokenMissing, reasonNoToken},
		"client_uat 0":                 {Config{}, "/", cookies("__session=" + good + "; __client_uat=0"), apierr.TokenMissing, reasonNoClientUAT},
		"newer session":                {Config{}, "/", cookies("__session=" + good + "; __client_uat=1767225601"), apierr.TokenExpired, reasonBeforeClientUAT},
		"huge client_uat":              {Config{}, "/", cookies("__session=" + good + "; __client_uat=" + strings.Repeat("9", 40)), apierr.TokenExpired, reasonBeforeClientUAT},
		"expired cookie":               {Config{}, "/", cookies("__session=" + expired + "; __client_uat=1"), apierr.TokenExpired, "session-token-expired-refresh-non-eligible-no-refresh-cookie"},
		"template in an old cookie":    {Config{}, "/", cookies("__session=" + template + "; __client_uat=1767225601"), apierr.TokenWrongType, reasonTypeMismatch},
		"signed out but for a suffix":  {Config{PublishableKey: testKey}, "/", cookies("__client_uat=0; __session" + testSuffix + "=" + expired + "; __client_uat" + testSuffix + "=1"), apierr.TokenExpired, ""},
		"query is no source":           {Config{}, "/?token=" + good, nil, apierr.TokenMissing, reasonNoSession},
		"query":                        {Config{Sources: queryLast}, "/?token=" + good, nil, "", ""},
		"query, among others":          {Config{Sources: queryLast}, "/?a=1&&b&token=" + good + "&token2=x", nil, "", ""},
		"query, encoded name":          {Config{Sources: queryLast}, "/?%74oken=" + good, nil, "", ""},
		"query, other case":            {Config{Sources: queryLast}, "/?Token=" + good, nil, apierr.TokenMissing, reasonNoSession},
		"query, empty":                 {Config{Sources: queryLast}, "/?token=", nil, apierr.TokenMissing, reasonNoSession},
		"query, twice":                 {Config{Sources: queryLast}, "/?token=" + good + "&token=" + good, nil, apierr.BadRequest, ""},
		"query, twice, one empty":      {Config{Sources: queryLast}, "/?token=&token=" + good, nil, apierr.BadRequest, ""},
		"query, twice, encoded":        {Config{Sources: queryLast}, "/?token=" + good + "&%74oken=" + good, nil, apierr.BadRequest, ""},
		"query, semicolon":             {Config{Sources: queryLast}, "/?a=1;token=" + good, nil, apierr.BadQuery, ""},
		"query, bad escape":            {Config{Sources: queryLast}, "/?a=%zz&token=" + good, nil, apierr.BadQuery, ""},
		"query, forged":                {Config{Sources: queryLast}, "/?token=" + forged, nil, apierr.TokenInvalid, reasonSignature},
		"header before query":          {Config{Sources: queryFirst}, "/?token=" + good, auth("Bearer " + forged), apierr.TokenInvalid, reasonSignature},
		"header before a bad query":    {Config{Sources: queryFirst}, "/?token=" + good + "&token=x", auth("Bearer " + good), "", ""},
		"query before cookie":          {Config{Sources: queryFirst}, "/?token=" + forged, cookies("__session=" + good + "; " + uat), apierr.TokenInvalid, reasonSignature},
		"cookie before query":          {Config{Sources: queryLast}, "/?token=" + forged, cookies("__session=" + good + "; " + uat), "", ""},
		"half a session before query":  {Config{Sources: queryLast}, "/?token=" + good, cookies("__session=" + good), apierr.TokenMissing, reasonNoClientUAT},
		"trace before query":           {Config{Sources: queryLast}, "/?token=" + good, cookies(uat), apierr.TokenMissing, reasonNoToken},
		"no trace, then query":         {Config{Sources: queryLast}, "/?token=" + good, cookies("__client_uat=0; a=b"), "", ""},
		"header is no source":          {Config{Sources: []Source{{Kind: SourceCookie}}}, "/", auth("Bearer " + good), apierr.TokenMissing, reasonNoSession},
		"only the header":              {Config{Sources: []Source{{Kind: SourceHeader}}}, "/", cookies("__session=" + good + "; " + uat), apierr.TokenMissing, reasonNoSession},
		"development, no browser":      {devConfig(t), "/", nil, apierr.TokenMissing, reasonDevMissing},
		"development, browser, nobody": {devConfig(t), "/", cookies("__clerk_db_jwt=b"), apierr.TokenMissing, reasonNoSession},
		"development, to be exchanged": {devConfig(t), "/?__clerk_db_jwt=b", cookies("__clerk_db_jwt=b"), apierr.TokenMissing, reasonDevSync},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := newVerifier(t, c.config).Authenticate(request(t, c.target, c.header))
			if c.code == "" {
				if err != nil || id == nil || id.UserID != "user_1" {
					t.Errorf("%+v, %v", id, err)
				}
				return
			}
			if id != nil {
				t.Error("an identity beside an error")
			}
			refusal(t, err, c.code, c.reason)
		})
	}
}

func devConfig(t *testing.T) Config {
	t.Helper()
	return Config{
		PublishableKey: testDevKey,
		Issuers:        []Issuer{{URL: "https://happy-otter-42.clerk.accounts.dev", Keys: StaticKey(&keyA().PublicKey)}},
	}
}

// Someone who was never at Clerk is told to sign in, and not which cookie of a development instance is missing.
func TestDevelopmentMessages(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cookies string
		message string
	}{
		"nothing":            {"", failNoToken.message},
		"others' cookies":    {"a=b; session=x; __session_12345678=x", failNoToken.message},
		"an empty cookie":    {"__session=", failNoToken.message},
		"a session":          {"__session=x", failDevMissing.message},
		"a client_uat":       {"__client_uat=0", failDevMissing.message},
		"one with a suffix":  {"__client_uat_" + cookieSuffix(testDevKey) + "=1", failDevMissing.message},
		"a cookie too large": {"__session=" + strings.Repeat("x", maxCookies), failNoToken.message},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newVerifier(t, devConfig(t)).Authenticate(request(t, "/", http.Header{"Cookie": {c.cookies}}))
			if e := refusal(t, err, apierr.TokenMissing, reasonDevMissing); e.Message != c.message {
				t.Errorf("message %q", e.Message)
			}
		})
	}
}

// Attack: a second Authorization header, which the next reader may prefer.
func TestAttackTwoAuthorizationHeaders(t *testing.T) {
	t.Parallel()
	good := goodToken(t)
	for _, second := range []string{"Bearer " + good, "Basic eDp5", "", "Bearer x"} {
		for _, values := range [][]string{{"Bearer " + good, second}, {second, "Bearer " + good}} {
			_, err := newVerifier(t, Config{}).Authenticate(request(t, "/", http.Header{"Authorization": values}))
			if e := refusal(t, err, apierr.BadRequest, reasonTokenInvalid); e.Status != http.StatusBadRequest || !e.Presented {
				t.Errorf("%+v", e)
			}
		}
	}
}

// Attack: an encoded separator, or another reader's idea of a cookie, makes a session out of a value that the
// attacker controls.
func TestAttackCookieSmuggling(t *testing.T) {
	t.Parallel()
	good := goodToken(t)
	uat := "; __client_uat=1767225500"
	for name, header := range map[string][]string{
		"encoded separator":    {"x=1%3B%20__session%3D" + good + uat},
		"encoded equals sign":  {"__session%3D" + good + uat},
		"encoded name":         {"%5F_session=" + good + uat},
		"comma":                {"x=1, __session=" + good + uat},
		"quoted separator":     {`x="1; __session=` + good[:9] + `"` + uat},
		"other case":           {"__SESSION=" + good + uat},
		"prefix of the name":   {"__sessionx=" + good + uat},
		"quoted":               {`__session="` + good + `"` + uat},
		"first of two counts":  {"__session=x; __session=" + good + uat},
		"first of two lines":   {"__session=x", "__session=" + good + uat},
		"no value":             {"__session" + uat},
		"line break in a name": {"x=1\r\n__session=" + good + uat},
		"NUL":                  {"__session=" + good + "%00" + uat},
		"encoded newline":      {"__session=" + good[:10] + "%0A" + good[10:] + uat},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newVerifier(t, Config{}).Authenticate(request(t, "/", http.Header{"Cookie": header}))
			if err == nil {
				t.Error("accepted")
			}
		})
	}
	// Encoded characters of the token itself are the token's.
	encoded := "__session=" + strings.ReplaceAll(good, ".", "%2E") + uat
	if _, err := newVerifier(t, Config{}).Authenticate(request(t, "/", http.Header{"Cookie": {encoded}})); err != nil {
		t.Error(err)
	}
}

// Attack: a neighbour under the same domain plants a plain cookie. It may shadow, never become, the session.
func TestAttackPlantedCookie(t *testing.T) {
	t.Parallel()
	own := "__session" + testSuffix + "=" + goodToken(t) + "; __client_uat" + testSuffix + "=1767225500"
	planted := sign(t, keyB(), testHeader(nil), testClaims(object{"iat": testNow.Unix() + 3, "sub": "user_evil"}))
	v := newVerifier(t, Config{PublishableKey: testKey})
	if id, err := v.Authenticate(request(t, "/", http.Header{"Cookie": {own}})); err != nil || id.UserID != "user_1" {
		t.Fatalf("%+v, %v", id, err)
	}
	_, err := v.Authenticate(request(t, "/", http.Header{"Cookie": {"__session=" + planted + "; __client_uat=1767225500; " + own}}))
	refusal(t, err, apierr.TokenInvalid, reasonSignature)

	foreign := sign(t, keyB(), testHeader(nil), testClaims(object{"iss": "https://clerk.other.example"}))
	id, err := v.Authenticate(request(t, "/", http.Header{"Cookie": {"__session=" + foreign + "; " + own}}))
	if err != nil || id.UserID != "user_1" {
		t.Errorf("beside the cookie of another application: %+v, %v", id, err)
	}
}

// A plain session cookie that names no issuer counts before the suffixed one; one that names another does not.
func TestSuffixAndIssuer(t *testing.T) {
	t.Parallel()
	own := "; __session" + testSuffix + "=" + goodToken(t) + "; __client_uat" + testSuffix + "=1767225500"
	for name, c := range map[string]struct {
		iss  any
		code apierr.Code
	}{
		"absent": {nil, apierr.TokenWrongIssuer}, "empty": {"", apierr.TokenWrongIssuer}, "zero": {0, apierr.TokenWrongIssuer},
		"false": {false, apierr.TokenWrongIssuer}, "another": {"https://clerk.other.example", ""}, "number": {5, ""},
		"true": {true, ""}, "object": {object{}, ""}, "http": {"HTTP://clerk.example.com", apierr.TokenWrongIssuer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain := sign(t, keyA(), testHeader(nil), testClaims(object{"iss": c.iss, "iat": testNow.Unix() + 1}))
			v := newVerifier(t, Config{PublishableKey: testKey})
			_, err := v.Authenticate(request(t, "/", http.Header{"Cookie": {"__session=" + plain + "; __client_uat=1767225500" + own}}))
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

// Attack: a planted cookie whose deciding claims are named twice, for a reader that takes the other one. It is
// malformed before anything is decided by it. Other members that are named twice decide nothing, and are found
// once the signature is right.
func TestAttackTwiceInACookie(t *testing.T) {
	t.Parallel()
	own := "; __session" + testSuffix + "=" + goodToken(t) + "; __client_uat" + testSuffix + "=1767225500"
	for name, c := range map[string]struct {
		members string
		reason  string // "" if the own cookie counts
	}{
		"iss":          {`"iss":"https://clerk.other.example","iss":"` + testIssuer + `"`, reasonTokenInvalid},
		"iss, escaped": {`"iss":"https://clerk.other.example","\u0069s\u0073":"` + testIssuer + `"`, reasonTokenInvalid},
		"iat":          {`"iss":"https://clerk.other.example","iat":1,"iat":2`, reasonTokenInvalid},
		"another":      {`"iss":"https://clerk.other.example","x":1,"x":2`, ""},
		"another, own": {`"iss":"` + testIssuer + `","iat":1767225601,"x":1,"x":2`, reasonTokenInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			planted := sign(t, keyA(), testHeader(nil), "{"+c.members+"}")
			v := newVerifier(t, Config{PublishableKey: testKey})
			_, err := v.Authenticate(request(t, "/", http.Header{"Cookie": {"__session=" + planted + "; __client_uat=1767225500" + own}}))
			if c.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refusal(t, err, apierr.TokenInvalid, c.reason)
		})
	}
}

// A cached token decides about cookies as one that is read for the first time.
func TestCookiesFromTheCache(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, Config{PublishableKey: testKey})
	token := goodToken(t)
	for _, c := range []struct {
		uat  string
		code apierr.Code
	}{{"1767225500", ""}, {"1767225600", ""}, {"1767225601", apierr.TokenExpired}, {"0", apierr.TokenMissing}, {"1767225500", ""}} {
		_, err := v.Authenticate(request(t, "/", http.Header{"Cookie": {"__session=" + token + "; __client_uat=" + c.uat}}))
		if c.code == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		refusal(t, err, c.code, "")
	}
}

func TestRefusalHeaders(t *testing.T) {
	t.Parallel()
	expired := sign(t, keyA(), testHeader(nil), testClaims(object{"exp": 1}))
	for name, c := range map[string]struct {
		header    http.Header
		challenge string
		presented bool
	}{
		"none":    {nil, "Bearer", false},
		"expired": {http.Header{"Authorization": {"Bearer " + expired}}, `Bearer error="invalid_token", error_description="The session token has expired. Fetch a fresh one."`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newVerifier(t, Config{}).Authenticate(request(t, "/", c.header))
			e := refusal(t, err, map[bool]apierr.Code{false: apierr.TokenMissing, true: apierr.TokenExpired}[c.presented], "")
			if got := e.Header.Get("WWW-Authenticate"); got != c.challenge || e.Status != http.StatusUnauthorized || e.Presented != c.presented {
				t.Errorf("%+v, challenge %s", e, got)
			}
			w := httptest.NewRecorder()
			if err := e.Write(w); err != nil || w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), e.Message) {
				t.Errorf("written: %v, %d, %s", err, w.Code, w.Body)
			}
			if strings.Contains(err.Error(), expired) {
				t.Error("the error quotes the token")
			}
		})
	}
}

// Every message is an error_description (RFC 6750, 3), whose characters are few, and one refusal never changes
// another.
func TestMessages(t *testing.T) {
	t.Parallel()
	for _, f := range []*failure{
		failNoToken, failNoSessionCookie, failNoClientUAT, failDevMissing, failDevNobody, failDevSync, failOldSession, failTwoHeaders,
		failTwoInQuery, failBrokenQuery, failMalformed, failTooLarge, failHeader, failAlgorithm, failKid, failSignature,
		failKey, failSubject, failAudience, failDates, failLifetime, failStatus, failActor, failParty, failIssuer,
		failExpired, failNotBefore, failIssuedAt, failType, failOpaque, failPend, failNoKeys, failInternal,
	} {
		for _, c := range f.message {
			if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
				t.Errorf("%q holds %q", f.message, c)
			}
		}
		if !strings.HasSuffix(f.message, ".") || f.code == "" || f.reason == "" || f.status == 0 {
			t.Errorf("incomplete: %+v", f)
		}
		a, b := f.refusal("x"), f.refusal(f.reason)
		a.With("X", "y")
		if b.Header.Get("X") != "" {
			t.Error("two refusals share their headers")
		}
	}
}

func TestClockIsAsked(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, Config{Now: time.Now, Issuers: []Issuer{{URL: testIssuer, Keys: StaticKey(&keyA().PublicKey)}}})
	now := time.Now().Unix()
	token := sign(t, keyA(), testHeader(nil), testClaims(object{"iat": now, "nbf": now - 10, "exp": now + 60}))
	if err := verify(t, v, token); err != nil {
		t.Error(err)
	}
	refusal(t, verify(t, v, sign(t, keyA(), testHeader(nil), testClaims(object{"exp": now - 60}))), apierr.TokenExpired, "")
}
