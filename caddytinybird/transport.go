package caddytinybird

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/wire"
)

// transportModule is Caddy's own HTTP transport.
const transportModule = "http.reverse_proxy.transport.http"

// transportDefaults are the settings that differ from those of reverse_proxy. Tinybird queries may run 30
// seconds; the client's Accept-Encoding goes up as it is, so that a compressed answer passes untouched. HTTP/2
// would keep up to 4 MiB of each answer that its client does not read, and one slow reader could stall others.
const transportDefaults = `{
	"response_header_timeout": "35s",
	"read_timeout": "35s",
	"compression": false,
	"versions": ["1.1"],
	"keep_alive": {"max_idle_conns_per_host": 256}
}`

// transport is Caddy's HTTP transport with the two timeouts that forwarding holds.
type transport struct {
	*reverseproxy.HTTPTransport

	headers, bytes time.Duration
	direct         *wire.Client // nil if the settings ask for more than it can
}

// loadTransport loads Caddy's HTTP transport as a guest with the operator's settings over our defaults.
func loadTransport(ctx caddy.Context, raw json.RawMessage, base *url.URL) (*transport, error) {
	settings, err := transportSettings(raw, base)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	var t transport
	if t.headers, err = duration(settings, "response_header_timeout"); err != nil {
		return nil, err
	}
	// Caddy's own read_timeout also runs while a connection is idle, and would then cut off the request that comes
	// next; forwarding measures it between the bytes of one answer.
	if t.bytes, err = duration(settings, "read_timeout"); err != nil {
		return nil, err
	}
	delete(settings, "read_timeout")

	merged, err := json.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	module, err := ctx.LoadModuleByID(transportModule, merged)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	guest, ok := module.(*reverseproxy.HTTPTransport)
	if !ok {
		return nil, fmt.Errorf("transport: the module is a %T", module)
	}
	t.HTTPTransport = guest
	guest.Transport.DialContext = dialing(guest.Transport.DialContext)
	_, proxy := settings["network_proxy"] // Caddy has taken it away from the loaded module
	if proxy || guest.ForwardProxyURL != "" {
		return &t, nil
	}
	if guest.TLS == nil {
		guest.Transport.Proxy = http.ProxyURL(nil) // one of the environment would read the token, and could answer in Tinybird's place
	}
	t.connectDirectly(base)
	return &t, nil
}

// connectDirectly makes connections of our own to Tinybird, by the transport's settings, for requests over HTTP/1.1. They cost half
// of what the transport's do. The transport keeps what they cannot do, and all of it if the settings ask for another
// version of HTTP, a proxy, a bound on connections, a time limit of their own for writing, or a name of the server that
// depends on the request.
func (t *transport) connectDirectly(base *url.URL) {
	rt := t.Transport
	switch {
	case !wire.Reuses, !slices.Equal(t.Versions, []string{"1.1"}):
		return
	case rt.DisableKeepAlives, rt.MaxConnsPerHost > 0, rt.DialTLSContext != nil, t.WriteTimeout > 0:
		return
	case rt.MaxIdleConnsPerHost < 0, rt.MaxIdleConns < 0, rt.IdleConnTimeout < 0: // none are kept, or for ever
		return
	}
	if proxy, err := rt.Proxy(&http.Request{URL: base}); proxy != nil || err != nil {
		return
	}
	o := wire.Options{
		Addr:             addressOf(base),
		Dial:             rt.DialContext,
		HandshakeTimeout: rt.TLSHandshakeTimeout,
		HeaderTimeout:    t.headers,
		BodyTimeout:      t.bytes,
		MaxHeader:        rt.MaxResponseHeaderBytes,
		MaxIdle:          rt.MaxIdleConnsPerHost,
		IdleTimeout:      rt.IdleConnTimeout,
	}
	if rt.MaxIdleConns > 0 {
		o.MaxIdle = min(o.MaxIdle, rt.MaxIdleConns)
	}
	if base.Scheme == "https" {
		o.TLS = new(tls.Config) // Caddy has none if nothing is set
		if rt.TLSClientConfig != nil {
			o.TLS = rt.TLSClientConfig.Clone()
		}
		if o.TLS.ServerName == "" {
			o.TLS.ServerName = base.Hostname()
		}
	}
	t.direct = wire.New(o)
}

// dialing makes the errors of Caddy's dialer those of a dialer, which forwarding knows: Caddy hides in one of its own what it wraps.
func dialing(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		return c, nil
	}
}

// addressOf returns host and port.
func addressOf(base *url.URL) string {
	port := base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[base.Scheme]
	}
	return net.JoinHostPort(base.Hostname(), port)
}

func duration(settings map[string]json.RawMessage, name string) (time.Duration, error) {
	var d caddy.Duration
	if err := json.Unmarshal(settings[name], &d); err != nil {
		return 0, fmt.Errorf("transport: %s: %w", name, err)
	}
	if d <= 0 {
		return 0, fmt.Errorf("transport: %s must be positive, so that a Tinybird that hangs holds no connection for ever", name)
	}
	return time.Duration(d), nil
}

// transportSettings merges the operator's settings over the defaults.
func transportSettings(raw json.RawMessage, base *url.URL) (map[string]json.RawMessage, error) {
	settings := make(map[string]json.RawMessage)
	if err := json.Unmarshal([]byte(transportDefaults), &settings); err != nil {
		return nil, fmt.Errorf("defaults: %w", err)
	}
	if len(raw) > 0 {
		pool := settings["keep_alive"]
		if err := json.Unmarshal(raw, &settings); err != nil {
			return nil, fmt.Errorf("settings: %w", err)
		}
		if err := mergeKeepAlive(settings, pool); err != nil {
			return nil, err
		}
		if err := checkSettings(settings); err != nil {
			return nil, err
		}
		if protocol := string(settings["protocol"]); protocol != `"http"` {
			return nil, fmt.Errorf("the protocol %s is not supported; Tinybird is asked over http", protocol)
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
	return settings, nil
}

// checkSettings refuses what would do harm.
func checkSettings(settings map[string]json.RawMessage) error {
	if _, ok := settings["proxy_protocol"]; ok {
		return errors.New("proxy_protocol would tell Tinybird the client's address, and Tinybird does not speak it; remove it")
	}
	var versions []string
	if raw := settings["versions"]; len(raw) > 0 {
		if err := json.Unmarshal(raw, &versions); err != nil {
			return fmt.Errorf("versions: %w", err)
		}
	}
	// When its config is replaced Caddy closes all connections of HTTP/3 at once, with the requests that wait on them; those of the other
	// versions are closed when they are idle.
	if slices.Contains(versions, "3") {
		return errors.New("versions 3 would break off requests to Tinybird whenever a config is loaded; remove it, or write `versions 2`")
	}
	return nil
}

// mergeKeepAlive keeps the default size of the pool where the operator sets only other things about it.
func mergeKeepAlive(settings map[string]json.RawMessage, defaults json.RawMessage) error {
	merged := make(map[string]json.RawMessage)
	for _, layer := range []json.RawMessage{defaults, settings["keep_alive"]} {
		if err := json.Unmarshal(layer, &merged); err != nil {
			return fmt.Errorf("keep_alive: %w", err)
		}
	}
	raw, err := json.Marshal(merged)
	if err != nil {
		return fmt.Errorf("keep_alive: %w", err)
	}
	settings["keep_alive"] = raw
	return nil
}
