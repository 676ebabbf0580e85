package caddytinybird

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/tracing"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

func init() {
	autoexport.RegisterSpanExporter("memory", func(context.Context) (sdktrace.SpanExporter, error) { return spans, nil })
}

// spanMemory keeps what Caddy's tracing exports.
type spanMemory struct {
	mu    sync.Mutex
	ended tracetest.SpanStubs
}

var spans = new(spanMemory)

func (m *spanMemory) ExportSpans(_ context.Context, ended []sdktrace.ReadOnlySpan) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = append(m.ended, tracetest.SpanStubsFromReadOnlySpans(ended)...)
	return nil
}

func (*spanMemory) Shutdown(context.Context) error { return nil }

// await returns the spans of a name once there are n.
func (m *spanMemory) await(t *testing.T, name string, n int) tracetest.SpanStubs {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		m.mu.Lock()
		found := slices.DeleteFunc(slices.Clone(m.ended), func(s tracetest.SpanStub) bool { return s.Name != name })
		m.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d spans %s, want %d", len(found), name, n)
		}
	}
}

func attributesOf(s tracetest.SpanStub) map[string]string {
	found := make(map[string]string)
	for _, a := range s.Attributes {
		found[string(a.Key)] = a.Value.String()
	}
	return found
}

func stepsOf(s tracetest.SpanStub) string {
	var steps []string
	for _, e := range s.Events {
		steps = append(steps, strings.TrimPrefix(e.Name, "tinybird."))
	}
	return strings.Join(steps, " ")
}

// tracedLines is a site with Caddy's `tracing`, as the documentation has it, before a tinybird.
func tracedLines(t *testing.T, stack *devstack.Stack, name, more string) string {
	t.Helper()
	block, ok := strings.CutPrefix(documented(t, "monitoring.md", "span_attributes"), "# snippet: site\n")
	if !ok || !strings.Contains(block, "span analytics") {
		t.Fatal("the documentation has no site with a span analytics")
	}
	block, _, _ = strings.Cut(block, "tinybird {")
	return strings.Replace(block, "span analytics", "span "+name, 1) + `
		tinybird {
			clerk {
				publishable_key {pk}
				issuer {issuer}
			}
			signing_key ` + secretFile(t, stack.API.SigningKey()) + `
			workspace_id ` + stack.API.WorkspaceID() + `
			upstream ` + stack.APIURL + `
			token_endpoint ` + endpoint + `
			fixed_param organization_id {clerk.org.id}
			pipe live_events top_pages
			pipe sales_by_day {
				rate_limit 1 burst 1
			}
			` + more + `
		}`
}

// newTracedSite serves a site whose spans are kept.
func newTracedSite(t *testing.T, stack *devstack.Stack, lines string) *site {
	t.Helper()
	t.Setenv("OTEL_TRACES_EXPORTER", "memory")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	s := newSite(t, stack, lines)
	for _, module := range s.tracings() {
		cleanUpModule(t, module)
	}
	return s
}

// tracings are the handlers `tracing` of the site. All of a process export by one provider, which ends with the last of them.
func (s *site) tracings() []*tracing.Tracing {
	var found []*tracing.Tracing
	var look func(routes caddyhttp.RouteList)
	look = func(routes caddyhttp.RouteList) {
		for _, route := range routes {
			for _, handler := range route.Handlers {
				switch h := handler.(type) {
				case *tracing.Tracing:
					found = append(found, h)
				case *caddyhttp.Subroute:
					look(h.Routes)
				}
			}
		}
	}
	look(s.server.Routes)
	return found
}

