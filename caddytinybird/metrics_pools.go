package caddytinybird

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// poolCollector tells, when the metrics are fetched, about what all configs of this process share.
type poolCollector struct{ age, counters *prometheus.Desc }

func newPoolCollector() *poolCollector {
	return &poolCollector{
		age: prometheus.NewDesc("caddy_clerk_jwks_age_seconds",
			"Time since Clerk last answered with its keys; +Inf if it never has.", []string{"url"}, nil),
		counters: prometheus.NewDesc("caddy_tinybird_counters",
			"Counters of the rate limit that are kept, one for each tenant.", nil, nil),
	}
}

// Describe names the metrics.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.age
	ch <- c.counters
}

// Collect looks into the pools.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	for url, age := range keyAges(time.Now()) {
		ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, age, url)
	}
	counters := 0
	limiters.Range(func(_, value any) bool {
		if l, ok := value.(*pooledLimiter); ok {
			counters += l.Len()
		}
		return true
	})
	ch <- prometheus.MustNewConstMetric(c.counters, prometheus.GaugeValue, float64(counters))
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
