//go:build integration

package integration

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/engine"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// quickStart is somebody who reads docs/quick-start.md and does what it says, with the stand-ins in the place of the two accounts.
type quickStart struct {
	*edge

	toRun, toRead *strings.Replacer // from the page's addresses and ids to the stand-ins', and back
	state         []string          // what has been typed that a terminal remembers
	typed         int
}

// part is a fenced block of the page.
type part struct {
	file  string   // the path that stands before it, if it is a file
	lines []string // without the indentation of a list
}

// partsOf splits a text into its fenced blocks.
func partsOf(text string) (parts []part) {
	named := regexp.MustCompile("`([^`]+)`:$")
	var before, fence string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		trimmed := strings.TrimLeft(line, " ")
		switch {
		case fence == "" && strings.HasPrefix(trimmed, "```"):
			fence = line[:len(line)-len(trimmed)]
			if fence == "" {
				fence = "\x00"
			}
			p := part{}
			if m := named.FindStringSubmatch(before); m != nil {
				p.file = m[1]
			}
			parts = append(parts, p)
		case fence != "" && trimmed == "```":
			fence, before = "", ""
		case fence != "":
			last := &parts[len(parts)-1]
			last.lines = append(last.lines, strings.TrimPrefix(line, fence))
		case trimmed != "":
			before = trimmed
		}
	}
	return parts
}

// files writes those of the page, and returns where they are.
func files(t *testing.T, parts []part) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range parts {
		if p.file == "" {
			continue
		}
		path := filepath.Join(dir, p.file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, strings.Join(p.lines, "\n")+"\n")
	}
	return dir
}

