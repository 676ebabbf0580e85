// What makes docs/licences.md has a module of its own, as every tool: the plugin's go.mod stays as it is.
module github.com/seed-32cb3e43/caddy-tinybird/tools/licences

go 1.26.0

require github.com/google/licensecheck v0.3.1
