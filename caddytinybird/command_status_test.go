package caddytinybird

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStatusCommand: the command prints what the admin endpoint answers, wherever that is, and its exit status tells whether one does.
func TestStatusCommand(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tinybird/status", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{\"key_sets\": []}\n")
	})
	with, without, gone := httptest.NewServer(mux), httptest.NewServer(http.NotFoundHandler()), httptest.NewServer(mux)
	t.Cleanup(with.Close)
	t.Cleanup(without.Close)
	gone.Close()
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	config := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, []byte("{\n\tadmin "+host(with)+"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"address":         {[]string{"--address", host(with)}, 0, ""},
		"config":          {[]string{"--config", config, "--adapter", "caddyfile"}, 0, ""},
		"nobody":          {[]string{"--address", host(gone)}, 1, "No Caddy with caddy-tinybird answers at " + host(gone)},
		"another Caddy":   {[]string{"--address", host(without)}, 1, "404"},
		"no such config":  {[]string{"--config", config + ".old"}, exitCouldNotRun, ""},
		"an argument":     {[]string{host(with)}, exitCouldNotRun, ""},
		"a wrong address": {[]string{"--address", "127.0.0.1:1-9"}, 1, "invalid admin address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, messages, status, err := commandWith(t, "", append([]string{"status"}, tt.args...)...)
			if status != tt.status || !strings.Contains(messages, tt.says) {
				t.Errorf("%d, want %d: %v %s", status, tt.status, err, messages)
			}
			if want := "{\"key_sets\": []}\n"; (out == want) != (tt.status == 0) {
				t.Errorf("it prints %q", out)
			}
		})
	}
}