// TestTracesTellTheSteps: in Caddy's span of a request are the steps that it passed and how it ended, for answers and refusals. It runs
// alone, because OpenTelemetry is configured by the environment.
//
//nolint:paralleltest // see above
func TestTracesTellTheSteps(t *testing.T) {
	stack := newLiveStack(t)
	s := newTracedSite(t, stack, tracedLines(t, stack, "steps", ""))
	ada := s.as(t, "ada")
	cases := []struct {
		target string
		change func(*http.Request)
		steps  string
		attrs  map[string]string
	}{
		{"/v0/pipes/live_events.json?token=x&days=7", ada, "identify authorize limit mint build forward", map[string]string{
			"tinybird.pipe": "live_events", "tinybird.outcome": "ok", "tinybird.token_cached": "false", "tinybird.params_dropped": "1",
			"tinybird.upstream_status": "200", "tenant": devstack.AcmeID,
		}},
		{"/v0/pipes/live_events.json", ada, "identify authorize limit mint build forward", map[string]string{
			"tinybird.outcome": "ok", "tinybird.token_cached": "true", "tinybird.params_dropped": "0",
		}},
		{"/v0/pipes/unlisted.json", ada, "identify", map[string]string{"tinybird.pipe": "_other", "tinybird.outcome": "not_found", "tenant": devstack.AcmeID}},
		{"/v0/pipes/live_events.json", nil, "", map[string]string{"tinybird.pipe": "live_events", "tinybird.outcome": "token_missing", "tenant": ""}},
		{"/v0/pipes/live_events.json", s.as(t, "dana"), "identify", map[string]string{"tinybird.outcome": "tenant_missing"}},
		{"/v0/pipes/live_events.json?a=%zz", ada, "identify authorize limit mint", map[string]string{"tinybird.outcome": "bad_query"}},
		{endpoint, ada, "identify authorize limit mint", map[string]string{"tinybird.pipe": "_token", "tinybird.outcome": "ok"}},
		{"/elsewhere", ada, "", map[string]string{"tinybird.pipe": "_other", "tinybird.outcome": "not_found"}},
	}
	for n, c := range cases {
		s.ask(t, c.target, c.change)
		span := spans.await(t, "steps", n+1)[n]
		if got := stepsOf(span); got != c.steps {
			t.Errorf("%s: steps %q, want %q", c.target, got, c.steps)
		}
		attrs := attributesOf(span)
		for name, want := range c.attrs {
			if got := attrs[name]; got != want {
				t.Errorf("%s: %s is %q, want %q", c.target, name, got, want)
			}
		}
	}
	if seconds := attributesOf(spans.await(t, "steps", 1)[0])["tinybird.upstream_seconds"]; seconds == "" || seconds == "0" {
		t.Errorf("the upstream took %q seconds", seconds)
	}
}

// TestTraceOfTinybirdAway: what was not answered is in the trace, too.
//
//nolint:paralleltest // as above
func TestTraceOfTinybirdAway(t *testing.T) {
	stack := newLiveStack(t)
	s := newTracedSite(t, stack, tracedLines(t, stack, "away", ""))
	for n, fault := range []devstack.Fault{{Stop: devstack.DropBeforeHeader}, {Status: http.StatusForbidden}, {Status: http.StatusTooManyRequests}} {
		stack.API.Fail(func(*http.Request) *devstack.Fault { return &fault })
		s.ask(t, "/v0/pipes/live_events.json", s.as(t, "ada"))
		attrs := attributesOf(spans.await(t, "away", n+1)[n])
		want := []string{"upstream_unreachable 0", "upstream_refused 403", "rate_limited 429"}[n]
		if got := attrs["tinybird.outcome"] + " " + attrs["tinybird.upstream_status"]; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestTraceContextGoesUp: Tinybird is told that Caddy's span is the parent of what it does, whatever the client says and
// whatever format other services are told it in. Without Caddy's tracing it is told what the client says.
//
//nolint:paralleltest // as above
func TestTraceContextGoesUp(t *testing.T) {
	const theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	client := func(parent string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Traceparent", parent)
			r.Header.Set("Tracestate", "vendor=theirs")
			r.Header.Set("Baggage", "secret=planted")
			r.Header.Set("B3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1")
		}
	}
	for _, c := range []struct{ name, propagators, sampler, parent string }{
		{"inherited", "tracecontext,baggage", "parentbased_always_on", theirs},
		{"begun", "tracecontext,baggage", "parentbased_always_on", "nonsense"},
		{"other_format", "b3", "parentbased_always_on", theirs},
		{"not_sampled", "b3", "always_off", theirs},
	} {
		t.Setenv("OTEL_PROPAGATORS", c.propagators)
		t.Setenv("OTEL_TRACES_SAMPLER", c.sampler)
		stack := newLiveStack(t)
		s := newTracedSite(t, stack, tracedLines(t, stack, "up_"+c.name, ""))
		if got := s.ask(t, "/v0/pipes/live_events.json", all(s.as(t, "ada"), client(c.parent))); got.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d: %s", c.name, got.StatusCode, got.body)
		}
		up := stack.API.Requests()[0].Header
		parent := up.Get("Traceparent")
		fields := strings.Split(parent, "-")
		if len(fields) != 4 || parent == theirs {
			t.Fatalf("%s: parent %q", c.name, parent)
		}
		switch c.name {
		case "not_sampled":
			if fields[3] != "00" {
				t.Errorf("%s: parent %q", c.name, parent)
			}
		default:
			span := spans.await(t, "up_"+c.name, 1)[0]
			if fields[1] != span.SpanContext.TraceID().String() || fields[2] != span.SpanContext.SpanID().String() || fields[3] != "01" {
				t.Errorf("%s: parent %q is not Caddy's span %s-%s", c.name, parent, span.SpanContext.TraceID(), span.SpanContext.SpanID())
			}
		}
		if inherits := strings.Contains(parent, "0af7651916cd43dd8448eb211c80319c"); inherits != (c.name == "inherited" || c.propagators == "b3") {
			t.Errorf("%s: parent %q", c.name, parent)
		}
		if state := up.Get("Tracestate"); (state != "") != (c.name == "inherited") {
			t.Errorf("%s: state %q", c.name, state)
		}
		for _, name := range []string{"Baggage", "B3", "X-B3-Traceid"} {
			if up.Get(name) != "" {
				t.Errorf("%s: %s went up", c.name, name)
			}
		}
		// The next one is to begin with the environment that is set then.
		for _, module := range s.tracings() {
			if err := module.Cleanup(); err != nil {
				t.Error(err)
			}
		}
	}

	stack := newLiveStack(t)
	e := newEdge(t, stack, nil)
	r := e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", nil)
	client(theirs)(r)
	e.do(t, r)
	if up := stack.API.Requests()[0].Header; up.Get("Traceparent") != theirs || up.Get("Tracestate") != "vendor=theirs" || up.Get("Baggage") != "" {
		t.Errorf("without tracing: %v", up)
	}
}

