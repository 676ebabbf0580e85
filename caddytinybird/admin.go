package caddytinybird

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI answers `GET /tinybird/status` at Caddy's admin endpoint: how the keys, the caches and the limits of the running
// config do, and what it lets whom read. No secret, no token and no value of a fixed parameter is in it. It needs no
// configuration.
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.tinybird",
		New: func() caddy.Module { return new(AdminAPI) },
	}
}

// Provision makes the metrics of a running config part of the new one's. If that is rejected, Caddy goes on with the old one and
// shows the metrics of the new one all the same.
func (*AdminAPI) Provision(ctx caddy.Context) error {
	if anyListed() {
		metrics.register(ctx)
	}
	return nil
}

// Routes names what is served.
func (a *AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/tinybird/status", Handler: caddy.AdminHandlerFunc(a.serveStatus)}}
}

func (*AdminAPI) serveStatus(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("method not allowed; use GET")}
	}
	text, err := json.MarshalIndent(statusOf(caddy.ActiveContext()), "", "\t")
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	// That the client is gone by now changes nothing.
	_, _ = w.Write(append(text, '\n'))
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner = (*AdminAPI)(nil)
	_ caddy.AdminRouter = (*AdminAPI)(nil)
)
