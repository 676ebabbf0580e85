package caddytinybird

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	// The adapter of the configs below.
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"
	"github.com/spf13/cobra"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/audit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// command runs `caddy tinybird` as Caddy would. The status is that of the process.
func command(t *testing.T, args ...string) (stdout string, status int, err error) {
	t.Helper()
	stdout, _, status, err = commandWith(t, "", args...)
	return stdout, status, err
}

// commandWith is command with something on stdin, and what is written to stderr.
func commandWith(t *testing.T, stdin string, args ...string) (stdout, stderr string, status int, err error) {
	t.Helper()
	cmd := &cobra.Command{Use: "tinybird"}
	caddycmd.Commands()["tinybird"].CobraFunc(cmd)
	var out, messages bytes.Buffer
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&messages)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	switch {
	case err == nil:
	case err.Error() == errFindings.Error():
		status = 1
	default:
		status = exitCouldNotRun
	}
	return out.String(), messages.String(), status, err
}

// auditedCaddyfile is a config with several sites: pipes in one of them, nested, leak.
func auditedCaddyfile(t *testing.T, s *devstack.Stack, key string) string {
	t.Helper()
	settings := "signing_key " + key + "\nupstream " + s.APIURL + "\nclerk " + testKey + "\nfixed_param organization_id {clerk.org.id}\n"
	text := `
good.example.com, *.good.example.com {
	tinybird {
		` + settings + `
		pipe top_pages sales_by_day live_events org_metrics
		pipe my_activity {
			fixed_param user_id {clerk.user.id}
		}
		pipe team_activity {
			fixed_param team_id {clerk.claims.teams}
		}
	}
}
bad.example.com {
	route /api/* {
		handle_path /api/* {
			tinybird {
				` + settings + `
				pipe leaky_report
			}
		}
	}
	handle_errors {
		tinybird {
			` + settings + `
			pipe top_pages
		}
	}
}
`
	path := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAuditCommand audits a config of several sites, of which one leaks.
func TestAuditCommand(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := auditedCaddyfile(t, s, secretFile(t, s.API.SigningKey()))

	out, status, err := command(t, "audit", "--config", config)
	if status != 1 || !strings.Contains(out, "leaky_report: NOT isolated") || !strings.Contains(out, "my_activity: isolated") {
		t.Errorf("all: %d %v\n%s", status, err, out)
	}
	if strings.Contains(out, s.API.SigningKey()) {
		t.Error("the report shows the key")
	}
	for host, want := range map[string]int{"good.example.com": 0, "eu.good.example.com": 0, "BAD.example.com": 1} {
		if out, status, err = command(t, "audit", "--config", config, "--site", host); status != want {
			t.Errorf("%s: %d %v\n%s", host, status, err, out)
		}
	}
}

// TestAuditCommandJSON holds the schema that pipelines read.
func TestAuditCommandJSON(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := auditedCaddyfile(t, s, secretFile(t, s.API.SigningKey()))
	out, status, err := command(t, "audit", "--config", config, "--json", "--tenant", devstack.AcmeID, "--tenant", "organization_id="+devstack.GlobexID, "--tenant-column", "organization_id=organization_id")
	if status != 1 {
		t.Fatal(status, err)
	}
	var r audit.Report
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if r.OK || len(r.Sites) != 3 {
		t.Fatalf("%+v", r)
	}
	i := slices.IndexFunc(r.Sites, func(s audit.SiteReport) bool { return s.Pipes[0].Pipe == "leaky_report" })
	foreign := 0
	for _, c := range r.Sites[i].Pipes[0].Checks {
		if c.Code == audit.CodeForeign && c.Status == audit.Fail {
			foreign++
		}
	}
	if foreign != 2 {
		t.Errorf("%d tenants were seen to read others' rows, want 2: %s", foreign, out)
	}
}

// TestAuditCommandCannotRun holds the errors of an audit that cannot be made: status 2, and what to do.
func TestAuditCommandCannotRun(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	good := auditedCaddyfile(t, s, secretFile(t, s.API.SigningKey()))
	none := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(none, []byte("example.com {\n\trespond ok\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"missing variable": {[]string{"audit", "--config", auditedCaddyfile(t, s, "{env.NO_SUCH_SIGNING_KEY}")}, "NO_SUCH_SIGNING_KEY"},
		"another key":      {[]string{"audit", "--config", auditedCaddyfile(t, s, secretFile(t, devstack.NewSigningKey(s.API.WorkspaceID())))}, "workspace admin token"},
		"no config":        {[]string{"audit"}, "--config"},
		"no such config":   {[]string{"audit", "--config", none + "x"}, "no such file"},
		"no tinybird":      {[]string{"audit", "--config", none}, "no `tinybird`"},
		"unknown site":     {[]string{"audit", "--config", good, "--site", "other.example.com"}, "good.example.com"},
		"unknown flag":     {[]string{"audit", "--fix"}, "--fix"},
		"an argument":      {[]string{"audit", good}, "flags only"},
		"empty tenant":     {[]string{"audit", "--config", good, "--tenant", ""}, "empty --tenant"},
		"half a tenant":    {[]string{"audit", "--config", good, "--tenant", "organization_id=x,y"}, "no <name>=<value>"},
		"no column":        {[]string{"audit", "--config", good, "--tenant-column", "x="}, "names no column"},
		"negative timeout": {[]string{"audit", "--config", good, "--timeout", "-1s"}, "positive"},
		"unknown command":  {[]string{"audits"}, "caddy help tinybird"},
	} {
		out, status, err := command(t, tt.args...)
		if status != exitCouldNotRun || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d %v\n%s", name, status, err, out)
		} else if strings.Contains(err.Error(), s.API.SigningKey()) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

// TestAuditCommandHelp holds that the command explains itself.
func TestAuditCommandHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"--help"}, {"audit", "--help"}} {
		out, status, err := command(t, args...)
		if status != 0 || !strings.Contains(out, "audit") {
			t.Errorf("%v: %d %v\n%s", args, status, err, out)
		}
	}
}

