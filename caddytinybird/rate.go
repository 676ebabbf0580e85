package caddytinybird

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// errRate marks a rate that a placeholder did not yield: a mistake in the config, which only its operator can mend.
var errRate = errors.New("rate_limit does not resolve to a whole number of at least 1")

// limit counts the request for its tenant and returns the rate that the minted token carries: 0 without a limit.
func (h *Handler) limit(w http.ResponseWriter, r *http.Request, grant *tinybird.Grant) (int, error) {
	if grant.Rate == nil {
		return 0, nil
	}
	rps, err := allowedRate(r, grant.Rate)
	if err != nil {
		return 0, err
	}
	result, err := h.counter.Allow(grant.TokenName, ratelimit.Limit{RPS: rps, Burst: grant.Rate.Burst})
	if err != nil {
		return 0, apierr.New(http.StatusInternalServerError, apierr.Internal, "The request could not be counted.").Wrap(err)
	}
	result.SetHeaders(w.Header())
	if !result.Allowed {
		metrics.limited.WithLabelValues(grant.Pipe).Inc()
		return 0, apierr.New(http.StatusTooManyRequests, apierr.RateLimited, "Too many requests. Wait as long as the Retry-After header says.")
	}
	return rps, nil
}

// allowedRate is the rate that a client has. One that is none refuses the request: it must never mean no limit.
func allowedRate(r *http.Request, rate *tinybird.RateSpec) (int, error) {
	rps, err := resolveRate(r, rate.RPS)
	if err != nil {
		return 0, apierr.New(http.StatusForbidden, apierr.NotAllowed, "No rate is configured for you here. Ask whoever runs this service.").Wrap(err)
	}
	return rps, nil
}

// checkRate refuses a rate that a client could choose.
func checkRate(l *RateLimit) error {
	if l == nil {
		return nil
	}
	if err := tinybird.CheckRate(*l.spec()); err != nil {
		return err
	}
	if _, err := tinybird.ParseTemplate(l.RPS, checkRatePlaceholder); err != nil {
		return fmt.Errorf("rate_limit: %w", err)
	}
	return nil
}

// checkRatePlaceholder accepts what a `map` yields and what comes from the session. All else of a request, from
// its headers to what a matcher found in its path, is for the client to choose.
func checkRatePlaceholder(name string) error {
	if !strings.HasPrefix(name, "http.") || strings.HasPrefix(name, "http.auth.user.") || strings.HasPrefix(name, "http.vars.") {
		return nil
	}
	return fmt.Errorf("{%s} is the client's to choose; derive the rate from the session, such as `map {clerk.plan} {rps} { ... }` and `rate_limit {rps}`", name)
}

// resolveRate expands the operator's text for a rate, once.
func resolveRate(r *http.Request, text string) (int, error) {
	if hasPlaceholder(text) {
		repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		if !ok {
			return 0, fmt.Errorf("%w: %s", errRate, text)
		}
		text = repl.ReplaceAll(text, "")
	}
	rps, err := tinybird.ParseRPS(text)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errRate, err)
	}
	return rps, nil
}
