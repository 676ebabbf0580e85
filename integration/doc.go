// Package integration tests the built binary: Caddy as a process with a real Caddyfile, between clients of every kind
// and the stand-ins for Clerk and Tinybird, over real connections. The tests are behind the build tag
// integration; `make integration` runs them.
package integration
