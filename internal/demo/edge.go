package demo

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"text/template"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	// What the demo's Caddyfile names.
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"

	// The plugin that the demo is about.
	_ "github.com/seed-32cb3e43/caddy-tinybird/caddytinybird"
)

//go:embed demo.caddyfile
var caddyfileSource string

// places are the addresses in the demo's Caddyfile.
type places struct {
	Origin, Bind          string
	Port                  uint16
	Site, SiteBind, Root  string
	SitePort              uint16
	Storage, Decisions    string
	Issuer, Upstream, App string
}

func caddyfileText(p places) (string, error) {
	t, err := template.New("demo.caddyfile").Parse(caddyfileSource)
	if err != nil {
		return "", fmt.Errorf("read the demo's config: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return "", fmt.Errorf("write the demo's config: %w", err)
	}
	return b.String(), nil
}

// edge is Caddy, running in this process.
type edge struct {
	environment map[string]*string // as it was before, nil for a variable that was not set
}

// startEdge runs Caddy with a Caddyfile and the variables that it names.
func startEdge(text string, variables map[string]string) (*edge, error) {
	e := &edge{environment: map[string]*string{}}
	for name, value := range variables {
		if before, ok := os.LookupEnv(name); ok {
			e.environment[name] = &before
		} else {
			e.environment[name] = nil
		}
		if err := os.Setenv(name, value); err != nil {
			return nil, errors.Join(fmt.Errorf("set %s: %w", name, err), e.restore())
		}
	}
	config, err := adapt(text)
	if err != nil {
		return nil, errors.Join(err, e.restore())
	}
	if err := caddy.Load(config, true); err != nil {
		return nil, errors.Join(fmt.Errorf("start the edge: %w", err), e.restore())
	}
	return e, nil
}

func adapt(text string) ([]byte, error) {
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "demo.caddyfile"})
	if err != nil {
		return nil, fmt.Errorf("read the demo's Caddyfile: %w", err)
	}
	if len(warnings) > 0 {
		return nil, fmt.Errorf("read the demo's Caddyfile: %s", warnings[0])
	}
	return config, nil
}

func (e *edge) stop() error {
	return errors.Join(caddy.Stop(), e.restore())
}

func (e *edge) restore() error {
	var errs []error
	for name, before := range e.environment {
		if before == nil {
			errs = append(errs, os.Unsetenv(name))
		} else {
			errs = append(errs, os.Setenv(name, *before))
		}
	}
	return errors.Join(errs...)
}
