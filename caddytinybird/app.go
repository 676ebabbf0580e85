package caddytinybird

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(App{})
}

// App holds the Clerk settings of the global option `clerk`, the default of every `tinybird` and `clerk_auth` that
// has none of its own. All of them share one verifier, so a session is verified once.
type App struct {
	Clerk
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "clerk",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision prepares the verifier.
func (a *App) Provision(ctx caddy.Context) error {
	metrics.register(ctx)
	return hideSecret(a.provision(ctx))
}

// Start does nothing: the verifier works from the moment it is provisioned.
func (a *App) Start() error { return nil }

// Stop does nothing: requests of the old config may still be running.
func (a *App) Stop() error { return nil }

// Cleanup releases the key sets.
func (a *App) Cleanup() error { return a.cleanup() }

// globalClerk returns the settings of the global option `clerk`, provisioned, or nil if there is none.
func globalClerk(ctx caddy.Context) (*Clerk, error) {
	app, err := ctx.AppIfConfigured("clerk")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, nil //nolint:nilnil // no settings are no error
	}
	if err != nil {
		return nil, fmt.Errorf("global option clerk: %w", err)
	}
	global, ok := app.(*App)
	if !ok {
		return nil, fmt.Errorf("the app named clerk is a %T, not this plugin's", app)
	}
	return &global.Clerk, nil
}

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
