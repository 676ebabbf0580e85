//go:build integration

package integration

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// secretSites are two sites: refusals by the plugin, which show Tinybird's texts, and by Caddy, whose error log holds the
// request. Both log, and take a token from the URL.
const secretSites = `
(edge) {
	log
	tinybird {
		` + credentials + `
		clerk {
			publishable_key {env.CLERK_PUBLISHABLE_KEY}
			secret_key {env.CLERK_SECRET_KEY}
			issuer {env.ISSUER}
			token_from header cookie query access
		}
		upstream_errors pass
		errors {args[0]}
		fixed_param organization_id {clerk.org.id}
		pipe live_events draft_report top_pages
		pipe sales_by_day {
			rate_limit 1 burst 1
		}
	}
}
http://` + jsonHost + `:{$PORT} {
	import edge json
}
http://` + caddyHost + `:{$PORT} {
	import edge caddy
	handle_errors {
		respond "{err.status_code} {err.message} {http.tinybird.code}"
	}
}
`

// vault holds what must not come to light, and where it was planted. It takes thousands of secrets and looks through hundreds of
// megabytes: each form of a secret is found by its end.
type vault struct {
	mu      sync.Mutex
	planted map[string]string
	ends    map[[formEnd]byte][]form
	seen    map[string]*strings.Builder // what came out, for later
}

// form is a secret as it could be written, and what it is.
type form struct{ text, what string }

// formEnd is how much of a form's end is looked up; no secret is shorter.
const formEnd = 12

// add plants a secret. A part of a JWT would be as bad as the whole, so its payload and signature count by themselves.
func (v *vault) add(what, secret string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.plant(what, secret)
	parts := strings.Split(secret, ".")
	if len(parts) == 3 {
		v.plant(what+"'s payload", parts[1])
		v.plant(what+"'s signature", parts[2])
	}
}

func (v *vault) plant(what, secret string) {
	if v.planted == nil {
		v.planted = make(map[string]string)
		v.ends = make(map[[formEnd]byte][]form)
	}
	if _, ok := v.planted[secret]; ok || len(secret) < formEnd {
		return
	}
	v.planted[secret] = what
	forms := []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret))}
	slices.Sort(forms)
	for _, text := range slices.Compact(forms) {
		end := [formEnd]byte([]byte(text[len(text)-formEnd:]))
		v.ends[end] = append(v.ends[end], form{text, what})
	}
}

// search fails the test for each secret in text, as it is or escaped for a URL or in base64.
func (v *vault) search(t *testing.T, where, text string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	found := make(map[string]bool)
	for i := formEnd; i <= len(text); i++ {
		for _, f := range v.ends[[formEnd]byte([]byte(text[i-formEnd:i]))] {
			if strings.HasSuffix(text[:i], f.text) && !found[f.what] {
				found[f.what] = true
				t.Errorf("%s: %s\n...%.600s", where, f.what, text[max(0, i-len(f.text)-300):])
			}
		}
	}
}

// saw keeps what came out until searchSeen: a secret can be planted after it was seen.
func (v *vault) saw(where, text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen == nil {
		v.seen = make(map[string]*strings.Builder)
	}
	if v.seen[where] == nil {
		v.seen[where] = new(strings.Builder)
	}
	v.seen[where].WriteString(text + "\n")
}

// searchSeen searches all that was kept.
func (v *vault) searchSeen(t *testing.T) {
	t.Helper()
	for where, text := range v.seen {
		v.search(t, where, text.String())
	}
}

