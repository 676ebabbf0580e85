package caddytinybird

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/preflight"
)

// checkedCaddyfile writes a config of one site whose services are the stand-ins. What is in the map replaces text of it.
func checkedCaddyfile(t *testing.T, s *devstack.Stack, replace map[string]string) string {
	t.Helper()
	text := `
{
	admin off
	storage file_system ` + storageDir(t) + `
}
analytics.example.com {
	tinybird {
		clerk {
			publishable_key ` + s.Issuer.PublishableKey() + `
			issuer ` + s.IssuerURL + `
			secret_key ` + secretFile(t, s.Issuer.SecretKey()) + `
			api_url ` + s.IssuerURL + `
			authorized_parties https://app.example.com
		}
		signing_key ` + secretFile(t, s.API.SigningKey()) + `
		upstream ` + s.APIURL + `
		fixed_param organization_id {clerk.org.id}
		pipe top_pages sales_by_day
		pipe my_activity {
			fixed_param user_id {clerk.user.id}
		}
		events analytics_events {
			append_token ` + secretFile(t, s.API.AppendToken()) + `
			stamp organization_id {clerk.org.id}
		}
	}
}
`
	for old, changed := range replace {
		if !strings.Contains(text, old) {
			t.Fatalf("the config has no %q", old)
		}
		text = strings.ReplaceAll(text, old, changed)
	}
	path := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checked runs `caddy tinybird check --json`. It loads the config, which nothing else may do meanwhile: a test that calls it does not
// run in parallel.
func checked(t *testing.T, config string, args ...string) (r preflight.Report, status int) {
	t.Helper()
	out, status, err := command(t, append([]string{"check", "--json", "--config", config}, args...)...)
	if status == exitCouldNotRun {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r.OK != (status == 0) {
		t.Errorf("status %d of a report that says %v", status, r.OK)
	}
	return r, status
}

// outcome is the worst status of the checks of a name, with all that is said about them.
func outcome(r preflight.Report, check string) (worst preflight.Status, text string) {
	all := slices.Clone(r.Checks)
	for _, s := range r.Sites {
		all = append(all, s.Checks...)
	}
	order := []preflight.Status{"", preflight.Pass, preflight.Skip, preflight.Warn, preflight.Fail}
	for _, c := range all {
		if c.Check != check {
			continue
		}
		if slices.Index(order, c.Status) > slices.Index(order, worst) {
			worst = c.Status
		}
		text += c.Subject + ": " + c.Message + " | " + c.Fix + "\n"
	}
	return worst, text
}

// TestCheckCommand: a config that works passes, and nothing is written, changed or fetched twice by looking.
//
//nolint:paralleltest // see checked
func TestCheckCommand(t *testing.T) {
	s := newStack(t, devstack.Options{})
	r, status := checked(t, checkedCaddyfile(t, s, nil), "--strict")
	if status != 0 || r.Failed+r.Warned+r.Skipped > 0 {
		t.Fatalf("status %d: %+v", status, r)
	}
	for _, check := range []string{
		preflight.CheckConfig, preflight.CheckPublishableKey, preflight.CheckIssuer, preflight.CheckKeys, preflight.CheckSecretKey, preflight.CheckAuthorizedParties,
		preflight.CheckSigningKey, preflight.CheckUpstream, preflight.CheckMintedToken, preflight.CheckPipe, preflight.CheckEvents, preflight.CheckClock,
	} {
		if got, text := outcome(r, check); got != preflight.Pass {
			t.Errorf("%s: %q %s", check, got, text)
		}
	}
	if _, text := outcome(r, preflight.CheckKeys); !strings.Contains(text, s.Issuer.KeyID()+" (RSA, 2048 bits)") {
		t.Error(text)
	}
	if n := s.Issuer.Fetches(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	reads := map[string]int{}
	tokens := map[string]bool{s.API.SigningKey(): true, s.API.AppendToken(): false}
	for _, q := range s.API.Requests() {
		if q.Method != http.MethodGet || len(q.Body) > 0 {
			t.Errorf("%s %s", q.Method, q.Path)
		}
		if q.Path == "/v0/regions" && len(q.Tokens) > 0 {
			t.Error("a token was sent before it was known who answers")
		}
		if sent, known := tokens[q.Token]; known && !sent {
			t.Error("the append token was sent")
		}
		if reads[q.Path]++; reads[q.Path] > 1 {
			t.Errorf("%s was asked for %d times", q.Path, reads[q.Path])
		}
		if strings.HasSuffix(q.Path, ".json") && q.Claims["name"] != "caddy-tinybird-check" {
			t.Errorf("%s was read as %v", q.Path, q.Claims["name"])
		}
	}
	if rows := s.API.Events("analytics_events"); len(rows) > 0 {
		t.Errorf("%d rows were written", len(rows))
	}
}

// TestCheckCommandFindings: each mistake is found, under its own name, with what to do.
//
//nolint:paralleltest // see checked
func TestCheckCommandFindings(t *testing.T) {
	s := newStack(t, devstack.Options{})
	other := newStack(t, devstack.Options{})
	line := func(name, value string) map[string]string { return map[string]string{name: value} }
	for name, tt := range map[string]struct {
		replace map[string]string
		args    []string
		check   string
		want    preflight.Status
		text    string
	}{
		"no such pipe":          {line("pipe top_pages", "pipe top_page"), nil, preflight.CheckPipe, preflight.Fail, "no pipe of this name | Correct the name"},
		"a draft":               {line("pipe top_pages", "pipe draft_report"), nil, preflight.CheckPipe, preflight.Fail, "not published"},
		"an unused parameter":   {line("user_id {", "userid {"), nil, preflight.CheckPipe, preflight.Fail, "no use of userid"},
		"no parties":            {line("authorized_parties https://app.example.com", ""), nil, preflight.CheckAuthorizedParties, preflight.Warn, "Add `authorized_parties"},
		"parties":               {nil, nil, preflight.CheckAuthorizedParties, preflight.Pass, "only sessions obtained at https://app.example.com are accepted"},
		"parties, or none":      {line("authorized_parties https://app.example.com", "authorized_parties https://app.example.com\nazp if_present"), nil, preflight.CheckAuthorizedParties, preflight.Pass, "azp if_present"},
		"parties for nothing":   {line("authorized_parties https://app.example.com", "authorized_parties https://app.example.com\nazp off"), nil, preflight.CheckAuthorizedParties, preflight.Warn, "Remove `azp off`"},
		"strict":                {line("authorized_parties https://app.example.com", ""), []string{"--strict"}, preflight.CheckAuthorizedParties, preflight.Warn, ""},
		"nobody at Tinybird":    {line(s.APIURL, "http://127.0.0.1:1"), nil, preflight.CheckUpstream, preflight.Fail, "Check `upstream`"},
		"nobody at Clerk":       {line("issuer "+s.IssuerURL, "issuer "+s.IssuerURL+"\njwks_url http://127.0.0.1:1/"), nil, preflight.CheckKeys, preflight.Fail, "jwks_url"},
		"no keys there":         {line("issuer "+s.IssuerURL, "issuer "+s.IssuerURL+"\njwks_url "+s.IssuerURL+"/nothing"), nil, preflight.CheckKeys, preflight.Fail, "status 404"},
		"another instance":      {line(s.Issuer.PublishableKey(), other.Issuer.PublishableKey()), nil, preflight.CheckIssuer, preflight.Warn, "Remove `issuer`"},
		"no data source":        {line("events analytics_events", "events no_such"), nil, preflight.CheckEvents, preflight.Fail, "no data source of this name"},
		"no column":             {line("stamp organization_id", "stamp org"), nil, preflight.CheckEvents, preflight.Warn, "no column org"},
		"a missing variable":    {line("signing_key {file.", "signing_key {env.NO_SUCH_KEY}\n#"), nil, preflight.CheckConfig, preflight.Fail, "signing_key: the variable"},
		"an unknown directive":  {line("upstream ", "upstreams "), nil, preflight.CheckConfig, preflight.Fail, "upstreams"},
		"a fault elsewhere":     {line("tinybird {", "reverse_proxy {\ntransport none\n}\ntinybird {"), nil, preflight.CheckConfig, preflight.Fail, "none"},
		"one name for everyone": {line("upstream ", "token {\nname everybody\n}\nupstream "), nil, preflight.CheckSettings, preflight.Warn, "token name holds no {clerk.*} placeholder"},
	} {
		t.Run(name, func(t *testing.T) {
			r, status := checked(t, checkedCaddyfile(t, s, tt.replace), tt.args...)
			got, text := outcome(r, tt.check)
			if got != tt.want || !strings.Contains(text, tt.text) {
				t.Errorf("%s: %q, want %q with %q:\n%s\n%+v", tt.check, got, tt.want, tt.text, text, r)
			}
			if want := tt.want == preflight.Fail || slices.Contains(tt.args, "--strict"); (status == 1) != want {
				t.Errorf("status %d", status)
			}
		})
	}
}

// TestCheckCommandSecrets: the wrong secret in the right place is found, and none is shown.
//
//nolint:paralleltest // see checked
func TestCheckCommandSecrets(t *testing.T) {
	s := newStack(t, devstack.Options{})
	wrong := devstack.NewSigningKey(s.API.WorkspaceID())
	for name, tt := range map[string]struct {
		line, value string
		check       string
		want        preflight.Status
		text        string
	}{
		"another signing key":      {"signing_key", secretFile(t, wrong), preflight.CheckMintedToken, preflight.Fail, "workspace admin token"},
		"the append token as key":  {"signing_key", secretFile(t, s.API.AppendToken()) + "\nworkspace_id " + s.API.WorkspaceID(), preflight.CheckMintedToken, preflight.Fail, "workspace admin token"},
		"another secret key":       {"secret_key", secretFile(t, "sk_test_"+strings.Repeat("k", 40)), preflight.CheckSecretKey, preflight.Fail, "dashboard"},
		"a secret key for live":    {"secret_key", secretFile(t, "sk_live_"+strings.Repeat("k", 40)), preflight.CheckSecretKey, preflight.Fail, "sk_test_"},
		"an admin token to append": {"append_token", secretFile(t, s.API.SigningKey()), preflight.CheckEvents, preflight.Warn, "signing key"},
		"no token to append":       {"append_token", secretFile(t, wrong), preflight.CheckEvents, preflight.Fail, "none of the workspace's tokens"},
		"a literal":                {"signing_key", s.API.SigningKey(), preflight.CheckLiteralSecret, preflight.Warn, "signing_key: the secret stands in the config"},
	} {
		t.Run(name, func(t *testing.T) {
			config := checkedCaddyfile(t, s, nil)
			text, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(text), "\n")
			i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), tt.line+" ") })
			lines[i] = tt.line + " " + tt.value
			if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			r, _ := checked(t, config)
			if got, text := outcome(r, tt.check); got != tt.want || !strings.Contains(text, tt.text) {
				t.Errorf("%s: %q %s\n%+v", tt.check, got, text, r)
			}
			out, _, err := command(t, "check", "--config", config)
			for _, secret := range []string{s.API.SigningKey(), s.API.AppendToken(), s.Issuer.SecretKey(), wrong, "kkkkkkk", "eyJ"} {
				if strings.Contains(out, secret) || err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("a secret is shown:\n%s\n%v", out, err)
				}
			}
		})
	}
}

