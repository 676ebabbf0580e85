// Package caddytinybird has the Caddy modules of caddy-tinybird: the handler `tinybird`, which answers a request for
// a Tinybird pipe with the rows of the tenant that Clerk's session token names; the handler `clerk_auth` and the
// authentication provider `clerk`, which let only signed-in users through to any site; the app `clerk`, which holds
// the Clerk settings of the whole config; and what answers `/tinybird/status` at the admin endpoint.
//
// The package translates between Caddy and the packages below internal/, which know nothing of Caddy.
package caddytinybird

import (
	"cmp"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/wire"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler answers `/v0/pipes/<pipe>.<format>` with the rows of one tenant. It verifies the request's Clerk session
// token, mints a Tinybird token that can read that one pipe for that one tenant, and asks Tinybird. The
// browser never holds a Tinybird token, and no request can be made to read another tenant's rows: the
// request to Tinybird is built from the verified identity and the config, never copied from the client's.
//
// In a Caddyfile:
//
//	analytics.example.com {
//		tinybird {
//			clerk {env.CLERK_PUBLISHABLE_KEY}
//			signing_key {env.TINYBIRD_SIGNING_KEY}
//			pipe top_pages sales_by_day {
//				fixed_param organization_id {clerk.org.id}
//			}
//		}
//	}
//
// Each pipe must filter by its fixed parameters and require them; nothing here can tell whether it does. It is the last handler of
// its route: what it does not serve is 404. The manual: https://github.com/seed-32cb3e43/caddy-tinybird/tree/main/docs
//
// These placeholders are available to everything that Caddy expands afterwards, such as headers and logs. Without a
// verified session those of Clerk are empty.
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
// `{http.tinybird.code}` | The code of a refusal, such as `token_expired`; empty for an answer.
type Handler struct {
	// Whose sessions are accepted. Default: what a `clerk_auth` before this handler decided about the request, else the
	// global option `clerk`.
	Clerk *Clerk `json:"clerk,omitempty"`

	// The workspace admin token of the Tinybird workspace (in Tinybird under Tokens: "workspace admin token", or
	// "admin token" in Classic and Local; not a user's own admin token). It signs the tokens that
	// the edge mints, and never leaves the edge. Whoever has it can read and change everything in the workspace: write it as
	// `{env.*}` or `{file.*}`, not out. Required.
	SigningKey string `json:"signing_key,omitempty"`

	// The UUID of the Tinybird workspace. One that differs from the signing key's is warned about, because Tinybird refuses what the key of
	// another workspace signs.
	// Default: the one in the signing key.
	WorkspaceID string `json:"workspace_id,omitempty"`

	// The base URL of Tinybird's API, such as `https://api.us-east.aws.tinybird.co`. Default: the region in the signing key,
	// else `https://api.tinybird.co`. Plain http is accepted for loopback and private addresses only.
	Upstream string `json:"upstream,omitempty"`

	// How the minted tokens look: how long they live, and under whose name requests are counted. Default: 60s, the organization's id.
	Token *Token `json:"token,omitempty"`

	// How many requests a second each tenant may make. Tinybird enforces the same rate, by the token's name.
	// Default: no limit.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`

	// How many requests of each tenant may be under way to Tinybird at once, so that one tenant's slow queries cannot take all
	// connections: a whole number of at least 1, or a placeholder for one, as in `rate_limit`. There is no queue: one more is refused as
	// one over the rate is. Rows that clients send are counted apart. Default: no bound.
	Concurrency string `json:"concurrency,omitempty"`

	// A Redis or Valkey in which several edges count together. While it is away each edge counts for itself. Default: each edge
	// counts for itself.
	RateLimitRedis *SharedLimit `json:"rate_limit_redis,omitempty"`

	// Parameters that every pipe gets with a value from the verified session or this config. The client can
	// neither set nor see them. Default: each pipe has to name its own.
	FixedParams []FixedParam `json:"fixed_params,omitempty"`

	// The pipes that may be read. Every other pipe is answered 404. At least one is required, unless there are `events`.
	Pipes []Pipe `json:"pipes,omitempty"`

	// Origins whose pages may call this handler from another site, each exactly as a browser sends it, such as
	// `https://app.example.com`. They may send cookies and read the answers, so list only sites that are yours. Default: none.
	CORS []string `json:"cors,omitempty"`

	// A path, such as `/tinybird/token`, at which a signed-in client gets a Tinybird token of its own, for all pipes that it may
	// read, to call Tinybird without this handler. It has the tenant's name and rate, so pipes with a rate of their own are not in it:
	// `?pipe=<name>` gives a token for one pipe. Until such a token expires nothing here can stop it, and its holder can also
	// run SQL over what the pipes return. Default: none.
	TokenEndpoint string `json:"token_endpoint,omitempty"`

	// Accepts the tokens of Clerk's JWT template for Tinybird as well, signed by Clerk with this signing key, so that a front end can
	// move here before its code changes. What such a token may read is narrowed to this config, and to pipes without conditions; for the
	// token endpoint and for events it counts for nothing. Where a `clerk_auth` decides who a request is from, it decides alone: this
	// needs `clerk` settings here or global ones. Default: refused.
	AcceptTemplateTokens bool `json:"accept_template_tokens,omitempty"`

	// Data sources to which clients may send rows, at `/v0/events` and, as Tinybird's tracker does, at `/api/tracking`. Default: none.
	Events []Events `json:"events,omitempty"`

	// Who writes the body of a refusal: `json` is this handler, `caddy` is the site's `handle_errors`. Default: `json`.
	Errors string `json:"errors,omitempty"`

	// What a client sees of Tinybird's own error texts: `hide` shows a general sentence, `pass` shows Tinybird's
	// text, which can quote SQL and the names of columns. Default: `hide`.
	UpstreamErrors string `json:"upstream_errors,omitempty"`

	// Caddy's HTTP transport to Tinybird, as in `reverse_proxy`. Default: 3s to connect, 35s to the answer's headers
	// (`response_header_timeout`), 35s between its bytes (`read_timeout`), no compression of its own, 256 idle connections.
	TransportRaw json.RawMessage `json:"transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`

	// Bounds of memory and of requests. Default: those of its fields.
	Limits *Limits `json:"limits,omitempty"`

	log          *zap.Logger
	verifier     *clerk.Verifier // nil: a clerk_auth has to run before
	credentials  []string        // names of query parameters that may hold a token
	policy       *tinybird.Policy
	minter       *pooledMinter
	limiter      *pooledLimiter
	counter      requestCounter // what decides: the limiter, or a store together with it
	store        *sharedStore   // nil without one
	held         []func() error // gives back what is shared with other configs
	forwarder    *forward.Forwarder
	direct       *wire.Client // the forwarder's own connections; nil: all go by the transport
	sharing      *sharing     // nil: no pipe has a cache
	requests     tinybird.RequestLimits
	api          string      // the base URL of Tinybird's API
	cors         *corsPolicy // nil: no other origin
	forgery      *http.CrossOriginProtection
	ingest       *ingest.Policy
	templateKey  []byte // what the tokens of Clerk's template are signed with; nil: none are accepted
	workspaceID  string
	upstreamHost string
	notifier     *notifier
	series       map[string]*pipeSeries
	counted      []string // the pipes that are counted; nil while none are held
	listed       listing
	patience     time.Duration // with bodies; 0: bodyPatience
	cached       *atomic.Bool  // the operator was told that caches may keep answers
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.tinybird",
		New: func() caddy.Module { return new(Handler) },
	}
}