// docsSnippet is the first block of the documentation that has the text, without its heading comment: what is shown to
// operators is what is tested.
func docsSnippet(t *testing.T, file, holds string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(module, "docs", file))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```")
	for n := 1; n < len(blocks); n += 2 {
		if strings.HasPrefix(blocks[n], "caddyfile") && strings.Contains(blocks[n], holds) {
			return strings.TrimPrefix(blocks[n], "caddyfile")
		}
	}
	t.Fatalf("no block of docs/%s holds %q", file, holds)
	return ""
}

// TestNoSecretAnywhere: the keys, all session tokens and cookies, all minted tokens, and everything that clients send as a
// credential are planted, and occur in no log line at debug level, no answer, no metric, no config that Caddy shows, and no file.
func TestNoSecretAnywhere(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	_, port, _ := strings.Cut(e.addr, ":")
	e.setenv("PORT", port)
	e.setenv("CLERK_SECRET_KEY", "sk_test_planted4NvHkqjTYyJmWzXcRbPdLfGsQa")
	v := new(vault)
	v.add("the signing key", e.getenv("TINYBIRD_SIGNING_KEY"))
	v.add("Clerk's secret key", e.getenv("CLERK_SECRET_KEY"))
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		if r.URL.Query().Get("fault") == "quotes the token" {
			// The worst Tinybird could do: the token in every header that comes down, and in the body.
			token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			return &devstack.Fault{Status: http.StatusBadRequest, Header: http.Header{"X-Leak": {token}}, Body: []byte(`{"error":"Invalid token b'` + token + `'"}`)}
		}
		return nil
	})
	// Caddy's own filter for URLs, as our documentation has it, for the two names that are used here.
	filter := strings.Replace(docsSnippet(t, "logs.md", "format filter"), "replace token REDACTED", "replace token REDACTED\n replace access REDACTED", 1)
	config := caddyfile("\tdebug\n"+filter, secretSites)
	e.run(t, config)

	provoke(t, e, v)

	for _, up := range e.stack.API.Requests() {
		for _, token := range up.Tokens {
			v.add("a minted token", token)
		}
	}
	for _, path := range []string{"/config/", "/metrics", "/debug/vars", "/debug/pprof/cmdline", "/reverse_proxy/upstreams", "/tinybird/status"} {
		_, answer := e.ask(t, http.MethodGet, path, "", "")
		v.search(t, "admin "+path, answer)
	}
	status, rejection := e.load(t, strings.Replace(config, "upstream {env.UPSTREAM}", "upstream {env.TINYBIRD_SIGNING_KEY}", 1))
	if status == http.StatusOK {
		t.Error("a key was accepted as an address")
	}
	v.search(t, "a rejected config's error", rejection)
	file := filepath.Join(e.home, "Caddyfile")
	for _, args := range [][]string{
		{"adapt", "--config", file, "--pretty"},
		{"validate", "--config", file},
		{"tinybird", "check", "--config", file, "--site", jsonHost},
		{"tinybird", "check", "--config", file, "--site", jsonHost, "--json"},
		{"tinybird", "audit", "--config", file, "--site", jsonHost},
		{"tinybird", "inspect", "--config", file, "--site", jsonHost, "@" + planted(t, v, e)},
	} {
		out, err := once(t, e.env, args...)
		// Two of them find something to mend: a pipe that is not published, and no way to Clerk's Backend API.
		if ended := new(exec.ExitError); err != nil && (!errors.As(err, &ended) || ended.ExitCode() != 1 || args[0] != "tinybird") {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		v.search(t, "caddy "+strings.Join(args, " "), out)
	}
	e.terminate(t)
	if err := e.wait(t); err != nil {
		t.Error(err)
	}
	log := e.log.String()
	for _, proof := range []string{`"level":"debug"`, "http.log.access", "http.log.error", "REDACTED", `"tinybird_outcome":"ok"`} {
		if !strings.Contains(log, proof) {
			t.Errorf("no %s in the log, so the test shows nothing", proof)
		}
	}
	v.search(t, "the log", log)
	searchFiles(t, v, e.home)
	if len(v.planted) < 20 {
		t.Errorf("%d secrets planted, so the test shows nothing", len(v.planted))
	}
}

// planted is a file with a session token that has what looks like a secret among its claims.
func planted(t *testing.T, v *vault, e *edge) string {
	t.Helper()
	const key = "sk_live_planted0Vd8mXqR2nTzB6yKc"
	token := e.token(t, "ada", devstack.Claim("api_key", key), devstack.Claim("note", "the key is "+key))
	v.add("a session token", token)
	v.add("a claim that looks like a secret", key)
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, token)
	return file
}

// provoke sends everything that holds a secret, in good requests and in all kinds of bad ones, and searches the answers.
func provoke(t *testing.T, e *edge, v *vault) {
	t.Helper()
	for _, host := range []string{jsonHost, caddyHost} {
		ask := func(r *http.Request) {
			r.Host = host + ":" + e.getenv("PORT")
			got := e.do(t, r)
			v.search(t, "the answer's body", string(got.body))
			for name, values := range got.Header {
				v.search(t, "the answer's "+name, strings.Join(values, ","))
			}
		}
		session := func(user string, opts ...devstack.TokenOption) string {
			token := e.token(t, user, opts...)
			v.add("a session token", token)
			return token
		}
		signed := func(token, method, target, body string) *http.Request {
			r := e.request(t, "", method, target, body)
			r.Header.Set("Authorization", "Bearer "+token)
			return r
		}
		client := "p.eyJ1IjoicGxhbnRlZCJ9.planted-by-the-client-" + strings.ReplaceAll(host, ".", "-")
		v.add("a client's token", client)

		const live = "/v0/pipes/live_events.json"
		for _, target := range []string{live, live + "?token=" + client, live + "?fault=quotes+the+token", "/v0/pipes/draft_report.json", "/v0/pipes/sales_by_day.json", "/v0/pipes/sales_by_day.json", "/v0/other?token=" + client, live + "?token=" + client + ";a=b", live + "?token=" + client + "&a=%zz"} {
			ask(signed(session("ada"), http.MethodGet, target, ""))
		}
		ask(signed(session("cleo"), http.MethodPost, live, `{"token":"`+client+`"}`))
		ask(signed(session("cleo"), http.MethodPost, live, `{"token":"`+client+`"`))
		ask(signed(session("dana"), http.MethodGet, live, ""))
		ask(signed(session("ada", devstack.Expired()), http.MethodGet, live, ""))
		ask(signed(session("ada", devstack.ForeignKey()), http.MethodGet, live, ""))
		ask(signed(session("ada", devstack.KID("ins_2other")), http.MethodGet, live, ""))
		ask(signed(session("ada", devstack.Pending()), http.MethodGet, live, ""))
		ask(signed(session("ada", devstack.Claim("iss", "https://evil.example")), http.MethodGet, live, ""))
		ask(signed(client, http.MethodGet, live, ""))
		ask(signed(e.getenv("TINYBIRD_SIGNING_KEY"), http.MethodGet, live, ""))
		ask(e.request(t, "", http.MethodGet, live+"?access="+session("ben"), ""))
		ask(e.request(t, "", http.MethodGet, live+"?access="+session("ben", devstack.ForeignKey()), ""))
		two := signed(session("ada"), http.MethodGet, live, "")
		two.Header.Add("Authorization", "Bearer "+session("ben"))
		ask(two)
		byCookie := e.request(t, "", http.MethodGet, live, "")
		for _, c := range e.cookies(t, "ben") {
			if !strings.HasPrefix(c.Name, "__client_uat") { // the second of the sign-in
				v.add("the cookie "+c.Name, c.Value)
			}
			byCookie.AddCookie(c)
		}
		ask(byCookie)
	}
}

// searchFiles looks into everything that the process left behind, but for the config that the test itself wrote.
func searchFiles(t *testing.T, v *vault, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		v.search(t, "the file "+filepath.Base(path), path+"\n"+string(text))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if files < 2 {
		t.Errorf("%d files, so the test shows nothing", files)
	}
}

// TestLiteralSecretIsWarnedAbout: a key that stands in the config itself is Caddy's to show, so the operator is told, and
// the plugin's own lines still do not hold it.
func TestLiteralSecretIsWarnedAbout(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.run(t, caddyfile("", strings.Replace(plainSite, "{env.TINYBIRD_SIGNING_KEY}", "{$TINYBIRD_SIGNING_KEY}", 1)))
	ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json"))
	log := e.log.String()
	if !strings.Contains(log, "a secret is written in the config itself") {
		t.Errorf("no warning\n%s", log)
	}
	if strings.Contains(log, e.getenv("TINYBIRD_SIGNING_KEY")) {
		t.Error("the log holds the key")
	}
}

// TestBadSecretIsNotPrinted: what is refused as a secret could be one with a mistake in it.
func TestBadSecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	for name, secret := range map[string]string{
		"empty":       "",
		"short":       "p.planted-short",
		"braces":      "{planted-in-braces-0123456789-0123456789}",
		"brackets":    "<planted-in-brackets-0123456789-0123456789>",
		"spaces":      "planted with spaces 0123456789 0123456789",
		"two lines":   "planted-line-0123456789-0123456789\nplanted-line-0123456789",
		"other shape": "planted-shape-0123456789-0123456789-0123456789",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, devstack.Options{})
			e.setenv("TINYBIRD_SIGNING_KEY", secret)
			file := filepath.Join(e.home, "Caddyfile")
			if err := os.WriteFile(file, []byte(caddyfile("", plainSite)), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := once(t, e.env, "validate", "--config", file)
			if err == nil {
				t.Error("accepted")
			}
			if strings.Contains(out, "planted") {
				t.Errorf("printed:\n%s", out)
			}
			if !slices.ContainsFunc([]string{"signing_key", "signing key"}, func(s string) bool { return strings.Contains(out, s) }) {
				t.Errorf("the message does not name the setting:\n%s", out)
			}
		})
	}
}
