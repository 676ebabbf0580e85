//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for something that happens at once on an idle machine.
const patience = 30 * time.Second

// process is one running Caddy.
type process struct {
	admin string // address of the admin endpoint
	log   output // what it wrote to stdout and stderr

	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// output collects what a process writes while a test reads it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// tail is the end of it, for the message of a failed test.
func (o *output) tail() string {
	const enough = 4 << 10
	text := o.String()
	return text[max(0, len(text)-enough):]
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// command prepares the binary with an environment of its own: nothing of the machine's proxies or of the user's
// Caddy gets in.
func command(ctx context.Context, home string, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, caddyBinary, args...)
	cmd.Dir = home
	cmd.Env = append([]string{
		"HOME=" + home,
		"XDG_DATA_HOME=" + filepath.Join(home, "data"),
		"XDG_CONFIG_HOME=" + filepath.Join(home, "config"),
		"PATH=" + os.Getenv("PATH"),
		"SYSTEMROOT=" + os.Getenv("SYSTEMROOT"),
	}, env...)
	cmd.WaitDelay = patience
	return cmd
}

// killInTime ends a process before the test binary is killed for taking too long, so that it does not outlive it.
func killInTime(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	deadline, ok := t.Deadline()
	if !ok {
		return
	}
	kill := time.AfterFunc(time.Until(deadline)-5*time.Second, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { kill.Stop() })
}

// start runs Caddy with a Caddyfile, and returns when it serves. It is stopped when the test ends.
func start(t *testing.T, home, caddyfile, admin string, env []string) *process {
	t.Helper()
	config := filepath.Join(home, "Caddyfile")
	if err := os.WriteFile(config, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	// As `caddy start` does: the process calls back once the config is running.
	var lc net.ListenConfig
	back, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()

	p := &process{admin: admin, exited: make(chan struct{})}
	p.cmd = command(context.WithoutCancel(t.Context()), home, env,
		"run", "--adapter", "caddyfile", "--config", config, "--pingback", back.Addr().String())
	p.cmd.Stdin = strings.NewReader("up")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	killInTime(t, p.cmd)
	t.Cleanup(func() { p.stop(t) })
	p.await(t, back)
	return p
}

// await waits for the call that says that the config is running.
func (p *process) await(t *testing.T, back net.Listener) {
	t.Helper()
	up := make(chan error, 1)
	go func() {
		c, err := back.Accept()
		if err == nil {
			c.Close()
		}
		up <- err
	}()
	select {
	case err := <-up:
		if err != nil {
			t.Fatal(err)
		}
	case <-p.exited:
		t.Fatalf("caddy ended: %v\n%s", p.err, p.log.tail())
	case <-time.After(patience):
		t.Fatalf("caddy does not start\n%s", p.log.tail())
	}
}

// terminate asks the process to end, as a service manager does.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}

// wait waits for the end of the process and returns its error.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-p.exited:
		return p.err
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.exited
		t.Errorf("caddy does not end\n%s", p.log.tail())
		return p.err
	}
}

// stop ends the process if it still runs.
func (p *process) stop(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
		return
	default:
	}
	p.terminate(t)
	if err := p.wait(t); err != nil {
		t.Errorf("caddy ended with %v\n%s", err, p.log.tail())
	}
}

// ask sends a request to the admin endpoint.
func (p *process) ask(t *testing.T, method, path, contentType, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	// The admin endpoint moves with every config, so no connection to it is kept.
	r.Close = true
	c := &http.Client{Timeout: patience}
	resp, err := c.Do(r)
	for ; errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF); resp, err = c.Do(r) { // the endpoint moved before Caddy had read it
		r.Body = io.NopCloser(strings.NewReader(body))
	}
	if err != nil {
		t.Fatalf("admin %s: %v\n%s", path, err, p.log.tail())
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// load sends a config to the admin endpoint and returns the answer.
func (p *process) load(t *testing.T, caddyfile string) (status int, answer string) {
	t.Helper()
	return p.ask(t, http.MethodPost, "/load", "text/caddyfile", caddyfile)
}

// once runs the binary with arguments until it ends by itself, with patience.
func once(t *testing.T, env []string, args ...string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	text, err := command(ctx, t.TempDir(), env, args...).CombinedOutput()
	return string(text), err
}

// taken are the ports that tests of this process were given.
var taken sync.Map

// freeAddr returns a loopback address that nobody listens on. The port is below those that systems give to
// outgoing connections, so that none of these takes it before Caddy does.
func freeAddr(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	for range 1000 {
		n, err := rand.Int(rand.Reader, big.NewInt(12_000))
		if err != nil {
			t.Fatal(err)
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.FormatInt(20_000+n.Int64(), 10))
		if _, ok := taken.LoadOrStore(addr, true); ok {
			continue
		}
		ln, err := lc.Listen(t.Context(), "tcp", addr)
		if err != nil {
			continue
		}
		ln.Close()
		return addr
	}
	t.Fatal("no free port")
	return ""
}

// eventually waits until ok says so, asking again and again.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}
