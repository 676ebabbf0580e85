package packaging_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// more are the rights that a job has beyond reading the repository, by its workflow and name.
var more = map[string]map[string]string{
	"release.yml/release": {"contents": "write"}, // makes the draft of a release
}

// TestWorkflowsArePinned: every action is named by the commit that was looked at, with its version beside it for people and for
// whoever keeps it current; and a job can read the repository, and nothing else that is not listed above.
func TestWorkflowsArePinned(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, ".github", "workflows", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d workflows, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, complaint := range complaints(t, filepath.Base(file), string(text)) {
			t.Error(complaint)
		}
	}
}

// TestComplaints: the rules see what breaks them.
func TestComplaints(t *testing.T) {
	t.Parallel()
	const hash = "3d3c42e5aac5ba805825da76410c181273ba90b1"
	good := "on: push\npermissions:\n  contents: read\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@" + hash + " # v7.0.1\n"
	for name, tt := range map[string]struct{ old, with, want string }{
		"good":              {"", "", ""},
		"a tag":             {hash + " # v7.0.1", "v7", "not a commit"},
		"a short hash":      {hash, hash[:12], "not a commit"},
		"no version":        {" # v7.0.1", "", "no version"},
		"no owner":          {"actions/checkout@" + hash, "./local", "not a commit"},
		"all rights":        {"  contents: read", "  contents: write", "permissions"},
		"rights by default": {"permissions:\n  contents: read\n", "", "permissions"},
		"write-all":         {"permissions:\n  contents: read\n", "permissions: write-all\n", "permissions"},
		"a job's rights":    {"    steps:", "    permissions:\n      packages: write\n    steps:", "permissions"},
		"a quoted tag":      {"actions/checkout@" + hash + " # v7.0.1", `"actions/checkout@v7" # v7.0.1`, "not a commit"},
		"a called workflow": {"    steps:", "    uses: other/repo/.github/workflows/x.yml@main\n    steps:", "not a commit"},
	} {
		got := strings.Join(complaints(t, "ci.yml", strings.Replace(good, tt.old, tt.with, 1)), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

var (
	pinned  = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)
	version = regexp.MustCompile(`^# v\d+\.\d+\.\d+$`)
)

func complaints(t *testing.T, name, text string) []string {
	t.Helper()
	var tree yaml.Node
	var workflow struct {
		Permissions any
		Jobs        map[string]struct{ Permissions map[string]string }
	}
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := tree.Decode(&workflow); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var found []string
	if p, ok := workflow.Permissions.(map[string]any); !ok || len(p) != 1 || p["contents"] != "read" {
		found = append(found, name+": the permissions of all jobs are not just contents: read")
	}
	for job, j := range workflow.Jobs {
		for right, value := range j.Permissions {
			if value != "none" && more[name+"/"+job][right] != value {
				found = append(found, name+": the permissions of "+job+" have "+right+": "+value)
			}
		}
	}
	return append(found, uses(name, &tree)...)
}

// uses complains about the value of every `uses`.
func uses(name string, n *yaml.Node) []string {
	var found []string
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].Value == "uses" {
			if !pinned.MatchString(child.Value) {
				found = append(found, name+": "+child.Value+" is not a commit")
			} else if !version.MatchString(child.LineComment) {
				found = append(found, name+": "+child.Value+" has no version beside it")
			}
			continue
		}
		found = append(found, uses(name, child)...)
	}
	return found
}
