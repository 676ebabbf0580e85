package caddytinybird

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

func init() {
	caddy.RegisterModule(ClerkAuth{})
}

// ClerkAuth lets only requests with a Clerk session through to the handlers after it. It decides as Clerk's own SDK
// does: it reads the session token from the Authorization header or Clerk's cookies, exchanges cookies with Clerk by a
// handshake, renews sessions where a secret key allows that, sends people who are not signed in to the sign-in page, and
// refuses everything else with 401. While Clerk's keys have never been had it answers 503.
//
// In a Caddyfile:
//
//	app.example.com {
//		clerk_auth {env.CLERK_PUBLISHABLE_KEY}
//		reverse_proxy localhost:3000
//	}
//
// By default it lets in every user of the Clerk instance, and a new instance lets anybody sign up. The manual:
// https://github.com/seed-32cb3e43/caddy-tinybird/blob/main/docs/protect-a-site.md
//
// Besides those of the provider `clerk` (`{http.auth.user.*}`), these placeholders are available to everything that Caddy
// expands afterwards. For a request that was let through without a session they are empty.
//
// Placeholder | Description
// ------------|------------
// `{clerk.user.id}` | The user, such as `user_2abc`
// `{clerk.org.id}` | The active organization, such as `org_2abc`; empty without one
// `{clerk.org.slug}` | Its slug, which its administrators can change
// `{clerk.org.role}` | The user's role in it, as Clerk shows it: `org:admin`
// `{clerk.session.id}` | The session, such as `sess_2abc`
// `{clerk.plan}` | The plan as the token has it: `o:pro` or `u:free`
// `{clerk.claims.<path>}` | Any claim, with dots into objects; arrays become comma-joined text
// `{http.clerk_auth.code}` | The code of a refusal, such as `token_expired`
//
// Request headers that begin with `X-Clerk-` or the prefix of `forward_identity` are deleted before anything else, in every
// spelling that a backend could take for them.
type ClerkAuth struct {
	ClerkProvider

	// Conditions on the session, all of which must hold. Otherwise the answer is 403 `not_allowed`. Default: none; every user of the
	// Clerk instance gets in, and by default anybody can sign up there.
	Require []Requirement `json:"require,omitempty"`

	// What becomes of a document that nobody is signed in for: `redirect` sends the browser to the sign-in page, `401`
	// refuses it as everything else. Default: `redirect` where a sign-in page is known.
	OnUnauthenticated string `json:"on_unauthenticated,omitempty"`

	// Tells the backend who the request is from, in request headers that begin with this text, such as `X-Clerk-`: `User-Id`,
	// `Session-Id`, `Org-Id`, `Org-Slug` and `Org-Role`. What the session does not have is not set. Whoever can reach the backend past this
	// server can send these headers. Default: not told.
	ForwardIdentity string `json:"forward_identity,omitempty"`

	// Lets requests through that nobody is signed in for, with empty placeholders and no identity headers. Default: they are sent to sign
	// in, or refused.
	Optional bool `json:"optional,omitempty"`

	// Who writes the body of a refusal: `json` is this handler, `caddy` is the site's `handle_errors`. Default: `json`.
	Errors string `json:"errors,omitempty"`

	headers  identityHeaders
	redirect *url.URL // where documents go to sign in; nil: nowhere
	private  []string // query parameters that are not shown to the sign-in page
}

// What becomes of a document that nobody is signed in for.
const (
	unauthenticatedRedirect = "redirect"
	unauthenticated401      = "401"
)

// CaddyModule returns the Caddy module information.
func (ClerkAuth) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.clerk_auth",
		New: func() caddy.Module { return new(ClerkAuth) },
	}
}

// Provision prepares what decides about requests. It does no network I/O.
func (h *ClerkAuth) Provision(ctx caddy.Context) error {
	return hideSecret(h.provision(ctx))
}

func (h *ClerkAuth) provision(ctx caddy.Context) error {
	if err := h.checkWritten(); err != nil {
		return err
	}
	if err := h.ClerkProvider.provision(ctx); err != nil {
		return err
	}
	if h.OnUnauthenticated == unauthenticatedRedirect && h.signIn == nil {
		return errors.New("on_unauthenticated redirect has nowhere to send browsers: this instance's account portal is not known; write `on_unauthenticated redirect https://app.example.com/sign-in`")
	}
	if h.OnUnauthenticated != unauthenticated401 {
		h.redirect = h.signIn
	}
	h.private = h.settings.queryNames()
	h.headers = newIdentityHeaders(h.ForwardIdentity)
	siteOf(ctx).guarded = true
	return nil
}

// checkWritten holds the rules that need no placeholder.
func (h *ClerkAuth) checkWritten() error {
	switch h.OnUnauthenticated {
	case "", unauthenticatedRedirect, unauthenticated401:
	default:
		return fmt.Errorf("on_unauthenticated %s is not known; use redirect or 401", tinybird.Shown(h.OnUnauthenticated))
	}
	if err := ifSet(h.ForwardIdentity, checkHeaderPrefix); err != nil {
		return err
	}
	for _, q := range h.Require {
		if err := checkRequirement(q); err != nil {
			return err
		}
	}
	if err := ifSet(h.Errors, checkErrors); err != nil {
		return err
	}
	return h.ClerkProvider.checkWritten()
}

