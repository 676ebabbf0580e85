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
	"strings"
	"sync"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/engine"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// enginePipes are the pipes of the Tinybird project, with what scopes each.
const enginePipes = `
	fixed_param organization_id {clerk.org.id}
	pipe top_pages sales_by_day activity events_over_time search_events country_flags org_metrics tracked_actions leaky_report optional_report
	pipe my_activity {
		fixed_param user_id {clerk.user.id}
	}
	pipe team_activity {
		fixed_param team_id {clerk.claims.team_id}
	}
	pipe team_report {
		fixed_param organization_slug {clerk.org.slug}
	}
`

// engineEdge is an edge before a Tinybird with the project deployed and filled: Tinybird Local if TINYBIRD_LOCAL_URL says where
// it is, or else the development stack with ClickHouse behind it. The users and their sessions are the stack's in both cases.
type engineEdge struct {
	*edge

	local bool
	url   string // of the Tinybird
	key   string // its workspace's admin token
}

func startEngineEdge(t *testing.T, pipes string) *engineEdge {
	t.Helper()
	e := &engineEdge{}
	config := caddyfile("", "http://{$EDGE} {\n tinybird {\n"+credentials+pipes+"}\n}\n")
	if os.Getenv(localURL) != "" {
		w, err := deployLocal()
		if err != nil {
			t.Fatal(err)
		}
		e.edge, e.local, e.url, e.key = newEdge(t, devstack.Options{}), true, w.url, w.Token
		e.setenv("UPSTREAM", e.url)
		e.setenv("TINYBIRD_SIGNING_KEY", e.key)
		e.setenv("TINYBIRD_APPEND_TOKEN", e.key) // the workspace's own, for the lack of a smaller one
		config = strings.Replace(config, credentials, credentials+"\tworkspace_id "+w.ID+"\n", 1)
	} else {
		c := clickhouse(t)
		e.edge = newEdge(t, devstack.Options{API: devstack.APIOptions{Engine: c, Pipes: c.Pipes(), Append: c.Append}})
		e.url, e.key = e.stack.APIURL, e.stack.API.SigningKey()
		e.setenv("TINYBIRD_APPEND_TOKEN", e.stack.API.AppendToken())
	}
	e.run(t, config)
	return e
}

// sql asks the Tinybird itself, past the edge and as the owner of the workspace.
func (e *engineEdge) sql(t *testing.T, statement string, args ...any) []map[string]any {
	t.Helper()
	q := url.Values{"q": {fmt.Sprintf(statement, args...) + " FORMAT JSON"}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+"/v0/sql?"+q.Encode(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+e.key)
	return e.do(t, r).rows(t)
}

// as is a request of somebody with a token that options changed.
func (e *engineEdge) as(t *testing.T, user, target string, opts ...devstack.TokenOption) reply {
	t.Helper()
	r := e.request(t, "", http.MethodGet, target, "")
	r.Header.Set("Authorization", "Bearer "+e.token(t, user, opts...))
	return e.do(t, r)
}

// inOrganization makes a session's active organization another.
func inOrganization(id, slug string) []devstack.TokenOption {
	return []devstack.TokenOption{devstack.V1(), devstack.Claim("org_id", id), devstack.Claim("org_slug", slug)}
}

// add appends rows to the tracker's data source.
func (e *engineEdge) add(t *testing.T, rows ...string) (ok, quarantined int) {
	t.Helper()
	if !e.local {
		lines := make([][]byte, len(rows))
		for n, r := range rows {
			lines[n] = []byte(r)
		}
		ok, quarantined, err := clickhouse(t).Append("analytics_events", lines)
		if err != nil {
			t.Fatal(err)
		}
		return ok, quarantined
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v0/events?wait=true&name=analytics_events",
		strings.NewReader(strings.Join(rows, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+e.key)
	var taken struct {
		Successful  int `json:"successful_rows"`
		Quarantined int `json:"quarantined_rows"`
	}
	answer := e.do(t, r)
	if err := json.Unmarshal(answer.body, &taken); err != nil {
		t.Fatalf("status %d: %s", answer.StatusCode, answer.body)
	}
	return taken.Successful, taken.Quarantined
}

// clickhouse is the one ClickHouse of all tests, started when the first of them needs it.
func clickhouse(t *testing.T) *engine.Engine {
	t.Helper()
	program(t, "npm", "npm")
	program(t, "Node", "node")
	c, err := startClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var started *engine.Engine // by startClickHouse

// startClickHouse starts it with the Tinybird project.
var startClickHouse = sync.OnceValues(func() (*engine.Engine, error) {
	project, err := engine.LoadProject(os.DirFS("tinybird"))
	if err != nil {
		return nil, err
	}
	started, err = runClickHouse(project)
	return started, err
})

// newClickHouse starts one of its own for a project, and ends it with the test.
func newClickHouse(t *testing.T, project *engine.Project) *engine.Engine {
	t.Helper()
	program(t, "npm", "npm")
	program(t, "Node", "node")
	c, err := runClickHouse(project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func runClickHouse(project *engine.Project) (*engine.Engine, error) {
	dir, err := installClickHouse()
	if err != nil {
		return nil, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, err
	}
	log := new(output)
	c, err := engine.Start(context.Background(), engine.Options{Node: node, Dir: dir, Project: project, Stderr: log})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, log.tail())
	}
	return c, nil
}

// installClickHouse installs chdb into a directory that goes when the tests end, once for all of them. It takes seconds and half a gigabyte.
var installClickHouse = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(caddyBinary), "chdb")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{"chdb.mjs", "package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join("engine", name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci, which installs ClickHouse: %w\n%s", err, out)
	}
	return dir, nil
})

// stopEngine ends it.
func stopEngine() {
	if started == nil {
		return
	}
	if err := started.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
