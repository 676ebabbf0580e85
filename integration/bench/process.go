package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// process is a running Caddy.
type process struct {
	addr, admin string

	cmd  *exec.Cmd
	done chan error
}

// startCaddy runs a config and returns when its site accepts connections.
func startCaddy(ctx context.Context, binary, home, name, config string, env []string) (*process, error) {
	p := &process{done: make(chan error, 1)}
	var err error
	if p.addr, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	if p.admin, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	dir := filepath.Join(home, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p.cmd = exec.CommandContext(ctx, binary, "run", "--adapter", "caddyfile", "--config", file) //nolint:gosec // the binary is the caller's choice
	p.cmd.Env = append([]string{
		"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "PATH=" + os.Getenv("PATH"),
		"PORT=" + port, "ADMIN=" + p.admin,
	}, env...)
	log, err := os.Create(filepath.Join(dir, "log")) //nolint:gosec // in a directory of our own
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the process has one of its own
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	if err := p.await(ctx); err != nil {
		p.stop()
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s: %w\n%s", name, err, text)
	}
	return p, nil
}

// await waits until the site accepts connections.
func (p *process) await(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
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

func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	p.done <- <-p.done
}

// ticksPerSecond is the unit of /proc/<pid>/stat on every Linux that Go runs on.
const ticksPerSecond = 100

// cpu is the CPU time that the process has used so far, user and system.
func (p *process) cpu() (time.Duration, error) { return cpuOf(strconv.Itoa(p.cmd.Process.Pid)) }

// ownCPU is the CPU time that this process has used so far.
func ownCPU() (time.Duration, error) { return cpuOf("self") }

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

// rss is its resident memory in bytes.
func (p *process) rss() (int64, error) {
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

func freeAddr(ctx context.Context) (string, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// machine says what the figures were taken on.
func machine() string {
	return fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
