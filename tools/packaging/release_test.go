package packaging_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goreleaser/goreleaser/v2/pkg/config"
)

// TestReleaseConfig: GoReleaser reads the file strictly, the binaries are made with the flags of `make build`, and every file that
// goes along is there or made before.
func TestReleaseConfig(t *testing.T) {
	t.Parallel()
	project, err := config.Load(filepath.Join(root, ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Builds) != 1 || len(project.Archives) != 1 || len(project.SBOMs) != 1 {
		t.Fatalf("%d builds, %d archives, %d SBOMs", len(project.Builds), len(project.Archives), len(project.SBOMs))
	}
	b := project.Builds[0]
	want := strings.Join(b.Env, " ") + " go build " + strings.Join(b.Flags, " ") + " -ldflags '" + strings.Join(b.Ldflags, " ") + "' -tags " +
		strings.Join(b.Tags, ",") + " -o bin/" + b.Binary + " " + b.Main
	if got := buildCommand(t); got != want {
		t.Errorf("make build runs\n%s\nand a release\n%s", got, want)
	}
	made := strings.Join(project.Before.Hooks, "\n")
	for _, f := range project.Archives[0].Files {
		if _, err := os.Stat(filepath.Join(root, f.Source)); err != nil && (f.Source != "bin/NOTICES.txt" || made != "make notices") {
			t.Error(err)
		}
	}
	if args := strings.Join(project.SBOMs[0].Args, " "); !strings.Contains(args, "-modfile=../tools/sbom/go.mod cyclonedx-gomod bin ") {
		t.Errorf("the SBOM is made by %s", args)
	}
}
