//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/seed-32cb3e43/caddy-tinybird"

// mainOf is the program that xcaddy makes.
const mainOf = `package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ %q
)

func main() { caddycmd.Main() }
`

// TestBuildsLikeXcaddy: a program in a module of its own that imports the root, or the package of the Caddy modules, and nothing else
// of this module is a Caddy with the plugin, and without the demo.
func TestBuildsLikeXcaddy(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{"root": modulePath, "package": modulePath + "/caddytinybird"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			goMod := strings.Replace(read(t, filepath.Join(module, "go.mod")), "module "+modulePath, "module example.com/caddy", 1)
			goMod += fmt.Sprintf("\nrequire %s v0.0.0\nreplace %s => %s\n", modulePath, modulePath, module)
			write(t, filepath.Join(dir, "go.mod"), goMod)
			write(t, filepath.Join(dir, "go.sum"), read(t, filepath.Join(module, "go.sum")))
			write(t, filepath.Join(dir, "main.go"), fmt.Sprintf(mainOf, path))
			built := filepath.Join(dir, "caddy.exe")
			goTool(t, dir, "build", "-tags", buildTags, "-ldflags", "-s -w", "-o", built, ".")

			cmd := command(t.Context(), dir, nil, "list-modules")
			cmd.Path, cmd.Args[0], cmd.Err = built, built, nil
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, id := range []string{"\nhttp.handlers.tinybird\n", "\nclerk\n", "\nadmin.api.tinybird\n"} {
				if !strings.Contains("\n"+string(out), id) {
					t.Errorf("no module %q in\n%s", strings.TrimSpace(id), out)
				}
			}
			listsModules(t, built)
			help := command(t.Context(), dir, nil, "help")
			help.Path, help.Args[0], help.Err = built, built, nil
			if text, err := help.CombinedOutput(); err != nil || strings.Contains(string(text), "  demo ") {
				t.Errorf("%v: the plugin alone has the demo\n%s", err, text)
			}
		})
	}
}

// listsModules holds that `caddy list-modules --packages` shows our modules, all of them, as those of this module, which is what
// `caddy upgrade` and Nix go by.
func listsModules(t *testing.T, built string) {
	t.Helper()
	cmd := command(t.Context(), t.TempDir(), nil, "list-modules", "--packages", "--skip-standard")
	cmd.Path, cmd.Args[0], cmd.Err = built, built, nil
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		if id, rest, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(rest, modulePath) {
			got = append(got, id)
			if rest != modulePath+" => "+module {
				t.Errorf("%s is in %s", id, rest)
			}
		}
	}
	want := []string{"admin.api.tinybird", "clerk", "http.authentication.providers.clerk", "http.handlers.clerk_auth", "http.handlers.tinybird"}
	if !slices.Equal(got, want) {
		t.Errorf("it lists %v, want %v, in\n%s", got, want, out)
	}
}

// TestPluginImportsNoTestTools: what only the demo and the tests use is in nobody's Caddy.
func TestPluginImportsNoTestTools(t *testing.T) {
	t.Parallel()
	deps := strings.Fields(goTool(t, module, "list", "-tags", buildTags, "-deps", "."))
	if len(deps) < 100 {
		t.Fatalf("%d packages, so the test shows nothing", len(deps))
	}
	for _, dep := range deps {
		for _, unwanted := range []string{
			"github.com/parquet-go/", "github.com/alicebob/miniredis", "go.uber.org/goleak", modulePath + "/internal/devstack", modulePath + "/internal/demo",
			modulePath + "/cmd", "net/http/httptest", "github.com/caddyserver/caddy/v2/caddytest",
		} {
			if strings.HasPrefix(dep, unwanted) {
				t.Errorf("the plugin imports %s", dep)
			}
		}
		if dep == "testing" {
			t.Error("the plugin imports testing")
		}
	}
}

// TestInternalImportsNoCaddy: the packages that hold the rules stand without Caddy.
func TestInternalImportsNoCaddy(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"apierr", "assume", "audit", "clerk", "forward", "inspect", "jwks", "preflight", "ratelimit", "tbapi", "tinybird", "devstack"} {
		for dep := range strings.FieldsSeq(goTool(t, module, "list", "-deps", "./internal/"+name)) {
			if strings.HasPrefix(dep, "github.com/caddyserver/") || strings.HasPrefix(dep, modulePath+"/caddytinybird") {
				t.Errorf("internal/%s imports %s", name, dep)
			}
		}
	}
}

// goTool runs the go command with what is on this machine, and returns its standard output.
func goTool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off", "GOWORK=off")
	if dir == module {
		cmd.Env = append(os.Environ(), "GOWORK=off")
	}
	killInTime(t, cmd)
	var errors output
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, errors.tail())
	}
	return string(out)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
