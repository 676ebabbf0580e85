package tinybird

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// The placeholders that name a token when the operator does not.
const (
	orgID  = "clerk.org.id"
	userID = "clerk.user.id"
)

// Subject is a verified identity.
type Subject interface {
	// Lookup returns the value of a placeholder, given without braces: a string, json.Number, bool, nil,
	// []any or map[string]any; false when the identity has none.
	Lookup(name string) (any, bool)
	HasRole(role string) bool
	HasPermission(permission string) bool
	HasFeature(feature string) bool
	HasPlan(plan string) bool
}

// Grant is what one identity may ask: one pipe, in one format, fixed to its own values.
// It is read-only: Rate belongs to the policy.
type Grant struct {
	Pipe      string       // the policy's own string, not the client's
	Format    string       // the policy's own string, not the client's
	TokenName string       // what requests are counted under; ends in ":<pipe>" for a pipe with a rate of its own
	Fixed     []FixedValue // sorted by name; empty only for an unrestricted pipe
	Rate      *RateSpec    // nil: no limit

	path     string              // of the pipe in the format
	params   map[string]struct{} // client parameters let through; nil: all but the reserved and fixed
	withheld []string            // client parameters that never go up
	room     [2]FixedValue       // for Fixed, if it fits
}

// Authorize decides whether s may read the pipe in the format, and to what it is fixed. The error is always
// an *apierr.Error: 404 for a pipe or format that is not listed, which look alike, 403 not_allowed when a
// requirement does not hold, 403 tenant_missing when the identity has no usable value for a fixed
// parameter. No error holds a value of the identity.
func (p *Policy) Authorize(pipe, format string, s Subject) (*Grant, error) {
	pol, ok := p.pipes[pipe]
	if !ok {
		return nil, apierr.NoEndpoint()
	}
	own, path, ok := pol.format(format)
	if !ok {
		return nil, apierr.NoEndpoint()
	}
	g, refused := pol.grant(s)
	if refused != nil {
		return nil, refused
	}
	g.Format, g.path = own, path
	name, err := p.name(s)
	if err != nil {
		return nil, tenantMissing(fmt.Errorf("pipe %s: token name: %w", pol.name, err))
	}
	g.TokenName = name
	if pol.ownRate {
		g.TokenName = name + ":" + pol.name
	}
	return g, nil
}

// GrantSet is all that one identity may read.
type GrantSet struct {
	TokenName string    // what requests are counted under
	Grants    []*Grant  // sorted by pipe; never empty
	Rate      *RateSpec // the shared one; nil: none
}

// AuthorizeAll finds out which of the listed pipes s may read, in whatever format. Those that it may not are left out. The
// error is always an *apierr.Error: if nothing is left, 403 tenant_missing when a fixed parameter without a value was among
// the reasons, else 403 not_allowed.
func (p *Policy) AuthorizeAll(s Subject) (*GrantSet, error) {
	set := &GrantSet{Rate: p.rate}
	var refused *apierr.Error
	for _, name := range p.Pipes() {
		g, why := p.pipes[name].grant(s)
		if why == nil {
			set.Grants = append(set.Grants, g)
			continue
		}
		if refused == nil || why.Code == apierr.TenantMissing {
			refused = why
		}
	}
	if len(set.Grants) == 0 {
		if refused == nil {
			return nil, apierr.NoEndpoint()
		}
		return nil, refused
	}
	var err error
	set.TokenName, err = p.TokenName(s)
	return set, err
}

// grant decides whether s may read the pipe, and to what it is fixed.
func (p *pipe) grant(s Subject) (*Grant, *apierr.Error) {
	for _, r := range p.require {
		if !r.Holds(s) {
			return nil, apierr.New(http.StatusForbidden, apierr.NotAllowed,
				"You are not allowed to read this endpoint: it asks for a role, permission, feature or plan that you do not have.").
				Wrap(fmt.Errorf("pipe %s: require %s %s does not hold", p.name, r.Kind, strings.Join(r.Values, " ")))
		}
	}
	g := &Grant{Pipe: p.name, Rate: p.rate, params: p.params, withheld: p.withheld}
	switch n := len(p.fixed); {
	case n > len(g.room):
		g.Fixed = make([]FixedValue, n)
	case n > 0:
		g.Fixed = g.room[:n:n]
	}
	for i := range p.fixed {
		v, err := p.fixed[i].Resolve(s.Lookup)
		if err != nil {
			return nil, tenantMissing(fmt.Errorf("pipe %s: fixed_param %s: %w", p.name, p.fixed[i].name, err))
		}
		g.Fixed[i] = FixedValue{Name: p.fixed[i].name, Value: v}
	}
	return g, nil
}

// format returns the policy's own strings for a format that is allowed: its name, and the pipe's path in it.
func (p *pipe) format(format string) (own, path string, ok bool) {
	i := slices.Index(p.formats, format)
	if i < 0 {
		return "", "", false
	}
	return p.formats[i], p.paths[i], true
}

// TokenName returns what the identity's requests are counted under, without the name of a pipe. The error is an
// *apierr.Error: 403 tenant_missing.
func (p *Policy) TokenName(s Subject) (string, error) {
	name, err := p.name(s)
	if err != nil {
		return "", tenantMissing(fmt.Errorf("token name: %w", err))
	}
	return name, nil
}

// name returns what the identity's requests are counted under. It is never empty: requests without a name
// would share one counter, or none.
func (p *Policy) name(s Subject) (string, error) {
	if len(p.tokenName.parts) > 0 {
		if name, err := p.tokenName.Resolve(s.Lookup); err == nil {
			return name, nil
		}
	}
	for _, placeholder := range [...]string{orgID, userID} {
		if v, ok := s.Lookup(placeholder); ok {
			if name, err := scalarText(v); err == nil {
				return name, nil
			}
		}
	}
	return "", errNoValue
}

func tenantMissing(cause error) *apierr.Error {
	return apierr.New(http.StatusForbidden, apierr.TenantMissing,
		"Your session does not say whose data to read. Choose an organization and try again.").Wrap(cause)
}