// TestCheckCommandOffline: nobody is asked, not even by loading the config, and what the config alone shows is found all the same.
//
//nolint:paralleltest // see checked
func TestCheckCommandOffline(t *testing.T) {
	s := newStack(t, devstack.Options{})
	r, status := checked(t, checkedCaddyfile(t, s, map[string]string{"authorized_parties https://app.example.com": ""}), "--offline")
	if status != 0 || r.Warned != 1 || r.Skipped < 4 {
		t.Errorf("%d: %+v", status, r)
	}
	if n := s.Issuer.Fetches() + len(s.API.Requests()); n > 0 {
		t.Errorf("%d requests were made", n)
	}
}

// TestCheckCommandStore: the store is asked with the settings of the config, what is wrong is a warning that says what to do, and nothing
// secret of the address is shown.
//
//nolint:paralleltest // see checked
func TestCheckCommandStore(t *testing.T) {
	s, m := newStack(t, devstack.Options{}), newStore(t)
	m.RequireUserAuth("planted-user", "planted-password")
	ca, certificate, key, pair := authority(t)
	secure, err := miniredis.RunTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(secure.Close)
	password := secretFile(t, "planted-password")
	for name, tt := range map[string]struct {
		address, options string
		args             []string
		want             preflight.Status
		text             string
	}{
		"counts":               {"redis://planted-user:" + password + "@" + m.Addr(), "", nil, preflight.Pass, m.Addr() + ": counts"},
		"offline":              {"redis://planted-user:" + password + "@" + m.Addr(), "", []string{"--offline"}, preflight.Skip, "not asked"},
		"strict":               {"redis://" + m.Addr(), "", []string{"--strict"}, preflight.Warn, "password"},
		"another password":     {"redis://planted-user:" + secretFile(t, "planted-other") + "@" + m.Addr(), "", nil, preflight.Warn, "WRONGPASS"},
		"nobody":               {"redis://planted-user:" + password + "@127.0.0.1:1", "", nil, preflight.Warn, "connection refused"},
		"sentinels":            {"redis://planted-user:" + password + "@127.0.0.1:1?master_name=planted&sentinel_password=" + password, "", nil, preflight.Warn, "connection refused"},
		"a cluster":            {"redis://planted-user:" + password + "@127.0.0.1:1?cluster=true", "", nil, preflight.Warn, "connection refused"},
		"TLS":                  {"rediss://" + secure.Addr(), "ca " + ca + "\nclient_certificate " + certificate + " " + key, nil, preflight.Pass, "counts"},
		"an unknown authority": {"rediss://" + secure.Addr(), "client_certificate " + certificate + " " + key, nil, preflight.Warn, "Name the authority"},
		"TLS not asked for":    {"redis://" + secure.Addr(), "", nil, preflight.Warn, "rediss://"},
	} {
		t.Run(name, func(t *testing.T) {
			config := checkedCaddyfile(t, s, map[string]string{"upstream ": "rate_limit 50\nrate_limit redis " + tt.address + " {\ntimeout 5s\n" + tt.options + "\n}\nupstream "})
			r, status := checked(t, config, tt.args...)
			got, text := outcome(r, preflight.CheckSharedLimit)
			if got != tt.want || !strings.Contains(text, tt.text) {
				t.Errorf("%q %s", got, text)
			}
			if (status == 1) != slices.Contains(tt.args, "--strict") {
				t.Errorf("status %d: %+v", status, r)
			}
			out, _, err := command(t, append([]string{"check", "--config", config}, tt.args...)...)
			if all := fmt.Sprint(out, err, r); strings.Contains(all, "planted") || strings.Contains(all, "master_name") {
				t.Errorf("something of the address is shown:\n%s", all)
			}
		})
	}
	t.Run("a literal", func(t *testing.T) {
		r, _ := checked(t, checkedCaddyfile(t, s, map[string]string{"upstream ": "rate_limit 50\nrate_limit redis redis://:planted-password@" + m.Addr() + "\nupstream "}), "--offline")
		if got, text := outcome(r, preflight.CheckLiteralSecret); got != preflight.Warn || !strings.Contains(text, "rate_limit redis") || strings.Contains(text, "planted") {
			t.Errorf("%q %s", got, text)
		}
	})
}

