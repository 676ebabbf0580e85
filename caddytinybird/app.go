package caddytinybird

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

func init() {
	caddy.RegisterModule(App{})
}

// App holds the Clerk settings of the global option `clerk`, the default of every `tinybird` that has
// none of its own. All of them share one verifier, so a session is verified once.
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

// verifierFor returns the verifier of a handler: that of its own settings, or that of the global option.
func verifierFor(ctx caddy.Context, own *Clerk) (*clerk.Verifier, *Clerk, error) {
	if own != nil {
		if err := own.provision(ctx); err != nil {
			return nil, nil, err
		}
		return own.verifier, own, nil
	}
	app, err := ctx.AppIfConfigured("clerk")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, nil, errors.New("nothing says whose sessions are accepted; add `clerk pk_...` inside tinybird, or as a global option")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("global option clerk: %w", err)
	}
	global, ok := app.(*App)
	if !ok {
		return nil, nil, fmt.Errorf("the app named clerk is a %T, not this plugin's", app)
	}
	return global.verifier, &global.Clerk, nil
}

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
