package preflight

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	workspaceID = "7d0c5a52-1b0e-4c55-9a3e-5b5f5c0de001"
	signingKey  = "p.eyJ1IjoieCJ9.signing-key-signing-key-signing-key"
	appendToken = "p.eyJpZCI6ImEifQ.append-token-append-token"
)

// api answers each path of Tinybird's API with a status and a body.
type api map[string]string // "200 {...}" by path

func (a api) RoundTrip(r *http.Request) (*http.Response, error) {
	text, ok := a[r.URL.Path]
	if !ok {
		if text, ok = defaults[r.URL.Path]; !ok {
			text = "404"
		}
	}
	var status int
	if _, err := fmt.Sscanf(text, "%d", &status); err != nil {
		return nil, errors.New("no route to host")
	}
	_, body, _ := strings.Cut(text, " ")
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}, nil
}

var defaults = api{
	"/v0/regions":            "200 {}",
	"/v0/pipes/p":            `200 {"name":"p","endpoint":"e","nodes":[{"id":"e","name":"e","sql":"%\nSELECT 1 FROM t WHERE org = {{String(org, required=True)}}"}]}`,
	"/v0/pipes/p.json":       "200 {}",
	"/v0/datasources/clicks": `200 {"name":"clicks","columns":[{"name":"org"}]}`,
	"/v0/tokens":             tokens(`{"type":"DATASOURCES:APPEND","resource":"clicks"}`),
}

func tokens(scopes string) string {
	return `200 {"tokens":[{"name":"workspace admin token","token":"` + signingKey + `","scopes":[{"type":"ADMIN"}]},{"name":"tracker","token":"` + appendToken + `","scopes":[` + scopes + `]}]}`
}

