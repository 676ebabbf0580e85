// The check of the Grafana dashboard has a module of its own: Grafana's types stay out of the plugin's go.mod and go.sum.
module github.com/seed-32cb3e43/caddy-tinybird/tools/grafana

go 1.26.0

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
