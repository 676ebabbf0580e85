package caddytinybird

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("clerk_auth", parseClerkAuth)
	httpcaddyfile.RegisterDirectiveOrder("clerk_auth", httpcaddyfile.After, "basic_auth")
}

func parseClerkAuth(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(ClerkAuth)
	err := handler.UnmarshalCaddyfile(h.Dispenser)
	return handler, err
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Without a publishable key and issuers the global option clerk
// applies. Syntax:
//
//	clerk_auth [<matcher>] [<publishable_key>] {
//		...                                            # everything that the global option clerk takes
//		require            organization [<id|slug>...]
//		require            role|permission|feature|plan <value>...
//		on_unauthenticated redirect [<url>] | 401
//		handshake          on | off
//		forward_identity   [<header prefix>]
//		optional
//		errors             json | caddy
//		organization_sync  organization|personal <pattern>...
//		satellite          <domain> [auto_sync]
//		satellites         <origin>...
//	}
func (h *ClerkAuth) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	directive := d.Token()
	p := clerkAuthParser{ClerkAuth: h, settings: clerkParser{Clerk: &h.Clerk}}
	if err := p.settings.parseKey(d); err != nil {
		return err
	}
	if err := parseBlock(d, &p, clerkAuthOptions); err != nil {
		return err
	}
	if err := p.settings.check(directive); err != nil {
		return err
	}
	if err := h.checkWritten(); err != nil {
		return errAt(directive, "%w", err)
	}
	return nil
}

type clerkAuthParser struct {
	*ClerkAuth

	settings clerkParser
}

var clerkAuthOptions = newClerkAuthOptions()

func newClerkAuthOptions() map[string]option[clerkAuthParser] {
	options := map[string]option[clerkAuthParser]{
		"require": {repeated: true, parse: func(p *clerkAuthParser, d *caddyfile.Dispenser) error {
			return parseRequirement(&p.Require, d, checkRequirement)
		}},
		"on_unauthenticated": {parse: parseOnUnauthenticated},
		"handshake":          {parse: parseHandshake},
		"forward_identity":   {parse: parseForwardIdentity},
		"optional":           setFlag(func(p *clerkAuthParser) *bool { return &p.Optional }),
		"errors":             setText(func(p *clerkAuthParser) *string { return &p.Errors }, checkErrors),
		"organization_sync":  {parse: parseOrganizationSync, repeated: true},
		"satellite":          {parse: parseSatellite},
		"satellites": {parse: func(p *clerkAuthParser, d *caddyfile.Dispenser) (err error) {
			p.Satellites, err = checkedArgs(d, checkSatelliteOrigin)
			return err
		}},
	}
	for name, o := range clerkOptions {
		options[name] = within(o, func(p *clerkAuthParser) *clerkParser { return &p.settings })
	}
	return options
}

func parseOnUnauthenticated(p *clerkAuthParser, d *caddyfile.Dispenser) error {
	const usage = "on_unauthenticated takes redirect and at most the sign-in page, or 401; write `on_unauthenticated redirect https://app.example.com/sign-in`"
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	p.OnUnauthenticated = args[0]
	switch {
	case args[0] == unauthenticated401 && len(args) == 1, args[0] == unauthenticatedRedirect && len(args) == 1:
		return nil
	case args[0] != unauthenticatedRedirect || len(args) > 2:
		return d.Err(usage)
	}
	p.SignInURL = args[1]
	if hasPlaceholder(p.SignInURL) {
		return nil
	}
	if err := checkSignInURL(p.SignInURL); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func parseHandshake(p *clerkAuthParser, d *caddyfile.Dispenser) error {
	text, err := oneArg(d)
	if err != nil {
		return err
	}
	if err := oneOf("handshake", "on", "off")(text); err != nil {
		return d.WrapErr(err)
	}
	on := text == "on"
	p.Handshake = &on
	return nil
}

func parseForwardIdentity(p *clerkAuthParser, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	p.ForwardIdentity = defaultHeaderPrefix
	switch len(args) {
	case 0:
	case 1:
		if err := checkHeaderPrefix(args[0]); err != nil {
			return d.WrapErr(err)
		}
		p.ForwardIdentity = args[0]
	default:
		return d.Errf("forward_identity takes at most the prefix of the headers, not %d arguments", len(args))
	}
	return noBlock(d)
}

func parseOrganizationSync(p *clerkAuthParser, d *caddyfile.Dispenser) error {
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	if p.OrganizationSync == nil {
		p.OrganizationSync = new(OrganizationSync)
	}
	var list *[]string
	switch args[0] {
	case "organization":
		list = &p.OrganizationSync.Organizations
	case "personal":
		list = &p.OrganizationSync.PersonalAccounts
	default:
		return d.Errf("organization_sync %s is not known; write organization or personal, and then the patterns of paths", tinybird.Shown(args[0]))
	}
	switch {
	case len(args) == 1:
		return d.Errf("organization_sync %s lists no pattern; write one such as /orgs/:slug", args[0])
	case *list != nil:
		return d.Errf("organization_sync %s is given a second time; list all patterns in one line", args[0])
	}
	for _, pattern := range args[1:] {
		if err := checkPattern(pattern); err != nil {
			return d.WrapErr(err)
		}
	}
	*list = args[1:]
	return nil
}

func parseSatellite(p *clerkAuthParser, d *caddyfile.Dispenser) error {
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	s := Satellite{Domain: args[0], AutoSync: len(args) == 2}
	if len(args) > 2 || s.AutoSync && args[1] != "auto_sync" {
		return d.Errf("satellite takes its domain and at most the word auto_sync, not %s", tinybird.Shown(strings.Join(args[1:], " ")))
	}
	if err := checkDomain(s.Domain); err != nil {
		return d.WrapErr(err)
	}
	p.Satellite = &s
	return nil
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*ClerkAuth)(nil)
