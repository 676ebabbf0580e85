package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Ask sends a request to the admin endpoint.
func (p *Process) Ask(ctx context.Context, method, path, contentType, body string) (status int, answer string, err error) {
	c := &http.Client{Timeout: 90 * time.Second}
	for {
		r, err := http.NewRequestWithContext(ctx, method, "http://"+p.Admin+path, strings.NewReader(body))
		if err != nil {
			return 0, "", fmt.Errorf("admin %s: %w", path, err)
		}
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		r.Close = true // the endpoint moves with every config, so no connection to it is kept
		resp, err := c.Do(r)
		if (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)) && ctx.Err() == nil { // it moved before Caddy had read it
			continue
		}
		if err != nil {
			return 0, "", fmt.Errorf("admin %s: %w", path, err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return 0, "", fmt.Errorf("admin %s: %w", path, err)
		}
		return resp.StatusCode, string(text), nil
	}
}

// Load sends a config to the admin endpoint and returns the answer.
func (p *Process) Load(ctx context.Context, caddyfile string) (status int, answer string, err error) {
	return p.Ask(ctx, http.MethodPost, "/load", "text/caddyfile", caddyfile)
}

var (
	goroutineTotal = regexp.MustCompile(`(?m)^goroutine profile: total (\d+)$`)
	heapAlloc      = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)
)

// Goroutines is how many the process has.
func (p *Process) Goroutines(ctx context.Context) (int, error) {
	return p.profiled(ctx, "goroutine?debug=1", goroutineTotal)
}

// Heap is how many bytes the garbage collector leaves the process.
func (p *Process) Heap(ctx context.Context) (int, error) {
	return p.profiled(ctx, "heap?gc=1&debug=1", heapAlloc)
}

func (p *Process) profiled(ctx context.Context, name string, pattern *regexp.Regexp) (int, error) {
	_, profile, err := p.Ask(ctx, http.MethodGet, "/debug/pprof/"+name, "", "")
	if err != nil {
		return 0, err
	}
	found := pattern.FindStringSubmatch(profile)
	if found == nil {
		return 0, fmt.Errorf("no profile of %s: %.200s", name, profile)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		return 0, fmt.Errorf("the profile of %s: %w", name, err)
	}
	return n, nil
}
