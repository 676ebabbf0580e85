package caddytinybird

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// Clerk says whose sessions are accepted: the Clerk instance, and how strictly its tokens are checked.
// The same settings serve as the global option `clerk`, inside `tinybird` and inside `clerk_auth`.
//
// With a publishable key alone everything else is known: the issuer, the address of its keys (JWKS) and the
// names of its cookies. Tokens are signed by RS256, as Clerk does it (by RS384 or RS512 only with a key that is for them or does not
// say), and nothing in a token is believed before its signature has been verified.
type Clerk struct {
	clerkState

	// The instance's publishable key, `pk_live_...` or `pk_test_...`, from the Clerk dashboard under API keys.
	// It is public. Placeholders such as `{env.CLERK_PUBLISHABLE_KEY}` are resolved when the config loads. Default: none; `issuers` is
	// required then.
	PublishableKey string `json:"publishable_key,omitempty"`

	// The instance's secret key, `sk_...`. `clerk_auth` needs it to refresh sessions without a redirect, and for handshakes
	// whose answer Clerk keeps behind a nonce; verifying tokens never uses it. Write it as `{env.*}` or `{file.*}`, so
	// that it is not part of the config. Default: none; what is no page is refused when its session has run out.
	SecretKey string `json:"secret_key,omitempty"`

	// Where Clerk's Backend API is, which the secret key is for. Default: `https://api.clerk.com`. Plain http is accepted
	// for loopback and private addresses only.
	APIURL string `json:"api_url,omitempty"`

	// The proxy in front of the instance's Frontend API, if it has one (`CLERK_PROXY_URL`): a URL, or the path of it
	// on the site itself, such as `/__clerk`. Tokens then have the proxy's URL as their issuer: with a path alone `issuers`
	// has to name it. Default: none.
	ProxyURL string `json:"proxy_url,omitempty"`

	// The accepted values of the token's `iss` claim, compared exactly. Default: the one that belongs to the
	// publishable key, such as `https://clerk.example.com`, or the `proxy_url`. With several issuers each has its own keys,
	// unless `jwks_url` gives one address for all. Plain http is accepted for loopback and private addresses only.
	Issuers []string `json:"issuers,omitempty"`

	// Where the keys are fetched. Default: `<issuer>/.well-known/jwks.json`. Plain http is accepted for loopback
	// and private addresses only.
	JWKSURL string `json:"jwks_url,omitempty"`

	// The instance's public key as PEM, or the PEM's bare base64 body (Clerk dashboard, "JWKS Public Key"). Tokens
	// are then verified without any network, and a rotated key needs a new config. Default: the keys are fetched.
	JWTKey string `json:"jwt_key,omitempty"`

	// The origins that may have obtained the token (claim `azp`), such as `https://app.example.com`. Set it
	// in production: it stops a token that another site under your domain obtained. Default: not checked.
	AuthorizedParties []string `json:"authorized_parties,omitempty"`

	// What to do with a token that has no `azp`: `strict` refuses it, as Clerk's SDK does; `if_present` accepts it, as
	// Clerk's documentation says; `off` ignores the claim. Some real session tokens have none. Default: `strict` when
	// `authorized_parties` is set, else `off`.
	AZP string `json:"azp,omitempty"`

	// How far the clocks of Clerk and this machine may differ. Default: 5s. At most 60s.
	ClockSkew *caddy.Duration `json:"clock_skew,omitempty"`

	// Refuse tokens that were minted to live longer than this. Session tokens live 60 seconds. Default: 24h.
	MaxLifetime caddy.Duration `json:"max_lifetime,omitempty"`

	// Where a request may carry its token. Default: the Authorization header, then Clerk's cookies. A token in
	// the header always wins. A token in a URL reaches access logs, browser histories and Referer headers.
	TokenFrom []TokenSource `json:"token_from,omitempty"`

	// How often the keys are fetched anew in the background, with some jitter. Default: 1h. At least 1s.
	JWKSRefresh caddy.Duration `json:"jwks_refresh,omitempty"`

	// Accept tokens of a member of your team who impersonates a user (claim `act`). Default: refused.
	AllowImpersonation bool `json:"allow_impersonation,omitempty"`

	// Accept tokens from JWT templates that do not say what they are (no `cat` in the header, as Clerk once issued them). They
	// belong to no session, so they outlive signing out, and whoever was given one, such as another service,
	// can use it here. Those that say that they are from a template are refused all the same. Default: refused.
	AllowTemplateTokens bool `json:"allow_template_tokens,omitempty"`

	// Bounds of memory. Default: those of its fields, which suit an edge with 512 MB.
	Limits *ClerkLimits `json:"limits,omitempty"`
}

