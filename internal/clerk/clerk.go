// Package clerk decides who a request is: it finds the request's Clerk session token, verifies it, and turns
// its claims into an [Identity].
//
// The decisions are those of Clerk's own backend SDK (the function authenticateRequest of @clerk/backend) as
// far as they can be made without a redirect: where a token may come from, which of two sets of cookies
// counts, the order of the checks, and the reason that is given for a refusal. Where the SDK is lenient by
// accident, or accepts what is not a session token, this package refuses.
//
// The rules that decide about security: only RS256, the signature before any claim, a token's own header
// selects a key and nothing else, claims by their exact names, and a cached identity lives no longer than its
// token and the key that signed it.
package clerk

import (
	"context"
	"net/http"
	"time"

	"github.com/MicahParks/jwkset"
	"golang.org/x/sync/singleflight"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/cachestat"
)

// KeySet is where the public keys of one issuer come from. KeyRead may wait for a fetch; an error of it that
// is not [jwkset.ErrKeyNotFound] says that the keys cannot be had at present.
type KeySet interface {
	jwkset.Storage

	// Peek returns a key that is at hand, and never waits.
	Peek(kid string) (jwkset.JWK, bool)
	// Refresh asks for a new copy of the keys after a signature did not verify, and reports whether they
	// changed. It may decline.
	Refresh(ctx context.Context) bool
	// Generation changes whenever the keys do, and only then.
	Generation() uint64
}

// confirmer is a key set that can hold keys of which it does not know whether they are still the issuer's, such
// as those that were stored before a restart.
type confirmer interface{ Confirmed() bool }

// Issuer is one Clerk instance whose tokens are accepted.
type Issuer struct {
	URL  string // compared exactly with the claim iss
	Keys KeySet // may be shared between issuers
}

// Config says which tokens a [Verifier] accepts.
type Config struct {
	// PublishableKey of the instance (pk_live_... or pk_test_...). It decides the cookies' suffix and whether
	// the instance is one for development. Empty: no suffix, and production.
	PublishableKey string
	// Domain of a satellite, in production: its Frontend API is clerk.<domain>. Empty: not a satellite.
	Domain string
	// Issuers whose tokens are accepted. At least one.
	Issuers []Issuer
	// AuthorizedParties are the origins that may have asked for the token (claim azp).
	AuthorizedParties []string
	// AZP is "strict" (a token without azp is refused), "if_present" or "off". Empty: strict if there are
	// authorized parties, else off.
	AZP string
	// Audiences, if there are any, of which the claim aud must name one. Session tokens have no aud by default.
	Audiences []string
	// ClockSkew between this machine and Clerk that is forgiven. Nil: 5 s, as in the SDK. At most 60 s.
	ClockSkew *time.Duration
	// MaxLifetime is the longest time between iat and exp. 0: 24 h.
	MaxLifetime time.Duration
	// Sources of the token. Nil: the header and the cookies. A token in the header always comes first,
	// the others in this order.
	Sources []Source
	// AllowImpersonation accepts tokens with the claim act, which Clerk issues when someone signs in as
	// another user.
	AllowImpersonation bool
	// AllowTemplates accepts tokens from JWT templates that say nothing of what they are for (no header parameter cat)
	// and belong to no session (no claim sid). They outlive the session they were made in.
	AllowTemplates bool
	// MaxTokenSize in bytes. 0: 8 KiB.
	MaxTokenSize int
	// MaxIdentities that are remembered. 0: 10,000.
	MaxIdentities int
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Observe is told the outcome of every decision: the code of the refusal, or "" for an accepted token. It is
	// not told of a client that left before there was one.
	Observe func(code apierr.Code)
}

// Verifier accepts or refuses tokens and requests. It is safe for concurrent use.
type Verifier struct {
	instance      Instance
	issuers       []*issuer
	rules         rules
	header        bool     // the Authorization header is a source
	others        []Source // the sources after it, in order
	maxToken      int
	impersonation bool
	templates     bool
	now           func() time.Time
	observe       func(code apierr.Code)

	cache  *cache
	flight singleflight.Group
}

// New returns a verifier. An error names the option that is wrong and what to write instead.
func New(c Config) (*Verifier, error) {
	s, err := c.settle()
	if err != nil {
		return nil, err
	}
	v := &Verifier{
		instance:      s.instance,
		issuers:       s.issuers,
		rules:         s.rules,
		header:        s.header,
		others:        s.others,
		maxToken:      s.maxToken,
		impersonation: c.AllowImpersonation,
		templates:     c.AllowTemplates,
		now:           c.Now,
		observe:       c.Observe,
	}
	if v.now == nil {
		v.now = time.Now
	}
	if v.observe == nil {
		v.observe = func(apierr.Code) {}
	}
	if v.cache, err = newCache(s.maxIdentities); err != nil {
		return nil, err
	}
	return v, nil
}

// Close stops the verifier's background work. The verifier stays usable for requests that are still running.
func (v *Verifier) Close() { v.cache.close() }

// CacheStats tells how the memory of verified tokens does.
func (v *Verifier) CacheStats() cachestat.Stats { return v.cache.stats() }

// Authenticate finds the request's session token and verifies it. The error is always an [*Error].
func (v *Verifier) Authenticate(r *http.Request) (*Identity, error) {
	d := v.decide(&visit{Request: r})
	if d.state == signedIn {
		v.observe("")
		return d.identity, nil
	}
	v.report(d.failure)
	return nil, d.failure.refusal(d.reason)
}

// Verify verifies a session token that was found by other means. The error is always an [*Error].
func (v *Verifier) Verify(ctx context.Context, token string) (*Identity, error) {
	id, f := v.judge(ctx, v.candidate(token))
	if f != nil {
		v.report(f)
		return nil, f.refusal(f.reason)
	}
	v.observe("")
	return id, nil
}

func (v *Verifier) report(f *failure) {
	if !f.left {
		v.observe(f.code)
	}
}
