package caddytinybird

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Attack: the id of a key, or an error that quotes a server, has codes that steer the terminal on which a report is read as JSON.
func TestAttackCodesInJSON(t *testing.T) {
	t.Parallel()
	const planted = "\x1b[2J \u009b31m \x7f \u202e \U000e0041 \r\n é \U0001f600"
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(planted)
	}))
	t.Cleanup(admin.Close)
	status, _, _, err := commandWith(t, "", "status", "--address", strings.TrimPrefix(admin.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	var report bytes.Buffer
	cmd := new(cobra.Command)
	cmd.SetOut(&report)
	if err := printJSON(cmd, planted); err != nil {
		t.Fatal(err)
	}
	for name, out := range map[string]string{"status": status, "a report": report.String()} {
		if strings.ContainsAny(out, "\x1b\u009b\x7f\u202e\r\U000e0041") || !strings.Contains(out, "é \U0001f600") {
			t.Errorf("%s: it prints %q", name, out)
		}
		var read string
		if err := json.Unmarshal([]byte(out), &read); err != nil || read != planted {
			t.Errorf("%s: it reads as %q, %v", name, read, err)
		}
	}
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, planted, http.StatusInternalServerError)
	}))
	t.Cleanup(refusing.Close)
	if _, messages, code, _ := commandWith(t, "", "status", "--address", strings.TrimPrefix(refusing.URL, "http://")); code != 1 || !strings.Contains(messages, "é") || strings.ContainsAny(messages, "\x1b\u009b\x7f\u202e\r") {
		t.Errorf("of an error it prints %q, status %d", messages, code)
	}
	// What answers at that address need not be Caddy, nor JSON.
	if got := escapeCodes("\x1b[2J\xff"); got != `\u001b[2J`+"\ufffd" {
		t.Errorf("it prints %q", got)
	}
}
