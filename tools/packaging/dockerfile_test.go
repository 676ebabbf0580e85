package packaging_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// TestDockerfile: the image is made by `make build` with the Go of go.mod, and what runs is the binary alone, not as root, with a
// health check that needs no shell.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	ast, err := parser.Parse(strings.NewReader(read(t, "Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	warn := func(rule, _, _, message string, _ []parser.Range) { t.Errorf("%s: %s", rule, message) }
	stages, _, err := instructions.Parse(ast.AST, linter.New(&linter.Config{Warn: warn}))
	if err != nil {
		t.Fatal(err)
	}
	if len(ast.Warnings) > 0 || len(stages) != 2 {
		t.Fatalf("%d stages, %v", len(stages), ast.Warnings)
	}
	build, final := stages[0], stages[1]
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))[1]
	if !strings.HasPrefix(build.BaseName, "golang:"+version+"-") || build.Name != "build" || final.BaseName != "scratch" {
		t.Errorf("from %s and %s, with Go %s in go.mod", build.BaseName, final.BaseName, version)
	}
	made := false
	for _, c := range build.Commands {
		if run, ok := c.(*instructions.RunCommand); ok {
			line := strings.Join(run.CmdLine, " ")
			made = made || strings.HasSuffix(line, " make build")
			if strings.Contains(line, "go build") {
				t.Errorf("compiled by other means than make build: %s", line)
			}
		}
	}
	if !made {
		t.Error("no step ends with make build")
	}
	var user, start, health []string
	for _, c := range final.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = append(user, c.User)
		case *instructions.CmdCommand:
			start = c.CmdLine
			if c.PrependShell {
				t.Error("CMD needs a shell")
			}
		case *instructions.HealthCheckCommand:
			health = c.Health.Test
		case *instructions.RunCommand, *instructions.AddCommand:
			t.Errorf("%s in an image without a shell", c.Name())
		}
	}
	// By its number, so that Kubernetes can see that it is not root.
	if len(user) != 1 || !regexp.MustCompile(`^[1-9]\d+:[1-9]\d+$`).MatchString(user[0]) {
		t.Errorf("it runs as %v", user)
	}
	if want := []string{"CMD", "/usr/bin/caddy", "tinybird", "status"}; !slices.Equal(health, want) {
		t.Errorf("the health check is %q", health)
	}
	if len(start) < 2 || start[0] != "/usr/bin/caddy" || start[1] != "run" {
		t.Errorf("it starts %q", start)
	}
}

// TestDockerignore: all that the binary is made of reaches the build, and nothing that only the tests, the repository or a person has.
func TestDockerignore(t *testing.T) {
	t.Parallel()
	patterns, err := ignorefile.ReadAll(strings.NewReader(read(t, ".dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	ignored := func(name string) bool {
		t.Helper()
		is, err := patternmatcher.MatchesOrParentMatches(filepath.FromSlash(name), patterns)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	needed := []string{"go.mod", "go.sum", "Makefile", "LICENSE"}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-deps", "-tags", "nobadger,nomysql,nopgx", "-f",
		`{{if and .Module .Module.Main}}{{.Dir | printf "{\"dir\":%q"}},"files":[{{range .GoFiles}}{{printf "%q," .}}{{end}}{{range .EmbedFiles}}{{printf "%q," .}}{{end}}""]}{{end}}`,
		"./cmd/caddy")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p struct {
			Dir   string
			Files []string
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(top, p.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range p.Files {
			if f != "" {
				needed = append(needed, filepath.ToSlash(filepath.Join(rel, f)))
			}
		}
	}
	if len(needed) < 100 {
		t.Fatalf("%d files, so the test shows nothing", len(needed))
	}
	for _, name := range needed {
		if ignored(name) {
			t.Errorf("%s is needed and ignored", name)
		}
	}
	for _, name := range []string{
		".git/config", ".env", "bin/caddy", "packaging/tinybird_signing_key", "packaging/caddy/Caddyfile", "integration/main_test.go",
		"internal/clerk/verify_test.go", "internal/clerk/testdata/fuzz/x", "docs/config.md", "tools/sbom/go.mod", "key.pem",
	} {
		if !ignored(name) {
			t.Errorf("%s goes into the build", name)
		}
	}
}
