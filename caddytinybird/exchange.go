package caddytinybird

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// otherPipe stands for every pipe that the config does not list, so that no client can make new metric labels.
const otherPipe = "_other"

// statusClientClosed is what Caddy logs for a client that went away before its answer was ready.
const statusClientClosed = 499

// exchange is what is known of one request for placeholders, logs and metrics.
type exchange struct {
	pipe     string
	identity *clerk.Identity // nil until a session was verified
	outcome  forward.Outcome
}

// setPlaceholders answers {clerk.*} for the rest of the request from the verified identity, and with nothing as long as
// there is none.
func (x *exchange) setPlaceholders(r *http.Request) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	repl.Map(func(key string) (any, bool) {
		if !strings.HasPrefix(key, "clerk.") || clerk.CheckPlaceholder(key) != nil {
			return nil, false
		}
		return x.text(key), true
	})
}

// text is the value of a placeholder, empty where there is none that can be written as text.
func (x *exchange) text(placeholder string) string {
	if x.identity == nil {
		return ""
	}
	value, ok := x.identity.Lookup(placeholder)
	if !ok {
		return ""
	}
	text, err := tinybird.ValueText(value)
	if err != nil {
		return ""
	}
	return text
}

func logField(r *http.Request, field zap.Field) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(field)
	}
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
	if x.identity != nil {
		logField(r, zap.String("clerk_user", x.identity.UserID))
		logField(r, zap.String("clerk_org", x.identity.OrgID))
	}
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
		return caddyhttp.Error(statusClientClosed, errors.New("client closed the request"))
	default:
		return h.refuse(w, r, refusal)
	}
}

// refusalOf returns err as a refusal. An error that is none is a fault of ours, and fails closed.
func refusalOf(err error) *apierr.Error {
	if err == nil {
		return nil
	}
	if refusal := (*apierr.Error)(nil); errors.As(err, &refusal) {
		return refusal
	}
	return apierr.New(http.StatusInternalServerError, apierr.Internal, "Something unexpected happened at the edge.").Wrap(err)
}

// report tells the operator about what only an operator can mend. Refusals that a client causes are in the access
// log and the metrics, and only at debug level here.
func (h *Handler) report(x *exchange, refusal *apierr.Error, err error) {
	if err == nil {
		return
	}
	level := zap.DebugLevel
	if refusal.Status >= http.StatusInternalServerError || refusal.Code == apierr.UpstreamRefused {
		level = zap.ErrorLevel
	}
	if errors.Is(err, errRate) {
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

// refuse answers a refused request: with JSON, or by the site's handle_errors, to which the client's
// sentence is given and nothing of the cause.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, refusal *apierr.Error) error {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.tinybird.code", string(refusal.Code))
	}
	if h.Errors == errorsCaddy {
		refusal.SetHeaders(w.Header())
		return caddyhttp.Error(refusal.Status, errors.New(refusal.Message))
	}
	if err := refusal.Write(w); err != nil {
		h.log.Debug("refusal not written", zap.Error(err))
	}
	return nil
}
