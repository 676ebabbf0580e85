package caddytinybird

import (
	"context"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// visitor is who a request is from, as far as the handlers that it passes through have found out. They share one, so that
// {clerk.*} speaks of the session that was verified last.
type visitor struct {
	identity *clerk.Identity // nil until a session was verified
	decided  bool            // by a clerk_auth
	refusal  error           // why it let the request pass without an identity
}

type visitorKey struct{}

// visitorOf returns the visitor of the request, and answers {clerk.*} for the rest of the request: from the verified identity,
// and with nothing as long as there is none. A visitor that no handler has seen before is made in v.
func visitorOf(r *http.Request, v *visitor) *visitor {
	if known, ok := r.Context().Value(visitorKey{}).(*visitor); ok {
		return known
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(v.placeholder)
	}
	return v
}

// in returns the request for the handlers that follow.
func (v *visitor) in(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), visitorKey{}, v))
}

func (v *visitor) placeholder(key string) (any, bool) {
	if !strings.HasPrefix(key, "clerk.") || clerk.CheckPlaceholder(key) != nil {
		return nil, false
	}
	return v.text(key), true
}

// text is the value of a placeholder, empty where there is none that can be written as text.
func (v *visitor) text(placeholder string) string {
	if v.identity == nil {
		return ""
	}
	value, ok := v.identity.Lookup(placeholder)
	if !ok {
		return ""
	}
	text, err := tinybird.ValueText(value)
	if err != nil {
		return ""
	}
	return text
}

// setUser sets Caddy's own placeholders of the user, as its handler authentication does, and empty ones for what there is
// not: Caddy would take the name of one that is missing for text.
func (v *visitor) setUser(r *http.Request) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	id := v.identity
	if id == nil {
		if _, ok := repl.Get("http.auth.user.id"); ok {
			return // somebody whom an earlier handler knows
		}
		id = new(clerk.Identity)
	}
	repl.DeleteByPrefix("http.auth.user.")
	repl.Set("http.auth.user.id", id.UserID)
	for name, value := range metadataOf(id) {
		repl.Set("http.auth.user."+name, value)
	}
}

// logFields puts the visitor and more on the access log's line, if there is one.
func (v *visitor) logFields(r *http.Request, more ...zap.Field) {
	ctx := r.Context()
	if s, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && s != nil && s.Logs == nil {
		return // there is no access log, and fields cost
	}
	extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	if !ok {
		return
	}
	if v.identity != nil {
		extra.Set(zap.String("clerk_user", v.identity.UserID))
		extra.Set(zap.String("clerk_org", v.identity.OrgID))
	}
	for _, field := range more {
		extra.Set(field)
	}
}
