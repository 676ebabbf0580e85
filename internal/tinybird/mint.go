package tinybird

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/maypok86/otter/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/cachestat"
)

// MaxTTL is the longest life of a token. Nothing can revoke one before its end but a new admin token.
const MaxTTL = 24 * time.Hour

// Defaults of MinterOptions.
const (
	DefaultTTL       = time.Minute
	DefaultMaxTokens = 10_000
)

// MinterOptions configure a Minter.
type MinterOptions struct {
	Key         []byte           // the workspace admin token's bytes, as they are
	WorkspaceID string           // a UUID
	TTL         time.Duration    // how long a token lives, from a second to MaxTTL; 0: DefaultTTL
	MaxTokens   int              // how many are kept; 0: DefaultMaxTokens
	Now         func() time.Time // nil: time.Now
}

// Minter signs grants as Tinybird JWTs and keeps what it signed while it is good for. It is safe for
// concurrent use.
type Minter struct {
	key       []byte
	workspace string
	ttl       time.Duration
	now       func() time.Time
	tokens    *otter.Cache[cacheKey, minted]
	lookups   cachestat.Counter
}

// minted is a signed token and when it expires, on the wall clock, which is the one Tinybird looks at.
type minted struct {
	token   string
	expires time.Time
}

// NewMinter returns a minter. Its errors never hold the key.
func NewMinter(o MinterOptions) (*Minter, error) {
	if err := checkSecret(string(o.Key)); err != nil {
		return nil, err
	}
	if err := CheckWorkspaceID(o.WorkspaceID); err != nil {
		return nil, err
	}
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.TTL < time.Second || o.TTL > MaxTTL {
		return nil, fmt.Errorf("the token's ttl must be from 1s to %s", MaxTTL)
	}
	if o.MaxTokens == 0 {
		o.MaxTokens = DefaultMaxTokens
	}
	if o.MaxTokens < 0 {
		return nil, errors.New("the number of tokens to keep must be positive")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	// No expiry is given to the cache, so it runs no goroutine; a token that is too old is replaced when it
	// is asked for.
	tokens, err := otter.New(&otter.Options[cacheKey, minted]{MaximumSize: o.MaxTokens})
	if err != nil {
		return nil, fmt.Errorf("token cache: %w", err)
	}
	return &Minter{key: slices.Clone(o.Key), workspace: o.WorkspaceID, ttl: o.TTL, now: o.Now, tokens: tokens}, nil
}

// Mint returns a token for the grant, limited to rps requests per second where 0 is no limit. A token that
// was minted for a grant that says the same is returned again while at least a third of its life is left.
// A grant that has a rate is never signed without a limit.
func (m *Minter) Mint(g *Grant, rps int) (token string, cached bool, err error) {
	if g == nil {
		return "", false, fmt.Errorf("mint: %w", errGrant)
	}
	t, cached, err := m.mint(g.TokenName, rps, g)
	return t.token, cached, err
}

// MintAll returns one token for several grants, each for a pipe of its own, with the name and the rate of the set, and when it
// expires. It is kept and returned again as Mint's are.
func (m *Minter) MintAll(s *GrantSet, rps int) (token string, expires time.Time, cached bool, err error) {
	if s == nil {
		return "", time.Time{}, false, fmt.Errorf("mint: %w", errGrant)
	}
	t, cached, err := m.mint(s.TokenName, rps, s.Grants...)
	return t.token, t.expires, cached, err
}

func (m *Minter) mint(name string, rps int, grants ...*Grant) (t minted, cached bool, err error) {
	if err := checkGrants(name, rps, grants); err != nil {
		return minted{}, false, fmt.Errorf("mint: %w", err)
	}
	key := cacheKeyOf(name, rps, grants)
	now := m.now()
	t, cached = m.tokens.GetIfPresent(key)
	cached = cached && m.fresh(t, now)
	m.lookups.Count(cached)
	if cached {
		return t, true, nil
	}
	if t, err = m.sign(name, rps, grants, now); err != nil {
		return minted{}, false, fmt.Errorf("mint: %w", err)
	}
	m.tokens.Set(key, t)
	return t, false, nil
}

// fresh reports whether a token is good for use. One that has more than a whole life left is from before
// the clock was set back.
func (m *Minter) fresh(t minted, now time.Time) bool {
	left := t.expires.Sub(now)
	return left >= m.ttl/3 && left < m.ttl+time.Second
}

func (m *Minter) sign(name string, rps int, grants []*Grant, now time.Time) (minted, error) {
	// exp is whole seconds. Rounded up, because rounded down a short-lived token can be dead on arrival.
	expires := now.Add(m.ttl + time.Second - 1).Unix()
	c := claims{WorkspaceID: m.workspace, Name: name, Expires: expires, Scopes: make([]scope, len(grants))}
	for i, g := range grants {
		c.Scopes[i] = scope{Type: scopePipesRead, Resource: g.Pipe, FixedParams: g.Fixed}
	}
	if rps > 0 {
		c.Limits = &limits{RPS: rps}
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString(m.key)
	if err != nil {
		return minted{}, fmt.Errorf("sign a token for Tinybird: %w", err)
	}
	return minted{token: token, expires: time.Unix(expires, 0)}, nil
}

// CacheStats tells how the memory of minted tokens does.
func (m *Minter) CacheStats() cachestat.Stats {
	return m.lookups.Of(m.tokens.EstimatedSize(), int(m.tokens.GetMaximum())) //nolint:gosec // it was given as an int
}

// TTL is how long a token lives.
func (m *Minter) TTL() time.Duration { return m.ttl }

// Close drops the kept tokens. The minter goes on working for requests that are still under way.
func (m *Minter) Close() {
	m.tokens.InvalidateAll()
	m.tokens.StopAllGoroutines()
}
