package tinybird

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// Why a template's token cannot be narrowed. No error holds a value of the token.
var (
	errNoScope    = errors.New("the token has no PIPES:READ scope for the pipe")
	errTwoScopes  = errors.New("the token has two scopes for the pipe")
	errScopeShape = errors.New("the token's scope for the pipe has a member that is not known here, so what it allows is not known either")
	errOtherValue = errors.New("the token fixes it to another value than the config does")
	errAmbiguous  = errors.New("the token fixes parameters whose names differ only in letter case")
	errBadName    = errors.New("the token fixes a parameter whose name cannot be one")
)

// Narrow decides whether the holder of a token from Clerk's JWT template for Tinybird may read the pipe, and to what it is
// fixed. What the token allows and what the policy allows must both allow it: the token's scope for the pipe, and the
// values that it fixes, take the place of what a session would say. A fixed parameter of the policy that s has a value for, or
// the config has, must not be contradicted by the token; one that only the token has is the token's; further ones of the token
// stay fixed, too. Such a token says nothing of roles and plans, so that no requirement holds. It is counted for the tenant that
// it names by what it fixes, if the limits are the same for everybody, and else for its user.
//
// The claims are verified. The error is always an *apierr.Error: 404 and 403 as those of Authorize, 401 token_invalid for a
// token of another workspace.
func (p *Policy) Narrow(pipe, format string, s Subject, workspaceID string, claims map[string]any) (*Grant, error) {
	pol, ok := p.pipes[pipe]
	if !ok {
		return nil, apierr.NoEndpoint()
	}
	own, path, ok := pol.format(format)
	if !ok {
		return nil, apierr.NoEndpoint()
	}
	if id, _ := claims["workspace_id"].(string); !strings.EqualFold(id, workspaceID) {
		return nil, apierr.New(http.StatusUnauthorized, apierr.TokenInvalid, "The token is for another Tinybird workspace.").
			With("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	if len(pol.require) > 0 {
		return nil, notInTemplate(fmt.Errorf("pipe %s: require cannot hold for a token of a JWT template, which says nothing of roles and plans", pol.name))
	}
	token, err := scopeOf(pol.name, claims)
	if err != nil {
		return nil, notInTemplate(fmt.Errorf("pipe %s: %w", pol.name, err))
	}
	g := &Grant{Pipe: pol.name, Format: own, path: path, params: pol.params, withheld: pol.withheld}
	if g.Fixed, err = pol.narrow(s, token); err != nil {
		err = fmt.Errorf("pipe %s: %w", pol.name, err)
		if errors.Is(err, errOtherValue) || errors.Is(err, errAmbiguous) || errors.Is(err, errBadName) {
			return nil, notInTemplate(err)
		}
		return nil, tenantMissing(err)
	}
	if c := p.count("", pol); c.constant() {
		s = pol.told(s, g.Fixed)
	}
	return p.counted(g, pol, s)
}

// toldSubject is a subject with what a template's token tells of the session it was made in.
type toldSubject struct {
	Subject

	values map[string]any
}

// Lookup prefers what is known of the subject.
func (s toldSubject) Lookup(name string) (any, bool) {
	if v, ok := s.Subject.Lookup(name); ok {
		return v, true
	}
	v, ok := s.values[name]
	return v, ok
}

// told returns s with the values of the placeholders that the pipe is fixed to as they are: a token that is fixed to the rows
// of an organization was made for it, and whoever holds it could not gain by being counted under another's name
// without reading that one's rows. Where two parameters disagree about a placeholder, it has no value.
//
// It is for what is counted, and only under limits that are the same for everybody. With limits that depend on the session
// the token's holder, of whom the plan is not known, would use an organization's counter at another rate than its
// members do.
func (p *pipe) told(s Subject, fixed []FixedValue) Subject {
	values := make(map[string]any)
	for i := range p.fixed {
		name, ok := p.fixed[i].text.alone()
		if !ok || p.fixed[i].typ != TypeString {
			continue
		}
		at := slices.IndexFunc(fixed, func(f FixedValue) bool { return f.Name == p.fixed[i].name })
		if at < 0 {
			continue
		}
		if other, twice := values[name]; twice && other != fixed[at].Value {
			values[name] = nil
			continue
		}
		values[name] = fixed[at].Value
	}
	return toldSubject{s, values}
}

func notInTemplate(cause error) *apierr.Error {
	return apierr.New(http.StatusForbidden, apierr.NotAllowed, "Your token does not allow you to read this endpoint here.").Wrap(cause)
}

// scopeOf returns the fixed parameters of the one scope that lets a token read the pipe, which it must know by its name.
func scopeOf(pipe string, claims map[string]any) (map[string]any, error) {
	scopes, _ := claims["scopes"].([]any)
	var found map[string]any
	for _, s := range scopes {
		scope, _ := s.(map[string]any)
		if scope["type"] != scopePipesRead || scope["resource"] != pipe {
			continue
		}
		if found != nil {
			return nil, errTwoScopes
		}
		found = scope
	}
	if found == nil {
		return nil, errNoScope
	}
	for member := range found {
		if member != "type" && member != "resource" && member != "fixed_params" {
			return nil, errScopeShape
		}
	}
	switch fixed := found["fixed_params"].(type) {
	case nil:
		return map[string]any{}, nil
	case map[string]any:
		return fixed, nil
	default:
		return nil, errScopeShape
	}
}

// narrow returns what the pipe is fixed to: by the policy, by the token, or by both to the same.
func (p *pipe) narrow(s Subject, token map[string]any) ([]FixedValue, error) {
	var out []FixedValue
	for i := range p.fixed {
		f := &p.fixed[i]
		value, err := f.Resolve(s.Lookup)
		given, named := token[f.name]
		if named {
			text, terr := scalarText(given)
			if terr == nil {
				given, terr = typed(text, f.typ)
			}
			switch {
			case terr != nil:
				return nil, fmt.Errorf("fixed_param %s: %w", f.name, terr)
			case err == nil && value != given:
				return nil, fmt.Errorf("fixed_param %s: %w", f.name, errOtherValue)
			}
			value, err = given, nil
		}
		if err != nil {
			return nil, fmt.Errorf("fixed_param %s: %w", f.name, err)
		}
		out = append(out, FixedValue{Name: f.name, Value: value})
	}
	for name, value := range token {
		if slices.ContainsFunc(p.fixed, func(f fixedParam) bool { return f.name == name }) {
			continue
		}
		if !validName(name) || reserved(name) {
			return nil, errBadName
		}
		if _, err := scalarText(value); err != nil {
			return nil, fmt.Errorf("a parameter that the token fixes: %w", err)
		}
		out = append(out, FixedValue{Name: name, Value: value})
	}
	slices.SortFunc(out, func(a, b FixedValue) int { return strings.Compare(a.Name, b.Name) })
	for i := range out {
		if slices.ContainsFunc(out[:i], func(o FixedValue) bool { return strings.EqualFold(o.Name, out[i].Name) }) {
			return nil, errAmbiguous
		}
	}
	return out, nil
}
