package caddytinybird

import (
	"context"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// otherPipe stands for every pipe that the config does not list, so that no client can make new metric labels.
const otherPipe = "_other"

// exchange is what is known of one request for placeholders, logs and metrics.
type exchange struct {
	*visitor

	pipe    string
	outcome forward.Outcome
}

// finish records the outcome and, when the request was refused, answers it.
func (h *Handler) finish(w http.ResponseWriter, r *http.Request, x *exchange, err error) error {
	refusal := refusalOf(err)
	code := "ok"
	if refusal != nil {
		code = string(refusal.Code)
	}
	if errors.Is(err, forward.ErrAborted) {
		code = "aborted"
	}
	if errors.Is(err, context.Canceled) {
		code = "client_closed"
	}
	metrics.requests.WithLabelValues(x.pipe, code).Inc()
	if x.outcome.UpstreamStatus != 0 {
		metrics.answered(x.pipe, x.outcome.UpstreamStatus, x.outcome.Duration)
	}
	x.logFields(r)
	logField(r, zap.String("tinybird_pipe", x.pipe))
	logField(r, zap.String("tinybird_outcome", code))
	h.report(x, refusal, err)

	switch {
	case err == nil:
		return nil
	case errors.Is(err, forward.ErrAborted):
		// The client must see a broken answer, not a short one that looks whole.
		panic(http.ErrAbortHandler)
	case errors.Is(err, context.Canceled):
		return errClientClosed()
	default:
		return refuse(w, r, h.Errors, "http.tinybird.code", refusal)
	}
}

// report tells the operator about what only an operator can mend. Refusals that a client causes are in the access
// log and the metrics, and only at debug level here.
func (h *Handler) report(x *exchange, refusal *apierr.Error, err error) {
	if err == nil {
		return
	}
	level := zap.DebugLevel
	if refusal.Status >= http.StatusInternalServerError || refusal.Code == apierr.UpstreamRefused || refusal.Code == apierr.EventsIncomplete {
		level = zap.ErrorLevel
	}
	if errors.Is(err, errLimit) {
		level = zap.ErrorLevel
	}
	if errors.Is(err, forward.ErrAborted) {
		level = zap.WarnLevel
	}
	if errors.Is(err, context.Canceled) {
		level = zap.DebugLevel
	}
	if c := h.log.Check(level, "request not answered"); c != nil {
		c.Write(zap.String("pipe", x.pipe), zap.String("code", string(refusal.Code)), zap.Error(err),
			zap.Int("upstream_status", x.outcome.UpstreamStatus))
	}
}
