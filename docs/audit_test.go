package docs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/audit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestAuditCommands runs every command of audit.md against the stand-in for Tinybird, and compares what is printed with what
// the page shows.
func TestAuditCommands(t *testing.T) {
	t.Parallel()
	s, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	key, config := filepath.Join(dir, "key"), filepath.Join(dir, "Caddyfile")
	text := `analytics.example.com {
	tinybird {
		clerk {env.CLERK_PUBLISHABLE_KEY}
		signing_key {file.` + key + `}
		upstream ` + s.APIURL + `
		pipe top_pages leaky_report {
			fixed_param organization_id {clerk.org.id}
		}
	}
}
`
	for path, content := range map[string]string{key: s.API.SigningKey(), config: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page := readPage(t, "audit.md")
	ran, shown := 0, 0
	for _, b := range page.in("console") {
		line, want, _ := strings.Cut(b.text, "\n")
		command, ok := strings.CutPrefix(line, "$ caddy tinybird ")
		if !ok {
			t.Fatalf("%s: %q is no command of this page", page.name(b), line)
		}
		ran++
		out, err := tinybirdCommand(t, strings.Fields(strings.ReplaceAll(command, "/etc/caddy/Caddyfile", config)))
		// The config holds a pipe that leaks.
		if err == nil || err.Error() != "there are findings" {
			t.Errorf("%s: %s: %v", page.name(b), line, err)
		}
		if want != "" {
			shown++
			if out = strings.ReplaceAll(out, s.APIURL, "https://api.tinybird.co"); out != want {
				t.Errorf("%s: it prints\n%s", page.name(b), out)
			}
		}
	}
	if ran < 6 || shown == 0 {
		t.Errorf("%d commands were run, and %d compared", ran, shown)
	}
}

func tinybirdCommand(t *testing.T, args []string) (string, error) {
	t.Helper()
	cmd := &cobra.Command{Use: "tinybird"}
	caddycmd.Commands()["tinybird"].CobraFunc(cmd)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// TestAuditJSON holds that the report which the page shows is one.
func TestAuditJSON(t *testing.T) {
	t.Parallel()
	page := readPage(t, "audit.md")
	reports := page.in("json")
	if len(reports) != 1 {
		t.Fatalf("%d reports were found", len(reports))
	}
	var r audit.Report
	if page.report(t, reports[0], &r); r.Sites[0].Pipes[0].Checks[0].Code != audit.CodeSomeBranches {
		t.Errorf("%s: %+v", page.name(reports[0]), r)
	}
}

// TestEveryFindingIsDescribed compares the codes of internal/audit with the headings of audit.md, both ways.
func TestEveryFindingIsDescribed(t *testing.T) {
	t.Parallel()
	page := readPage(t, "audit.md")
	heading := regexp.MustCompile("(?m)^### ([a-z_]+)$")
	codes := stringConstants(t, "../internal/audit/report.go", "Code")
	if len(codes) < 10 {
		t.Fatalf("only %d codes were found", len(codes))
	}
	sameSet(t, "audit.md", codes, firstGroups(heading, page.prose))
}