// clerkState is what provisioning makes of the settings. It is apart from them so that they can be copied without it.
type clerkState struct {
	publishableKey string
	instance       clerk.Instance // of the publishable key; the zero value without one
	satellite      string         // domain, if the site is a satellite
	secretKey      string
	apiURL         string
	proxyURL       string // without a slash at its end
	issuers        []string
	jwksURL        string
	verifier       *clerk.Verifier
	backend        *bapi.Client // nil until a site asks for it
	acquired       []string     // keys of the key sets that this instance holds
	notifier       *notifier
	listed         listing

	releaseKeySets  []func() error
	releaseVerifier func() error // nil while none is held
}

// ClerkLimits bounds what is kept in memory for verifying sessions. All are whole numbers of at least 1.
type ClerkLimits struct {
	// The longest accepted token, in bytes. Default: 8192.
	TokenSize int `json:"token_size,omitempty"`

	// How many verified sessions are remembered. Default: 10000.
	Identities int `json:"identities,omitempty"`

	// How many unknown key ids are remembered, so that they cost no fetch. Default: 256.
	BadKids int `json:"bad_kids,omitempty"`
}

// TokenSource is one place in a request that may hold a session token.
type TokenSource struct {
	// `header` (Authorization), `cookie` (Clerk's cookies), or `query`. Required.
	Source string `json:"source"`

	// The name of the query parameter, for `query` only, where it is required. It is never sent on to Tinybird.
	Name string `json:"name,omitempty"`
}

// provision resolves the placeholders of the settings and prepares the verifier. It does no network I/O.
func (c *Clerk) provision(ctx caddy.Context) error {
	if err := c.resolve(ctx.Logger()); err != nil {
		return err
	}
	var err error
	if c.notifier, err = newNotifier(ctx); err != nil {
		return err
	}
	issuers, err := c.keySets(func(url string) (clerk.KeySet, error) { return c.acquireKeySet(ctx, url) })
	if err != nil {
		return err
	}
	if err := c.acquireVerifier(c.verifierConfig(issuers)); err != nil {
		return err
	}
	c.enlist(ctx)
	return nil
}

// verifierConfig is what a verifier is made of, for the settings, which are resolved.
func (c *Clerk) verifierConfig(issuers []clerk.Issuer) clerk.Config {
	config := clerk.Config{
		PublishableKey:     c.publishableKey,
		Domain:             c.satellite,
		Issuers:            issuers,
		AuthorizedParties:  c.AuthorizedParties,
		AZP:                c.AZP,
		ClockSkew:          (*time.Duration)(c.ClockSkew),
		MaxLifetime:        time.Duration(c.MaxLifetime),
		Sources:            c.sources(),
		AllowImpersonation: c.AllowImpersonation,
		AllowTemplates:     c.AllowTemplateTokens,
		Observe:            func(code apierr.Code) { metrics.verified(string(code)) },
	}
	if l := c.Limits; l != nil {
		config.MaxTokenSize = l.TokenSize
		config.MaxIdentities = l.Identities
	}
	return config
}

// resolve reads the placeholders of the settings into unexported fields, so that no secret becomes part of the
// config that Caddy shows and saves.
func (c *Clerk) resolve(log *zap.Logger) error {
	var err error
	if c.publishableKey, err = resolveText("publishable_key", c.PublishableKey); err != nil {
		return err
	}
	if c.publishableKey != "" {
		if c.instance, err = clerk.ParsePublishableKey(c.publishableKey); err != nil {
			return err
		}
	}
	if c.SecretKey != "" {
		if c.secretKey, err = resolveSecret(log, "secret_key", c.SecretKey); err != nil {
			return err
		}
	}
	if err := c.resolveAddresses(); err != nil {
		return err
	}
	if err := c.resolveIssuers(); err != nil {
		return err
	}
	return c.check()
}

