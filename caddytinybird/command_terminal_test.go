package caddytinybird

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/preflight"
)

// TestProgress: what is waited for is told once the command has taken a second, and not when the wait was over before.
func TestProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out, "check")
		p.w = &out // as if it were a terminal
		p.step("the first")
		time.Sleep(600 * time.Millisecond) //nolint:forbidigo // in the bubble this is a step of its clock
		p.step("the second")
		time.Sleep(600 * time.Millisecond) //nolint:forbidigo // as above
		synctest.Wait()
		if out.String() != "check: the second ...\n" {
			t.Errorf("after a second: %q", out.String())
		}
		p.step("the third")
		synctest.Wait()
		if out.String() != "check: the second ...\ncheck: the third ...\n" {
			t.Errorf("then: %q", out.String())
		}
		p.step("the fourth")
		p.end()
		time.Sleep(time.Minute) //nolint:forbidigo // as above
		synctest.Wait()
	})
}

// TestNoProgressElsewhere: what is no terminal gets no progress, no marks and no colours.
func TestNoProgressElsewhere(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if newProgress(file, "check").w != nil || newProgress(new(bytes.Buffer), "check").w != nil {
		t.Error("progress is told to a file")
	}
	if s := styleFor(file); s != (preflight.Style{}) {
		t.Errorf("%+v", s)
	}
}
