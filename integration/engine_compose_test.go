//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/engine"
)

// The Caddyfile of the compose file adapts, is valid and formatted, and names the good pipes of the project, all of them.
func TestComposeCaddyfile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(module, "integration", "tinybird", "Caddyfile")
	for _, args := range [][]string{
		{"adapt", "--adapter", "caddyfile", "--config", file},
		{"validate", "--adapter", "caddyfile", "--config", file},
		{"fmt", "--diff", file},
	} {
		out, err := once(t, exampleEnv(), args...)
		if err != nil || complains(out) {
			t.Errorf("caddy %s: %v\n%s", args[0], err, out)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, m := range regexp.MustCompile(`(?m)^\t\tpipe ([a-z_ ]+)`).FindAllStringSubmatch(string(text), -1) {
		named = append(named, strings.Fields(m[1])...)
	}
	project, err := engine.LoadProject(os.DirFS("tinybird"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range project.Pipes() {
		wrong := p.Name == "leaky_report" || p.Name == "optional_report"
		if slices.Contains(named, p.Name) == wrong {
			t.Errorf("pipe %s is named: %v", p.Name, wrong)
		}
	}
}

// The compose file says where the edge finds Tinybird Local, gives both the same key, and shows neither to a network.
func TestCompose(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("tinybird", "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Image       string
			Environment map[string]string
			Ports       []string
			Volumes     []string
			DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
			Build       string
			ReadOnly    bool     `yaml:"read_only"`
			CapDrop     []string `yaml:"cap_drop"`
			SecurityOpt []string `yaml:"security_opt"`
			Tmpfs       []string
		}
		Volumes map[string]any
	}
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	dec.KnownFields(true)
	if err := dec.Decode(&compose); err != nil {
		t.Fatal(err)
	}
	tinybird, edge := compose.Services["tinybird"], compose.Services["edge"]
	if !strings.HasPrefix(tinybird.Image, "tinybirdco/tinybird-local:") || len(compose.Services) != 2 {
		t.Errorf("services %v", compose.Services)
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(tinybird.Environment["TB_LOCAL_WORKSPACE_TOKEN"], "${"), ":")
	if name == "" || edge.Environment["TINYBIRD_SIGNING_KEY"] != "${"+name+"}" {
		t.Errorf("the signing key is not the workspace's token: %v", edge.Environment)
	}
	if edge.DependsOn["tinybird"].Condition != "service_healthy" {
		t.Errorf("the edge waits for %v", edge.DependsOn)
	}
	for _, port := range slices.Concat(tinybird.Ports, edge.Ports) {
		if !strings.HasPrefix(port, "127.0.0.1:") {
			t.Errorf("port %s is open to the network", port)
		}
	}
	if _, err := os.Stat(filepath.Join("tinybird", edge.Build, "Dockerfile")); err != nil {
		t.Errorf("the edge is not built from this module: %v", err)
	}
}
