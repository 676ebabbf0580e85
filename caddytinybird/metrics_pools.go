package caddytinybird

import (
	"math"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/cachestat"
)

// poolCollector tells, when the metrics are fetched, about what all configs of this process share.
type poolCollector struct{ age, counters, entries, capacity *prometheus.Desc }

func newPoolCollector() *poolCollector {
	return &poolCollector{
		age: prometheus.NewDesc("caddy_clerk_jwks_age_seconds",
			"Time since Clerk last answered with its keys; +Inf if it never has.", []string{"url"}, nil),
		counters: prometheus.NewDesc("caddy_tinybird_counters",
			"Counters of the rate limit that are kept, one for each tenant.", nil, nil),
		entries: prometheus.NewDesc("caddy_tinybird_cache_entries",
			"Entries of a cache, by cache: verified sessions, minted tokens.", []string{"cache"}, nil),
		capacity: prometheus.NewDesc("caddy_tinybird_cache_capacity",
			"Entries that a cache holds at most, by cache.", []string{"cache"}, nil),
	}
}

// Describe names the metrics.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.age
	ch <- c.counters
	ch <- c.entries
	ch <- c.capacity
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
	for cache, pool := range map[string]*caddy.UsagePool{"sessions": verifiers, "tokens": minters} {
		entries, capacity := remembered(pool)
		ch <- prometheus.MustNewConstMetric(c.entries, prometheus.GaugeValue, float64(entries), cache)
		ch <- prometheus.MustNewConstMetric(c.capacity, prometheus.GaugeValue, float64(capacity), cache)
	}
}

// remembered is how much the caches of a pool hold together, and can hold.
func remembered(pool *caddy.UsagePool) (entries, capacity int) {
	pool.Range(func(_, value any) bool {
		if c, ok := value.(interface{ CacheStats() cachestat.Stats }); ok {
			stats := c.CacheStats()
			entries += stats.Size
			capacity += stats.Max
		}
		return true
	})
	return entries, capacity
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
