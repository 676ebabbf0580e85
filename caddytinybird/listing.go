package caddytinybird

import (
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// listed holds the modules of each config that is loaded, for whoever asks how they do. Every config has a metrics registry of
// its own, which stands for it here: of all that Caddy shows of a config, the running one shows the same to everybody.
var listed = struct {
	sync.Mutex

	of map[*prometheus.Registry]*listedModules
}{of: make(map[*prometheus.Registry]*listedModules)}

// listedModules are in the order in which they were provisioned.
type listedModules struct {
	handlers []*Handler
	clerks   []*listedClerk
}

// listedClerk is a verifier and the module that it belongs to.
type listedClerk struct {
	*Clerk

	module string
}

// listing is a module's place in listed. The zero value has none.
type listing struct{ config *prometheus.Registry }

func (l *listing) enter(ctx caddy.Context, add func(*listedModules)) {
	listed.Lock()
	defer listed.Unlock()
	l.config = ctx.GetMetricsRegistry()
	m, ok := listed.of[l.config]
	if !ok {
		m = new(listedModules)
		listed.of[l.config] = m
	}
	add(m)
}

func (l *listing) leave(remove func(*listedModules)) {
	listed.Lock()
	defer listed.Unlock()
	if l.config == nil {
		return
	}
	m := listed.of[l.config]
	remove(m)
	if len(m.handlers)+len(m.clerks) == 0 {
		delete(listed.of, l.config)
	}
	l.config = nil
}

func (h *Handler) enlist(ctx caddy.Context) {
	h.listed.enter(ctx, func(m *listedModules) { m.handlers = append(m.handlers, h) })
}

func (h *Handler) delist() {
	h.listed.leave(func(m *listedModules) {
		m.handlers = slices.DeleteFunc(m.handlers, func(other *Handler) bool { return other == h })
	})
}

func (c *Clerk) enlist(ctx caddy.Context) {
	module := ""
	if m := ctx.Module(); m != nil {
		module = string(m.CaddyModule().ID)
	}
	c.listed.enter(ctx, func(m *listedModules) { m.clerks = append(m.clerks, &listedClerk{c, module}) })
}

func (c *Clerk) delist() {
	c.listed.leave(func(m *listedModules) {
		m.clerks = slices.DeleteFunc(m.clerks, func(other *listedClerk) bool { return other.Clerk == c })
	})
}

// modulesOf returns those of a config.
func modulesOf(config *prometheus.Registry) listedModules {
	listed.Lock()
	defer listed.Unlock()
	m, ok := listed.of[config]
	if !ok {
		return listedModules{}
	}
	return listedModules{slices.Clone(m.handlers), slices.Clone(m.clerks)}
}

// anyListed reports whether there is a module of this plugin in any config that is loaded.
func anyListed() bool {
	listed.Lock()
	defer listed.Unlock()
	return len(listed.of) > 0
}