func (c *Clerk) resolveIssuers() error {
	for _, issuer := range c.Issuers {
		issuer, err := resolveText("issuer", issuer)
		if err != nil {
			return err
		}
		if err := checkIssuer(issuer); err != nil {
			return err
		}
		c.issuers = append(c.issuers, issuer)
	}
	if len(c.issuers) > 0 {
		return nil
	}
	switch {
	case strings.HasPrefix(c.proxyURL, "/"):
		return fmt.Errorf("clerk: proxy_url %s does not tell the whole issuer of the tokens; add `issuer` with the proxy's full URL, such as `issuer https://app.example.com%[1]s`", c.proxyURL)
	case c.proxyURL != "":
		c.issuers = []string{c.proxyURL}
	case c.instance.Issuer == "":
		return errors.New("clerk: nothing says which Clerk instance is meant; add `publishable_key pk_...` or `issuer https://...`")
	case c.satellite != "" && !c.instance.Development:
		c.issuers = []string{"https://clerk." + c.satellite, c.instance.Issuer}
	default:
		c.issuers = []string{c.instance.Issuer}
	}
	return nil
}

var errTwoSourcesOfKeys = errors.New("jwt_key and jwks_url exclude each other: with jwt_key no keys are fetched; remove one of them")

// check holds the rules between settings.
func (c *Clerk) check() error {
	if c.JWTKey != "" && c.JWKSURL != "" {
		return fmt.Errorf("clerk: %w", errTwoSourcesOfKeys)
	}
	if c.JWKSRefresh != 0 && time.Duration(c.JWKSRefresh) < time.Second {
		return fmt.Errorf("clerk: jwks_refresh %s is too short; use at least 1s", time.Duration(c.JWKSRefresh))
	}
	if l := c.Limits; l != nil && (l.TokenSize < 0 || l.Identities < 0 || l.BadKids < 0) {
		return errors.New("clerk: limits must be positive")
	}
	return nil
}

// keySets gives each issuer its keys: the static one, the shared set of jwks_url, or a set of its own.
func (c *Clerk) keySets(keysAt func(url string) (clerk.KeySet, error)) ([]clerk.Issuer, error) {
	if c.JWTKey != "" {
		return c.staticKeys()
	}
	issuers := make([]clerk.Issuer, 0, len(c.issuers))
	for _, issuer := range c.issuers {
		set, err := keysAt(c.keysURL(issuer))
		if err != nil {
			return nil, err
		}
		issuers = append(issuers, clerk.Issuer{URL: issuer, Keys: set})
	}
	return issuers, nil
}

// keysURL is where the keys of an issuer are fetched.
func (c *Clerk) keysURL(issuer string) string {
	if c.jwksURL != "" {
		return c.jwksURL
	}
	return issuer + "/.well-known/jwks.json"
}

func (c *Clerk) staticKeys() ([]clerk.Issuer, error) {
	text, err := resolveText("jwt_key", c.JWTKey)
	if err != nil {
		return nil, err
	}
	key, err := jwks.ParsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("jwt_key: %w", err)
	}
	keys := clerk.StaticKey(key)
	issuers := make([]clerk.Issuer, 0, len(c.issuers))
	for _, issuer := range c.issuers {
		issuers = append(issuers, clerk.Issuer{URL: issuer, Keys: keys})
	}
	return issuers, nil
}

func (c *Clerk) sources() []clerk.Source {
	if c.TokenFrom == nil {
		return nil
	}
	sources := make([]clerk.Source, 0, len(c.TokenFrom))
	for _, s := range c.TokenFrom {
		sources = append(sources, clerk.Source{Kind: clerk.SourceKind(s.Source), Name: s.Name})
	}
	return sources
}

// queryNames lists the query parameters that may hold a session token.
func (c *Clerk) queryNames() []string {
	var names []string
	for _, s := range c.TokenFrom {
		if s.Source == "query" {
			names = append(names, s.Name)
		}
	}
	return names
}

// cleanup releases what provision acquired, and only that.
func (c *Clerk) cleanup() error {
	c.delist()
	errs := make([]error, 0, 1+len(c.releaseKeySets))
	if c.releaseVerifier != nil {
		errs = append(errs, c.releaseVerifier())
		c.releaseVerifier = nil
	}
	if c.backend != nil {
		c.backend.Close()
	}
	for _, release := range c.releaseKeySets {
		errs = append(errs, release())
	}
	c.acquired, c.releaseKeySets = nil, nil
	return errors.Join(errs...)
}
