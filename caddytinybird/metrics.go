package caddytinybird

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
)

// labelPipe is the label of what is counted by pipe.
const labelPipe = "pipe"

// collectors are built once for the process, so that counters survive reloads, and registered with each
// config's registry. Labels are bounded: results, codes, addresses of keys, and pipes that a config lists.
type collectors struct {
	all []prometheus.Collector

	verifications *series[prometheus.Counter]
	refreshes     *series[prometheus.Counter]
	unsaved       prometheus.Counter // failures of Caddy's storage with Clerk's keys
	auth          *series[prometheus.Counter]
	replaced      prometheus.Counter
	evicted       prometheus.Counter
	byStore       prometheus.Counter // decisions under a shared limit
	byEdge        prometheus.Counter
	tokens        *series[prometheus.Counter]
	eventRows     *series[prometheus.Counter]

	requests *prometheus.CounterVec
	limited  *prometheus.CounterVec
	refused  *prometheus.CounterVec // by Tinybird's own limit
	busy     *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	upstream *prometheus.HistogramVec
	cache    *prometheus.CounterVec

	mu    sync.Mutex
	pipes map[string]*pipeSeries // those of a config, and those that stand for no pipe
}

var metrics = newCollectors()

func newCollectors() *collectors {
	c := &collectors{pipes: make(map[string]*pipeSeries)}
	counter := func(subsystem, name, help string, labels ...string) *prometheus.CounterVec {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "caddy", Subsystem: subsystem, Name: name, Help: help,
		}, labels)
		c.all = append(c.all, vec)
		return vec
	}
	results := func(subsystem, name, help string, known ...string) *series[prometheus.Counter] {
		vec := counter(subsystem, name, help, "result")
		return newSeries(func(result string) prometheus.Counter { return vec.WithLabelValues(result) }, known...)
	}
	c.verifications = results("clerk", "verifications_total", "Session tokens looked at, by result.", "ok")
	c.refreshes = results("clerk", "jwks_refreshes_total", "Attempts to load Clerk's keys, by result.", "ok", "failed")
	c.unsaved = counter("clerk", "jwks_storage_failures_total", "Times that Clerk's keys could not be read from Caddy's storage or saved there.").WithLabelValues()
	c.auth = results("clerk", "auth_total", "Requests that clerk_auth or the provider clerk decided about, by result.",
		authSignedIn, authSignedOut, authHandshake, authRedirected, authRefused, authUnavailable)
	c.replaced = counter("clerk", "sessions_replaced_total", "Handshakes that ended the valid session of another user.").WithLabelValues()
	c.tokens = results("tinybird", "tokens_total", "Tinybird tokens used, minted or cached.", "minted", "cached")
	c.eventRows = results("tinybird", "event_rows_total", "Rows that clients sent, by result.",
		"accepted", "quarantined", "unknown", "refused")
	c.requests = counter("tinybird", "requests_total", "Requests for a pipe, by pipe and code.", labelPipe, "code")
	c.limited = counter("tinybird", "rate_limited_total", "Requests refused by the edge's own limit.", labelPipe)
	c.refused = counter("tinybird", "upstream_rate_limited_total", "Answers with which Tinybird refused a request by a limit of its own.", labelPipe)
	c.busy = counter("tinybird", "concurrency_limited_total", "Requests refused because as many as concurrency allows were under way.", labelPipe)
	c.evicted = counter("tinybird", "counters_evicted_total", "Counters of tenants that had to go while they still counted something.").WithLabelValues()
	decisions := counter("tinybird", "shared_limit_decisions_total", "Requests counted under a shared rate limit, by who decided.", "by")
	c.byStore, c.byEdge = decisions.WithLabelValues("store"), decisions.WithLabelValues("edge")
	c.cache = counter("tinybird", "cache_total", "Requests for a pipe with a cache, by result.", labelPipe, "result")
	c.dropped = counter("tinybird", "params_dropped_total", "Client parameters that were not let through.", labelPipe)
	c.upstream = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "tinybird", Name: "upstream_seconds",
		Help:    "Time from asking Tinybird to the headers of its answer, or to giving up.",
		Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
	}, []string{labelPipe, "status_class"})
	c.all = append(c.all, c.upstream, newPoolCollector(), newStoreCollector())
	for _, name := range noPipes {
		c.pipe(name).users++ // they stay
	}
	for _, name := range []string{eventsPipe, tokenPipe} { // what is limited like a pipe
		c.pipe(name).beginLimits()
	}
	return c
}

// register makes the collectors part of the config's registry. Two handlers in one config register the
// same collectors; the second time is no error.
func (c *collectors) register(ctx caddy.Context) {
	registry := ctx.GetMetricsRegistry()
	for _, collector := range c.all {
		err := registry.Register(collector)
		if already := (prometheus.AlreadyRegisteredError{}); err != nil && !errors.As(err, &already) {
			ctx.Logger().Error("a metric could not be registered: " + err.Error())
		}
	}
}

func (c *collectors) verified(code string) {
	if code == "" {
		code = "ok"
	}
	c.verifications.of(code).Inc()
}

func (c *collectors) refreshed(err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	c.refreshes.of(result).Inc()
}

// rows counts what became of the rows of one body.
func (c *collectors) rows(r ingest.Result) {
	c.eventRows.of("accepted").Add(float64(r.Successful))
	c.eventRows.of("quarantined").Add(float64(r.Quarantined))
	c.eventRows.of("unknown").Add(float64(r.Unknown))
	c.eventRows.of("refused").Add(float64(r.Refused()))
}

func (c *collectors) minted(cached bool) {
	result := "minted"
	if cached {
		result = "cached"
	}
	c.tokens.of(result).Inc()
}

// statusClass names the class of a status; 0 is that no answer came.
func statusClass(status int) string {
	if class := status / 100; class >= 1 && class <= 5 {
		return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[class-1]
	}
	return "none"
}

// answered counts an answer of Tinybird, or that none came.
func (p *pipeSeries) answered(status int, d time.Duration) {
	p.upstream.of(statusClass(status)).Observe(d.Seconds())
	if status == http.StatusTooManyRequests {
		p.refused().Inc()
	}
}

// The results of authentication.
const (
	authSignedIn    = "signed_in"
	authSignedOut   = "signed_out"  // let through without a session
	authHandshake   = "handshake"   // sent to Clerk, or to itself after that
	authRedirected  = "redirected"  // sent to sign in
	authRefused     = "refused"     // 400, 401, 403
	authUnavailable = "unavailable" // 5xx
)
