//go:build integration

package integration

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// builtAt builds the binary as `make build` does, by make itself, of a copy of this module in another directory, and returns its file.
// What the packages of this module compile to is not taken from a cache: its key has the directory's files, and so they are compiled
// anew in each.
func builtAt(t *testing.T, dir string) string {
	t.Helper()
	for _, name := range []string{"go.mod", "go.sum", "Makefile", "imports.go", "caddytinybird", "cmd", "internal"} {
		from := filepath.Join(module, name)
		err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(module, path)
			if err != nil {
				return err
			}
			to := filepath.Join(dir, rel)
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				return err
			}
			write(t, to, read(t, path))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "make", "build")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	killInTime(t, cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "bin", "caddy")
}

// TestBuildIsReproducible: two builds in different directories give the same bytes, in which neither directory is named.
func TestBuildIsReproducible(t *testing.T) {
	t.Parallel()
	var sums []string
	for _, dir := range []string{"a", "another-place/with/a/longer/name"} {
		built := builtAt(t, filepath.Join(t.TempDir(), filepath.FromSlash(dir)))
		text, err := os.ReadFile(built)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), os.TempDir()+"/Test") || strings.Contains(string(text), module) {
			t.Errorf("the binary built in %s names a directory of the machine", dir)
		}
		sum := sha256.Sum256(text)
		sums = append(sums, hex.EncodeToString(sum[:]))
		if len(sums) == 1 {
			listsMaterials(t, built)
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds differ: %v", sums)
	}
}

// listsMaterials holds that the SBOM of the binary lists the modules that are in it, all of them, in the versions that are in it.
func listsMaterials(t *testing.T, built string) {
	t.Helper()
	info, err := buildinfo.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range info.Deps {
		want = append(want, m.Path+"@"+m.Version)
	}
	if len(want) < 100 {
		t.Fatalf("%d modules, so the test shows nothing", len(want))
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "go",
		"tool", "-modfile=tools/sbom/go.mod", "cyclonedx-gomod", "bin", "-json", "-noserial", "-notimestamp", built)
	cmd.Dir = module
	killInTime(t, cmd)
	var messages output
	cmd.Stderr = &messages
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, messages.tail())
	}
	var bom struct {
		BOMFormat  string
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(out, &bom); err != nil || bom.BOMFormat != "CycloneDX" {
		t.Fatalf("%v: %.200s", err, out)
	}
	var got []string
	for _, c := range bom.Components {
		got = append(got, c.Name+"@"+c.Version)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the SBOM lists %d modules, the binary has %d:\n%v\n%v", len(got), len(want), got, want)
	}
}

// TestSystemdUnit: systemd finds nothing wrong with the unit, and little that it could be kept from.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	unit := filepath.Join(t.TempDir(), "caddy.service")
	write(t, unit, strings.ReplaceAll(read(t, filepath.Join(module, "packaging", "caddy.service")), "/usr/bin/caddy", caddyBinary))
	for _, args := range [][]string{
		{"verify", unit},
		// In tenths of what systemd counts from 0 to 10; it calls up to 2 "OK", and Caddy's own unit has 88.
		{"security", "--offline=true", "--no-pager", "--threshold=20", unit},
	} {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// TestPackagedCaddyfile: what the production compose file mounts is a config that loads, with the secret where the container has it.
func TestPackagedCaddyfile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config, key := filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "key")
	text := read(t, filepath.Join(module, "packaging", "caddy", "Caddyfile"))
	write(t, config, strings.Replace(text, "/run/secrets/tinybird_signing_key", key, 1))
	// With the end of the line that an editor leaves.
	write(t, key, devstack.NewSigningKey(devstack.WorkspaceID)+"\n")
	for _, args := range [][]string{
		{"validate", "--adapter", "caddyfile", "--config", config},
		{"fmt", "--diff", config},
	} {
		if out, err := once(t, exampleEnv(), args...); err != nil || complains(out) {
			t.Errorf("caddy %s: %v\n%s", args[0], err, out)
		}
	}
}

// TestStatusIsAHealthCheck: the image's health check succeeds while Caddy runs, also when its Clerk is gone, and fails when it does not.
func TestStatusIsAHealthCheck(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.run(t, caddyfile("", plainSite))
	e.stack.Issuer.SetDown(true)
	r := e.tinybird(t, "", "status", "--address", e.getenv("ADMIN"))
	if r.status != 0 || !json.Valid([]byte(r.stdout)) || !strings.Contains(r.stdout, `"key_sets"`) {
		t.Errorf("%+v", r)
	}
	r = e.tinybird(t, "", "status", "--address", freeAddr(t))
	if r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, "No Caddy with caddy-tinybird answers") {
		t.Errorf("%+v", r)
	}
}