// site is one that passes, with these answers of Tinybird in the place of good ones.
func site(t *testing.T, a api) Site {
	t.Helper()
	anything := func(string) error { return nil }
	policy, err := tinybird.NewPolicy(tinybird.PolicyConfig{
		Pipes: []tinybird.PipeConfig{{Names: []string{"p"}, FixedParams: []tinybird.FixedParam{{Name: "org", Value: "{clerk.org.id}"}}}}, CheckPlaceholder: anything,
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := tinybird.ParseSigningKey(signingKey)
	if err != nil {
		t.Fatal(err)
	}
	return Site{Hosts: []string{"a.example.com"}, Tinybird: &Tinybird{
		Policy: policy, Key: key, WorkspaceID: workspaceID, Base: &url.URL{Scheme: "https", Host: "api.example.com"}, Transport: a,
		Events: []ingest.SourceInfo{{Name: "clicks", Token: appendToken, Fields: []string{"org"}}},
	}}
}

func check(t *testing.T, s Site) SiteReport {
	t.Helper()
	return New(Options{Timeout: time.Minute}).Site(t.Context(), s)
}

// find is the one check of a name that did not pass, or else the last one.
func find(r SiteReport, name string) (found Check) {
	for _, c := range r.Checks {
		if c.Check == name && (found.Check == "" || found.Status == Pass) {
			found = c
		}
	}
	return found
}

// TestTinybirdAnswers holds what each answer of Tinybird's means.
func TestTinybirdAnswers(t *testing.T) {
	t.Parallel()
	required := `200 {"name":"p","endpoint":"e","nodes":[{"id":"e","name":"e","sql":"%\nSELECT 1 FROM t WHERE org = {{String(org, required=True)}} AND day = {{Date(day, required=True)}}"}]}`
	for name, tt := range map[string]struct {
		answers api
		check   string
		status  Status
		text    string
	}{
		"good":                   {nil, CheckPipe, Pass, "uses org"},
		"good token":             {nil, CheckEvents, Pass, "and nothing else"},
		"unreachable":            {api{"/v0/regions": ""}, CheckUpstream, Fail, "no route to host"},
		"unreachable, then":      {api{"/v0/regions": ""}, CheckPipe, Skip, "because of the above"},
		"redirects":              {api{"/v0/regions": "302"}, CheckUpstream, Fail, "302"},
		"down":                   {api{"/v0/regions": "503"}, CheckUpstream, Fail, "503"},
		"no such path":           {api{"/v0/regions": "404"}, CheckUpstream, Pass, "answers"},
		"refuses what is signed": {api{"/v0/pipes/p.json": "403"}, CheckMintedToken, Fail, `the token named "workspace admin token"`},
		"refuses the key too":    {api{"/v0/pipes/p.json": "403", "/v0/tokens": "403"}, CheckMintedToken, Fail, "and the signing key itself"},
		"refuses with 401":       {api{"/v0/pipes/p.json": "401"}, CheckMintedToken, Fail, "(401)"},
		"takes it, but too many": {api{"/v0/pipes/p.json": "429"}, CheckMintedToken, Pass, "accepts a token that the signing key signs; it answered 429"},
		"a fault":                {api{"/v0/pipes/p.json": "500"}, CheckMintedToken, Fail, "500"},
		"bad values":             {api{"/v0/pipes/p.json": "400"}, CheckPipe, Warn, "400"},
		"wants the client's":     {api{"/v0/pipes/p.json": "400", "/v0/pipes/p": required}, CheckPipe, Pass, "a client has to send day"},
		"not there by its name":  {api{"/v0/pipes/p.json": "404"}, CheckPipe, Fail, "404"},
		"too many":               {api{"/v0/pipes/p.json": "429"}, CheckPipe, Warn, "429"},
		"too many definitions":   {api{"/v0/pipes/p": "429"}, CheckPipe, Fail, "429"},
		"too many sources":       {api{"/v0/datasources/clicks": "429"}, CheckEvents, Warn, "429"},
		"too slow":               {api{"/v0/pipes/p.json": "408"}, CheckPipe, Warn, "408"},
		"no definition":          {api{"/v0/pipes/p": "404"}, CheckPipe, Fail, "no pipe of this name"},
		"definition refused":     {api{"/v0/pipes/p": "403"}, CheckPipe, Warn, "cannot be read"},
		"definition broken":      {api{"/v0/pipes/p": "200 []"}, CheckPipe, Fail, "not the JSON"},
		"not published":          {api{"/v0/pipes/p": `200 {"name":"p","nodes":[{"name":"e"}]}`}, CheckPipe, Fail, "no endpoint"},
		"parameter unused":       {api{"/v0/pipes/p": `200 {"name":"p","endpoint":"e","nodes":[{"id":"e","name":"e","sql":"SELECT * FROM t"}]}`}, CheckPipe, Fail, "no use of org"},
		"no data source":         {api{"/v0/datasources/clicks": "404"}, CheckEvents, Fail, "no data source"},
		"data source unknown":    {api{"/v0/datasources/clicks": "500"}, CheckEvents, Warn, "not found out"},
		"another column":         {api{"/v0/datasources/clicks": `200 {"name":"clicks","columns":[{"name":"tenant"}]}`}, CheckEvents, Warn, "no column org"},
		"columns not told":       {api{"/v0/datasources/clicks": `200 {"name":"clicks"}`}, CheckEvents, Pass, "and nothing else"},
		"tokens not told":        {api{"/v0/tokens": "404"}, CheckEvents, Skip, "was not found out"},
		"another token":          {api{"/v0/tokens": `200 {"tokens":[]}`}, CheckEvents, Fail, "none of the workspace's tokens"},
		"token for another":      {api{"/v0/tokens": tokens(`{"type":"DATASOURCES:APPEND","resource":"other"}`)}, CheckEvents, Fail, "may not append"},
		"token for two":          {api{"/v0/tokens": tokens(`{"type":"DATASOURCES:APPEND","resource":"clicks"},{"type":"DATASOURCES:APPEND","resource":"other"}`)}, CheckEvents, Pass, ""},
		"token that reads":       {api{"/v0/tokens": tokens(`{"type":"DATASOURCES:APPEND","resource":"clicks"},{"type":"PIPES:READ","resource":"p"}`)}, CheckEvents, Warn, "PIPES:READ:p"},
		"token that can do all":  {api{"/v0/tokens": tokens(`{"type":"ADMIN"}`)}, CheckEvents, Warn, "ADMIN"},
	} {
		r := check(t, site(t, tt.answers))
		if c := find(r, tt.check); c.Status != tt.status || !strings.Contains(c.Message, tt.text) {
			t.Errorf("%s: %+v, want %s %q", name, c, tt.status, tt.text)
		} else if c.Status == Fail && c.Fix == "" {
			t.Errorf("%s: %q says no fix", name, c.Message)
		} else if c.Status != Pass && strings.Contains(c.Message, "429") && (!strings.Contains(c.Fix, "is used up") || strings.Contains(c.Fix, "--timeout")) {
			t.Errorf("%s: a limit is used up, and the advice is %q", name, c.Fix)
		}
		for _, c := range r.Checks {
			if strings.Contains(c.Message+c.Fix, "signing-key-signing") || strings.Contains(c.Message+c.Fix, "append-token-") {
				t.Errorf("%s: a token is shown: %+v", name, c)
			}
		}
	}
}

// backend is Clerk's Backend API.
type backend struct {
	kids []string
	err  error
}

func (b backend) KeyIDs(context.Context) ([]string, error) { return b.kids, b.err }

// TestClerkAnswers holds what each answer of Clerk's means.
func TestClerkAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		keys   string // the document; "": 503
		change func(*Clerk)
		check  string
		status Status
		text   string
	}{
		"no keys":      {"", nil, CheckKeys, Fail, "503"},
		"another page": {"<html>", nil, CheckKeys, Fail, "JWK set"},
		"weak keys":    {`{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}`, nil, CheckKeys, Fail, "no key"},
		"no key":       {"", func(c *Clerk) { c.PublishableKey = "" }, CheckPublishableKey, Skip, "there is none"},
		"development":  {"", func(c *Clerk) { c.Instance.Development = true }, CheckPublishableKey, Pass, "development"},
		"another issuer": {"", func(c *Clerk) {
			c.Instance.FrontendAPI, c.Instance.Issuer = "clerk.other.com", "https://clerk.other.com"
		}, CheckIssuer, Warn, "clerk.other.com"},
		"a proxy": {"", func(c *Clerk) { c.Instance.FrontendAPI, c.ProxyURL = "clerk.other.com", c.Issuers[0].URL }, CheckIssuer, Pass, ""},
		"anybody": {"", nil, CheckAuthorizedParties, Warn, "not set"},
		"some": {"", func(c *Clerk) {
			c.AuthorizedParties = []string{"https://a.example.com", "https://b.example.com"}
		}, CheckAuthorizedParties, Pass, "only sessions obtained at https://a.example.com, https://b.example.com are accepted"},
		"some, or none": {"", func(c *Clerk) {
			c.AuthorizedParties, c.AZP = []string{"https://a.example.com"}, "if_present"
		}, CheckAuthorizedParties, Pass, "https://a.example.com are accepted, and those that name no origin"},
		"some, not looked at": {"", func(c *Clerk) {
			c.AuthorizedParties, c.AZP = []string{"https://a.example.com"}, "off"
		}, CheckAuthorizedParties, Warn, "azp is off"},
		"a bad secret":    {"", func(c *Clerk) { c.Backend = backend{err: &bapi.Error{Status: 401, Code: "clerk_key_invalid"}} }, CheckSecretKey, Fail, "clerk_key_invalid"},
		"no backend":      {"", func(c *Clerk) { c.Backend = backend{err: &bapi.Error{Err: errors.New("timed out")}} }, CheckSecretKey, Fail, "timed out"},
		"a good secret":   {"", func(c *Clerk) { c.Backend = backend{kids: []string{"ins_1"}} }, CheckSecretKey, Pass, "accepts"},
		"of another kind": {"", func(c *Clerk) { c.Backend, c.SecretKey = backend{}, "sk_test_x" }, CheckSecretKey, Fail, "another kind"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if tt.keys == "" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.WriteString(w, tt.keys)
		}))
		u, err := url.Parse(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		c := &Clerk{
			PublishableKey: "pk_live_x", Instance: clerk.Instance{FrontendAPI: u.Host, Issuer: "https://" + u.Host}, ClockSkew: 5 * time.Second,
			Issuers: []Issuer{{URL: srv.URL, KeysURL: srv.URL + "/jwks"}},
		}
		if tt.change != nil {
			tt.change(c)
		}
		if got := find(check(t, Site{Clerk: c}), tt.check); got.Status != tt.status || !strings.Contains(got.Message, tt.text) {
			t.Errorf("%s: %+v, want %s %q", name, got, tt.status, tt.text)
		}
		srv.Close()
	}
}

