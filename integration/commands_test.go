//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/inspect"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/preflight"
)

// ran is what came of one run of `caddy tinybird`.
type ran struct {
	stdout, stderr string
	status         int
}

// tinybird runs a command of the binary on the edge's own config.
func (e *edge) tinybird(t *testing.T, stdin string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := command(ctx, e.home, e.env, append([]string{"tinybird"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	r := ran{stdout: out.String(), stderr: log.String()}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		r.status = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{e.stack.API.SigningKey(), e.stack.API.AppendToken(), e.stack.Issuer.SecretKey()} {
		if strings.Contains(r.stdout+r.stderr, secret) {
			t.Errorf("%v shows a secret", args)
		}
	}
	return r
}

// newConfiguredEdge prepares an edge with a Caddyfile, which nobody runs.
func newConfiguredEdge(t *testing.T, pipes string) *edge {
	t.Helper()
	e := newEdge(t, devstack.Options{})
	e.setenv("CLERK_SECRET_KEY", e.stack.Issuer.SecretKey())
	e.setenv("APPEND_TOKEN", e.stack.API.AppendToken())
	text := caddyfile("", `
analytics.example.com {
	log
	tinybird {
		clerk {
			publishable_key {env.CLERK_PUBLISHABLE_KEY}
			issuer {env.ISSUER}
			secret_key {env.CLERK_SECRET_KEY}
			api_url {env.ISSUER}
			authorized_parties https://app.example.com
		}
		`+credentials+pipes+`
		events analytics_events {
			append_token {env.APPEND_TOKEN}
			stamp organization_id {clerk.org.id}
		}
	}
}
`)
	write(t, filepath.Join(e.home, "Caddyfile"), text)
	return e
}

// TestCheckExitCodes: 0, 1 and 2, and what is in each.
func TestCheckExitCodes(t *testing.T) {
	t.Parallel()
	e := newConfiguredEdge(t, strings.Replace(allPipes, " draft_report", "", 1))
	if r := e.tinybird(t, "", "check", "--strict"); r.status != 0 || !strings.Contains(r.stdout, " 0 warnings, 0 failed, 0 skipped\n") {
		t.Errorf("%+v", r)
	}
	if r := e.tinybird(t, "", "check", "--offline", "--json"); r.status != 0 || !json.Valid([]byte(r.stdout)) {
		t.Errorf("%+v", r)
	}
	if r := e.tinybird(t, "", "check", "--config", "none"); r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, "no such file") {
		t.Errorf("%+v", r)
	}
	bad := newConfiguredEdge(t, allPipes)
	r := bad.tinybird(t, "", "check", "--json")
	var report preflight.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.status != 1 || report.OK || report.Failed != 1 {
		t.Errorf("%v %+v", err, r)
	}
	bad.setenv("TINYBIRD_SIGNING_KEY", "")
	if r = bad.tinybird(t, "", "check"); r.status != 1 || !strings.Contains(r.stdout, "FAIL config: http.handlers.tinybird: signing_key: the variable") {
		t.Errorf("%+v", r)
	}
}

// TestCheckOfARunningEdge: a check beside a running edge disturbs nothing, and finds what a reload would.
func TestCheckOfARunningEdge(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	ownRows(t, "ada", e.do(t, e.request(t, "ada", "GET", livePath, ""))) // the edge has its keys
	before := e.stack.Issuer.Fetches()
	if r := e.tinybird(t, "", "check", "--config", filepath.Join(e.home, "Caddyfile")); r.status != 1 || !strings.Contains(r.stdout, "pipe draft_report: it is not published") {
		t.Errorf("%+v", r)
	}
	ownRows(t, "ada", e.do(t, e.request(t, "ada", "GET", livePath, "")))
	if n := e.stack.Issuer.Fetches() - before; n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

// TestCheckWithoutNetwork: offline, nobody is asked: not even the proxy that all traffic would go through.
func TestCheckWithoutNetwork(t *testing.T) {
	t.Parallel()
	e := newConfiguredEdge(t, allPipes)
	if r := e.tinybird(t, "", "check", "--offline"); r.status != 0 {
		t.Errorf("%+v", r)
	}
	if n := e.stack.Issuer.Fetches() + len(e.stack.API.Requests()); n > 0 {
		t.Errorf("%d requests were made", n)
	}
}

// TestTokenReadsAtTinybird: the token on stdout is one that Tinybird takes, and nothing else is on stdout.
func TestTokenReadsAtTinybird(t *testing.T) {
	t.Parallel()
	e := newConfiguredEdge(t, allPipes)
	r := e.tinybird(t, "", "token", "--pipe", "top_pages", "--user", "user_2a", "--org", devstack.AcmeID)
	token := strings.TrimSuffix(r.stdout, "\n")
	if r.status != 0 || strings.Contains(r.stderr, token) || !strings.Contains(r.stderr, "It is a credential") {
		t.Fatalf("%+v", r)
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.stack.APIURL+"/v0/pipes/top_pages.json", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+token)
	if got := e.do(t, q); got.StatusCode != 200 || !bytes.Contains(got.body, []byte("/acme/")) || bytes.Contains(got.body, []byte("/globex/")) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if r = e.tinybird(t, "", "token", "--pipe", "top_pages", "--user", "user_2a"); r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, "403 tenant_missing") {
		t.Errorf("%+v", r)
	}
	if r = e.tinybird(t, "", "token", "--user", "user_2a"); r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, "--pipe") {
		t.Errorf("%+v", r)
	}
	// What one command makes, the other explains.
	r = e.tinybird(t, token, "inspect", "--json")
	var report inspect.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.status != 0 || report.Kind != inspect.KindTinybirdJWT || report.Signature.Status != inspect.Valid {
		t.Errorf("%v %+v", err, r)
	}
}

// TestInspectExitCodes: 0 for what was explained, 1 for what is no token, 2 when nothing could be found out.
func TestInspectExitCodes(t *testing.T) {
	t.Parallel()
	e := newConfiguredEdge(t, allPipes)
	session := e.token(t, "dana", devstack.AZP("https://app.example.com"))
	r := e.tinybird(t, session, "inspect")
	if r.status != 0 || !strings.Contains(r.stdout, "analytics.example.com (tinybird) accepts it.\n  not draft_report: 403 tenant_missing\n") {
		t.Errorf("%+v", r)
	}
	if strings.Contains(r.stdout+r.stderr, session[strings.LastIndexByte(session, '.')+1:]) {
		t.Error("the signature is shown")
	}
	if r = e.tinybird(t, "hello", "inspect"); r.status != 1 {
		t.Errorf("%+v", r)
	}
	if r = e.tinybird(t, "", "inspect"); r.status != 2 || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	if r = e.tinybird(t, "", "inspects"); r.status != 2 || !strings.Contains(r.stderr, "caddy help tinybird") {
		t.Errorf("%+v", r)
	}
}

// TestCompletionAndManual: shell completion and manual pages, which Caddy makes, know the commands and their flags.
func TestCompletionAndManual(t *testing.T) {
	t.Parallel()
	commands := []string{"audit", "check", "inspect", "token"}
	for shell, wants := range map[string][]string{
		"bash":       {"_caddy_tinybird_check()", `flags+=("--offline")`, "_caddy_tinybird_inspect()", `flags+=("--org-slug=")`},
		"zsh":        {"#compdef caddy"},
		"fish":       {"complete -c caddy"},
		"powershell": {"Register-ArgumentCompleter"},
	} {
		out, err := once(t, nil, "completion", shell)
		for _, want := range wants {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("completion %s has no %q: %v", shell, want, err)
			}
		}
	}
	// zsh, fish and PowerShell ask the program itself.
	out, err := once(t, nil, "__complete", "tinybird", "")
	for _, name := range commands {
		if err != nil || !strings.Contains("\n"+out, "\n"+name+"\t") {
			t.Errorf("%s is not completed: %v\n%s", name, err, out)
		}
	}
	if out, err = once(t, nil, "__complete", "tinybird", "check", "--"); err != nil || !strings.Contains(out, "--strict\tWarnings are failures") {
		t.Errorf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	if out, err := once(t, nil, "manpage", "--directory", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range commands {
		page := read(t, filepath.Join(dir, "caddy-tinybird-"+name+".8"))
		for _, want := range []string{".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLE", "caddy tinybird " + name} {
			if !strings.Contains(page, want) {
				t.Errorf("the manual page of %s has no %q", name, want)
			}
		}
	}
	if index := read(t, filepath.Join(dir, "caddy-tinybird.8")); !slices.ContainsFunc(strings.Split(index, "\n"), func(l string) bool { return strings.Contains(l, "caddy-tinybird-check(8)") }) {
		t.Error("the manual page of caddy tinybird names no commands")
	}
	for _, name := range commands {
		if out, err := once(t, nil, "tinybird", name, "--help"); err != nil || !strings.Contains(out, "Examples:") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// TestProgressOnATerminal: on a terminal, and only there, a command that has to wait says what for; with NO_COLOR it does without
// colours.
func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	e := newConfiguredEdge(t, "\npipe top_pages {\nfixed_param organization_id {clerk.org.id}\n}\n")
	hang := make(chan struct{})
	e.stack.Issuer.Fail(func(*http.Request) *devstack.Fault { <-hang; return nil })
	defer close(hang)
	for _, color := range []bool{true, false} {
		env := slices.Clone(e.env)
		env = append(env, "TERM=xterm")
		if !color {
			env = append(env, "NO_COLOR=1")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		// script(1) gives the command a terminal.
		cmd := command(ctx, e.home, env)
		script, err := exec.LookPath("script")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args, cmd.Err = script, []string{"script", "-qec", caddyBinary + " tinybird check --timeout 3s", os.DevNull}, nil
		out, err := cmd.Output()
		cancel()
		text := string(out)
		if !strings.Contains(text, "check: the keys at "+e.stack.IssuerURL) || !strings.Contains(text, "✗ ") {
			t.Errorf("%v\n%s", err, text)
		}
		if strings.Contains(text, "\x1b[31m✗ ") != color {
			t.Errorf("colour %v:\n%q", color, text)
		}
	}
	if r := e.tinybird(t, "", "check", "--timeout", "2s"); strings.Contains(r.stderr, "check: the keys") || strings.Contains(r.stdout, "✗") {
		t.Errorf("%+v", r)
	}
}
