package caddytinybird

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// transportModule is Caddy's own HTTP transport.
const transportModule = "http.reverse_proxy.transport.http"

// transportDefaults are the settings that differ from those of reverse_proxy. Tinybird queries may run 30
// seconds; the client's Accept-Encoding goes up as it is, so that a compressed answer passes untouched.
const transportDefaults = `{
	"response_header_timeout": "35s",
	"read_timeout": "35s",
	"compression": false,
	"keep_alive": {"max_idle_conns_per_host": 256}
}`

// loadTransport loads Caddy's HTTP transport as a guest with the operator's settings over our defaults.
func loadTransport(ctx caddy.Context, raw json.RawMessage, base *url.URL) (*reverseproxy.HTTPTransport, error) {
	settings, err := transportSettings(raw, base)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	module, err := ctx.LoadModuleByID(transportModule, settings)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	transport, ok := module.(*reverseproxy.HTTPTransport)
	if !ok {
		return nil, fmt.Errorf("transport: the module is a %T", module)
	}
	return transport, nil
}

func transportSettings(raw json.RawMessage, base *url.URL) (json.RawMessage, error) {
	settings := make(map[string]json.RawMessage)
	if err := json.Unmarshal([]byte(transportDefaults), &settings); err != nil {
		return nil, fmt.Errorf("defaults: %w", err)
	}
	if len(raw) > 0 {
		var protocol struct {
			Protocol string `json:"protocol"`
		}
		if err := json.Unmarshal(raw, &protocol); err != nil {
			return nil, fmt.Errorf("protocol: %w", err)
		}
		if protocol.Protocol != "http" {
			return nil, fmt.Errorf("the protocol %q is not supported; Tinybird is asked over http", protocol.Protocol)
		}
		if err := json.Unmarshal(raw, &settings); err != nil {
			return nil, fmt.Errorf("settings: %w", err)
		}
		delete(settings, "protocol")
	}
	_, hasTLS := settings["tls"]
	switch {
	case base.Scheme == "https" && !hasTLS:
		settings["tls"] = json.RawMessage(`{}`)
	case base.Scheme == "http" && hasTLS:
		return nil, errors.New("TLS settings have no effect on an http:// upstream; make the upstream https:// or remove them")
	}
	merged, err := json.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return merged, nil
}
