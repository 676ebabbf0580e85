//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// logged waits until the process has logged a line with all of the texts.
func (p *process) logged(t *testing.T, texts ...string) {
	t.Helper()
	eventually(t, "a line with "+strings.Join(texts, " and "), func() bool {
		for line := range strings.Lines(p.log.String()) {
			all := true
			for _, text := range texts {
				all = all && strings.Contains(line, text)
			}
			if all {
				return true
			}
		}
		return false
	})
}

// files bounds how many files and connections the process can have; 0 is as many as it had.
func (p *process) files(t *testing.T, most int) {
	t.Helper()
	limit := strconv.Itoa(most)
	if most == 0 {
		limit = "1024"
	}
	pid := strconv.Itoa(p.cmd.Process.Pid)
	if out, err := exec.CommandContext(t.Context(), "prlimit", "--pid", pid, "--nofile="+limit+":").CombinedOutput(); err != nil {
		t.Fatalf("prlimit: %v\n%s", err, out)
	}
}

// firstFree is the number that the next file of the process would get.
func (p *process) firstFree(t *testing.T) int {
	t.Helper()
	for n := 0; ; n++ {
		_, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "fd", strconv.Itoa(n)))
		if os.IsNotExist(err) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoFilesLeft: a process that can open no more files goes on to serve over the connections that it has, says 502 where it needs
// another one, and why in the log. Clients that it cannot accept wait. When there are files again, all is well, with
// no restart.
func TestNoFilesLeft(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can bound another process")
	}
	// At debug level Caddy also logs that it cannot accept.
	e := newEdge(t, devstack.Options{}).run(t, caddyfile("debug\n", plainSite))
	const clients = 4
	var connected [clients]*client
	for i := range connected {
		c, err := dial(e.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.close)
		got, err := c.get(e.addr, "/v0/pipes/live_events.json", e.token(t, "ada"))
		if err != nil {
			t.Fatal(err)
		}
		ownRows(t, "ada", got)
		connected[i] = c
	}
	hold, entered := make(chan struct{}), make(chan struct{}, clients)
	e.stack.API.Fail(func(*http.Request) *devstack.Fault {
		entered <- struct{}{}
		<-hold
		return nil
	})
	e.files(t, e.firstFree(t))

	// One has the connection to Tinybird that is kept. The others need another one.
	first := make(chan reply, 1)
	go func() {
		got, err := connected[0].get(e.addr, "/v0/pipes/live_events.json", e.token(t, "ada"))
		if err != nil {
			t.Error(err)
		}
		first <- got
	}()
	<-entered
	for _, c := range connected[1:] {
		got, err := c.get(e.addr, "/v0/pipes/live_events.json", e.token(t, "cleo"))
		if err != nil {
			t.Fatal(err)
		}
		if code, _ := got.refusal(t); got.StatusCode != http.StatusBadGateway || code != "upstream_unreachable" {
			t.Errorf("status %d, code %s", got.StatusCode, code)
		}
	}
	e.logged(t, "request not answered", "too many open files")
	waiting := make(chan reply, 1)
	go func() {
		c, err := dial(e.addr)
		defer c.close()
		if err != nil {
			t.Error(err)
			waiting <- reply{}
			return
		}
		got, err := c.get(e.addr, "/v0/pipes/live_events.json", e.token(t, "cleo"))
		if err != nil {
			t.Error(err)
		}
		waiting <- got
	}()
	e.logged(t, "Accept error", "too many open files")
	close(hold)
	e.stack.API.Fail(nil)
	ownRows(t, "ada", <-first)

	e.files(t, 0)
	ownRows(t, "cleo", <-waiting)
	for _, c := range connected {
		got, err := c.get(e.addr, "/v0/pipes/live_events.json", e.token(t, "ben"))
		if err != nil {
			t.Fatal(err)
		}
		ownRows(t, "ben", got)
	}
}