// ServeHTTP answers one request. It is the last handler of its route: what it does not serve is a 404.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	dropCDNControls(w.Header()) // whatever is answered is for one client
	x := &exchange{pipe: otherPipe, decision: h.newDecision()}
	x.visitor = visitorOf(r, &x.own)
	watchBody(r)
	x.follow(r)
	if h.cors.answers(w, r) {
		h.preflight(r, x)
		return nil
	}
	err := h.serve(w, r, x)
	h.noticeCaches(w.Header(), err)
	return h.finish(w, r, x, err)
}

// serve knows what there is besides pipes.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, x *exchange) error {
	switch path := r.URL.EscapedPath(); {
	case path == h.TokenEndpoint && path != "":
		return h.serveToken(w, r, x)
	case h.ingest != nil && h.ingest.Serves(path):
		return h.serveEvents(w, r, x)
	default:
		return h.servePipe(w, r, x)
	}
}

// servePipe follows one request from its token to Tinybird's answer. Nothing of the client's request goes
// up but what Build and Forward name.
func (h *Handler) servePipe(w http.ResponseWriter, r *http.Request, x *exchange) error {
	pipe, format, err := h.route(r, x)
	if err != nil {
		return err
	}
	grant, err := h.authorize(r, x, pipe, format) //nolint:contextcheck // it takes the request, and with it its context
	if err != nil {
		return err
	}
	x.granted(grant)
	rps, err := h.limit(w, r, x, grant.Pipe, &grant.Count)
	if err != nil {
		return err
	}
	x.step(stepLimit)
	token, cached, err := h.minter.Mint(grant, rps)
	if err != nil {
		return cannotMint(err)
	}
	x.minted(cached)

	h.hurry(r, cmp.Or(h.requests.MaxBody, tinybird.DefaultMaxBody))
	question, err := tinybird.Build(w, r, grant, h.requests)
	if err != nil {
		return err
	}
	h.built(x, question.Dropped)
	a := asked{grant: grant, question: question, rps: rps, token: token}
	if question.Method == http.MethodPost { // for whose body the client may have taken its time
		if err := h.renew(&a); err != nil {
			return err
		}
	}

	most, err := allowedPlaces(r, &grant.Count)
	if err != nil {
		return err
	}
	a.places = most
	if answered, err := h.share(w, r, x, &a); answered || err != nil {
		return err
	}
	place, err := h.enter(w.Header(), grant.Pipe, grant.Gate, most)
	if err != nil {
		return err
	}
	defer place.Leave()
	x.outcome, err = h.forwarder.Forward(r.Context(), w, forward.Request{
		Method:   question.Method,
		Path:     question.Path,
		RawQuery: question.RawQuery,
		Body:     question.Body,
		Client:   r.Header,
		Token:    a.token,
		Renew:    h.renewing(grant, rps),
	})
	return err
}

