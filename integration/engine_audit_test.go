//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/audit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// auditCommand runs `caddy tinybird audit` on the edge's own config, and returns its report and exit code.
func (e *engineEdge) auditCommand(t *testing.T, args ...string) (report audit.Report, code int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	all := append([]string{"tinybird", "audit", "--config", filepath.Join(e.home, "Caddyfile"), "--adapter", "caddyfile"}, args...)
	cmd := command(ctx, t.TempDir(), e.env, all...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{e.key, "eyJ"} {
		if strings.Contains(out.String()+log.String(), secret) {
			t.Errorf("the command shows a secret")
		}
	}
	if slices.Contains(args, "--json") {
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatalf("exit %d: %v\n%s\n%s", code, err, out.String(), log.String())
		}
	}
	return report, code, out.String() + log.String()
}

// auditedPipes are the project's, but for the one that the audit cannot prove: it knows its tenant by what another node found out.
var auditedPipes = strings.Replace(enginePipes, `	pipe team_report {
		fixed_param organization_slug {clerk.org.slug}
	}
`, "", 1)

// TestEngineAudit: over real SQL and real rows the audit finds the pipe that forgets to filter and the one that filters only if
// the parameter is defined, and none of those that isolate.
func TestEngineAudit(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, auditedPipes)
	report, code, _ := e.auditCommand(t, "--json", "--tenant", "organization_id="+devstack.AcmeID, "--tenant", "organization_id="+devstack.GlobexID)
	if code != 1 || report.OK || len(report.Sites) != 1 {
		t.Fatalf("exit %d: %+v", code, report)
	}
	wrong := map[string][]audit.Code{}
	for _, p := range report.Sites[0].Pipes {
		for _, c := range p.Checks {
			if c.Status == audit.Fail {
				wrong[p.Pipe] = append(wrong[p.Pipe], c.Code)
			}
			if c.Status == audit.Unproven {
				t.Errorf("%s: not proven: %+v", p.Pipe, c)
			}
		}
		if len(p.Checks) < 3 {
			t.Errorf("%s: only %d checks", p.Pipe, len(p.Checks))
		}
	}
	if !slices.Contains(wrong["leaky_report"], audit.CodeRows) || !slices.Contains(wrong["leaky_report"], audit.CodeForeign) {
		t.Errorf("leaky_report: %v", wrong["leaky_report"])
	}
	if !slices.Contains(wrong["optional_report"], audit.CodeSomeBranches) || !slices.Contains(wrong["optional_report"], audit.CodeOptional) {
		t.Errorf("optional_report: %v", wrong["optional_report"])
	}
	delete(wrong, "leaky_report")
	delete(wrong, "optional_report")
	if len(wrong) > 0 {
		t.Errorf("pipes that isolate are said not to: %v", wrong)
	}
}

// TestEngineAuditPasses: without the two mistakes the exit code is that of a pipeline that may go on, and the text says why.
func TestEngineAuditPasses(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, strings.Replace(auditedPipes, " leaky_report optional_report", "", 1))
	if _, code, text := e.auditCommand(t); code != 0 || !strings.Contains(text, "top_pages: isolated") {
		t.Errorf("exit %d:\n%s", code, text)
	}
}

// TestEngineAuditIsHonest: a pipe whose isolation depends on what the rows of another table say is not said to be isolated.
func TestEngineAuditIsHonest(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, "\n pipe team_report {\n fixed_param organization_slug {clerk.org.slug}\n }\n")
	report, code, text := e.auditCommand(t, "--json")
	if code != 1 || report.OK || report.Sites[0].Pipes[0].OK {
		t.Errorf("exit %d: %s", code, text)
	}
	for _, c := range report.Sites[0].Pipes[0].Checks {
		if c.Code == audit.CodeUnused {
			t.Errorf("a parameter that is used is said not to be: %+v", c)
		}
	}
}
