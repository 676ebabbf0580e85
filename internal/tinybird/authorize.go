package tinybird

import (
	"fmt"
	"net/http"
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

	params   map[string]struct{} // client parameters let through; nil: all but the reserved and fixed
	withheld []string            // client parameters that never go up
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
	own, ok := pol.format(format)
	if !ok {
		return nil, apierr.NoEndpoint()
	}
	for _, r := range pol.require {
		if !r.Holds(s) {
			return nil, apierr.New(http.StatusForbidden, apierr.NotAllowed,
				"You are not allowed to read this endpoint: it asks for a role, permission, feature or plan that you do not have.").
				Wrap(fmt.Errorf("pipe %s: require %s %s does not hold", pol.name, r.Kind, strings.Join(r.Values, " ")))
		}
	}
	g := &Grant{Pipe: pol.name, Format: own, Rate: pol.rate, params: pol.params, withheld: pol.withheld}
	if len(pol.fixed) > 0 {
		g.Fixed = make([]FixedValue, len(pol.fixed))
	}
	for i := range pol.fixed {
		v, err := pol.fixed[i].Resolve(s.Lookup)
		if err != nil {
			return nil, tenantMissing(fmt.Errorf("pipe %s: fixed_param %s: %w", pol.name, pol.fixed[i].name, err))
		}
		g.Fixed[i] = FixedValue{Name: pol.fixed[i].name, Value: v}
	}
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

// format returns the policy's own string for a format that is allowed.
func (p *pipe) format(format string) (string, bool) {
	for _, f := range p.formats {
		if f == format {
			return f, true
		}
	}
	return "", false
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
