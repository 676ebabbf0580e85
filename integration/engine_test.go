//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/engine"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// clickhouse is ClickHouse itself, in a process of Node, with the project of integration/tinybird deployed and filled. All tests
// share it: they only read, or write under tenants of their own.
type clickhouse struct {
	project *engine.Project
	url     string
	in      io.Closer // whose end is the end of the process
}

// manyTenants is how many organizations the rows belong to besides the devstack's, each with as many rows.
const manyTenants = 1000

// startClickHouse installs and starts it, once for all tests. It ends with this process, which holds its standard input.
var startClickHouse = sync.OnceValues(func() (*clickhouse, error) {
	dir := filepath.Join(filepath.Dir(caddyBinary), "engine")
	if err := npmInstall(dir, "engine"); err != nil {
		return nil, err
	}
	project, err := engine.Load(os.DirFS("tinybird"))
	if err != nil {
		return nil, err
	}
	c := &clickhouse{project: project}
	cmd := exec.CommandContext(context.Background(), "node", filepath.Join(dir, "chdb.mjs"), filepath.Join(dir, "data"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the engine does not start: %w", err)
	}
	c.url = "http://127.0.0.1:" + strings.TrimSpace(port)
	return c, c.fill()
})

// fill makes the tables and a million rows, and some for the organizations that the devstack's users belong to.
func (c *clickhouse) fill() error {
	statements := append([]string{"CREATE DATABASE IF NOT EXISTS tinybird", "USE tinybird"}, c.project.Schema()...)
	const row = `INSERT INTO events SELECT %s, %s, %s,
		toDateTime('2026-01-01 00:00:00') + (number * 7919) %% (90 * 86400), concat('/', %s, '/page-', toString(number %% 17)),
		['DE','ES','FR','GB','JP','US'][1 + number %% 6], (number %% 1000) / 100, 18446744073709551615 - number FROM numbers(%d)`
	org := "concat('org_', leftPad(toString(number %% 1000), 4, '0'))"
	org = strings.ReplaceAll(org, "%%", "%")
	statements = append(statements, fmt.Sprintf(row, org, "concat('team_', toString(intDiv(number, 1000) % 5))",
		"concat('user_', toString(number % 1000), '_', toString(intDiv(number, 1000) % 20))", org, manyTenants*1000))
	for _, u := range devstack.Users() {
		if u.Organization == nil {
			continue
		}
		text := func(s string) string { return "'" + s + "'" }
		statements = append(statements, fmt.Sprintf(row, text(u.Organization.ID), text(u.TeamID), text(u.ID), text(u.Organization.Slug), 300))
	}
	for _, s := range statements {
		if _, err := c.query(context.Background(), s, "Null"); err != nil {
			return fmt.Errorf("%.80s: %w", s, err)
		}
	}
	return nil
}

// query runs SQL and returns what ClickHouse writes in the format.
func (c *clickhouse) query(ctx context.Context, sql, format string) ([]byte, error) {
	return c.post(ctx, "/query?format="+format, []byte(sql))
}

func (c *clickhouse) post(ctx context.Context, path string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: 2 * patience}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusOK {
		return answer, err
	}
	code, _ := strconv.Atoi(resp.Header.Get("X-Code"))
	return nil, &devstack.QueryError{Code: code, Text: string(answer)}
}

// pipes are the project's, for the devstack's API.
func (c *clickhouse) pipes() []devstack.Pipe {
	var list []devstack.Pipe
	for i := range c.project.Pipes {
		p := &c.project.Pipes[i]
		list = append(list, devstack.Pipe{Name: p.Name, ID: "t_" + p.Name, Exec: func(ctx context.Context, params map[string]string, format string) ([]byte, error) {
			sql, err := p.Render(params)
			if err != nil {
				return nil, err
			}
			return c.query(ctx, sql, format)
		}})
	}
	return list
}

// number runs SQL that comes to one number.
func (c *clickhouse) number(t *testing.T, sql string) int {
	t.Helper()
	out, err := c.query(t.Context(), sql, "TabSeparated")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// npmInstall installs what a directory's lock file names, outside of the tree.
func npmInstall(dir, from string) error {
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	// Not `npm ci`, which wants the engine's packages for all platforms in the lock file, also those that a registry does not have.
	npm := exec.CommandContext(ctx, "npm", "install", "--no-save", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("npm install in %s: %w\n%s", from, err, out)
	}
	return nil
}

// scopedPipes is how the project's pipes are let through: the three levels, and the two mistakes.
const scopedPipes = `
	pipe org_pages views_over_time typed org_metrics forgets_to_filter filters_if_defined {
		fixed_param organization_id {clerk.org.id}
	}
	pipe team_activity {
		fixed_param organization_id {clerk.org.id}
		fixed_param team_id {clerk.claims.teams}
	}
	pipe user_activity {
		fixed_param organization_id {clerk.org.id}
		fixed_param user_id {clerk.user.id}
	}
`

// engineEdge is an edge whose Tinybird has ClickHouse behind it.
func engineEdge(t *testing.T, lines string) (*edge, *clickhouse) {
	t.Helper()
	program(t, "Node", "node")
	c, err := startClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, devstack.Options{API: devstack.APIOptions{Pipes: c.pipes()}})
	return e.run(t, caddyfile("", "http://{$EDGE} {\n tinybird {\n"+credentials+lines+"}\n}\n")), c
}

// member is a session of a member of any organization.
func (e *edge) member(t *testing.T, org, user string, teams ...string) string {
	t.Helper()
	return e.token(t, "ada", devstack.Claim("sub", user), devstack.Claim("teams", teams),
		devstack.Claim("o", map[string]any{"id": org, "slg": "any", "rol": "member"}))
}

// askAs reads a pipe with a session token.
func (e *edge) askAs(t *testing.T, token, target string) reply {
	t.Helper()
	r := e.request(t, "", http.MethodGet, target, "")
	r.Header.Set("Authorization", "Bearer "+token)
	return e.do(t, r)
}
