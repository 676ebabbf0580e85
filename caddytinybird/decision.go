package caddytinybird

import (
	"context"
	"math"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// decisionMessage is the line on each request, at debug level.
const decisionMessage = "request decided"

// What there is to the time after the last step that was passed.
const (
	stepRefuse = "refuse"
	stepAnswer = "answer"
)

// decision is how one request came to its end, for the log. There is one only while the handler logs at debug level: otherwise
// no clock is read.
type decision struct {
	last   time.Time // when the last step was passed
	total  time.Duration
	steps  stepTimes
	grant  *tinybird.Grant // nil until a pipe was granted
	params tinybird.Noted
	rate   ratelimit.Result // counts with a limit that is not zero
	minted bool
	cached bool // the token that was minted
	built  bool
}

// stepTimes are the steps in their order, with the time that each took.
type stepTimes []stepTime

type stepTime struct {
	name string
	took time.Duration
}

// newDecision returns nil unless it would be logged.
func (h *Handler) newDecision() *decision {
	if !h.log.Core().Enabled(zap.DebugLevel) {
		return nil
	}
	return &decision{last: time.Now(), steps: make(stepTimes, 0, 7)}
}

func (d *decision) passed(step string) {
	now := time.Now()
	took := now.Sub(d.last)
	d.last, d.total = now, d.total+took
	d.steps = append(d.steps, stepTime{strings.TrimPrefix(step, "tinybird."), took})
}

// granted takes note of what the request may ask.
func (x *exchange) granted(g *tinybird.Grant) {
	x.step(stepAuthorize)
	if x.decision != nil {
		x.decision.grant = g
		g.Note(&x.decision.params)
	}
}

// counted takes note of what is left of the tenant's limit.
func (x *exchange) counted(result ratelimit.Result) {
	if x.decision != nil {
		x.decision.rate = result
	}
}

// ended takes note of the time since the last step.
func (d *decision) ended(asked, refused bool) {
	switch {
	case asked:
		d.passed(stepForward)
	case refused:
		d.passed(stepRefuse)
	default:
		d.passed(stepAnswer)
	}
}

// tellDecision logs how the request came to its end. No token and no value of a parameter is told.
func (h *Handler) tellDecision(r *http.Request, x *exchange, code string, refusal *apierr.Error) {
	d := x.decision
	if d == nil {
		return
	}
	d.ended(x.outcome.Duration != 0, refusal != nil)
	c := h.log.Check(zap.DebugLevel, decisionMessage)
	if c == nil {
		return
	}
	fields := make([]zap.Field, 0, 20)
	if id := traceID(r); id.IsValid() {
		fields = append(fields, zap.Stringer("trace_id", id))
	}
	if x.identity != nil {
		fields = append(fields, zap.String("clerk_user", x.identity.UserID), zap.String("clerk_org", x.identity.OrgID))
	}
	fields = append(fields, zap.String("pipe", x.pipe), zap.String("code", code))
	if status := answerStatus(x, code, refusal); status != 0 {
		fields = append(fields, zap.Int("status", status))
	}
	fields = d.parameters(fields)
	fields = d.limit(fields)
	if d.minted {
		fields = append(fields, zap.Bool("token_cached", d.cached))
	}
	if x.cache != "" {
		fields = append(fields, zap.String("cache", x.cache))
	}
	fields = append(fields, zap.Object("steps_us", d.steps), zap.Float64("total_us", microseconds(d.total)))
	c.Write(fields...)
}

// answerStatus is the status of the answer, 0 where only who writes it knows.
func answerStatus(x *exchange, code string, refusal *apierr.Error) int {
	switch {
	case refusal == nil:
		return x.outcome.UpstreamStatus
	case code == string(refusal.Code):
		return refusal.Status
	default:
		return 0
	}
}

// parameters are the names of those that the edge fixed, and of those of the client that went up and that did not. Until the question
// for Tinybird is written it is open what becomes of the client's.
func (d *decision) parameters(fields []zap.Field) []zap.Field {
	if d.grant == nil {
		return fields
	}
	fixed := make([]string, 0, len(d.grant.Fixed))
	for _, f := range d.grant.Fixed {
		fixed = append(fixed, f.Name)
	}
	fields = append(fields, zap.Strings("params_fixed", fixed))
	if !d.built {
		return fields
	}
	return append(fields, zap.Strings("params_taken", d.params.Taken), zap.Strings("params_dropped", d.params.Dropped))
}

func (d *decision) limit(fields []zap.Field) []zap.Field {
	if d.rate.Limit.RPS == 0 {
		return fields
	}
	fields = append(fields, zap.Int("rate_limit", d.rate.Limit.RPS), zap.Int("rate_remaining", d.rate.Remaining))
	if !d.rate.Allowed {
		fields = append(fields, zap.Int("retry_after_seconds", retryAfter(d.rate)))
	}
	return fields
}

// traceID is that of Caddy's span or, without one, of the client's: what Tinybird is sent.
func traceID(r *http.Request) trace.TraceID {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(r.Header))
	return trace.SpanContextFromContext(ctx).TraceID()
}

// MarshalLogObject writes the steps by their names, in their order.
func (s stepTimes) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, step := range s {
		enc.AddFloat64(step.name, microseconds(step.took))
	}
	return nil
}

// microseconds has one digit after the point.
func microseconds(d time.Duration) float64 {
	return math.Round(float64(d)/100) / 10
}