// TestP4TracesHoldNoSecret: neither a token, nor a parameter that a client sends, nor who asks is in what is exported.
//
//nolint:paralleltest // as above
func TestP4TracesHoldNoSecret(t *testing.T) {
	stack := newLiveStack(t)
	lines := strings.Replace(tracedLines(t, stack, "secrets", ""), "tenant {clerk.org.id}", "region eu", 1)
	s := newTracedSite(t, stack, lines)
	tokens := []string{stack.API.SigningKey()}
	requests := 0
	ask := func(target string, opts ...devstack.TokenOption) {
		token, err := stack.Issuer.Token("ada", opts...)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
		s.ask(t, target, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
		requests++
	}
	ask("/v0/pipes/live_events.json?token=planted-in-query&days=planted-value")
	ask("/v0/pipes/live_events.json", devstack.ForeignKey())
	ask("/v0/pipes/live_events.json", devstack.Claim("team_id", "planted-claim"))
	ask(endpoint)
	s.send(t, http.MethodPost, "/v0/pipes/live_events.json", []byte(`{"token":"planted-in-body","days":"planted-value"}`), all(s.as(t, "ada"), func(r *http.Request) {
		r.Header.Set("Content-Type", "application/json")
	}))
	requests++
	for _, up := range stack.API.Requests() {
		tokens = append(tokens, up.Tokens...)
	}
	all := spans.await(t, "secrets", requests)
	var text strings.Builder
	for _, span := range all {
		fmt.Fprintln(&text, stepsOf(span), span.Status, attributesOf(span))
		for _, e := range span.Events {
			fmt.Fprintln(&text, e.Attributes)
		}
	}
	u, _ := devstack.UserByKey("ada")
	for _, secret := range append(tokens, "planted", "eyJ", devstack.AcmeID, u.ID) {
		if strings.Contains(text.String(), secret) {
			t.Errorf("%q is in the traces:\n%s", secret, text.String())
		}
	}
	if !strings.Contains(text.String(), "tinybird.outcome:ok") || !strings.Contains(text.String(), "region:eu") {
		t.Errorf("nothing was traced, so the test shows nothing: %s", text.String())
	}
}

// TestTraceOfClerkAuth: what clerk_auth decided is in the trace.
//
//nolint:paralleltest // as above
func TestTraceOfClerkAuth(t *testing.T) {
	s := newTracedSite(t, newLiveStack(t), "tracing {\n\tspan guarded\n}\n"+auth+"respond ok")
	for n, c := range []struct {
		change func(*http.Request)
		want   string
	}{
		{s.as(t, "ada"), "signed_in "},
		{nil, "refused token_missing"},
		{asDocument, "redirected "},
		{s.as(t, "ada", devstack.Expired()), "refused token_expired"},
	} {
		s.ask(t, "/", c.change)
		attrs := attributesOf(spans.await(t, "guarded", n+1)[n])
		if got := attrs["clerk.auth"] + " " + attrs["clerk.outcome"]; got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
