// Package grafana holds the dashboard in ops/grafana to Grafana's own schema. There is nothing in it but that test.
package grafana
