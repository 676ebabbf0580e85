package caddytinybird

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// configuredSite is a handler `tinybird` as it stands in a config, and the hosts that its route answers for; none is all.
type configuredSite struct {
	hosts   []string
	handler *Handler
}

// configuredSites finds the handlers `tinybird` of a config, in all servers and however deep in their routes.
func configuredSites(config []byte) ([]configuredSite, error) {
	var doc struct {
		Apps struct {
			HTTP struct {
				Servers map[string]any `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &doc); err != nil {
		return nil, fmt.Errorf("read the config: %w", err)
	}
	var f siteFinder
	servers := make([]string, 0, len(doc.Apps.HTTP.Servers))
	for name := range doc.Apps.HTTP.Servers {
		servers = append(servers, name)
	}
	slices.Sort(servers)
	for _, name := range servers {
		if err := f.walk(doc.Apps.HTTP.Servers[name], nil); err != nil {
			return nil, err
		}
	}
	return f.found, nil
}

type siteFinder struct{ found []configuredSite }

// walk looks into everything: routes nest in handlers of any kind, also of other plugins.
func (f *siteFinder) walk(v any, hosts []string) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := f.walk(e, hosts); err != nil {
				return err
			}
		}
	case map[string]any:
		if matched := matchedHosts(v["match"]); len(matched) > 0 {
			hosts = matched
		}
		if v["handler"] == "tinybird" {
			return f.add(v, hosts)
		}
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if err := f.walk(v[name], hosts); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *siteFinder) add(v map[string]any, hosts []string) error {
	delete(v, "handler")
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("read the config: %w", err)
	}
	h := new(Handler)
	if err := caddy.StrictUnmarshalJSON(raw, h); err != nil {
		return fmt.Errorf("read the config: handler tinybird: %w", err)
	}
	f.found = append(f.found, configuredSite{hosts, h})
	return nil
}

// matchedHosts are the hosts of a route's matchers. One that names none matches all.
func matchedHosts(match any) []string {
	sets, _ := match.([]any)
	var hosts []string
	for _, s := range sets {
		set, _ := s.(map[string]any)
		list, _ := set["host"].([]any)
		for _, h := range list {
			if host, ok := h.(string); ok && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// chooseSites keeps the handlers that answer for the host, if one is asked for.
func chooseSites(all []configuredSite, host string) ([]configuredSite, error) {
	if len(all) == 0 {
		return nil, errors.New("the config has no `tinybird` directive")
	}
	if host == "" {
		return all, nil
	}
	var chosen []configuredSite
	var hosts []string
	for _, s := range all {
		hosts = append(hosts, s.hosts...)
		if len(s.hosts) == 0 || slices.ContainsFunc(s.hosts, func(h string) bool { return answersFor(h, host) }) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no `tinybird` answers for the site %s; there is: %s", shown(host), strings.Join(hosts, ", "))
	}
	return chosen, nil
}

// answersFor compares a host with that of a matcher, in which a * stands for one label.
func answersFor(matcher, host string) bool {
	if rest, ok := strings.CutPrefix(matcher, "*."); ok {
		_, own, _ := strings.Cut(host, ".")
		return strings.EqualFold(rest, own)
	}
	return strings.EqualFold(matcher, host)
}

// workbench is what a command needs of a handler that serves nothing.
type workbench struct {
	policy    *tinybird.Policy
	key       tinybird.SigningKey
	workspace string
	base      *url.URL
	transport *transport
}

// workbench resolves the handler's settings as Provision does, without what only requests need: no key set is fetched, and
// nothing is listened on.
func (s *configuredSite) workbench(ctx caddy.Context) (b workbench, err error) {
	h := s.handler
	h.log = caddy.Log()
	if h.Clerk != nil {
		h.credentials = h.Clerk.queryNames()
	}
	if err := h.provisionPolicy(nil); err != nil {
		return b, err
	}
	b.policy = h.policy
	if b.key, b.workspace, b.base, err = h.resolveWorkspace(ctx); err != nil {
		if secretPlaceholder.MatchString(h.SigningKey) && !tinybird.LooksSecret(h.SigningKey) {
			err = fmt.Errorf("%w (signing_key is %s)", err, h.SigningKey)
		}
		return b, err
	}
	b.transport, err = loadTransport(ctx, h.TransportRaw, b.base)
	return b, err
}
