//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// prom is a running Prometheus with the rules of ops/prometheus.
type prom struct {
	url string
	log output
}

// lookPath finds a program that a test starts.
func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("no " + name)
	}
	return path
}

// rulesFile is where the alerts are.
func rulesFile() string {
	return filepath.Join(module, "ops", "prometheus", "caddy-tinybird.rules.yml")
}

// startPrometheus starts one that looks at the admin endpoints, of which none need be there yet, twice a second.
func startPrometheus(t *testing.T, endpoints ...string) *prom {
	t.Helper()
	addr, dir := freeAddr(t), t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	write(t, config, fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}
rule_files: [%q]
scrape_configs:
  - job_name: caddy
    static_configs: [{targets: ["%s"]}]
`, rulesFile(), strings.Join(endpoints, `","`)))
	p := &prom{url: "http://" + addr}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), lookPath(t, "prometheus"), "--config.file", config,
		"--web.listen-address", addr, "--storage.tsdb.path", filepath.Join(dir, "data"), "--log.level", "warn")
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killInTime(t, cmd)
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
	eventually(t, "Prometheus is ready", func() bool {
		select {
		case <-exited:
			t.Fatalf("prometheus ended\n%s", p.log.tail())
		default:
		}
		c := &http.Client{Timeout: time.Second}
		resp, err := c.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// get reads an answer of Prometheus's API.
func (p *prom) get(t *testing.T, path string, params url.Values, into any) {
	t.Helper()
	c := &http.Client{Timeout: patience}
	resp, err := c.Get(p.url + "/api/v1/" + path + "?" + params.Encode())
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log.tail())
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: into}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Status != "success" {
		t.Errorf("%s of %v: %s", path, params, answer.Error)
	}
}

// sample is one value of the answer to a query.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (s sample) number(t *testing.T) float64 {
	t.Helper()
	text, _ := s.Value[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// query asks for the present values of an expression.
func (p *prom) query(t *testing.T, expr string) []sample {
	t.Helper()
	var data struct{ Result []sample }
	p.get(t, "query", url.Values{"query": {expr}}, &data)
	return data.Result
}

// labels are those that a metric has in Prometheus; empty if there is no such metric.
func (p *prom) labels(t *testing.T, metric string) []string {
	t.Helper()
	var names []string
	p.get(t, "labels", url.Values{"match[]": {metric}}, &names)
	return names
}

// rule is an alert as Prometheus evaluates it.
type rule struct {
	Name, Query, Health, LastError, State string
	Alerts                                []struct{ Annotations, Labels map[string]string }
}

func (p *prom) rules(t *testing.T) []rule {
	t.Helper()
	var data struct{ Groups []struct{ Rules []rule } }
	p.get(t, "rules", nil, &data)
	var all []rule
	for _, g := range data.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// TestAlertRules: Prometheus's own tool takes the rules, and their unit tests hold: each alert fires for its trouble, and not for what
// looks most like it.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	tool := lookPath(t, "promtool")
	for _, args := range [][]string{{"check", "rules", rulesFile()}, {"test", "rules", "caddy-tinybird_test.yml"}} {
		cmd := exec.CommandContext(t.Context(), tool, args...)
		cmd.Dir = filepath.Dir(rulesFile())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	tests, err := os.ReadFile(filepath.Join(filepath.Dir(rulesFile()), "caddy-tinybird_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range alertNames(t) {
		if !strings.Contains(string(tests), `alertname="`+name+`"`) {
			t.Errorf("no test has %s fire", name)
		}
	}
}
