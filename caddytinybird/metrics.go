package caddytinybird

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
)

// collectors are built once for the process, so that counters survive reloads, and registered with each
// config's registry. Labels are bounded: results, codes, and pipes that a config lists.
type collectors struct {
	verifications *prometheus.CounterVec
	refreshes     *prometheus.CounterVec
	auth          *prometheus.CounterVec
	replaced      *prometheus.CounterVec
	requests      *prometheus.CounterVec
	tokens        *prometheus.CounterVec
	limited       *prometheus.CounterVec
	dropped       *prometheus.CounterVec
	upstream      *prometheus.HistogramVec
	eventRows     *prometheus.CounterVec
	decisions     *prometheus.CounterVec
	stores        storeCollector

	byStore, byEdge prometheus.Counter // of decisions
}

var metrics = newCollectors()

func newCollectors() *collectors {
	counter := func(subsystem, name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "caddy", Subsystem: subsystem, Name: name, Help: help,
		}, labels)
	}
	c := &collectors{
		verifications: counter("clerk", "verifications_total", "Session tokens looked at, by result.", "result"),
		refreshes:     counter("clerk", "jwks_refreshes_total", "Attempts to load Clerk's keys, by result.", "result"),
		auth:          counter("clerk", "auth_total", "Requests that clerk_auth or the provider clerk decided about, by result.", "result"),
		replaced:      counter("clerk", "sessions_replaced_total", "Handshakes that ended the valid session of another user."),
		requests:      counter("tinybird", "requests_total", "Requests for a pipe, by pipe and code.", "pipe", "code"),
		tokens:        counter("tinybird", "tokens_total", "Tinybird tokens used, minted or cached.", "result"),
		limited:       counter("tinybird", "rate_limited_total", "Requests refused by the edge's own limit.", "pipe"),
		eventRows:     counter("tinybird", "event_rows_total", "Rows that clients sent, by result.", "result"),
		decisions:     counter("tinybird", "shared_limit_decisions_total", "Requests counted under a shared rate limit, by who decided.", "by"),
		stores: storeCollector{prometheus.NewDesc(prometheus.BuildFQName("caddy", "tinybird", "shared_limit_up"),
			"Whether the store of shared rate limits is in use (1) or this edge counts for itself (0).", []string{"store"}, nil)},
		dropped: counter("tinybird", "params_dropped_total", "Client parameters that were not let through.", "pipe"),
		upstream: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "caddy", Subsystem: "tinybird", Name: "upstream_seconds",
			Help:    "Time from asking Tinybird to the headers of its answer.",
			Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
		}, []string{"pipe", "status_class"}),
	}
	c.byStore, c.byEdge = c.decisions.WithLabelValues("store"), c.decisions.WithLabelValues("edge")
	return c
}

// register makes the collectors part of the config's registry. Two handlers in one config register the
// same collectors; the second time is no error.
func (c *collectors) register(ctx caddy.Context) {
	registry := ctx.GetMetricsRegistry()
	for _, collector := range []prometheus.Collector{
		c.verifications, c.refreshes, c.auth, c.replaced, c.requests, c.tokens, c.limited, c.dropped, c.upstream, c.eventRows,
		c.decisions, c.stores,
	} {
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
	c.verifications.WithLabelValues(code).Inc()
}

func (c *collectors) refreshed(result string) { c.refreshes.WithLabelValues(result).Inc() }

// rows counts what became of the rows of one body.
func (c *collectors) rows(r ingest.Result) {
	c.eventRows.WithLabelValues("accepted").Add(float64(r.Successful))
	c.eventRows.WithLabelValues("quarantined").Add(float64(r.Quarantined))
	c.eventRows.WithLabelValues("unknown").Add(float64(r.Unknown))
	c.eventRows.WithLabelValues("refused").Add(float64(r.Refused()))
}

func (c *collectors) minted(cached bool) {
	result := "minted"
	if cached {
		result = "cached"
	}
	c.tokens.WithLabelValues(result).Inc()
}

// counted counts a decision under a shared limit.
func (c *collectors) counted(byStore bool) {
	if byStore {
		c.byStore.Inc()
		return
	}
	c.byEdge.Inc()
}

// storeCollector tells which stores of shared limits there are at the moment, and whether they are in use.
type storeCollector struct{ up *prometheus.Desc }

// Describe implements prometheus.Collector.
func (c storeCollector) Describe(to chan<- *prometheus.Desc) { to <- c.up }

// Collect implements prometheus.Collector. Stores at one address, with different settings, are one: it is up if all are.
func (c storeCollector) Collect(to chan<- prometheus.Metric) {
	up := make(map[string]float64)
	sharedStores.Range(func(_, value any) bool {
		if s, ok := value.(*sharedStore); ok {
			if before, known := up[s.host]; !known || before != 0 {
				up[s.host] = s.up()
			}
		}
		return true
	})
	for host, value := range up {
		to <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, value, host)
	}
}

func (c *collectors) answered(pipe string, status int, d time.Duration) {
	class := "none"
	if status >= 100 && status < 600 {
		class = string(rune('0'+status/100)) + "xx"
	}
	c.upstream.WithLabelValues(pipe, class).Observe(d.Seconds())
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

func (c *collectors) authenticated(result string) { c.auth.WithLabelValues(result).Inc() }
