// Package caddytinybird makes this module's root importable, so that `xcaddy build --with` takes the module
// path as it is and Caddy's download and documentation pages list the modules. Everything is in the
// package of the same name below it.
package caddytinybird

import (
	// The Caddy modules of this project.
	_ "github.com/seed-32cb3e43/caddy-tinybird/caddytinybird"
)