// startQuickStart is the page up to where Caddy is run.
func startQuickStart(t *testing.T, parts []part) *quickStart {
	t.Helper()
	dir := files(t, parts)
	project, err := engine.LoadProject(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	c := newClickHouse(t, project)
	about := base64.RawURLEncoding.EncodeToString([]byte(`{"u":"` + devstack.WorkspaceID + `","host":"eu_shared"}`))
	key := "p." + about + "." + strings.Repeat("k", 43)
	q := &quickStart{edge: newEdge(t, devstack.Options{
		API: devstack.APIOptions{SigningKey: key, Engine: c, Pipes: c.Pipes(), Append: c.Append, Datasources: []string{"page_views"}},
	})}
	q.home = dir
	_, port, _ := strings.Cut(q.addr, ":")
	q.stack.Issuer.SetAppOrigin("http://localhost:" + port)
	clerk, tinybird := strings.TrimPrefix(q.stack.IssuerURL, "http://"), strings.TrimPrefix(q.stack.APIURL, "http://")
	q.toRun = strings.NewReplacer("localhost:8080", "localhost:"+port, "https://api.tinybird.co", q.stack.APIURL, "org_2abc", devstack.AcmeID, "org_2globex", devstack.GlobexID,
		"https://${host}/npm/@clerk/clerk-js@6/dist/", "/",
		"{env.CLERK_PUBLISHABLE_KEY}\n", "{env.CLERK_PUBLISHABLE_KEY}\nissuer {env.ISSUER}\n",
		"{env.TINYBIRD_SIGNING_KEY}\n", "{env.TINYBIRD_SIGNING_KEY}\nupstream {env.UPSTREAM}\n",
		"pk_test_...", q.getenv("CLERK_PUBLISHABLE_KEY"), "p.eyJ...", key)
	q.toRead = strings.NewReplacer("localhost:"+port, "localhost:8080", q.stack.APIURL, "https://api.tinybird.co", tinybird, "api.tinybird.co",
		q.stack.IssuerURL, "https://lively-newt-42.clerk.accounts.dev", clerk, "lively-newt-42.clerk.accounts.dev", q.stack.Issuer.KeyID(), "ins_2abc",
		devstack.WorkspaceID, "7d0c5a52-1b0e-4c55-9a3e-5b5f5c0de001")
	for _, name := range []string{"Caddyfile", ".env", "site/index.html"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if text := q.toRun.Replace(string(text)); name == "Caddyfile" {
			write(t, path, "{\n"+globalOptions+"}\n"+text)
		} else {
			write(t, path, text)
		}
	}
	if err := os.Symlink(caddyBinary, filepath.Join(dir, "caddy")); err != nil {
		t.Fatal(err)
	}
	q.clerkScript(t)
	return q
}

// clerkScript is what Clerk serves, with sessions for a user of two organizations, the second of which is not made yet.
func (q *quickStart) clerkScript(t *testing.T) {
	t.Helper()
	type organization struct {
		ID      string `json:"id"`
		Name    string `json:"name"`
		Token   string `json:"token"`
		Created bool   `json:"created"`
	}
	people, err := json.Marshal(map[string]any{
		"organizations": []organization{
			{devstack.AcmeID, "Acme", q.token(t, "ada", inOrganization(devstack.AcmeID, "acme")...), false},
			{devstack.InitechID, "Globex", q.token(t, "ada", inOrganization(devstack.InitechID, "globex")...), true},
		},
		"none": q.token(t, "ada", devstack.NoOrganization()),
	})
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join("browser", "clerk.browser.js"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(q.home, "site", "clerk.json"), string(people))
	write(t, filepath.Join(q.home, "site", "clerk.browser.js"), string(script))
}

// elsewhere are the commands that need an account, or have been done already.
var elsewhere = regexp.MustCompile(`^(mkdir|cd|xcaddy|tb|curl https://tinybird\.co) `)

// types enters the commands of a block, and compares what they print with what the page shows.
func (q *quickStart) types(t *testing.T, p part) {
	t.Helper()
	for n := 0; n < len(p.lines); n++ {
		command, ok := strings.CutPrefix(p.lines[n], "$ ")
		if !ok {
			t.Fatalf("%q is no command", p.lines[n])
		}
		for strings.Count(command, "'")%2 == 1 {
			n++
			command += "\n" + p.lines[n]
		}
		var shown []string
		for n+1 < len(p.lines) && !strings.HasPrefix(p.lines[n+1], "$ ") {
			n++
			shown = append(shown, p.lines[n])
		}
		switch {
		case elsewhere.MatchString(command):
			continue
		case command == "./caddy run":
			text, err := os.ReadFile(filepath.Join(q.home, "Caddyfile"))
			if err != nil {
				t.Fatal(err)
			}
			q.run(t, string(text))
			continue
		case command == "export TOKEN=eyJ...":
			q.state = append(q.state, "export TOKEN="+q.token(t, "ada", inOrganization(devstack.AcmeID, "acme")...))
			continue
		case strings.HasPrefix(command, "export "), strings.HasPrefix(command, "set -a"):
			q.state = append(q.state, q.toRun.Replace(command))
			continue
		}
		q.typed++
		if got := q.shell(t, command); got != strings.Join(shown, "\n") && !sameJSON(got, shown) {
			t.Errorf("%s prints\n%s", command, got)
		}
	}
}

// shell runs a command in the terminal, whose Caddy knows its keys only by what was typed before. Away from a terminal it has words for the marks.
func (q *quickStart) shell(t *testing.T, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	lines := append(append([]string{}, q.state...), q.toRun.Replace(command))
	cmd := exec.CommandContext(ctx, program(t, "a shell", "sh"), "-c", strings.Join(lines, "\n"))
	cmd.Dir = q.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + q.home, "CURL_HOME=" + q.home}
	for _, name := range []string{"ADMIN", "STORAGE", "ISSUER", "UPSTREAM"} {
		cmd.Env = append(cmd.Env, name+"="+q.getenv(name))
	}
	log := new(output)
	cmd.Stderr = log
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s%s", command, err, out, log.tail())
	}
	text := regexp.MustCompile(`(?m)^( *)ok +`).ReplaceAllString(string(out), "$1✓ ")
	return strings.TrimSuffix(q.toRead.Replace(text), "\n")
}

// edits puts a directive into the Caddyfile in the place of the one that lists the first pipe.
func (q *quickStart) edits(t *testing.T, p part) {
	t.Helper()
	path := filepath.Join(q.home, "Caddyfile")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "\t\t\tpipe top_pages {\n")
	_, after, ended := strings.Cut(rest, "\n\t\t\t}\n")
	if !ok || !ended {
		t.Fatalf("no pipe to put another beside in\n%s", text)
	}
	write(t, path, before+strings.Join(p.lines[1:], "\n")+"\n"+after)
}

