package caddytinybird

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// poolCollector tells, when the metrics are fetched, about what all configs of this process share.
type poolCollector struct {
	age, counters, evicted *prometheus.Desc

	mu   sync.Mutex
	most uint64 // counters evicted, as last told
}

// evictedBefore is how many counters the limiters evicted that no config uses any more.
var evictedBefore atomic.Uint64

func newPoolCollector() *poolCollector {
	return &poolCollector{
		age: prometheus.NewDesc("caddy_clerk_jwks_age_seconds",
			"Time since Clerk last answered with its keys; +Inf if it never has.", []string{"url"}, nil),
		counters: prometheus.NewDesc("caddy_tinybird_limit_counters",
			"Counters of the rate limit that are kept, one for each tenant.", nil, nil),
		evicted: prometheus.NewDesc("caddy_tinybird_limit_counters_evicted_total",
			"Counters of the rate limit that had to go while they still held requests back.", nil, nil),
	}
}

// Describe names the metrics.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.age
	ch <- c.counters
	ch <- c.evicted
}

// Collect looks into the pools.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	for url, age := range keyAges(time.Now()) {
		ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, age, url)
	}
	counters, evicted := 0, evictedBefore.Load()
	limiters.Range(func(_, value any) bool {
		if l, ok := value.(*pooledLimiter); ok {
			counters += l.Len()
			evicted += l.Evicted()
		}
		return true
	})
	ch <- prometheus.MustNewConstMetric(c.counters, prometheus.GaugeValue, float64(counters))
	ch <- prometheus.MustNewConstMetric(c.evicted, prometheus.CounterValue, float64(c.neverLess(evicted)))
}

// neverLess keeps a counter from falling while a limiter is between the pool and evictedBefore.
func (c *poolCollector) neverLess(evicted uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = max(c.most, evicted)
	return c.most
}

// keyAges is the age of the keys from each address, in seconds. Where two sets have the same address, it is that of the older.
func keyAges(now time.Time) map[string]float64 {
	ages := make(map[string]float64)
	keySets.Range(func(_, value any) bool {
		s, ok := value.(*keySet)
		if !ok {
			return true
		}
		st := s.Status()
		age := math.Inf(1)
		if !st.Fetched.IsZero() {
			age = max(now.Sub(st.Fetched).Seconds(), 0)
		}
		ages[st.URL] = max(ages[st.URL], age)
		return true
	})
	return ages
}

// Interface guard.
var _ prometheus.Collector = (*poolCollector)(nil)