// TestAuditCommandNotes: the audit says what there is beside pipes, which it does not look at.
func TestAuditCommandNotes(t *testing.T) {
	t.Parallel()
	s := newStack(t, devstack.Options{})
	config := checkedCaddyfile(t, s, map[string]string{"upstream ": "token_endpoint /token\nupstream "})
	out, status, err := command(t, "audit", "--config", config)
	for _, want := range []string{"\n  events analytics_events: rows are stamped with organization_id, ", "\n  token_endpoint /token: "} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("no %q in %d %v\n%s", want, status, err, out)
		}
	}
	out, _, _ = command(t, "audit", "--json", "--config", config)
	var r audit.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Sites[0].Notes) != 2 {
		t.Errorf("%v %s", err, out)
	}
}

// TestCommandsAreKnownToCaddy: the commands are in Caddy's help, its shell completion and its manual pages, with texts and examples.
func TestCommandsAreKnownToCaddy(t *testing.T) {
	t.Parallel()
	cmd := &cobra.Command{Use: "tinybird"}
	registered := caddycmd.Commands()["tinybird"]
	registered.CobraFunc(cmd)
	for _, c := range cmd.Commands() {
		for name, text := range map[string]string{"Short": c.Short, "Long": c.Long, "Example": c.Example} {
			if text == "" {
				t.Errorf("%s has no %s", c.Name(), name)
			}
			for line := range strings.Lines(text) {
				if len(line) > 120 {
					t.Errorf("%s: %s has a line of %d characters", c.Name(), name, len(line))
				}
			}
		}
		if !strings.Contains(registered.Long, c.Name()) {
			t.Errorf("the text of caddy tinybird does not name %s", c.Name())
		}
		// The line of usage is written by hand, and has to name all flags and no other.
		flag := regexp.MustCompile(`--[a-z-]+`)
		used, known := flag.FindAllString(c.Use, -1), []string(nil)
		for line := range strings.Lines(c.Flags().FlagUsages()) {
			known = append(known, flag.FindString(line))
		}
		for _, f := range known {
			if !slices.Contains(used, f) {
				t.Errorf("%s: its usage does not name %s", c.Name(), f)
			}
		}
		for _, f := range used {
			if !slices.Contains(known, f) {
				t.Errorf("%s: its usage names %s, which there is not", c.Name(), f)
			}
		}
	}
	if len(cmd.Commands()) != 5 {
		t.Errorf("%d commands", len(cmd.Commands()))
	}
}
