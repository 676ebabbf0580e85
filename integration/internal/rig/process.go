// Package rig is what the programs share that put the built binary under load: they build it, run it, and ask the system and
// the admin endpoint how it is.
package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running Caddy.
type Process struct {
	Addr  string // of the site
	Admin string // of the admin endpoint
	Home  string // where its files are, the config among them

	cmd  *exec.Cmd
	done chan error
}

// Build builds the binary from the repository that the working directory is the root of, and returns its path in dir.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "caddy.exe")                                                                        // the ending matters on Windows only
	build := exec.CommandContext(ctx, "go", "build", "-tags", "nobadger,nomysql,nopgx", "-o", binary, "./cmd/caddy") //nolint:gosec // into a directory of our own
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/caddy (run this from the repository's root): %w\n%s", err, out)
	}
	return binary, nil
}

// Start runs a config and returns when its site accepts connections. The config finds its addresses in $PORT and $ADMIN. What the
// process writes goes to log, and to a file in its home if that is nil.
func Start(ctx context.Context, binary, home, name, config string, env []string, log io.Writer) (*Process, error) {
	p := &Process{done: make(chan error, 1), Home: filepath.Join(home, name)}
	if err := p.start(ctx, binary, config, env, log); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func (p *Process) start(ctx context.Context, binary, config string, env []string, log io.Writer) error {
	var err error
	if p.Addr, err = FreeAddr(ctx); err != nil {
		return err
	}
	if p.Admin, err = FreeAddr(ctx); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return fmt.Errorf("the site's address: %w", err)
	}
	if err := os.MkdirAll(p.Home, 0o700); err != nil {
		return fmt.Errorf("its home: %w", err)
	}
	file := filepath.Join(p.Home, "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return fmt.Errorf("its config: %w", err)
	}
	p.cmd = exec.CommandContext(ctx, binary, "run", "--adapter", "caddyfile", "--config", file) //nolint:gosec // the binary is the caller's choice
	p.cmd.Env = append([]string{
		"HOME=" + p.Home, "XDG_DATA_HOME=" + p.Home, "XDG_CONFIG_HOME=" + p.Home, "PATH=" + os.Getenv("PATH"),
		"PORT=" + port, "ADMIN=" + p.Admin,
	}, env...)
	p.cmd.WaitDelay = 10 * time.Second
	if log == nil {
		f, err := os.Create(filepath.Join(p.Home, "log"))
		if err != nil {
			return fmt.Errorf("its log: %w", err)
		}
		defer func() { _ = f.Close() }() // the process has one of its own
		log = f
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err //nolint:wrapcheck // wrapped above
	}
	go func() { p.done <- p.cmd.Wait() }()
	if err := p.await(ctx); err != nil {
		p.Stop()
		text, _ := os.ReadFile(filepath.Join(p.Home, "log"))
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}

// await waits until the site accepts connections.
func (p *Process) await(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr)
		if err == nil {
			_ = c.Close()
			return nil
		}
		select {
		case <-tick.C:
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("caddy ended: %w", err)
		case <-late:
			return errors.New("caddy does not start")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Stop kills it.
func (p *Process) Stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	p.done <- <-p.done
}

// Terminate asks it to end, as a service manager does, and waits for that.
func (p *Process) Terminate(ctx context.Context) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("caddy: %w", err)
	}
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ticksPerSecond is the unit of /proc/<pid>/stat on every Linux that Go runs on.
const ticksPerSecond = 100

// CPU is the CPU time that the process has used so far, user and system.
func (p *Process) CPU() (time.Duration, error) { return cpuOf(strconv.Itoa(p.cmd.Process.Pid)) }

// OwnCPU is the CPU time that this process has used so far.
func OwnCPU() (time.Duration, error) { return cpuOf("self") }

func cpuOf(pid string) (time.Duration, error) {
	stat, err := proc(pid, "stat")
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses, which may hold spaces. utime and stime are fields 14 and 15.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const utime = 14 - 3
	if len(fields) <= utime+1 {
		return 0, errors.New("/proc has another form here")
	}
	var ticks int64
	for _, field := range fields[utime : utime+2] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// RSS is its resident memory in bytes.
func (p *Process) RSS() (int64, error) {
	status, err := proc(strconv.Itoa(p.cmd.Process.Pid), "status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(status) {
		value, ok := strings.CutPrefix(line, "VmRSS:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc: %w", err)
		}
		return kb << 10, nil
	}
	return 0, errors.New("/proc does not tell the resident memory")
}

func proc(pid, name string) (string, error) {
	text, err := os.ReadFile("/proc/" + pid + "/" + name) //nolint:gosec // both are of this program's making
	if err != nil {
		return "", fmt.Errorf("the process's figures (Linux only): %w", err)
	}
	return string(text), nil
}

// FreeAddr returns a loopback address that nobody listens on.
func FreeAddr(ctx context.Context) (string, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// Machine says what figures were taken on.
func Machine() string {
	return fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