// TestSecretKeyOfAnotherInstance: the kids that Clerk's two APIs tell are compared.
func TestSecretKeyOfAnotherInstance(t *testing.T) {
	t.Parallel()
	for kids, want := range map[string]Status{"ins_1": Pass, "ins_2": Fail} {
		r := run{Checker: New(Options{Timeout: time.Minute})}
		r.secretKey(t.Context(), &Clerk{Backend: backend{kids: []string{kids}}}, []string{"ins_1"})
		if c := find(r.report, CheckSecretKey); c.Status != want {
			t.Errorf("%s: %+v", kids, c)
		}
	}
}

// TestClockOffset: a Date of whole seconds is compared with the time of asking and of the answer, and nothing is made of what lies between.
func TestClockOffset(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 5, 4, 12, 30, 0, 400_000_000, time.UTC)
	stop := start.Add(300 * time.Millisecond)
	for date, want := range map[string]time.Duration{
		"Mon, 04 May 2026 12:30:00 GMT": 0,
		"Mon, 04 May 2026 12:30:01 GMT": 300 * time.Millisecond,
		"Mon, 04 May 2026 12:30:10 GMT": 9300 * time.Millisecond,
		"Mon, 04 May 2026 12:29:50 GMT": -9400 * time.Millisecond,
	} {
		if got, ok := clockOffset(http.Header{"Date": {date}}, start, stop); !ok || got != want {
			t.Errorf("%s: %v %v, want %v", date, got, ok, want)
		}
	}
	// What a cache kept has the Date of then, or one that the cache wrote. Only what neither explains is a difference.
	for date, want := range map[string]time.Duration{
		"Mon, 04 May 2026 12:25:00 GMT": 0,
		"Mon, 04 May 2026 12:30:00 GMT": 0,
		"Mon, 04 May 2026 12:24:50 GMT": -9400 * time.Millisecond,
		"Mon, 04 May 2026 12:30:10 GMT": 9300 * time.Millisecond,
	} {
		if got, ok := clockOffset(http.Header{"Date": {date}, "Age": {"300"}}, start, stop); !ok || got != want {
			t.Errorf("%s, 300 seconds old: %v %v, want %v", date, got, ok, want)
		}
	}
	for _, date := range []string{"", "yesterday"} {
		if _, ok := clockOffset(http.Header{"Date": {date}}, start, stop); ok {
			t.Errorf("%q is a date", date)
		}
	}
}

