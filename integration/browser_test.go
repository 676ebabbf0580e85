//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium with a new profile and one tab. A program for Node drives it, which ends with its standard
// input and takes Chromium along, also when this process is killed.
type browser struct {
	in      io.WriteCloser
	answers *bufio.Reader
	log     output // what the program wrote to stderr
}

// instruction is a line for the program. Its member "do" names one of those at the program's end.
type instruction map[string]any

// visit is where a navigation ended, after all redirects.
type visit struct {
	URL    string `json:"url"`
	Status int    `json:"status"`
}

// fetched is what a script of the page gets from fetch.
type fetched struct {
	URL        string            `json:"url"`
	Status     int               `json:"status"`
	Redirected bool              `json:"redirected"`
	Header     map[string]string `json:"header"`
	Body       string            `json:"body"`
}

// cookie is one as the browser keeps it.
type cookie struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Domain string `json:"domain"`
}

// response is one answer that the browser got. Each redirect is one.
type response struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	Status int    `json:"status"`
	Type   string `json:"type"` // document, stylesheet, image, fetch ...
}

// startBrowser starts Chromium, and stops it when the test ends.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	node, chromium := program(t, "Node", "node"), program(t, "Chromium", "chromium", "chromium-browser", "google-chrome")
	program(t, "npm", "npm")
	driver, err := installDriver()
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "browser-") //nolint:usetesting // Chromium makes a socket in it, whose path has to be short
	if err != nil {
		t.Fatal(err)
	}
	b := new(browser)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), node, driver, chromium)
	// Nothing of the user's own profile, and no proxy.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}
	cmd.Dir = home
	cmd.Stderr = &b.log
	cmd.WaitDelay = patience
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if b.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	b.answers = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killInTime(t, cmd)
	t.Cleanup(func() { b.stop(t, cmd, home) })
	b.begin(t, instruction{})
	return b
}

// program returns the path of the first of the names that is installed.
func program(t *testing.T, title string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed, and this test needs it; install %q, as .ci/run does", title, names[0])
	return ""
}

// installDriver puts the program and what it needs into a directory that goes when the tests end, once for all of them.
var installDriver = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(caddyBinary), "browser")
	if err := os.CopyFS(dir, os.DirFS("browser")); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci, which installs what drives the browser: %w\n%s", err, out)
	}
	return filepath.Join(dir, "driver.mjs"), nil
})

func (b *browser) stop(t *testing.T, cmd *exec.Cmd, home string) {
	t.Helper()
	b.in.Close()
	kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the browser ended with %v\n%s", err, b.log.tail())
	}
	if err := os.RemoveAll(home); err != nil {
		t.Error(err)
	}
}

// do has an instruction followed and puts its answer into into, unless that is nil.
func (b *browser) do(t *testing.T, c instruction, into any) {
	t.Helper()
	var answer []byte
	err := json.NewEncoder(b.in).Encode(c)
	if err == nil {
		answer, err = b.answers.ReadBytes('\n')
	}
	if err != nil {
		t.Fatalf("%v: the browser is gone: %v\n%s", c, err, b.log.tail())
	}
	var failed struct {
		Error string `json:"error"`
	}
	if into == nil {
		into = new(struct{})
	}
	if err := errors.Join(json.Unmarshal(answer, &failed), json.Unmarshal(answer, into)); err != nil {
		t.Fatalf("%v: %v\n%s", c, err, answer)
	}
	if failed.Error != "" {
		t.Fatalf("%v: %s", c, failed.Error)
	}
}

// begin throws the profile away and opens a tab in a new one. The instruction's members are those of the program's function begin.
func (b *browser) begin(t *testing.T, how instruction) {
	t.Helper()
	how["do"] = "begin"
	b.do(t, how, nil)
}

func (b *browser) open(t *testing.T, url string) (v visit) {
	t.Helper()
	b.do(t, instruction{"do": "open", "url": url}, &v)
	return v
}

func (b *browser) reload(t *testing.T) (v visit) {
	t.Helper()
	b.do(t, instruction{"do": "reload"}, &v)
	return v
}

// click clicks on what leads to another page, and waits for that.
func (b *browser) click(t *testing.T, selector string) (v visit) {
	t.Helper()
	b.do(t, instruction{"do": "click", "selector": selector}, &v)
	return v
}

// text is what of an element can be read.
func (b *browser) text(t *testing.T, selector string) string {
	t.Helper()
	var answer struct {
		Text string `json:"text"`
	}
	b.do(t, instruction{"do": "text", "selector": selector}, &answer)
	return answer.Text
}

// fetch is what a script of the page does, with the cookies that the page has.
func (b *browser) fetch(t *testing.T, url, method string) (f fetched) {
	t.Helper()
	b.do(t, instruction{"do": "fetch", "url": url, "init": instruction{"method": method}}, &f)
	return f
}

// image is the width of an image that the page loads now, and 0 for one that cannot be shown.
func (b *browser) image(t *testing.T, url string) int {
	t.Helper()
	var answer struct {
		Width int `json:"width"`
	}
	b.do(t, instruction{"do": "image", "url": url}, &answer)
	return answer.Width
}

func (b *browser) cookies(t *testing.T) []cookie {
	t.Helper()
	var answer struct {
		Cookies []cookie `json:"cookies"`
	}
	b.do(t, instruction{"do": "cookies"}, &answer)
	return answer.Cookies
}

// seen is what the browser got, and what it wrote to its console, since the last call.
func (b *browser) seen(t *testing.T) (responses []response, messages []string) {
	t.Helper()
	var answer struct {
		Responses []response `json:"responses"`
		Messages  []string   `json:"messages"`
	}
	b.do(t, instruction{"do": "seen"}, &answer)
	return answer.Responses, answer.Messages
}

// evaluate runs an expression in the page and puts its value into into.
func (b *browser) evaluate(t *testing.T, script string, into any) {
	t.Helper()
	b.do(t, instruction{"do": "evaluate", "script": script}, &struct {
		Value any `json:"value"`
	}{into})
}

// resize changes the size of the window, in CSS pixels.
func (b *browser) resize(t *testing.T, width, height int) {
	t.Helper()
	b.do(t, instruction{"do": "resize", "width": width, "height": height}, nil)
}