// TestStorageThatCannotBeWritten: a container whose file system is read-only serves. What it cannot do is start anew while Clerk is
// away, and the log says so.
func TestStorageThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.setenv("STORAGE", filepath.Join(os.DevNull, "storage")) // where nobody, not even root, can make a directory
	e.run(t, caddyfile("", plainSite))
	ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json"))
	e.logged(t, "Caddy's storage failed for the keys of Clerk", "save key set", os.DevNull)
	ownRows(t, "cleo", e.get(t, "cleo", "/v0/pipes/live_events.json"))
}

// TestClientGoneInItsBodyIsLogged: the access log does not blame a bad body on a client that went away within it.
func TestClientGoneInItsBodyIsLogged(t *testing.T) {
	t.Parallel()
	e := startEdge(t, strings.Replace(plainSite, "tinybird {", "log\n tinybird {", 1))
	c, err := dial(e.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(c.conn, "POST /v0/pipes/live_events.json HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
		e.addr, e.token(t, "ada"))
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	e.logged(t, `"status":499`, `"tinybird_outcome":"client_closed"`)
	if n := len(e.stack.API.Requests()); n != 0 {
		t.Errorf("%d requests went up", n)
	}
}

// eventsSite also takes rows.
const eventsSite = "http://{$EDGE} {\n tinybird {\n" + credentials + allPipes + `
	events analytics_events {
		append_token {env.APPEND_TOKEN}
		stamp organization_id {clerk.org.id}
	}
}
}
`

// TestShutdownWithRequestsUnderWay: a question that Tinybird has not answered yet, and rows of which a client has sent half, are
// finished when the process is told to end.
func TestShutdownWithRequestsUnderWay(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.setenv("APPEND_TOKEN", e.stack.API.AppendToken())
	e.run(t, caddyfile("", eventsSite))
	hold, entered := make(chan struct{}), make(chan struct{})
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		if strings.HasPrefix(r.URL.Path, "/v0/pipes/") {
			close(entered)
			<-hold
		}
		return nil
	})
	rows, err := dial(e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.close()
	half := strings.Repeat("{\"n\":1}\n", 100)
	if _, err := fmt.Fprintf(rows.conn, "POST /v0/events?name=analytics_events HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
		e.addr, e.token(t, "ada"), 2*len(half)); err != nil {
		t.Fatal(err)
	}
	if line, err := rows.r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") { // the handler reads the body
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := io.WriteString(rows.conn, half); err != nil {
		t.Fatal(err)
	}
	answered := make(chan reply, 1)
	go func() { answered <- e.get(t, "ada", "/v0/pipes/live_events.json") }()
	<-entered

	e.terminate(t)
	eventually(t, "nobody listens", func() bool {
		c, err := dial(e.addr)
		c.close()
		return err != nil
	})
	close(hold)
	ownRows(t, "ada", <-answered)
	if _, err := io.WriteString(rows.conn, half); err != nil {
		t.Fatal(err)
	}
	_, _ = rows.r.ReadString('\n') // the end of the interim answer
	resp, err := http.ReadResponse(rows.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusAccepted || !bytes.Contains(body, []byte(`"successful_rows":200`)) {
		t.Errorf("status %d: %s, %v", resp.StatusCode, body, err)
	}
	if err := e.wait(t); err != nil {
		t.Errorf("caddy ended with %v", err)
	}
}

// TestShutdownDoesNotWaitForever: an answer that does not end is cut off, visibly, after the grace period, and cancelled at Tinybird.
func TestShutdownDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.run(t, strings.Replace(caddyfile("", plainSite), "grace_period 20s", "grace_period 1s", 1))
	gone := make(chan struct{})
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		go func() {
			<-r.Context().Done()
			close(gone)
		}()
		return &devstack.Fault{Stop: devstack.HangInBody, Chunked: true}
	})
	resp, err := e.http.Do(e.request(t, "ada", http.MethodGet, "/v0/pipes/top_pages.json", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	e.terminate(t)
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes look whole", len(body))
	}
	<-gone
	if err := e.wait(t); err != nil {
		t.Errorf("caddy ended with %v", err)
	}
}
