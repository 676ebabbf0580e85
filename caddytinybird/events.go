package caddytinybird

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// trackingPath is where the tracker sends rows through a proxy.
const trackingPath = "/api/tracking"

func (h *Handler) serveEvents(http.ResponseWriter, *http.Request, *exchange) error {
	return errors.New("not built")
}

func parseEvents(p *handlerParser, d *caddyfile.Dispenser) error { return d.Err("not built") }