// authorize finds out who the request is from and what it may read.
func (h *Handler) authorize(r *http.Request, x *exchange, pipe, format string) (*tinybird.Grant, error) {
	if h.templateKey != nil && !h.relies(x.visitor) {
		id, claims, err := h.verifier.Template(r, h.templateKey)
		if err != nil {
			return nil, err
		}
		if claims != nil {
			x.identity = id
			x.step(stepIdentify)
			return h.policy.Narrow(pipe, format, id, h.workspaceID, claims)
		}
	}
	var err error
	if x.identity, err = h.identify(r, x.visitor); err != nil {
		return nil, err
	}
	x.step(stepIdentify)
	return h.policy.Authorize(pipe, format, x.identity)
}

// identify returns who the request is from: what a clerk_auth before this handler decided, unless the handler has settings
// of its own, or else what the request's token says.
func (h *Handler) identify(r *http.Request, v *visitor) (*clerk.Identity, error) {
	switch {
	case h.relies(v):
		return v.identity, v.refusal
	case h.verifier == nil:
		return nil, apierr.New(http.StatusInternalServerError, apierr.Internal, "Something is not set up here. Ask whoever runs this service.").Wrap(errNoClerk)
	default:
		return h.verifier.Authenticate(r)
	}
}

// relies reports whether a clerk_auth before this handler has the last word on who the request is from.
func (h *Handler) relies(v *visitor) bool { return h.Clerk == nil && v.decided }

// route knows the one shape of path that is served, and its two methods.
func (h *Handler) route(r *http.Request, x *exchange) (pipe, format string, err error) {
	pipe, format, ok := tinybird.ParsePath(r.URL.EscapedPath())
	if !ok {
		return "", "", apierr.NoEndpoint()
	}
	if h.policy.Listed(pipe) {
		x.pipe = pipe
	}
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return "", "", apierr.New(http.StatusMethodNotAllowed, apierr.MethodNotAllowed, "A pipe is read with GET, or with POST and a JSON object of parameters.").
			With("Allow", "GET, POST")
	}
	return pipe, format, nil
}

// Interface guards.
var (
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
)
