package preflight

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"
)

// TestStore: a store that counts passes, one that does not is a warning with what to do, and offline it is not asked.
func TestStore(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err     error
		offline bool
		status  Status
		text    string
		fix     string
	}{
		"counts":  {nil, false, Pass, "counts", ""},
		"away":    {io.EOF, false, Warn, "each edge counts for itself", "rediss://"},
		"hangs":   {context.DeadlineExceeded, false, Warn, "no answer in time", "reaches"},
		"offline": {io.EOF, true, Skip, "--offline", ""},
	} {
		s, asked := site(t, nil), 0
		s.Tinybird.Store = &Store{Host: "redis:6379", Probe: func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Errorf("%s: it may take for ever", name)
			}
			asked++
			return tt.err
		}}
		c := find(New(Options{Timeout: time.Minute, Offline: tt.offline}).Site(t.Context(), s), CheckSharedLimit)
		if c.Status != tt.status || c.Subject != "redis:6379" || !strings.Contains(c.Message, tt.text) || !strings.Contains(c.Fix, tt.fix) {
			t.Errorf("%s: %+v", name, c)
		}
		if want := 1; tt.offline != (asked != want) {
			t.Errorf("%s: asked %d times", name, asked)
		}
	}
	if c := find(check(t, site(t, nil)), CheckSharedLimit); c.Check != "" {
		t.Errorf("a site without a store: %+v", c)
	}
}
