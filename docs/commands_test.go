package docs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/inspect"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/preflight"
)

// commandsWorld is what the commands of commands.md are run on.
type commandsWorld struct {
	stack   *devstack.Stack
	dir     string
	replace *strings.Replacer // in what is printed, of what the page calls otherwise
}

func newCommandsWorld(t *testing.T) *commandsWorld {
	t.Helper()
	key := signingKey(`{"u":"` + devstack.WorkspaceID + `","host":"eu_shared"}`)
	s, err := devstack.Start(t.Context(), devstack.Options{
		API: devstack.APIOptions{SigningKey: key}, Issuer: devstack.IssuerOptions{Live: true, AppOrigin: "https://app.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &commandsWorld{stack: s, dir: t.TempDir()}
	host := func(url string) string { return strings.TrimPrefix(url, "http://") }
	w.replace = strings.NewReplacer(
		s.APIURL, "https://api.tinybird.co", host(s.APIURL), "api.tinybird.co", s.IssuerURL, "https://clerk.example.com", host(s.IssuerURL), "clerk.example.com",
		s.Issuer.KeyID(), "ins_2abc",
	)
	session, err := s.Issuer.Token("ada", devstack.Expired())
	if err != nil {
		t.Fatal(err)
	}
	minted, err := devstack.SignToken(key, map[string]any{
		"workspace_id": devstack.WorkspaceID, "name": "org_2abc", "exp": time.Now().Add(time.Minute).Unix(), "limits": map[string]any{"rps": 50},
		"scopes": []any{map[string]any{"type": "PIPES:READ", "resource": "top_pages", "fixed_params": map[string]any{"organization_id": "org_2abc"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"key": key, "append": s.API.AppendToken(), "token.txt": session, "minted.txt": minted,
		"Caddyfile": `{
	admin off
	storage file_system ` + w.dir + `
}

analytics.example.com {
	tinybird {
		clerk {
			publishable_key ` + s.Issuer.PublishableKey() + `
			issuer ` + s.IssuerURL + `
		}
		signing_key {file.` + w.dir + `/key}
		upstream ` + s.APIURL + `
		pipe draft_report top_pages {
			fixed_param organization_id {clerk.org.id}
		}
		events analytics_events {
			append_token {file.` + w.dir + `/append}
			stamp organization_id {clerk.org.id}
		}
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// arguments are those of a line as a shell would read it.
func (w *commandsWorld) arguments(line string) []string {
	word := regexp.MustCompile(`'[^']*'|\S+`)
	var args []string
	for _, a := range word.FindAllString(line, -1) {
		a = strings.ReplaceAll(a, "/etc/caddy", w.dir)
		if name, ok := strings.CutPrefix(a, "@"); ok {
			a = "@" + filepath.Join(w.dir, name)
		}
		args = append(args, strings.ReplaceAll(a, "'", ""))
	}
	return args
}

// dated are the things in the output that differ with each run.
var dated = []struct {
	pattern *regexp.Regexp
	stands  string
}{
	{regexp.MustCompile(`(in )?\d+ (day|hour|minute|second)s?( \d+ (minute|second)s?)?( ago)? \(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)`), "<moment>"},
	{regexp.MustCompile(`until \d\d:\d\d:\d\d UTC`), "until <time>"},
	{regexp.MustCompile(`"exp": \d+`), `"exp": <time>`},
	{regexp.MustCompile(`"expires_at": "[^"]+"`), `"expires_at": <time>`},
	{regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+|eyJhbGciOi\.\.\.`), "<token>"},
}

func undated(text string) string {
	for _, d := range dated {
		text = d.pattern.ReplaceAllString(text, d.stands)
	}
	return text
}

// TestCommandsPage runs every command of commands.md, and compares what is printed with what the page shows.
func TestCommandsPage(t *testing.T) {
	t.Parallel()
	w := newCommandsWorld(t)
	page := readPage(t, "commands.md")
	ran, shown := 0, 0
	for _, b := range page.in("console") {
		line, want, _ := strings.Cut(b.text, "\n")
		command, ok := strings.CutPrefix(line, "$ caddy tinybird ")
		if !ok {
			if !strings.HasPrefix(line, "$ caddy completion ") { // which the integration tests run
				t.Errorf("%s: %q is no command of this page", page.name(b), line)
			}
			continue
		}
		if command == "status" { // needs a Caddy that runs, as the integration tests have one
			continue
		}
		ran++
		args := w.arguments(command)
		got, err := w.run(t, args)
		// The config lists a pipe that is not published.
		findings := err != nil && err.Error() == "there are findings"
		if fails := args[0] == "check" && !strings.Contains(line, "--offline") || strings.Contains(want, "would refuse"); fails != findings || err != nil && !findings {
			t.Errorf("%s: %s: %v\n%s", page.name(b), line, err, got)
		}
		if want == "" {
			continue
		}
		shown++
		if got = w.replace.Replace(got); undated(got) != undated(want) {
			t.Errorf("%s: it prints\n%s", page.name(b), got)
		}
	}
	if ran < 10 || shown < 6 {
		t.Errorf("%d commands were run, and %d compared", ran, shown)
	}
}

// run runs a command and returns what somebody at a terminal sees, but for colours.
func (w *commandsWorld) run(t *testing.T, args []string) (string, error) {
	t.Helper()
	if args[0] != "check" {
		return tinybirdCommand(t, args)
	}
	loading.Lock()
	defer loading.Unlock()
	out, err := tinybirdCommand(t, append(args, "--json"))
	var r preflight.Report
	if jsonErr := json.Unmarshal([]byte(out), &r); jsonErr != nil {
		t.Fatalf("%v %v\n%s", err, jsonErr, out)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text, preflight.Style{Marks: true}); err != nil {
		t.Fatal(err)
	}
	return text.String(), err
}

// TestCommandsJSON holds that the reports which the page shows are some.
func TestCommandsJSON(t *testing.T) {
	t.Parallel()
	page := readPage(t, "commands.md")
	reports := page.in("json")
	if len(reports) != 2 {
		t.Errorf("%d reports were found", len(reports))
	}
	for _, b := range reports {
		if strings.Contains(b.text, `"checks"`) {
			page.report(t, b, new(preflight.Report))
		} else {
			page.report(t, b, new(inspect.Report))
		}
	}
}

// TestEveryCheckAndKindIsDescribed compares the names in the code with the tables of commands.md, both ways.
func TestEveryCheckAndKindIsDescribed(t *testing.T) {
	t.Parallel()
	page := readPage(t, "commands.md")
	name := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|")
	var checks []string
	declared := regexp.MustCompile(`(?m)^\tCheck[A-Z]\w+ += "([a-z_]+)"`)
	checks = append(checks, firstGroups(declared, read(t, "../internal/preflight/report.go"))...)
	if len(checks) < 10 {
		t.Fatalf("only %d checks were found", len(checks))
	}
	sameSet(t, "the table of checks", checks, firstGroups(name, page.section(t, "The checks")))
	var kinds []string
	section := page.section(t, "inspect")
	for line := range strings.Lines(section) {
		if first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && strings.HasPrefix(line, "| `") {
			kinds = append(kinds, firstGroups(regexp.MustCompile("`([a-z_0-9]+)`"), first)...)
		}
	}
	sameSet(t, "the table of kinds", stringConstants(t, "../internal/inspect/inspect.go", "Kind"), kinds)
}
