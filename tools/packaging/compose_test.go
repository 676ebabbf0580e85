package packaging_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// compose loads a compose file as Compose does.
func compose(t *testing.T, name string, env types.Mapping) (*types.Project, error) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: filepath.Dir(file), ConfigFiles: []types.ConfigFile{{Filename: file}}, Environment: env,
	}, func(o *loader.Options) { o.SetProjectName("test", false) })
}

// TestComposeFiles: each loads, builds the image from this repository, and gives the edge no more rights than it needs.
func TestComposeFiles(t *testing.T) {
	t.Parallel()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, edge := range map[string]string{
		"packaging/compose.yaml": "edge", "packaging/compose-demo.yaml": "demo", "integration/tinybird/compose.yaml": "edge",
	} {
		p, err := compose(t, name, types.Mapping{
			"CLERK_PUBLISHABLE_KEY": "pk_test_x", "TB_LOCAL_WORKSPACE_TOKEN": "p.x", "TB_LOCAL_USER_TOKEN": "p.y",
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s, ok := p.Services[edge]
		if !ok || s.Build == nil || s.Build.Context != top || s.Build.DockerfileInline != "" {
			t.Errorf("%s: %s is not built from %s", name, edge, top)
			continue
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || s.Privileged {
			t.Errorf("%s: %s has rights that it does not need", name, edge)
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestComposeDemo: what lets anybody sign in as anybody is published on loopback only, under the numbers that the demo itself uses.
func TestComposeDemo(t *testing.T) {
	t.Parallel()
	p, err := compose(t, "packaging/compose-demo.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	demo := p.Services["demo"]
	if !slices.Equal(demo.Command, []string{"caddy", "demo", "--container"}) {
		t.Errorf("it runs %q", demo.Command)
	}
	var ports []uint32
	for _, port := range demo.Ports {
		if port.HostIP != "127.0.0.1" || port.Published != strconv.Itoa(int(port.Target)) {
			t.Errorf("%+v", port)
		}
		ports = append(ports, port.Target)
	}
	if !slices.Equal(ports, []uint32{8080, 8081, 8082}) {
		t.Errorf("ports %v", ports)
	}
}

// TestComposeProduction: the signing key is a secret and not a variable, where the Caddyfile looks for it; a variable that is missing
// is named.
func TestComposeProduction(t *testing.T) {
	t.Parallel()
	if _, err := compose(t, "packaging/compose.yaml", nil); err == nil || !strings.Contains(err.Error(), "CLERK_PUBLISHABLE_KEY") {
		t.Errorf("without the publishable key: %v", err)
	}
	p, err := compose(t, "packaging/compose.yaml", types.Mapping{"CLERK_PUBLISHABLE_KEY": "pk_test_x"})
	if err != nil {
		t.Fatal(err)
	}
	edge := p.Services["edge"]
	if len(edge.Environment) != 1 || len(edge.Secrets) != 1 {
		t.Fatalf("%v, %v", edge.Environment, edge.Secrets)
	}
	if !strings.Contains(read(t, "packaging/caddy/Caddyfile"), "{file./run/secrets/"+edge.Secrets[0].Source+"}") {
		t.Error("the Caddyfile looks for the signing key elsewhere")
	}
	for _, v := range edge.Volumes {
		if v.Target == "/etc/caddy" && !v.ReadOnly {
			t.Error("the config can be written to")
		}
	}
}
