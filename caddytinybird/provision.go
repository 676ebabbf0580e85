package caddytinybird

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// Provision resolves the secrets and prepares everything a request needs. It does no network I/O, so that a config loads
// while Clerk or Tinybird are away.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log, h.cached = ctx.Logger(), new(atomic.Bool)
	metrics.register(ctx)
	return hideSecret(h.provision(ctx))
}

func (h *Handler) provision(ctx caddy.Context) error {
	site := siteOf(ctx)
	if err := h.provisionClerk(ctx, site); err != nil {
		return err
	}
	if err := h.provisionPolicy(site.credentials); err != nil {
		return err
	}
	if err := h.provisionEvents(); err != nil {
		return err
	}
	site.tinybirds = append(site.tinybirds, h)
	var err error
	if h.cors, err = newCORSPolicy(h.CORS); err != nil {
		return err
	}
	if h.forgery, err = newForgeryCheck(h.CORS); err != nil {
		return err
	}
	key, workspace, base, err := h.resolveWorkspace()
	if err != nil {
		return err
	}
	if err := h.provisionTokens(key, workspace); err != nil {
		return err
	}
	if err := h.provisionSharedLimit(workspace); err != nil {
		return err
	}
	if err := h.provisionTokenEndpoint(base); err != nil {
		return err
	}
	if err := h.provisionTemplateTokens(key); err != nil {
		return err
	}
	transport, err := loadTransport(ctx, h.TransportRaw, base)
	if err != nil {
		return err
	}
	if err := h.provisionSharing(base.String(), workspace); err != nil {
		return err
	}
	if h.notifier, err = newNotifier(ctx); err != nil {
		return err
	}
	h.workspaceID, h.upstreamHost = workspace, base.Host
	h.countPipes()
	h.enlist(ctx)
	h.direct = transport.direct
	h.forwarder = forward.New(forward.Options{
		Base:          base,
		Transport:     transport,
		Direct:        transport.direct,
		HeaderTimeout: transport.headers,
		IdleTimeout:   transport.bytes,
		PassErrors:    h.UpstreamErrors == upstreamErrorsPass,
	})
	return nil
}

// provisionClerk settles whose sessions are accepted. Without settings of its own or global ones the handler relies on
// a clerk_auth before it.
func (h *Handler) provisionClerk(ctx caddy.Context, site *siteLoad) error {
	settings := h.Clerk
	var err error
	if settings != nil {
		err = settings.provision(ctx)
	} else {
		settings, err = globalClerk(ctx)
	}
	switch {
	case err != nil:
		return err
	case settings != nil:
		h.verifier, h.credentials = settings.verifier, settings.queryNames()
	case !site.mayBeGuarded(ctx):
		return errNoClerk
	}
	return nil
}

// errNoClerk is also what is logged about a request that no clerk_auth has seen.
var errNoClerk = errors.New("nothing says whose sessions are accepted; add `clerk pk_...` inside tinybird, or as a global option, or a `clerk_auth` that runs before tinybird")

// provisionPolicy compiles which pipes may be read, by whom, with which parameters. The credentials are the query parameters that
// hold a session token for a clerk_auth of this site.
func (h *Handler) provisionPolicy(credentials []string) error {
	fixed, err := policyParams("fixed_param", h.FixedParams, resolveTemplate)
	if err != nil {
		return err
	}
	c := tinybird.PolicyConfig{
		FixedParams:      fixed,
		RateLimit:        h.RateLimit.spec(),
		Concurrency:      h.Concurrency,
		CheckPlaceholder: clerk.CheckPlaceholder,
		Credentials:      slices.Concat(h.credentials, credentials),
	}
	if h.Token != nil {
		if c.TokenName, err = resolveTemplate("token name", h.Token.Name); err != nil {
			return err
		}
	}
	if err := errors.Join(checkRate(h.RateLimit), checkConcurrency(h.Concurrency)); err != nil {
		return err
	}
	for i := range h.Pipes {
		pipe, err := h.Pipes[i].policyConfig(resolveTemplate)
		if err != nil {
			return err
		}
		c.Pipes = append(c.Pipes, pipe)
	}
	if len(c.Pipes) == 0 && len(h.Events) == 0 {
		return errNothingServed
	}
	if c.TokenName != "" && !strings.Contains(c.TokenName, "{clerk.") {
		h.log.Warn("token name holds no {clerk.*} placeholder, so all tenants are counted together and can use up each other's rate")
	}
	h.policy, err = tinybird.NewPolicy(c)
	return err
}

var errNoSigningKey = errors.New("signing_key is missing; add `signing_key {env.TINYBIRD_SIGNING_KEY}` with the workspace admin token")

