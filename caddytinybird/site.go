package caddytinybird

import (
	"context"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// siteLoad is what the modules of one server learn of each other while their config loads, one after the other. A request
// passes through the modules of one server only.
type siteLoad struct {
	guarded     bool     // there is a clerk_auth
	credentials []string // the query parameters in which clerk_auth and the provider clerk look for tokens
	tinybirds   []*Handler
}

var siteLoads = struct {
	sync.Mutex

	of map[context.Context]*siteLoad
}{of: make(map[context.Context]*siteLoad)}

// siteOf returns what belongs to the module's server. Caddy provisions all modules of a server with one context, which ends
// with the config.
func siteOf(ctx caddy.Context) *siteLoad {
	siteLoads.Lock()
	defer siteLoads.Unlock()
	s, ok := siteLoads.of[ctx.Context]
	if !ok {
		s = new(siteLoad)
		siteLoads.of[ctx.Context] = s
		context.AfterFunc(ctx.Context, func() {
			siteLoads.Lock()
			defer siteLoads.Unlock()
			delete(siteLoads.of, ctx.Context)
		})
	}
	return s
}

// mayBeGuarded reports whether a request can have met a clerk_auth before it reaches the module that is being provisioned. Caddy
// provisions named routes last, so what they hold is not known yet.
func (s *siteLoad) mayBeGuarded(ctx caddy.Context) bool {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return s.guarded || ok && len(server.NamedRoutes) > 0
}

// withhold keeps the session tokens in these query parameters from Tinybird, also in the handlers that were provisioned before.
func (s *siteLoad) withhold(names []string) error {
	if len(names) == 0 {
		return nil
	}
	s.credentials = append(s.credentials, names...)
	for _, h := range s.tinybirds {
		if err := h.provisionPolicy(s.credentials); err != nil {
			return err
		}
	}
	return nil
}
