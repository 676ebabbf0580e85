package caddytinybird

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// Provision prepares what decides about requests. It does no network I/O.
func (p *ClerkProvider) Provision(ctx caddy.Context) error {
	return hideSecret(p.provision(ctx))
}

func (p *ClerkProvider) provision(ctx caddy.Context) error {
	p.log = ctx.Logger()
	metrics.register(ctx)
	if err := p.checkWritten(); err != nil {
		return err
	}
	if err := p.provisionClerk(ctx); err != nil {
		return err
	}
	if err := p.resolveSignIn(); err != nil {
		return err
	}
	if err := p.checkSite(); err != nil {
		return err
	}
	if err := p.provisionSite(); err != nil {
		return err
	}
	return siteOf(ctx).withhold(p.settings.queryNames())
}

// Cleanup releases what Provision acquired. Requests of the old config may still be running.
func (p *ClerkProvider) Cleanup() error {
	if p.site != nil {
		p.site.Close()
	}
	errs := []error{p.cleanup()}
	if p.derived != nil {
		errs = append(errs, p.derived.cleanup())
	}
	return errors.Join(errs...)
}

// namesInstance reports whether the settings say which Clerk instance is meant.
func (c *Clerk) namesInstance() bool { return c.PublishableKey != "" || len(c.Issuers) > 0 }

// provisionClerk settles whose sessions are accepted.
func (p *ClerkProvider) provisionClerk(ctx caddy.Context) error {
	if p.namesInstance() {
		p.settings = &p.Clerk
		return p.provisionOwn(ctx)
	}
	global, err := globalClerk(ctx)
	if err != nil {
		return err
	}
	if global == nil {
		return errors.New("nothing says whose sessions are accepted; add the publishable key, as in `clerk_auth pk_...`, or the global option `clerk`")
	}
	p.settings = global
	if p.Satellite == nil {
		return nil
	}
	// A satellite's verifier is another one: it has other issuers.
	written := *global
	written.clerkState = clerkState{}
	p.derived, p.settings = &written, &written
	return p.provisionOwn(ctx)
}

func (p *ClerkProvider) provisionOwn(ctx caddy.Context) error {
	if p.Satellite != nil {
		p.settings.satellite = p.Satellite.Domain
	}
	return p.settings.provision(ctx)
}

// resolveSignIn settles where people sign in.
func (p *ClerkProvider) resolveSignIn() error {
	raw := p.settings.instance.SignInURL()
	if p.SignInURL != "" {
		resolved, err := resolveText("sign-in page", p.SignInURL)
		if err != nil {
			return err
		}
		if err := checkSignInURL(resolved); err != nil {
			return err
		}
		raw = resolved
	}
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("sign-in page: %w", err)
	}
	p.signIn = u
	return nil
}

// handshakes reports whether browsers may be sent to Clerk.
func (p *ClerkProvider) handshakes() bool {
	if p.Handshake != nil {
		return *p.Handshake
	}
	return p.settings.publishableKey != ""
}

func (p *ClerkProvider) provisionSite() error {
	c := clerk.SiteConfig{
		FrontendAPI: p.settings.frontendAPI(),
		Handshake:   p.handshakes(),
		Satellites:  p.Satellites,
		ClientIP:    clientIP,
	}
	backend, err := p.settings.backendAPI()
	if err != nil {
		return err
	}
	if backend != nil {
		c.Backend = backend
	}
	if s := p.Satellite; s != nil {
		c.Satellite = &clerk.Satellite{Domain: s.Domain, AutoSync: s.AutoSync}
		if p.SignInURL != "" {
			c.Satellite.SignInURL = p.signIn.String()
		}
	}
	if o := p.OrganizationSync; o != nil {
		c.Organizations, c.PersonalAccounts = o.Organizations, o.PersonalAccounts
	}
	site, err := clerk.NewSite(p.settings.verifier, c)
	if err != nil {
		return err
	}
	p.site = site
	return nil
}

// clientIP is the browser's address, also behind proxies that are trusted.
func clientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