// resolveWorkspace reads the signing key and what follows from it: the workspace and its region.
func (h *Handler) resolveWorkspace() (key tinybird.SigningKey, workspace string, base *url.URL, err error) {
	if h.SigningKey == "" {
		return key, "", nil, errNoSigningKey
	}
	secret, err := resolveSecret(h.log, "signing_key", h.SigningKey)
	if err != nil {
		return key, "", nil, err
	}
	if key, err = tinybird.ParseSigningKey(secret); err != nil {
		return key, "", nil, fmt.Errorf("signing_key: %w", err)
	}
	if workspace, err = h.resolveWorkspaceID(key); err != nil {
		return key, "", nil, err
	}
	if key.WorkspaceID != "" && key.WorkspaceID != workspace {
		h.log.Warn("workspace_id differs from the workspace of the signing key; Tinybird refuses tokens signed for another workspace",
			zap.String("workspace_id", workspace), zap.String("signing_key_workspace", key.WorkspaceID))
	}
	base, err = h.resolveUpstream(key)
	return key, workspace, base, err
}

func (h *Handler) resolveWorkspaceID(key tinybird.SigningKey) (string, error) {
	if h.WorkspaceID == "" {
		if key.WorkspaceID == "" {
			return "", errors.New("the signing key does not tell its workspace; add `workspace_id <uuid>` and `upstream <url>`")
		}
		return key.WorkspaceID, nil
	}
	id, err := resolveText("workspace_id", h.WorkspaceID)
	// One workspace must not have two spellings: they would count apart, and Tinybird compares the claim.
	return strings.ToLower(id), err
}

func (h *Handler) resolveUpstream(key tinybird.SigningKey) (*url.URL, error) {
	raw := tinybird.DefaultUpstream
	switch {
	case h.Upstream != "":
		resolved, err := resolveText("upstream", h.Upstream)
		if err != nil {
			return nil, err
		}
		raw = resolved
	case key.Host != "":
		region, ok := tinybird.RegionURL(key.Host)
		if !ok {
			return nil, fmt.Errorf("the signing key belongs to the region %q, whose address is not known here; add `upstream https://...` with the region's API address", key.Host)
		}
		raw = region
	case key.WorkspaceID == "":
		return nil, errors.New("the signing key does not tell its region; add `upstream <url>`")
	}
	base, err := tinybird.ParseUpstream(raw)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	return base, nil
}

// provisionTokens prepares minting, counting and the bounds of a request.
func (h *Handler) provisionTokens(key tinybird.SigningKey, workspace string) error {
	o := tinybird.MinterOptions{Key: key.Bytes, WorkspaceID: workspace}
	if h.Token != nil {
		o.TTL = time.Duration(h.Token.TTL)
	}
	counters := 0
	if l := h.Limits; l != nil {
		o.MaxTokens = l.Tokens
		counters = l.Counters
		h.requests = tinybird.RequestLimits{MaxURL: l.URLSize, MaxBody: l.BodySize}
	}
	if err := h.acquireMinter(o); err != nil {
		return err
	}
	return h.acquireLimiter(workspace, counters)
}

// provisionTemplateTokens settles whether the tokens of Clerk's template are accepted.
func (h *Handler) provisionTemplateTokens(key tinybird.SigningKey) error {
	if !h.AcceptTemplateTokens {
		return nil
	}
	if h.verifier == nil {
		return errors.New("accept_template_tokens needs to know whose tokens they are, and a clerk_auth before tinybird refuses them; add `clerk pk_...` inside tinybird, or as a global option")
	}
	for _, pipe := range h.Pipes {
		if len(pipe.Require) > 0 {
			h.log.Warn("a token of Clerk's JWT template says nothing of roles and plans, so that it cannot read a pipe with a require line",
				zap.Strings("pipes", pipe.Names))
		}
	}
	h.templateKey = key.Bytes
	return nil
}

// Validate holds the rules that need no placeholder.
func (h *Handler) Validate() error {
	if err := ifSet(h.Errors, checkErrors); err != nil {
		return err
	}
	if err := ifSet(h.UpstreamErrors, checkUpstreamErrors); err != nil {
		return err
	}
	if l := h.Limits; l != nil && (l.Tokens < 0 || l.Counters < 0 || l.URLSize < 0 || l.BodySize < 0 || l.EventsSize < 0 || l.CacheEntries < 0 || l.CacheSize < 0 || l.CacheEntrySize < 0) {
		return errors.New("limits must be positive")
	}
	return nil
}

// Cleanup releases what Provision acquired. Requests of the old config may still be running, so nothing they use
// is taken away.
func (h *Handler) Cleanup() error {
	h.delist()
	h.uncountPipes()
	var errs []error
	for _, release := range h.held {
		errs = append(errs, release())
	}
	h.held = nil
	if h.direct != nil {
		h.direct.Close()
	}
	h.sharing.close()
	if h.Clerk != nil {
		errs = append(errs, h.Clerk.cleanup())
	}
	return errors.Join(errs...)
}
