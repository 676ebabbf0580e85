package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// Options says how to start an Engine.
type Options struct {
	Node    string // the program
	Dir     string // where chdb.mjs is and its packages are installed; the database is made below it
	Project *Project
	Stderr  io.Writer
}

// Engine is a running ClickHouse with the tables of a project.
type Engine struct {
	*Project

	url   string
	http  *http.Client
	cmd   *exec.Cmd
	stdin io.Closer
}

// Start starts ClickHouse, makes the tables and runs the copies. The process ends with this one, at the latest.
func Start(ctx context.Context, o Options) (*Engine, error) {
	e := &Engine{Project: o.Project, http: &http.Client{Timeout: time.Minute, Transport: new(http.Transport)}}
	database, err := os.MkdirTemp(o.Dir, "database-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the database: %w", err)
	}
	e.cmd = exec.CommandContext(ctx, o.Node, filepath.Join(o.Dir, "chdb.mjs"), database) //nolint:gosec // both come from the test
	e.cmd.Dir, e.cmd.Stderr, e.cmd.WaitDelay = database, o.Stderr, time.Minute
	e.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + database, "TMPDIR=" + database}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	if e.stdin, err = e.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ClickHouse does not start: %w", err), e.Close())
	}
	e.url = "http://127.0.0.1:" + strings.TrimSpace(port)
	if err := e.fill(ctx); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) fill(ctx context.Context) error {
	copies, err := e.copyStatements()
	if err != nil {
		return err
	}
	statements := append([]string{"CREATE DATABASE tinybird", "USE tinybird"}, e.createStatements()...)
	for _, s := range append(statements, copies...) {
		if _, err := e.run(ctx, s, "TabSeparated"); err != nil {
			return fmt.Errorf("%w\n%s", err, s)
		}
	}
	return nil
}

// Close ends the process.
func (e *Engine) Close() error {
	e.http.CloseIdleConnections()
	if err := errors.Join(e.stdin.Close(), e.cmd.Wait()); err != nil {
		return fmt.Errorf("end ClickHouse: %w", err)
	}
	return nil
}

// Query implements devstack.Engine.
func (e *Engine) Query(ctx context.Context, q devstack.Question) ([]byte, error) {
	statement, err := e.Statement(q)
	if err != nil {
		return nil, err
	}
	return e.run(ctx, statement, q.Format)
}

func (e *Engine) run(ctx context.Context, statement, format string) ([]byte, error) {
	return e.call(ctx, "/query?format="+url.QueryEscape(format), []byte(statement))
}

// exception is the text of an error of ClickHouse, between its number and its name.
var exception = regexp.MustCompile(`(?s)^Code: \d+\. DB::Exception: (.*)$`)

func (e *Engine) call(ctx context.Context, target string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask ClickHouse: %w", err)
	}
	resp, err := e.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask ClickHouse: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask ClickHouse: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return answer, nil
	}
	code, err := strconv.Atoi(resp.Header.Get("X-Code"))
	if err != nil || code == 0 {
		return nil, fmt.Errorf("ask ClickHouse: %s", answer)
	}
	failed := &devstack.QueryError{Status: http.StatusBadRequest, Code: code, Text: string(answer)}
	if code == timeoutExceeded {
		failed.Status = http.StatusRequestTimeout
	}
	if m := exception.FindStringSubmatch(failed.Text); m != nil {
		failed.Text = m[1]
	}
	return nil, failed
}

const timeoutExceeded = 159

// Append adds rows to a data source, as the Events API does: each is a JSON object, in which the columns find their values by
// their paths. A row that lacks one, or has one of another type, is quarantined; the others are taken.
func (e *Engine) Append(datasource string, rows [][]byte) (ok, quarantined int, err error) {
	d := e.Datasources[datasource]
	if d == nil {
		return 0, 0, fmt.Errorf("there is no data source %q", datasource)
	}
	var good [][]byte
	for _, row := range rows {
		if r, fits := d.row(row); fits {
			good = append(good, r)
		}
	}
	if ok, err = e.insert(d, good); err != nil {
		return 0, 0, err
	}
	return ok, len(rows) - ok, nil
}

// insert takes all rows at once and, if ClickHouse refuses that, those that it takes one by one.
func (e *Engine) insert(d *Datasource, rows [][]byte) (taken int, err error) {
	if len(rows) == 0 {
		return 0, nil
	}
	_, err = e.call(context.Background(), "/append?table="+url.QueryEscape(d.Name), bytes.Join(rows, []byte("\n")))
	if err == nil {
		return len(rows), nil
	}
	if _, refused := errors.AsType[*devstack.QueryError](err); !refused {
		return 0, err
	}
	if len(rows) == 1 {
		return 0, nil
	}
	for _, row := range rows {
		n, err := e.insert(d, [][]byte{row})
		if err != nil {
			return taken, err
		}
		taken += n
	}
	return taken, nil
}

// row makes an object of the columns out of one as it was sent.
func (d *Datasource) row(sent []byte) ([]byte, bool) {
	out := map[string]json.RawMessage{}
	for _, c := range d.Columns {
		v, found := at(sent, c.Path)
		if !found || string(v) == "null" {
			if c.Default == "" && !strings.HasPrefix(c.Type, "Nullable(") {
				return nil, false
			}
			continue
		}
		out[c.Name] = v
	}
	line, err := json.Marshal(out)
	return line, err == nil
}

// at follows a path like $.payload.name.
func at(doc json.RawMessage, path string) (json.RawMessage, bool) {
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "$."), ".") {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(doc, &members); err != nil {
			return nil, false
		}
		next, ok := members[name]
		if !ok {
			return nil, false
		}
		doc = next
	}
	return doc, true
}

var _ devstack.Engine = (*Engine)(nil)