// ServeHTTP lets the request pass, or answers it.
func (h *ClerkAuth) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	h.headers.clear(r)
	if r.URL.Opaque != "" {
		return refuseOpaque(w, r)
	}
	at := publicURL(r)
	o := h.decide(r, at)
	switch {
	case o.Location != "":
		return h.send(w, r, o)
	case o.Identity != nil:
		return h.admit(w, r, o, next)
	case h.Optional && o.Refusal.Status == http.StatusUnauthorized:
		return h.passAnonymous(w, r, o, next)
	case h.sendsToSignIn(r, o, at):
		return h.sendToSignIn(w, r, o, at)
	default:
		return h.turnAway(w, r, o, refusalOf(o.Refusal))
	}
}

// admit lets a request with a session pass, unless the session lacks what is required.
func (h *ClerkAuth) admit(w http.ResponseWriter, r *http.Request, o *clerk.Outcome, next caddyhttp.Handler) error {
	v := visitorOf(r, new(visitor))
	v.identity, v.refusal, v.decided = o.Identity, nil, true
	v.logFields(r)
	v.setUser(r)
	if refusal := unmet(h.Require, o.Identity); refusal != nil {
		return h.turnAway(w, r, o, refusal)
	}
	h.headers.set(r.Header, o.Identity)
	authenticated(r, authSignedIn)
	return newPrivateWriter(w, o).serve(v.in(r), next)
}

// passAnonymous lets a request without a session pass. A tinybird after this handler refuses it for the same reason.
func (h *ClerkAuth) passAnonymous(w http.ResponseWriter, r *http.Request, o *clerk.Outcome, next caddyhttp.Handler) error {
	v := visitorOf(r, new(visitor))
	v.identity, v.refusal, v.decided = nil, o.Refusal, true
	v.setUser(r)
	authenticated(r, authSignedOut)
	if len(o.Cookies) > 0 {
		return newPrivateWriter(w, o).serve(v.in(r), next)
	}
	return next.ServeHTTP(w, v.in(r))
}

// turnAway answers a request that may not pass.
func (h *ClerkAuth) turnAway(w http.ResponseWriter, r *http.Request, o *clerk.Outcome, refusal *apierr.Error) error {
	if errors.Is(refusal, context.Canceled) {
		return errClientClosed()
	}
	level, result := zap.DebugLevel, authRefused
	if refusal.Status >= http.StatusInternalServerError {
		level, result = zap.ErrorLevel, authUnavailable
	}
	authenticated(r, result)
	traceRefusal(r, refusal)
	if c := h.log.Check(level, "request turned away"); c != nil {
		c.Write(zap.String("code", string(refusal.Code)), zap.String("reason", o.Reason), zap.Error(refusal), helpField(refusal))
	}
	if refusal.NeedsHelp() {
		new(visitor).logFields(r, helpField(refusal))
	}
	explain(w.Header(), o)
	if h.Errors == errorsCaddy { // whose answer can be one for everybody
		endHandshake(w.Header(), o.Cookies)
	} else {
		setCookies(w.Header(), o.Cookies)
	}
	return refuse(w, r, h.Errors, "http.clerk_auth.code", refusal)
}

// refuseOpaque answers a target such as x:http://host/members. It has no path for Caddy, and /members for an application (RFC 9112, 3.2.2),
// which is asked for it whatever the site's rewrites make of the path. So it does not come to handle_errors, either. Nobody means it.
func refuseOpaque(w http.ResponseWriter, r *http.Request) error {
	authenticated(r, authRefused)
	explain(w.Header(), &clerk.Outcome{Status: clerk.SignedOut})
	return refuse(w, r, errorsJSON, "http.clerk_auth.code",
		apierr.New(http.StatusBadRequest, apierr.BadRequest, "The request's target has no path. Begin it with a slash."))
}

// send redirects a browser to Clerk, or to itself without what Clerk added to the URL.
func (h *ClerkAuth) send(w http.ResponseWriter, r *http.Request, o *clerk.Outcome) error {
	authenticated(r, authHandshake)
	explain(w.Header(), o)
	setCookies(w.Header(), o.Cookies)
	redirectTo(w, http.StatusTemporaryRedirect, o.Location)
	shown := withoutSecrets(o.Location, h.private)
	if shown == o.Location {
		return nil
	}
	// Caddy's access log has the headers of the answer, and this one a token. Once they are sent they can be changed for the
	// log. A client that is gone does not get them, whatever they say.
	_ = http.NewResponseController(w).Flush()
	w.Header().Set("Location", shown)
	return nil
}

// redirectTo answers with a redirect that nothing may store: browsers keep redirects, and this one is for now only.
func redirectTo(w http.ResponseWriter, status int, location string) {
	const note = "Go to the address in Location.\n"
	w.Header().Set("Location", location)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(note)))
	w.WriteHeader(status)
	// Handlers that may change the body, such as encode, send no header before they have seen some of it.
	_, _ = io.WriteString(w, note) // that the client is gone by now changes nothing
}

// explain says in the headers that Clerk's SDK uses why the request was not let through, for whoever looks at a browser's
// developer tools. Such an answer is for one browser, whatever the site says to the caches in front of it.
func explain(header http.Header, o *clerk.Outcome) {
	dropCDNControls(header)
	header.Set("X-Clerk-Auth-Status", o.Status)
	header.Del("X-Clerk-Auth-Reason")
	if o.Reason != "" {
		header.Set("X-Clerk-Auth-Reason", o.Reason)
	}
}

// Interface guards.
var (
	_ caddyhttp.MiddlewareHandler = (*ClerkAuth)(nil)
	_ caddy.Provisioner           = (*ClerkAuth)(nil)
	_ caddy.CleanerUpper          = (*ClerkAuth)(nil)
)
