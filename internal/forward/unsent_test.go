package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// TestUnsent: an answer of which nobody has a part is a refusal, never a connection to break.
func TestUnsent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		status int
		code   apierr.Code
	}{
		"broken off":          {fmt.Errorf("%w: %w", ErrAborted, io.ErrUnexpectedEOF), 502, apierr.UpstreamUnreachable},
		"too slow within":     {fmt.Errorf("%w: %w", ErrAborted, errIdleTimeout), 504, apierr.UpstreamTimeout},
		"the client's limit":  {context.DeadlineExceeded, 504, apierr.UpstreamTimeout},
		"a refusal":           {fmt.Errorf("more: %w", apierr.NoEndpoint()), 404, apierr.NotFound},
		"anything else":       {errors.New("unknown"), 502, apierr.UpstreamUnreachable},
		"a refusal, by abort": {fmt.Errorf("%w: %w", ErrAborted, apierr.NoEndpoint()), 404, apierr.NotFound},
	} {
		err := Unsent(http.Header{}, c.err)
		refusal := wantRefusal(t, err, c.status, c.code)
		if errors.Is(err, ErrAborted) || errors.Is(err, context.Canceled) || refusal == c.err { //nolint:errorlint // the very same one
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Unsent(http.Header{}, context.Canceled); !errors.Is(err, context.Canceled) || errors.As(err, new(*apierr.Error)) {
		t.Errorf("a client that left: %v", err)
	}
}

// TestUnsentIsTheClientsOwn: one failure for many has for each the longer of the two waits, and one limit, and changing it changes no
// other's.
func TestUnsentIsTheClientsOwn(t *testing.T) {
	t.Parallel()
	failure := apierr.New(http.StatusTooManyRequests, apierr.RateLimited, "Wait.").With("Retry-After", "3").With("X-Ratelimit-Limit", "9")
	for own, want := range map[string]string{"": "3", "2": "3", "8": "8"} {
		h := http.Header{"Retry-After": {own}, "X-Ratelimit-Limit": {"5"}, "Ratelimit": {`"edge";r=1`}, "Etag": {`"a"`}}
		refusal := wantRefusal(t, Unsent(h, failure), http.StatusTooManyRequests, apierr.RateLimited)
		if refusal.Header.Get("Retry-After") != want || refusal.Header.Get("X-Ratelimit-Limit") != "9" {
			t.Errorf("%q: %v", own, refusal.Header)
		}
		if h.Get("Ratelimit") != "" || h.Get("Etag") == "" {
			t.Errorf("%q: the two limits are mixed: %v", own, h)
		}
		refusal.Header.Set("X-Ratelimit-Limit", "changed")
	}
	if failure.Header.Get("X-Ratelimit-Limit") != "9" || failure.Header.Get("Retry-After") != "3" {
		t.Errorf("the failure itself was changed: %v", failure.Header)
	}
}