// sameJSON reports whether a line of JSON is printed whose members are in another order.
func sameJSON(got string, shown []string) bool {
	var a, b map[string]any
	return len(shown) == 1 && json.Unmarshal([]byte(got), &a) == nil && json.Unmarshal([]byte(shown[0]), &b) == nil && reflect.DeepEqual(a, b)
}

// TestQuickStart does what docs/quick-start.md says, and sees what it says.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(module, "docs", "quick-start.md"))
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(text), "\n## 7. ")
	if !ok {
		t.Fatal("the page has no step 7")
	}
	q := startQuickStart(t, partsOf(string(text)))
	for _, p := range partsOf(before) {
		if p.file == "" {
			q.types(t, p)
		}
	}
	b := startBrowser(t)
	b.begin(t, instruction{})
	b.do(t, instruction{"do": "preload", "script": `window.prompt = () => "Globex"`}, nil)
	b.open(t, q.toRun.Replace("http://localhost:8080"))
	b.await(t, "#message", "Nobody is signed in")
	b.do(t, instruction{"do": "press", "selector": "#sign-in"}, nil)
	b.await(t, "#message", "tenant_missing")
	choose := func(organization string) {
		t.Helper()
		b.evaluate(t, `(() => { const s = document.querySelector("#organization"); s.value = "`+organization+`"; s.dispatchEvent(new Event("change")) })()`, new(any))
	}
	choose(devstack.AcmeID)
	b.await(t, "#message", "0 pages of "+devstack.AcmeID)

	parts := partsOf(after)
	for _, p := range parts {
		switch {
		case len(p.lines) == 0:
		case strings.HasPrefix(p.lines[0], "$ "):
			q.types(t, p)
		case p.lines[0] == "# snippet: inside tinybird":
			q.edits(t, p)
		}
	}
	b.reload(t)
	b.await(t, "#message", "2 pages of "+devstack.AcmeID)
	q.showsChart(t, b)
	b.looks(t, "quick-start")

	// Another tenant by name.
	var answer struct{ Data []map[string]any }
	b.evaluate(t, "(async () => "+q.toRun.Replace(question(t, parts))+")()", &answer)
	if len(answer.Data) != 2 {
		t.Errorf("another tenant's name is answered with %v", answer.Data)
	}
	b.do(t, instruction{"do": "press", "selector": "#create"}, nil)
	b.await(t, "#message", "0 pages of "+devstack.InitechID)
	choose(devstack.AcmeID)
	b.await(t, "#message", "2 pages of "+devstack.AcmeID)
	b.do(t, instruction{"do": "press", "selector": "#sign-out"}, nil)
	b.await(t, "#message", "Nobody is signed in")
	holdsNothing(t, b, "quick start")
	if q.typed < 8 {
		t.Errorf("only %d commands were typed", q.typed)
	}
}

// question is what step 8 types into the developer tools.
func question(t *testing.T, parts []part) string {
	t.Helper()
	for _, p := range parts {
		if len(p.lines) == 1 && strings.HasPrefix(p.lines[0], "await ") {
			return p.lines[0]
		}
	}
	t.Fatal("step 8 asks for nothing")
	return ""
}

// showsChart holds the picture against the rows: a bar for each of the organization's pages, as long as its views, and nobody else's.
func (q *quickStart) showsChart(t *testing.T, b *browser) {
	t.Helper()
	var drawn struct {
		Texts  []string `json:"texts"`
		Widths []int    `json:"widths"`
	}
	b.evaluate(t, `({
		texts: [...document.querySelectorAll("#chart text")].map((e) => e.textContent),
		widths: [...document.querySelectorAll("#chart rect")].map((e) => Math.round(e.getBBox().width)),
	})`, &drawn)
	if got := strings.Join(drawn.Texts, " "); got != "/pricing 2 /docs 1" {
		t.Errorf("the chart says %s", got)
	}
	if w := drawn.Widths; len(w) != 2 || w[1] == 0 || w[0] != 2*w[1] {
		t.Errorf("the bars are %v wide", w)
	}
}
