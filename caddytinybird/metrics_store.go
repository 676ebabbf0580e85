package caddytinybird

import "github.com/prometheus/client_golang/prometheus"

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

func newStoreCollector() storeCollector {
	return storeCollector{prometheus.NewDesc("caddy_tinybird_shared_limit_up",
		"Whether the store of shared rate limits is in use (1) or this edge counts for itself (0).", []string{"store"}, nil)}
}

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