// TestClock: a clock that is off by more than is accepted has sessions refused, so it fails; one that is off by less is a warning. Clerk's
// decides, and Tinybird's only where Clerk's is not known, or when tokens have expired as they arrive.
func TestClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
	const dead = 20 * time.Second
	type server struct {
		ahead, skew, dead time.Duration
	}
	for name, tt := range map[string]struct {
		servers []server // the last one is looked at
		status  Status
		text    string
	}{
		"right":                      {[]server{{0, 5 * time.Second, 0}}, Pass, "agrees within 1s"},
		"less than a second":         {[]server{{500 * time.Millisecond, 5 * time.Second, 0}}, Pass, "agrees within 1s"},
		"behind, as is accepted":     {[]server{{3 * time.Second, 5 * time.Second, 0}}, Warn, "is 3s behind clerk.example.com, and 5s are accepted"},
		"behind, just as accepted":   {[]server{{5 * time.Second, 5 * time.Second, 0}}, Warn, "5s are accepted"},
		"behind":                     {[]server{{6 * time.Second, 5 * time.Second, 0}}, Fail, "refused as not yet valid"},
		"ahead":                      {[]server{{-time.Hour, 5 * time.Second, 0}}, Fail, "is 59m59s ahead of clerk.example.com, and 5s are accepted (clock_skew): sessions are refused before"},
		"more is accepted":           {[]server{{6 * time.Second, time.Minute, 0}}, Warn, "1m0s are accepted"},
		"none is accepted":           {[]server{{500 * time.Millisecond, 0, 0}}, Fail, "is 500ms behind"},
		"tinybird's alone":           {[]server{{6 * time.Second, 5 * time.Second, dead}}, Fail, "refused as not yet valid"},
		"tinybird's, not clerk's":    {[]server{{0, 5 * time.Second, 0}, {6 * time.Second, 5 * time.Second, dead}}, Warn, "though it agrees"},
		"both":                       {[]server{{6 * time.Second, 5 * time.Second, 0}, {6 * time.Second, 5 * time.Second, dead}}, Fail, "refused as not yet valid"},
		"what is made has expired":   {[]server{{0, time.Minute, 0}, {21 * time.Second, time.Minute, dead}}, Fail, "have expired when they arrive"},
		"what is made lives longer":  {[]server{{0, 5 * time.Second, 0}, {-21 * time.Second, 5 * time.Second, dead}}, Warn, "though it agrees"},
		"another issuer's is no use": {[]server{{0, 5 * time.Second, 0}, {6 * time.Second, 5 * time.Second, 0}}, Fail, "refused as not yet valid"},
	} {
		r := run{Checker: New(Options{})}
		for _, s := range tt.servers {
			// The Date is exact for one that is asked on the second; of one that is behind, all of its second is allowed for.
			asked := now.Add(-s.ahead % time.Second)
			date := asked.Add(s.ahead).Format(http.TimeFormat)
			r.clock("clerk.example.com", http.Header{"Date": {date}}, asked, asked, s.skew, s.dead)
		}
		c := r.report.Checks[len(r.report.Checks)-1]
		if c.Status != tt.status || !strings.Contains(c.Message, tt.text) || (c.Status != Pass) != (c.Fix != "") {
			t.Errorf("%s: %+v, want %s %q", name, c, tt.status, tt.text)
		}
	}
}