// checkWritten holds the rules that need no placeholder.
func (p *ClerkProvider) checkWritten() error {
	if !p.namesInstance() && !reflect.ValueOf(p.Clerk).IsZero() {
		return errors.New("there are Clerk settings here but no publishable key, so the global option clerk would apply and they would not; add the key here, or move the settings there")
	}
	if p.Satellite != nil {
		if len(p.Satellites) > 0 {
			return errors.New("satellite and satellites exclude each other: a satellite has none of its own; remove one of them")
		}
		if err := checkDomain(p.Satellite.Domain); err != nil {
			return err
		}
	}
	for _, origin := range p.Satellites {
		if err := checkSatelliteOrigin(origin); err != nil {
			return err
		}
	}
	if o := p.OrganizationSync; o != nil {
		for _, list := range [][]string{o.Organizations, o.PersonalAccounts} {
			for _, pattern := range list {
				if err := checkPattern(pattern); err != nil {
					return err
				}
			}
		}
	}
	if p.SignInURL != "" && !hasPlaceholder(p.SignInURL) {
		return checkSignInURL(p.SignInURL)
	}
	return nil
}

// checkSite holds the rules between the site and its Clerk instance.
func (p *ClerkProvider) checkSite() error {
	var needs string
	switch {
	case p.Satellite != nil:
		needs = "satellite"
	case len(p.Satellites) > 0:
		needs = "satellites"
	case p.OrganizationSync != nil:
		needs = "organization_sync"
	case p.handshakes():
		needs = "handshake on"
	default:
		return nil
	}
	if p.settings.publishableKey == "" {
		return fmt.Errorf("%s needs to know the Clerk instance's Frontend API; add `publishable_key pk_...`", needs)
	}
	development := p.settings.instance.Development
	switch {
	case !p.handshakes():
		return fmt.Errorf("%s works by sending browsers to Clerk, which `handshake off` forbids; remove one of them", needs)
	case p.Satellite != nil && development && p.SignInURL == "":
		return errors.New("a satellite of a development instance has to know where people sign in; add `on_unauthenticated redirect <url>` with the sign-in page of the primary")
	case len(p.Satellites) > 0 && !development:
		return errors.New("satellites is for development instances; a production instance knows its satellites from the Clerk dashboard, so remove it")
	}
	return nil
}

// checkSignInURL holds the form of the page to which browsers are sent to sign in.
func checkSignInURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "":
		return fmt.Errorf("the sign-in page %s is no full URL; write it as https://app.example.com/sign-in", tinybird.Shown(raw))
	case u.User != nil:
		return errors.New("the sign-in page holds a user or a password; remove it")
	case strings.Contains(raw, "#"):
		return fmt.Errorf("the sign-in page %s has a fragment, after which nothing can be added; remove it", tinybird.Shown(raw))
	case u.Query().Has(paramReturn):
		return fmt.Errorf("the sign-in page %s names a %s, which is added for each visitor; remove it", tinybird.Shown(raw), paramReturn)
	}
	return checkFetchURL("the sign-in page", raw)
}

func checkDomain(domain string) error {
	u, err := url.Parse("https://" + domain)
	if err != nil || u.Host != domain || !strings.Contains(domain, ".") && u.Hostname() != "localhost" || strings.HasSuffix(domain, ".") {
		return fmt.Errorf("satellite %s is no domain; write it as satellite.example.com, or localhost:3001 with a development instance", tinybird.Shown(domain))
	}
	return nil
}

func checkSatelliteOrigin(origin string) error {
	if clerk.CheckOrigin(origin) != nil {
		return fmt.Errorf("satellites %s is no origin; write it in lower case and without a slash at its end, as http://localhost:3001", tinybird.Shown(origin))
	}
	return nil
}

func checkPattern(pattern string) error {
	if !strings.HasPrefix(pattern, "/") {
		return fmt.Errorf("organization_sync %s is no path; begin it with a slash, as /orgs/:slug", tinybird.Shown(pattern))
	}
	return nil
}
