//go:build integration

package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// buildTags are those that Caddy's releases are built with.
const buildTags = "nobadger,nomysql,nopgx"

// caddyBinary is the Caddy that all tests run, and module is the directory of the module's root.
var caddyBinary, module string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddy-tinybird-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer stopEngine()
	if module, err = filepath.Abs(".."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	caddyBinary = filepath.Join(dir, "caddy.exe") // the ending matters on Windows only
	build := exec.CommandContext(context.Background(), "go", "build", "-tags", buildTags, "-o", caddyBinary, "./cmd/caddy")
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build ./cmd/caddy: %v\n%s", err, out)
		return 1
	}
	// Most of a test's time is another process's time, or waiting; the command line can still say otherwise.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