// TestSettingsThatMakeNoSense: an error of one half leaves the other to be checked.
func TestSettingsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	s := site(t, nil)
	s.ClerkErr = errors.New("publishable_key: want another")
	s.Literal, s.Warnings = []string{"signing_key"}, []string{"a token name for everybody"}
	r := check(t, s)
	if c := find(r, CheckSettings); c.Status != Fail || c.Subject != "clerk" {
		t.Errorf("%+v", c)
	}
	if c := find(r, CheckPipe); c.Status != Pass {
		t.Errorf("%+v", c)
	}
	if c := find(r, CheckLiteralSecret); c.Status != Warn || c.Subject != "signing_key" {
		t.Errorf("%+v", c)
	}
	s.Tinybird, s.TinybirdErr = nil, errors.New("signing_key is missing")
	if c := find(check(t, s), CheckSettings); c.Status != Fail {
		t.Errorf("%+v", c)
	}
}

// TestStyles holds the report for people, in each of its styles.
func TestStyles(t *testing.T) {
	t.Parallel()
	r := Report{
		Checks: []Check{{Check: CheckConfig, Status: Pass, Message: "loads"}},
		Sites: []SiteReport{
			{Hosts: []string{"a.example.com", "b.example.com"}, Checks: []Check{{Check: CheckPipe, Subject: "p", Status: Fail, Message: "none", Fix: "Add it."}}},
			{Checks: []Check{{Check: CheckIssuer, Status: Warn, Message: "odd"}, {Check: CheckKeys, Subject: "x", Status: Skip, Message: "not asked"}}},
		},
	}
	r.Count(false)
	if r.OK || r.Passed != 1 || r.Failed != 1 || r.Warned != 1 || r.Skipped != 1 {
		t.Errorf("%+v", r)
	}
	for want, style := range map[string]Style{
		"ok   config: loads\n\na.example.com, b.example.com\n  FAIL pipe p: none\n       Add it.\n\nany host\n  warn issuer: odd\n  skip keys x: not asked\n\n1 check passed, 1 warning, 1 failed, 1 skipped\n": {},
		"✓ config: loads\n\na.example.com, b.example.com\n  ✗ pipe p: none\n    Add it.\n\nany host\n  ! issuer: odd\n  - keys x: not asked\n\n1 check passed, 1 warning, 1 failed, 1 skipped\n":                {Marks: true},
	} {
		var out bytes.Buffer
		if err := r.WriteText(&out, style); err != nil || out.String() != want {
			t.Errorf("%+v: %v\n%s", style, err, out.String())
		}
	}
	var out bytes.Buffer
	if err := r.WriteText(&out, Style{Marks: true, Color: true}); err != nil || !strings.Contains(out.String(), "  \x1b[31m✗ \x1b[0mpipe p: none\n") {
		t.Errorf("%v\n%q", err, out.String())
	}
	r.Sites = r.Sites[1:]
	if r.Count(false); !r.OK {
		t.Error("a warning is a failure")
	}
	if r.Count(true); r.OK {
		t.Error("with strict a warning is none")
	}
}

// Attack: whoever answers in an issuer's place steers the terminal of the operator who checks, and a credential in the address of the
// keys is read off it.
func TestAttackWhatIssuersWrite(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"RSA","kid":"ins_1\u001b[2J\u009b\u202e\nFAIL","n":%q,"e":"AQAB"}]}`, base64.RawURLEncoding.EncodeToString(key.N.Bytes()))
	}))
	t.Cleanup(srv.Close)
	for name, o := range map[string]Options{"asked": {}, "offline": {Offline: true}} {
		var steps string
		o.Timeout, o.Step = time.Minute, func(what string) { steps += what }
		report := New(o).Site(t.Context(), Site{Clerk: &Clerk{Issuers: []Issuer{{URL: srv.URL, KeysURL: srv.URL + "/jwks?key=marked-secret"}}}})
		if c := find(report, CheckKeys); c.Subject != srv.URL+"/jwks" || strings.Contains(fmt.Sprint(report, steps), "marked") {
			t.Errorf("%s: %+v\n%s", name, report, steps)
		}
		var out bytes.Buffer
		if err := (&Report{Sites: []SiteReport{report}}).WriteText(&out, Style{}); err != nil || strings.ContainsAny(out.String(), "\x1b\u009b\u202e") || strings.Contains(out.String(), "\nFAIL") {
			t.Errorf("%s: %v\n%q", name, err, out.String())
		}
	}
}
