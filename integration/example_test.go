//go:build integration

package integration

import (
	"encoding/base64"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// exampleEnv is the environment that Caddyfile.example asks for.
func exampleEnv() []string {
	return []string{
		"CLERK_PUBLISHABLE_KEY=pk_live_" + base64.RawStdEncoding.EncodeToString([]byte("clerk.example.com$")),
		"TINYBIRD_SIGNING_KEY=" + devstack.NewSigningKey(devstack.WorkspaceID),
	}
}

// TestExampleIsValid: the example adapts without a warning of its own, and is valid, on a machine whose network answers nothing.
func TestExampleIsValid(t *testing.T) {
	t.Parallel()
	// All traffic would go through a proxy that never answers.
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tried atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		var waiting []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			waiting = append(waiting, c)
			tried.Add(1)
		}
		for _, c := range waiting {
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	env := append(exampleEnv(), "HTTP_PROXY=http://"+ln.Addr().String(), "HTTPS_PROXY=http://"+ln.Addr().String())
	file := filepath.Join(module, "Caddyfile.example")
	for _, command := range []string{"adapt", "validate"} {
		out, err := once(t, env, command, "--adapter", "caddyfile", "--config", file)
		if err != nil || complains(out) {
			t.Errorf("caddy %s: %v\n%s", command, err, out)
		}
	}
	t.Logf("%d connections were tried; none was answered", tried.Load())
}

// complains reports whether a command of Caddy's warned of something in the config. That the example's Clerk has no keys, because there is no
// such Clerk, a machine may find out before the command has ended.
func complains(out string) bool {
	for line := range strings.Lines(out) {
		if (strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`)) && !strings.Contains(line, `"msg":"keys of Clerk could not be loaded"`) {
			return true
		}
	}
	return false
}

// TestExampleIsFormatted: as `caddy fmt` would have it, which Caddy otherwise says on every start.
func TestExampleIsFormatted(t *testing.T) {
	t.Parallel()
	if out, err := once(t, nil, "fmt", "--diff", filepath.Join(module, "Caddyfile.example")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestExampleServes: the example does what its comments say, on a plain address and with the stand-ins as its services.
func TestExampleServes(t *testing.T) {
	t.Parallel()
	byName := make(map[string]devstack.Pipe)
	pipes := devstack.Pipes()
	for _, p := range pipes {
		byName[p.Name] = p
	}
	// The pipes that the stand-in does not have.
	for name, like := range map[string]string{"revenue_report": "live_events", "countries": "leaky_report"} {
		p := byName[like]
		p.Name, p.ID = name, ""
		pipes = append(pipes, p)
	}
	e := newEdge(t, devstack.Options{
		API:    devstack.APIOptions{Pipes: pipes},
		Issuer: devstack.IssuerOptions{AppOrigin: "https://app.example.com"},
	})
	text := read(t, filepath.Join(module, "Caddyfile.example"))
	for _, change := range [][2]string{
		{"analytics.example.com {", "http://{$EDGE} {"},
		{"{\n", "{\n" + globalOptions},
		{"\t\tpublishable_key {env.CLERK_PUBLISHABLE_KEY}\n", "\t\tpublishable_key {env.CLERK_PUBLISHABLE_KEY}\n\t\tissuer {env.ISSUER}\n"},
		{"signing_key {env.TINYBIRD_SIGNING_KEY}\n", credentials},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("the example has no %q any more", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	e.run(t, text)
	team := devstack.Claim("team", devstack.TeamOps)

	for _, c := range []struct {
		user, target string
		status       int
		code         string
	}{
		{"ada", "/v0/pipes/top_pages.json", 200, ""},
		{"cleo", "/v0/pipes/sales_by_day.csv", 200, ""},
		{"ada", "/v0/pipes/top_pages.parquet", 404, "not_found"},
		{"ada", "/v0/pipes/revenue_report.json", 200, ""},
		{"cleo", "/v0/pipes/revenue_report.json", 403, "not_allowed"},
		{"ben", "/v0/pipes/team_activity.json", 200, ""},
		{"ben", "/v0/pipes/my_activity.json", 200, ""},
		{"dana", "/v0/pipes/countries.json", 200, ""},
		{"dana", "/v0/pipes/top_pages.json", 403, "tenant_missing"},
	} {
		r := e.request(t, "", http.MethodGet, c.target, "")
		r.Header.Set("Authorization", "Bearer "+e.token(t, c.user, team))
		r.Header.Set("Origin", "https://app.example.com")
		got := e.do(t, r)
		if got.StatusCode != c.status {
			t.Errorf("%s %s: status %d, want %d: %s", c.user, c.target, got.StatusCode, c.status, got.body)
			continue
		}
		if c.code != "" {
			if code, _ := got.refusal(t); code != c.code {
				t.Errorf("%s %s: code %s, want %s", c.user, c.target, code, c.code)
			}
		}
		if v := got.Header.Values("Access-Control-Allow-Origin"); len(v) != 1 || v[0] != "https://app.example.com" {
			t.Errorf("%s: Access-Control-Allow-Origin %q", c.target, v)
		}
	}
	limits := make(map[string]string)
	for _, user := range []string{"ada", "cleo"} {
		r := e.request(t, user, http.MethodGet, "/v0/pipes/top_pages.json", "")
		limits[user] = e.do(t, r).Header.Get("X-Ratelimit-Limit")
	}
	if limits["ada"] != "50" || limits["cleo"] != "5" {
		t.Errorf("limits by plan: %v", limits)
	}
	stranger := e.request(t, "", http.MethodGet, "/v0/pipes/top_pages.json", "")
	stranger.Header.Set("Authorization", "Bearer "+e.token(t, "ada", devstack.AZP("https://evil.example.com")))
	if code, _ := e.do(t, stranger).refusal(t); code != "token_wrong_party" {
		t.Errorf("a session of another origin: %s", code)
	}
	preflight := e.request(t, "", http.MethodOptions, "/v0/pipes/top_pages.json", "")
	preflight.Header.Set("Origin", "https://app.example.com")
	preflight.Header.Set("Access-Control-Request-Method", http.MethodGet)
	preflight.Header.Set("Access-Control-Request-Headers", "authorization")
	if got := e.do(t, preflight); got.StatusCode != http.StatusNoContent || got.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("status %d, %v for the question whether a page may call", got.StatusCode, got.Header)
	}
}

// TestReadmesSmallestConfig: the smallest config of the README is valid as it is printed there.
func TestReadmesSmallestConfig(t *testing.T) {
	t.Parallel()
	found := 0
	blocks := strings.Split(read(t, filepath.Join(module, "README.md")), "```")
	for n := 1; n < len(blocks); n += 2 {
		text, ok := strings.CutPrefix(blocks[n], "caddyfile\n")
		if !ok || strings.HasPrefix(text, "# snippet") {
			continue
		}
		found++
		file := filepath.Join(t.TempDir(), "Caddyfile")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := once(t, exampleEnv(), "validate", "--config", file); err != nil {
			t.Errorf("%v\n%s\n%s", err, text, out)
		}
	}
	if found == 0 {
		t.Error("the README has no config")
	}
}
