package caddytinybird

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// The steps of a request, as events on its span and in the log.
const (
	stepIdentify  = "tinybird.identify"
	stepAuthorize = "tinybird.authorize"
	stepLimit     = "tinybird.limit"
	stepMint      = "tinybird.mint"
	stepBuild     = "tinybird.build"
	stepForward   = "tinybird.forward"
)

// follow finds the span that Caddy's handler `tracing` made for the request. What goes up to Tinybird then has that span for its
// parent, in the W3C's headers whatever others OTEL_PROPAGATORS names. Without a span it has the client's.
func (x *exchange) follow(r *http.Request) {
	span := trace.SpanFromContext(r.Context())
	if !span.SpanContext().IsValid() {
		return
	}
	r.Header.Del("Tracestate") // of a client whose traceparent was not taken
	propagation.TraceContext{}.Inject(r.Context(), propagation.HeaderCarrier(r.Header))
	if span.IsRecording() {
		x.span = span
	}
}

// step takes note of a step that was passed. A refusal comes before the event of its step.
func (x *exchange) step(name string) {
	if x.span != nil {
		x.span.AddEvent(name)
	}
	if x.decision != nil {
		x.decision.passed(name)
	}
}

// minted counts a token, and puts into the trace whether it was there before.
func (x *exchange) minted(cached bool) {
	metrics.minted(cached)
	x.step(stepMint)
	if x.span != nil {
		x.span.SetAttributes(attribute.Bool("tinybird.token_cached", cached))
	}
	if x.decision != nil {
		x.decision.minted, x.decision.cached = true, cached
	}
}

// built counts the parameters that were left out of what goes up. The trace has neither their names nor any value.
func (h *Handler) built(x *exchange, dropped int) {
	if dropped > 0 {
		h.of(x.pipe).dropped().Add(float64(dropped))
	}
	x.step(stepBuild)
	if x.span != nil {
		x.span.SetAttributes(attribute.Int("tinybird.params_dropped", dropped))
	}
	if x.decision != nil {
		x.decision.built = true
	}
}

// ended puts the end of the request into the trace. Who asked is not in it; Caddy's `span_attributes` can add that.
func (x *exchange) ended(code string) {
	if x.span == nil {
		return
	}
	x.span.SetAttributes(attribute.String("tinybird.pipe", x.pipe), attribute.String("tinybird.outcome", code))
	if o := x.outcome; o.Duration != 0 {
		x.span.AddEvent(stepForward)
		x.span.SetAttributes(attribute.Int("tinybird.upstream_status", o.UpstreamStatus),
			attribute.Float64("tinybird.upstream_seconds", o.Duration.Seconds()))
	}
}

// authenticated counts what clerk_auth or the provider decided, and puts it into the trace.
func authenticated(r *http.Request, result string) {
	metrics.auth.of(result).Inc()
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetAttributes(attribute.String("clerk.auth", result))
	}
}

// traceRefusal puts into the trace why clerk_auth refused a request.
func traceRefusal(r *http.Request, refusal *apierr.Error) {
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetAttributes(attribute.String("clerk.outcome", string(refusal.Code)))
	}
}