// TestCheckCommandClock: a clock that is away warns; one that is so far behind that tokens are dead on arrival fails.
//
//nolint:paralleltest // see checked
func TestCheckCommandClock(t *testing.T) {
	s := newStack(t, devstack.Options{})
	for ahead, want := range map[time.Duration]preflight.Status{0: preflight.Pass, 12 * time.Second: preflight.Warn, -12 * time.Second: preflight.Warn, time.Minute: preflight.Fail} {
		s.API.Fail(func(*http.Request) *devstack.Fault {
			return &devstack.Fault{Header: http.Header{"Date": {time.Now().Add(ahead).UTC().Format(http.TimeFormat)}}}
		})
		r, _ := checked(t, checkedCaddyfile(t, s, nil))
		if got, text := outcome(r, preflight.CheckClock); got != want {
			t.Errorf("%s ahead: %s %s", ahead, got, text)
		}
	}
}

// TestCheckCommandHangs: a service that does not answer ends the wait for it, not the command.
//
//nolint:paralleltest // see checked
func TestCheckCommandHangs(t *testing.T) {
	s := newStack(t, devstack.Options{})
	hang := func(*http.Request) *devstack.Fault { return &devstack.Fault{Stop: devstack.HangBeforeHeader} }
	s.API.Fail(hang)
	s.Issuer.Fail(hang)
	r, status := checked(t, checkedCaddyfile(t, s, nil), "--timeout", "50ms")
	for _, check := range []string{preflight.CheckKeys, preflight.CheckUpstream} {
		if got, text := outcome(r, check); got != preflight.Fail || status != 1 {
			t.Errorf("%s: %s %s", check, got, text)
		}
	}
	if got, text := outcome(r, preflight.CheckPipe); got != preflight.Skip {
		t.Errorf("%s %s", got, text)
	}
}

