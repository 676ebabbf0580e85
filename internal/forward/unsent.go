package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// Unsent returns the error for one of several clients that were to share what Forward writes, and of which none has got any of it.
// err is what Forward returned, or why the client's own context ended; h is the header of the response to come.
//
// It is an *apierr.Error of the client's own, also for an answer that broke off, or wraps context.Canceled.
func Unsent(h http.Header, err error) error {
	refusal, ok := errors.AsType[*apierr.Error](err)
	switch {
	case ok:
		own := *refusal
		own.Header = refusal.Header.Clone()
		if own.Code == apierr.RateLimited {
			setLimits(&own, h, refusal.Header)
		}
		return &own
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("the client went away: %w", context.Canceled)
	default:
		// Without ErrAborted, which would have the connection broken.
		return noAnswer(isTimeout(err)).Wrap(errors.New(err.Error()))
	}
}
