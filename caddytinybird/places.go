package caddytinybird

import (
	"cmp"
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
)

// place is where a module stands in a config: the name of the server, and the hosts that its routes match; none is all, or that
// it stands in a handler of another plugin, into which nobody can look.
type place struct {
	Server string   `json:"server"`
	Hosts  []string `json:"hosts"`
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.Server, o.Server), slices.Compare(p.Hosts, o.Hosts))
}

// placesOf finds the handlers and the `clerk` blocks of this plugin in the servers of a config.
func placesOf(ctx caddy.Context) places {
	found := make(places)
	module, err := ctx.AppIfConfigured("http")
	if err != nil {
		return found
	}
	app, ok := module.(*caddyhttp.App)
	if !ok {
		return found
	}
	for name, server := range app.Servers {
		at := place{Server: name, Hosts: []string{}}
		found.routes(server.Routes, at)
		if server.Errors != nil {
			found.routes(server.Errors.Routes, at)
		}
		for _, named := range slices.Sorted(maps.Keys(server.NamedRoutes)) {
			found.routes(caddyhttp.RouteList{*server.NamedRoutes[named]}, at)
		}
	}
	return found
}

// places are those of *Handler and *Clerk.
type places map[any]place

func (p places) routes(routes caddyhttp.RouteList, at place) {
	for i := range routes {
		route := &routes[i]
		within := at
		if hosts := hostsOf(route.MatcherSets); len(hosts) > 0 {
			within.Hosts = hosts
		}
		for _, handler := range route.Handlers {
			p.handler(handler, within)
		}
	}
}

func (p places) handler(handler caddyhttp.MiddlewareHandler, at place) {
	switch h := handler.(type) {
	case *Handler:
		p[h] = at
		if h.Clerk != nil {
			p[h.Clerk] = at
		}
	case *ClerkAuth:
		p.provider(&h.ClerkProvider, at)
	case *caddyauth.Authentication:
		for _, provider := range h.Providers {
			if c, ok := provider.(*ClerkProvider); ok {
				p.provider(c, at)
			}
		}
	case *caddyhttp.Subroute:
		p.routes(h.Routes, at)
		if h.Errors != nil {
			p.routes(h.Errors.Routes, at)
		}
	}
}

// provider finds a block of its own. The global option stands nowhere.
func (p places) provider(c *ClerkProvider, at place) {
	if c.settings == &c.Clerk || c.settings == c.derived {
		p[c.settings] = at
	}
}

// of returns the place of a *Handler or a *Clerk.
func (p places) of(module any) place {
	if at, ok := p[module]; ok {
		return at
	}
	return place{Hosts: []string{}}
}

// hostsOf are the hosts of a route's matchers.
func hostsOf(sets caddyhttp.MatcherSets) []string {
	var hosts []string
	for _, set := range sets {
		for _, matcher := range set {
			if m, ok := matcher.(*caddyhttp.MatchHost); ok {
				hosts = append(hosts, *m...)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