// TestCheckCommandText: a line for each check, the fix below, and the sum.
//
//nolint:paralleltest // see checked
func TestCheckCommandText(t *testing.T) {
	s := newStack(t, devstack.Options{})
	out, status, err := command(t, "check", "--config", checkedCaddyfile(t, s, map[string]string{"pipe top_pages": "pipe draft_report"}))
	for _, want := range []string{
		"ok   config: loads\n\nanalytics.example.com\n  ok   publishable_key: of the development instance at ",
		"  FAIL pipe draft_report: it is not published: it has no endpoint\n       Correct the name, publish the pipe as an endpoint, or take it out of the config.\n",
		" checks passed, 0 warnings, 1 failed, 0 skipped\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %d %v\n%s", want, status, err, out)
		}
	}
	if status != 1 || strings.Contains(out, "\x1b") {
		t.Errorf("status %d\n%s", status, out)
	}
}

// TestCheckCommandSites: of several sites, those with clerk_auth alone too, the ones that are asked for.
//
//nolint:paralleltest // see checked
func TestCheckCommandSites(t *testing.T) {
	s := newStack(t, devstack.Options{})
	config := checkedCaddyfile(t, s, map[string]string{"analytics.example.com {": `
app.example.com {
	clerk_auth {
		publishable_key ` + s.Issuer.PublishableKey() + `
		issuer ` + s.IssuerURL + `
	}
	respond ok
}
analytics.example.com {`})
	r, _ := checked(t, config)
	if len(r.Sites) != 2 || r.Sites[0].Hosts[0] == r.Sites[1].Hosts[0] {
		t.Fatalf("%+v", r.Sites)
	}
	r, status := checked(t, config, "--site", "app.example.com")
	if len(r.Sites) != 1 || status != 0 || r.Warned != 1 {
		t.Errorf("%d %+v", status, r)
	}
	if _, text := outcome(r, preflight.CheckPipe); text != "" {
		t.Error(text)
	}
	if n := s.Issuer.Fetches(); n != 2 {
		t.Errorf("the keys were fetched %d times in two runs", n)
	}
	_, status, err := command(t, "check", "--config", config, "--site", "other.example.com")
	if status != exitCouldNotRun || !strings.Contains(err.Error(), "analytics.example.com") {
		t.Errorf("%d %v", status, err)
	}
}

// TestCheckCommandCannotRun holds the errors of a check that cannot be made.
func TestCheckCommandCannotRun(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--config":     {"check"},
		"no such file": {"check", "--config", filepath.Join(t.TempDir(), "none")},
		"positive":     {"check", "--timeout", "0s"},
		"--fix":        {"check", "--fix"},
	} {
		if _, status, err := command(t, args...); status != exitCouldNotRun || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %d %v", args, status, err)
		}
	}
}
