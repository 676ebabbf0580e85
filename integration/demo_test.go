//go:build integration

package integration

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestDemoChecksItself: `caddy demo --check` does what the page lets a person try, and finds nothing wrong.
func TestDemoChecksItself(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := command(ctx, t.TempDir(), nil, "demo", "--check").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if lines := strings.Count(string(out), "\n"); lines < 5 {
		t.Errorf("it tells of %d lines only:\n%s", lines, out)
	}
	if strings.Contains(string(out), "eyJ") {
		t.Errorf("a token in the output:\n%s", out)
	}
}
