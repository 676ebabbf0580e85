package caddytinybird

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// configuredSite is a handler `tinybird` or `clerk_auth` as it stands in a config, and the hosts that its route answers for; none is all.
type configuredSite struct {
	hosts   []string
	handler *Handler   // nil for a clerk_auth that no tinybird relies on
	auth    *ClerkAuth // that decides who a request is from; nil if the handler does
	clerk   *Clerk     // whose sessions are accepted; nil if nothing says
}

// configuredSites finds the handlers `tinybird` and `clerk_auth` of a config, in all servers and however deep in their routes. A
// clerk_auth is part of the tinybird that relies on it.
func configuredSites(config []byte) ([]configuredSite, error) {
	var doc struct {
		Apps struct {
			Clerk json.RawMessage `json:"clerk"`
			HTTP  struct {
				Servers map[string]any `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &doc); err != nil {
		return nil, fmt.Errorf("read the config: %w", err)
	}
	var f siteFinder
	if doc.Apps.Clerk != nil {
		f.global = new(Clerk)
		if err := caddy.StrictUnmarshalJSON(doc.Apps.Clerk, f.global); err != nil {
			return nil, fmt.Errorf("read the config: global option clerk: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Apps.HTTP.Servers)) {
		f.guard = nil
		if err := f.walk(doc.Apps.HTTP.Servers[name], nil); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(f.found, func(s configuredSite) bool {
		return s.handler == nil && slices.ContainsFunc(f.found, func(o configuredSite) bool { return o.handler != nil && o.auth == s.auth })
	}), nil
}

type siteFinder struct {
	global *Clerk
	guard  *configuredSite // the clerk_auth that was found last
	found  []configuredSite
}

// walk looks into everything, in the order of the config: routes nest in handlers of any kind, also of other plugins.
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
		switch v["handler"] {
		case "tinybird":
			return f.addTinybird(v, hosts)
		case "clerk_auth":
			return f.addClerkAuth(v, hosts)
		case "authentication":
			providers, _ := v["providers"].(map[string]any)
			if provider, ok := providers["clerk"].(map[string]any); ok {
				return f.addClerkAuth(provider, hosts)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			guard := f.guard
			if err := f.walk(v[name], hosts); err != nil {
				return err
			}
			if name == "errors" || name == "named_routes" { // no request passes through these on its way to the others
				f.guard = guard
			}
		}
	}
	return nil
}

func (f *siteFinder) addTinybird(v map[string]any, hosts []string) error {
	s := configuredSite{hosts: hosts, handler: new(Handler)}
	if err := decodeHandler(v, s.handler); err != nil {
		return err
	}
	switch {
	case s.handler.Clerk != nil:
		s.clerk = s.handler.Clerk
	case f.guard != nil && slices.Equal(f.guard.hosts, hosts):
		s.auth, s.clerk = f.guard.auth, f.guard.clerk
	default:
		s.clerk = f.global
	}
	f.found = append(f.found, s)
	return nil
}

func (f *siteFinder) addClerkAuth(v map[string]any, hosts []string) error {
	s := configuredSite{hosts: hosts, auth: new(ClerkAuth)}
	if err := decodeHandler(v, s.auth); err != nil {
		return err
	}
	s.clerk = f.global
	if s.auth.namesInstance() {
		s.clerk = &s.auth.Clerk
	}
	if s.auth.Satellite != nil && s.clerk != nil {
		// A satellite has other issuers than its primary.
		own := *s.clerk
		own.satellite = s.auth.Satellite.Domain
		s.clerk = &own
	}
	f.guard = &s
	f.found = append(f.found, s)
	return nil
}

func decodeHandler(v map[string]any, into any) error {
	delete(v, "handler")
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("read the config: %w", err)
	}
	if err := caddy.StrictUnmarshalJSON(raw, into); err != nil {
		return fmt.Errorf("read the config: %w", err)
	}
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

// withTinybird keeps the handlers `tinybird`.
func withTinybird(all []configuredSite) ([]configuredSite, error) {
	all = slices.DeleteFunc(all, func(s configuredSite) bool { return s.handler == nil })
	if len(all) == 0 {
		return nil, errors.New("the config has no `tinybird` directive")
	}
	return all, nil
}

// name is what the site is called in messages.
func (s *configuredSite) name() string {
	if len(s.hosts) == 0 {
		return "any host"
	}
	return strings.Join(s.hosts, ", ")
}

// resolvedClerk returns the settings of whose sessions are accepted, resolved anew, without keys.
func (s *configuredSite) resolvedClerk(log *zap.Logger) (*Clerk, error) {
	if s.clerk == nil {
		return nil, errNoClerk
	}
	c := *s.clerk
	c.clerkState = clerkState{satellite: s.clerk.satellite}
	return &c, c.resolve(log)
}

// chooseSites keeps the handlers that answer for the host, if one is asked for.
func chooseSites(all []configuredSite, host string) ([]configuredSite, error) {
	if len(all) == 0 {
		return nil, errors.New("the config has neither `tinybird` nor `clerk_auth`")
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
		return nil, fmt.Errorf("nothing of this plugin answers for the site %s; there is: %s", tinybird.Shown(host), strings.Join(hosts, ", "))
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
func (s *configuredSite) workbench(ctx caddy.Context, log *zap.Logger) (b workbench, err error) {
	h := s.handler
	h.log = log
	if h.Clerk != nil {
		h.credentials = h.Clerk.queryNames()
	}
	if err := h.provisionPolicy(nil); err != nil {
		return b, err
	}
	b.policy = h.policy
	if b.key, b.workspace, b.base, err = h.resolveWorkspace(); err != nil {
		if secretPlaceholder.MatchString(h.SigningKey) && !secret.Looks(h.SigningKey) {
			err = fmt.Errorf("%w (signing_key is %s)", err, h.SigningKey)
		}
		return b, err
	}
	b.transport, err = loadTransport(ctx, h.TransportRaw, b.base)
	return b, err
}
