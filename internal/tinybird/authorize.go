package tinybird

import (
	"errors"
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
// It is read-only: Rate belongs to the policy. Only Note changes it.
type Grant struct {
	Count

	Pipe      string       // the policy's own string, not the client's
	Format    string       // the policy's own string, not the client's
	TokenName string       // what Tinybird counts requests under; ends in ":<pipe>" for a pipe with a rate of its own
	Fixed     []FixedValue // sorted by name; empty only for an unrestricted pipe

	path     string              // of the pipe in the format
	params   map[string]struct{} // client parameters let through; nil: all but the reserved and fixed
	withheld []string            // client parameters that never go up
	room     [2]FixedValue       // for Fixed, if it fits
	noted    *Noted              // nil: nobody wants to know
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
	return p.counted(g, pol, s)
}

// counted returns the grant with what requests under it are counted under.
func (p *Policy) counted(g *Grant, pol *pipe, s Subject) (*Grant, error) {
	tenant, err := p.tenant(s)
	if err != nil {
		return nil, tenantMissing(fmt.Errorf("pipe %s: token name: %w", pol.name, err))
	}
	g.Count, g.TokenName = p.count(tenant, pol), p.nameAtTinybird(tenant, pol)
	return g, nil
}

// GrantSet is what one identity may read with one token.
type GrantSet struct {
	TokenName string    // what Tinybird counts requests under
	Grants    []*Grant  // sorted by pipe; never empty
	Rate      *RateSpec // that of each of the grants; nil: none
	Asking    Count     // what asking for the token counts under
}

// errEachApart is why there is no token for all pipes.
var errEachApart = errors.New("each pipe that may be read has a rate of its own")

// AuthorizeAll finds out which of the listed pipes s may read, in whatever format. Those that it may not are left out, and so
// are those with a rate of their own: a token has one name and one rate, so they need tokens of their own, see AuthorizeAlone.
// The error is always an *apierr.Error: if nothing is left, 400 bad_query when it is for that reason alone; 403
// tenant_missing when a fixed parameter without a value was among the reasons, else 403 not_allowed.
func (p *Policy) AuthorizeAll(s Subject) (*GrantSet, error) {
	set := &GrantSet{Rate: p.rate}
	var refused *apierr.Error
	apart := false
	for _, name := range p.Pipes() {
		g, why := p.pipes[name].grant(s)
		switch {
		case why == nil && p.pipes[name].ownRate:
			apart = true
		case why == nil:
			set.Grants = append(set.Grants, g)
		case refused == nil || why.Code == apierr.TenantMissing:
			refused = why
		}
	}
	if len(set.Grants) == 0 {
		switch {
		case apart:
			return nil, apierr.New(http.StatusBadRequest, apierr.BadQuery,
				"Each pipe has a token of its own here. Say which one you want, as in ?pipe=<name>.").Wrap(errEachApart)
		case refused != nil:
			return nil, refused
		default:
			return nil, apierr.NoEndpoint()
		}
	}
	return p.countSet(set, nil, s)
}

// AuthorizeAlone decides whether s may read the one pipe, in whatever format, as Authorize does.
func (p *Policy) AuthorizeAlone(pipe string, s Subject) (*GrantSet, error) {
	pol, ok := p.pipes[pipe]
	if !ok {
		return nil, apierr.NoEndpoint()
	}
	g, refused := pol.grant(s)
	if refused != nil {
		return nil, refused
	}
	return p.countSet(&GrantSet{Rate: pol.rate, Grants: []*Grant{g}}, pol, s)
}

// countSet settles what a set is counted under.
func (p *Policy) countSet(set *GrantSet, pol *pipe, s Subject) (*GrantSet, error) {
	tenant, err := p.tenant(s)
	if err != nil {
		return nil, tenantMissing(fmt.Errorf("token name: %w", err))
	}
	set.TokenName, set.Asking = p.nameAtTinybird(tenant, pol), p.count(tenant, nil)
	return set, nil
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
	g := &Grant{Pipe: p.name, params: p.params, withheld: p.withheld}
	g.Rate = p.rate
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

func tenantMissing(cause error) *apierr.Error {
	return apierr.New(http.StatusForbidden, apierr.TenantMissing,
		"Your session does not say whose data to read. Choose an organization and try again.").Wrap(cause)
}
