package caddytinybird

import (
	"context"
	"errors"
	"net/http"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// otherPipe stands for every pipe that the config does not list, so that no client can make new metric labels.
const otherPipe = "_other"

// exchange is what is known of one request for placeholders, logs and metrics.
type exchange struct {
	*visitor

	own      visitor // the visitor, unless a handler before knows one
	pipe     string
	outcome  forward.Outcome
	span     trace.Span // nil unless it is recorded
	decision *decision  // nil unless it is logged
	cache    string     // what became of it where answers are shared; empty elsewhere
}

// finish records the outcome and, when the request was refused, answers it.
func (h *Handler) finish(w http.ResponseWriter, r *http.Request, x *exchange, err error) error {
	refusal := refusalOf(err)
	code := outcomeOf(refusal, err)
	h.record(r, x, code, refusal)
	if refusal != nil {
		h.report(x, code, refusal, err)
	}

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

// outcomeOf is what logs, metrics and traces call the end of a request.
func outcomeOf(refusal *apierr.Error, err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, context.Canceled):
		return "client_closed"
	case errors.Is(err, forward.ErrAborted):
		return "aborted"
	default:
		return string(refusal.Code)
	}
}

// preflight records a browser's question what pages of other sites may do, which cors answered.
func (h *Handler) preflight(r *http.Request, x *exchange) {
	path := r.URL.EscapedPath()
	pipe, _, ok := tinybird.ParsePath(path)
	switch {
	case path == h.TokenEndpoint && path != "":
		x.pipe = tokenPipe
	case h.ingest != nil && h.ingest.Serves(path):
		x.pipe = eventsPipe
	case ok && h.policy.Listed(pipe):
		x.pipe = pipe
	}
	h.record(r, x, "preflight", nil)
}

// record counts a request and puts it on the access log's line, into the trace and, at debug level, into the log.
func (h *Handler) record(r *http.Request, x *exchange, code string, refusal *apierr.Error) {
	counts := h.of(x.pipe)
	counts.requests.of(code).Inc()
	if x.outcome.Duration != 0 {
		counts.answered(x.outcome.UpstreamStatus, x.outcome.Duration)
	}
	x.ended(code)
	h.tellDecision(r, x, code, refusal)
	fields := append(make([]zap.Field, 0, 4), zap.String("tinybird_pipe", x.pipe), zap.String("tinybird_outcome", code))
	if refusal != nil && code == string(refusal.Code) && refusal.NeedsHelp() {
		fields = append(fields, helpField(refusal))
	}
	if x.cache != "" {
		fields = append(fields, zap.String("tinybird_cache", x.cache))
	}
	x.logFields(r, fields...)
}

// helpField leads from a log to the documentation of a refusal's code.
func helpField(refusal *apierr.Error) zap.Field { return zap.String("help", refusal.Code.Help()) }

// report tells the operator about what only an operator can mend. Refusals that a client causes are in the access
// log and the metrics, and only at debug level here.
func (h *Handler) report(x *exchange, code string, refusal *apierr.Error, err error) {
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
		fields := []zap.Field{
			zap.String("pipe", x.pipe), zap.String("code", code), zap.Error(err), zap.Int("upstream_status", x.outcome.UpstreamStatus),
		}
		if code == string(refusal.Code) {
			fields = append(fields, helpField(refusal))
		}
		c.Write(fields...)
	}
}
