package caddytinybird

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// errLimit marks a limit that a placeholder did not yield: a mistake in the config, which only its operator can mend.
var errLimit = errors.New("does not resolve to a whole number of at least 1")

// limit counts the request for its tenant and returns the rate that the minted token carries: 0 without a limit.
func (h *Handler) limit(w http.ResponseWriter, r *http.Request, x *exchange, pipe string, c *tinybird.Count) (int, error) {
	if c.Rate == nil {
		return 0, nil
	}
	rps, err := allowedRate(r, c.Rate)
	if err != nil {
		return 0, err
	}
	result, err := h.counter.Allow(c.Counter, ratelimit.Limit{RPS: rps, Burst: c.Rate.Burst})
	if err != nil {
		return 0, uncounted(err)
	}
	result.SetHeaders(w.Header())
	x.counted(result)
	if !result.Allowed {
		h.of(pipe).limited().Inc()
		h.tellLimited(pipe, c.Tenant(), result)
		return 0, tooMany(nil)
	}
	return rps, nil
}

// retryAfter is what Retry-After tells the client of a refused request, in seconds.
func retryAfter(refused ratelimit.Result) int {
	return int((refused.RetryAfter + time.Second - 1) / time.Second)
}

// allowedPlaces is how many requests to Tinybird the tenant may have under way: 0 for any number.
func allowedPlaces(r *http.Request, c *tinybird.Count) (int, error) {
	if c.Concurrency == "" {
		return 0, nil
	}
	most, err := resolveLimit(r, c.Concurrency, tinybird.ParseConcurrency)
	if err != nil {
		return 0, noLimit(fmt.Errorf("concurrency %w", err))
	}
	return most, nil
}

// enter takes one of the tenant's places, of which there are most. There is no queue: without a free one the request is refused, in
// the fields of the header to come. The place has to be left, however the request ends.
func (h *Handler) enter(header http.Header, pipe, gate string, most int) (ratelimit.Place, error) {
	if most == 0 {
		return ratelimit.Place{}, nil
	}
	place, ok, err := h.limiter.gate.Enter(gate, most)
	if err != nil {
		return ratelimit.Place{}, uncounted(err)
	}
	if !ok {
		h.of(pipe).busy().Inc()
		// They are the error's as well: where an answer is shared, it reaches others than the one whose header this is.
		refusal := tooMany(errBusy)
		refusal.Header = make(http.Header)
		if policy := header["Ratelimit-Policy"]; len(policy) > 0 {
			refusal.Header.Set("RateLimit-Policy", policy[0])
		}
		ratelimit.SetBusyHeaders(refusal.Header, most)
		maps.Copy(header, refusal.Header)
		return ratelimit.Place{}, refusal
	}
	return place, nil
}

// errBusy tells the operator which of the two limits it was.
var errBusy = errors.New("as many requests of the tenant as concurrency allows are under way")

func tooMany(cause error) *apierr.Error {
	return apierr.New(http.StatusTooManyRequests, apierr.RateLimited, "Too many requests. Wait as long as the Retry-After header says.").Wrap(cause)
}

func uncounted(cause error) error {
	return apierr.New(http.StatusInternalServerError, apierr.Internal, "The request could not be counted.").Wrap(cause)
}

// noLimit refuses a request whose limit is not known: that must never mean no limit.
func noLimit(cause error) error {
	return apierr.New(http.StatusForbidden, apierr.NotAllowed, "No rate is configured for you here. Ask whoever runs this service.").Wrap(cause)
}

// allowedRate is the rate that a client has.
func allowedRate(r *http.Request, rate *tinybird.RateSpec) (int, error) {
	rps, err := resolveLimit(r, rate.RPS, tinybird.ParseRPS)
	if err != nil {
		return 0, noLimit(fmt.Errorf("rate_limit %w", err))
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
	if _, err := tinybird.ParseTemplate(l.RPS, checkLimitPlaceholder); err != nil {
		return fmt.Errorf("rate_limit: %w", err)
	}
	return nil
}

// checkConcurrency refuses a bound that a client could choose.
func checkConcurrency(text string) error {
	if err := tinybird.CheckConcurrency(text); err != nil {
		return err
	}
	if _, err := tinybird.ParseTemplate(text, checkLimitPlaceholder); err != nil {
		return fmt.Errorf("concurrency: %w", err)
	}
	return nil
}

// checkLimitPlaceholder accepts what a `map` yields and what comes from the session. All else of a request, from
// its headers to what a matcher found in its path, is for the client to choose.
func checkLimitPlaceholder(name string) error {
	if !strings.HasPrefix(name, "http.") || strings.HasPrefix(name, "http.auth.user.") || strings.HasPrefix(name, "http.vars.") {
		return nil
	}
	return fmt.Errorf("{%s} is the client's to choose; derive the limit from the session, such as `map {clerk.plan} {rps} { ... }` and `rate_limit {rps}`", name)
}

// resolveLimit expands the operator's text for a limit, once.
func resolveLimit(r *http.Request, text string, parse func(string) (int, error)) (int, error) {
	if hasPlaceholder(text) {
		repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		if !ok {
			return 0, fmt.Errorf("%w: %s", errLimit, text)
		}
		text = repl.ReplaceAll(text, "")
	}
	n, err := parse(text)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errLimit, err)
	}
	return n, nil
}
