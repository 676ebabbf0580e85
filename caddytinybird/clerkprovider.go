package caddytinybird

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

func init() {
	caddy.RegisterModule(ClerkProvider{})
}

// ClerkProvider accepts Clerk sessions in Caddy's own handler `authentication`. It verifies the session, renews it where
// a secret key allows that, and sets the cookies that come of it, but never redirects. The handler `clerk_auth`
// is built around it and also sends people to sign in.
//
// The user's id is `{http.auth.user.id}`. With it come, as far as the session has them:
//
// Placeholder | Description
// ------------|------------
// `{http.auth.user.org_id}` | The active organization
// `{http.auth.user.org_slug}` | Its slug, which its administrators can change
// `{http.auth.user.org_role}` | The user's role in it, as Clerk shows it: `org:admin`
// `{http.auth.user.session_id}` | The session
// `{http.auth.user.plan}` | The plan as the token has it: `o:pro` or `u:free`
// `{http.auth.user.azp}` | The origin that obtained the token
// `{http.auth.user.issuer}` | The Clerk instance, as `https://clerk.example.com`.
type ClerkProvider struct {
	// Without a publishable key and without issuers the settings of the global option `clerk` apply, and no setting may be here.
	Clerk

	// Handshakes with Clerk: sends a browser whose cookies are out of date to Clerk and straight back, which signs it in
	// without a word. Only `clerk_auth` sends. Default: on where a publishable key is known.
	Handshake *bool `json:"handshake,omitempty"`

	// The page to sign in, such as `https://app.example.com/sign-in`. It is given the address to return to as
	// `redirect_url`. Placeholders such as `{env.SIGN_IN_URL}` are resolved when the config loads. Plain http is
	// accepted for loopback and private addresses only. Default: the instance's page in Clerk's account portal.
	SignInURL string `json:"sign_in_url,omitempty"`

	// Makes this site a satellite: people sign in on another domain, the primary, and Clerk carries the session over. Default: it is none.
	Satellite *Satellite `json:"satellite,omitempty"`

	// The origins of the satellites of this site, such as `http://localhost:3001`. For development instances; a
	// production instance knows them from its dashboard. Default: none.
	Satellites []string `json:"satellites,omitempty"`

	// Paths that say which organization is active. A session in another one is switched to it. Default: none.
	OrganizationSync *OrganizationSync `json:"organization_sync,omitempty"`

	log      *zap.Logger
	settings *Clerk // its own, or those of the global option
	derived  *Clerk // a satellite's own version of the global option; nil in every other case
	site     decider
	signIn   *url.URL // nil if no page is known
}

// decider is a [clerk.Site].
type decider interface {
	Authenticate(r *http.Request, at *url.URL) *clerk.Outcome
	Close()
}

// Satellite is the place of a site among several domains of one Clerk instance.
type Satellite struct {
	// The satellite's domain as the Clerk dashboard has it, such as `satellite.example.com`. Required.
	Domain string `json:"domain"`

	// Asks the primary about every visitor without cookies, so that whoever is signed in there is signed in here at
	// once. Costs each anonymous visitor one redirect. Default: off; a visitor without cookies is taken for signed out.
	AutoSync bool `json:"auto_sync,omitempty"`
}

// OrganizationSync lists the paths whose documents ask for another active organization.
type OrganizationSync struct {
	// Patterns of paths that name the organization, such as `/orgs/:slug/(.*)` or `/orgs/:id`. Default: none.
	Organizations []string `json:"organizations,omitempty"`

	// Patterns of paths on which no organization is active, such as `/me/(.*)`. Default: none.
	PersonalAccounts []string `json:"personal_accounts,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (ClerkProvider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.authentication.providers.clerk",
		New: func() caddy.Module { return new(ClerkProvider) },
	}
}

// Authenticate tells who the request is from. It is an error only if that cannot be found out.
func (p *ClerkProvider) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	o := p.decide(r, publicURL(r))
	switch {
	case o.Valid != nil: // and what is set with it belongs to the redirect, which there is not
		authenticated(r, authSignedIn)
		return userOf(o.Valid), true, nil
	case o.Identity != nil:
		setCookies(w.Header(), o.Cookies)
		authenticated(r, authSignedIn)
		return userOf(o.Identity), true, nil
	case errors.Is(o.Refusal, context.Canceled):
		return caddyauth.User{}, false, nil
	case o.Refusal.Status >= http.StatusInternalServerError:
		authenticated(r, authUnavailable)
		return caddyauth.User{}, false, o.Refusal
	case o.Location == "": // else they belong to the redirect, which there is not
		setCookies(w.Header(), o.Cookies)
	}
	if challenge := o.Refusal.Header.Get("WWW-Authenticate"); challenge != "" {
		w.Header().Add("WWW-Authenticate", challenge)
	}
	authenticated(r, authRefused)
	return caddyauth.User{}, false, nil
}

// decide asks the site about the request, and tells the operator what only an operator has to know.
func (p *ClerkProvider) decide(r *http.Request, at *url.URL) *clerk.Outcome {
	o := p.site.Authenticate(r, at)
	if o.Notice != nil {
		if c := p.log.Check(zap.WarnLevel, "a handshake or a refresh with Clerk went wrong"); c != nil {
			c.Write(zap.Error(hideSecret(o.Notice)))
		}
	}
	if o.Replaced != nil {
		metrics.replaced.Inc()
		if c := p.log.Check(zap.WarnLevel, "a handshake replaced the valid session of another user"); c != nil {
			by := o.Identity
			if by == nil {
				by = new(clerk.Identity)
			}
			c.Write(zap.String("replaced_user", o.Replaced.UserID), zap.String("replaced_session", o.Replaced.SessionID),
				zap.String("user", by.UserID), zap.String("session", by.SessionID))
		}
	}
	return o
}

// publicURL is the request's URL as the browser sees it: before any rewriting, and behind proxies only if they are trusted.
func publicURL(r *http.Request) *url.URL {
	asked := *r
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		asked.URL, asked.RequestURI = original.URL, original.RequestURI
	}
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return clerk.PublicURL(&asked, trusted)
}

// privateNoStore is for answers that are for one browser and must not be kept.
const privateNoStore = "private, no-store"

// setCookies adds the cookies that came of a decision. What is answered with them is for this browser alone.
func setCookies(header http.Header, cookies []string) {
	if len(cookies) == 0 {
		return
	}
	for _, cookie := range cookies {
		header.Add("Set-Cookie", cookie)
	}
	header.Set("Cache-Control", privateNoStore)
	dropCDNControls(header)
}

// userOf is an identity as Caddy knows users.
func userOf(id *clerk.Identity) caddyauth.User {
	user := caddyauth.User{ID: id.UserID, Metadata: metadataOf(id)}
	maps.DeleteFunc(user.Metadata, func(_, value string) bool { return value == "" })
	return user
}

// metadataOf is what Caddy's placeholders tell of an identity besides its id, empty where it has none.
func metadataOf(id *clerk.Identity) map[string]string {
	return map[string]string{
		"org_id":     id.OrgID,
		"org_slug":   id.OrgSlug,
		"org_role":   id.OrgRole,
		"session_id": id.SessionID,
		"plan":       id.Plan,
		"azp":        id.AuthorizedParty,
		"issuer":     id.Issuer,
	}
}

// Interface guards.
var (
	_ caddyauth.Authenticator = (*ClerkProvider)(nil)
	_ caddy.Provisioner       = (*ClerkProvider)(nil)
	_ caddy.CleanerUpper      = (*ClerkProvider)(nil)
)
