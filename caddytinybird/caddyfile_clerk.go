package caddytinybird

import (
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// parseGlobalClerk parses the global option clerk.
func parseGlobalClerk(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next()
	if existing != nil {
		return nil, d.Err("the global option clerk is given a second time; keep one of them")
	}
	app := new(App)
	if err := app.unmarshal(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "clerk", Value: caddyconfig.JSON(app, nil)}, nil
}

// unmarshal parses the Clerk settings; the cursor is on the word clerk. Syntax:
//
//	clerk [<publishable_key>] {
//		publishable_key     <pk_live_... | pk_test_...>
//		secret_key          <sk_...>
//		api_url             <url>
//		proxy_url           <url> | <path>
//		issuer              <url>...
//		jwks_url            <url>
//		jwt_key             <PEM>
//		authorized_parties  <origin>...
//		azp                 strict | if_present | off
//		clock_skew          <duration>
//		max_lifetime        <duration>
//		token_from          header | cookie | query <name> ...
//		jwks_refresh        <duration>
//		allow_impersonation
//		allow_template_tokens
//		limits {
//			token_size <bytes>
//			identities <n>
//			bad_kids   <n>
//		}
//	}
func (c *Clerk) unmarshal(d *caddyfile.Dispenser) error {
	at := d.Token()
	p := clerkParser{Clerk: c}
	if err := p.parseKey(d); err != nil {
		return err
	}
	if err := parseBlock(d, &p, clerkOptions); err != nil {
		return err
	}
	if !c.namesInstance() {
		return errAt(at, "clerk does not say which Clerk instance is meant; add `publishable_key pk_...` or `issuer https://...`")
	}
	return p.check(at)
}

type clerkParser struct {
	*Clerk

	keyInArgs bool
}

// parseKey parses the publishable key that may stand before the block; the cursor is on the word before it.
func (p *clerkParser) parseKey(d *caddyfile.Dispenser) error {
	name := d.Val()
	args := d.RemainingArgs()
	switch {
	case len(args) == 0:
		return nil
	case len(args) > 1:
		return d.Errf("%s takes at most one argument, the publishable key, not %d", name, len(args))
	}
	if err := checkPublishableKey(args[0]); !hasPlaceholder(args[0]) && err != nil {
		return d.WrapErr(err)
	}
	p.PublishableKey, p.keyInArgs = args[0], true
	return nil
}

// check holds the rules that only the whole block shows.
func (p *clerkParser) check(at caddyfile.Token) error {
	if p.JWTKey != "" && p.JWKSURL != "" {
		return errAt(at, "%w", errTwoSourcesOfKeys)
	}
	return nil
}

var clerkOptions = map[string]option[clerkParser]{
	"publishable_key": {parse: func(p *clerkParser, d *caddyfile.Dispenser) error {
		if p.keyInArgs {
			return d.Err("publishable_key is given a second time (first before the block); remove one of them")
		}
		return setText(func(p *clerkParser) *string { return &p.PublishableKey }, checkPublishableKey).parse(p, d)
	}},
	"secret_key": setSecret("secret_key", func(p *clerkParser) *string { return &p.SecretKey }),
	"api_url":    setText(func(p *clerkParser) *string { return &p.APIURL }, checkAPIURL),
	"proxy_url":  setText(func(p *clerkParser) *string { return &p.ProxyURL }, checkProxyURL),
	"issuer": {parse: func(p *clerkParser, d *caddyfile.Dispenser) (err error) {
		p.Issuers, err = checkedArgs(d, unlessPlaceholder(checkIssuer))
		return err
	}},
	"jwks_url": setText(func(p *clerkParser) *string { return &p.JWKSURL }, func(raw string) error { return checkFetchURL("jwks_url", raw) }),
	"jwt_key":  setText(func(p *clerkParser) *string { return &p.JWTKey }, checkPEM),
	"authorized_parties": {parse: func(p *clerkParser, d *caddyfile.Dispenser) (err error) {
		p.AuthorizedParties, err = checkedArgs(d, clerk.CheckOrigin)
		return err
	}},
	"azp":                   setText(func(p *clerkParser) *string { return &p.AZP }, oneOf("azp", "strict", "if_present", "off")),
	"clock_skew":            {parse: parseClockSkew},
	"max_lifetime":          setDuration(func(p *clerkParser) *caddy.Duration { return &p.MaxLifetime }, atLeast("max_lifetime", time.Second)),
	"token_from":            {parse: parseTokenFrom},
	"jwks_refresh":          setDuration(func(p *clerkParser) *caddy.Duration { return &p.JWKSRefresh }, atLeast("jwks_refresh", time.Second)),
	"allow_impersonation":   setFlag(func(p *clerkParser) *bool { return &p.AllowImpersonation }),
	"allow_template_tokens": setFlag(func(p *clerkParser) *bool { return &p.AllowTemplateTokens }),
	"limits": {parse: func(p *clerkParser, d *caddyfile.Dispenser) error {
		if err := noArgs(d); err != nil {
			return err
		}
		p.Limits = new(ClerkLimits)
		return parseBlock(d, p.Limits, clerkLimitsOptions)
	}},
}

var clerkLimitsOptions = map[string]option[ClerkLimits]{
	"token_size": setCount(func(l *ClerkLimits) *int { return &l.TokenSize }),
	"identities": setCount(func(l *ClerkLimits) *int { return &l.Identities }),
	"bad_kids":   setCount(func(l *ClerkLimits) *int { return &l.BadKids }),
}

// maxClockSkew bounds how long a token lives past its end.
const maxClockSkew = time.Minute

func parseClockSkew(p *clerkParser, d *caddyfile.Dispenser) error {
	p.ClockSkew = new(caddy.Duration)
	return setDuration(func(p *clerkParser) *caddy.Duration { return p.ClockSkew }, checkClockSkew).parse(p, d)
}

func checkClockSkew(skew caddy.Duration) error {
	if skew < 0 || time.Duration(skew) > maxClockSkew {
		return fmt.Errorf("clock_skew %s is out of range; use 0s to %s", time.Duration(skew), maxClockSkew)
	}
	return nil
}

func parseTokenFrom(p *clerkParser, d *caddyfile.Dispenser) error {
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	for i := 0; i < len(args); i++ {
		source := TokenSource{Source: args[i]}
		switch source.Source {
		case "header", "cookie":
		case "query":
			i++
			if i == len(args) {
				return d.Err("token_from query needs the parameter's name; write `token_from header cookie query token`")
			}
			source.Name = args[i]
			if err := tinybird.CheckName(source.Name); err != nil {
				return d.WrapErr(err)
			}
		default:
			return d.Errf("token_from %s is not known; use header, cookie or query <name>", tinybird.Shown(source.Source))
		}
		if slices.Contains(p.TokenFrom, source) {
			return d.Errf("token_from names %s twice; remove one of them", source.Source)
		}
		p.TokenFrom = append(p.TokenFrom, source)
	}
	return nil
}

func atLeast(setting string, least time.Duration) func(caddy.Duration) error {
	return func(v caddy.Duration) error {
		if time.Duration(v) < least {
			return fmt.Errorf("%s %s is too short; use at least %s", setting, time.Duration(v), least)
		}
		return nil
	}
}

func unlessPlaceholder(check func(string) error) func(string) error {
	return func(text string) error {
		if hasPlaceholder(text) {
			return nil
		}
		return check(text)
	}
}

func checkPublishableKey(key string) error {
	_, err := clerk.ParsePublishableKey(key)
	return err
}

func checkPEM(text string) error {
	_, err := jwks.ParsePEM(text)
	return err
}
