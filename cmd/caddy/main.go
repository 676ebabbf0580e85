// Command caddy is Caddy with its standard modules and caddy-tinybird. Besides Caddy's own commands it has
// `demo`, which shows the whole product on loopback with no account.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	// The standard modules of Caddy.
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	// This plugin.
	_ "github.com/seed-32cb3e43/caddy-tinybird"
)

func main() {
	caddycmd.Main()
}
