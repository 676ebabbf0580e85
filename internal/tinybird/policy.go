// Package tinybird decides what one request may ask Tinybird, and writes that question down.
//
// A [Policy] is the configuration, checked once. For every request [Policy.Authorize] turns a pipe, a format
// and a verified identity into a [Grant]: the one pipe, the values it is fixed to, the name its rate is
// counted under. [Minter.Mint] signs the grant as a Tinybird JWT, and [Build] constructs the request that
// goes up from parsed parts. Nothing is copied from the client's request and then cleaned: what is not
// named here does not exist upstream.
//
// Facts about Tinybird are from its documentation of JWTs, API endpoints and regions
// (https://www.tinybird.co/docs).
package tinybird

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// PipeConfig is what the operator says about one or more pipes.
type PipeConfig struct {
	Names        []string      // the pipes' names in Tinybird, matched exactly
	FixedParams  []FixedParam  // added to the shared ones; one of the same name replaces the shared one
	Require      []Requirement // all must hold
	Params       []string      // client parameters let through, matched exactly; nil: all but the reserved
	Formats      []string      // nil: DefaultFormats
	RateLimit    *RateSpec     // nil: the shared one; set: a counter of the pipe's own
	Concurrency  string        // empty: the shared one; set: counted apart, too
	Unrestricted bool          // no fixed parameter at all, the shared ones included; their names stay the operator's
}

// PolicyConfig is what the operator says about all pipes.
type PolicyConfig struct {
	// TokenName is operator text for the tenant, whose requests are counted together, here and at Tinybird. Empty, and
	// whenever it has no value for a user: the organization's id, else the user's.
	TokenName   string
	FixedParams []FixedParam // for every pipe that is not unrestricted
	Pipes       []PipeConfig
	RateLimit   *RateSpec
	Concurrency string // operator text for the most requests of a tenant that are under way; empty: no bound
	// Credentials names the query parameters that may hold a session token. They never go up.
	Credentials []string
	// CheckPlaceholder tells whether a placeholder (without braces) comes from the verified identity. It
	// is what keeps values the client controls out of fixed parameters; nil refuses every placeholder.
	CheckPlaceholder func(name string) error
}

// Policy is a checked configuration. It is immutable and safe for concurrent use.
type Policy struct {
	tokenName Template
	pipes     map[string]*pipe

	// The shared limits.
	rate        *RateSpec
	concurrency string
}

// pipe is all that is to be known about one pipe. Nothing here is modified after NewPolicy.
type pipe struct {
	name    string
	fixed   []fixedParam // sorted by name
	require []Requirement
	params  map[string]struct{} // nil: every parameter that is not reserved or fixed
	// withheld are client parameters that never go up: those that hold session tokens, and for an unrestricted pipe
	// the shared fixed ones, which other pipes may have taught a client.
	withheld []string
	formats  []string
	paths    []string // of the formats, from the root of the API

	rate           *RateSpec
	ownRate        bool // counted apart from the tenant's other requests
	concurrency    string
	ownConcurrency bool
}

// NewPolicy checks c and returns its policy. Errors name the option at fault and what to write instead.
func NewPolicy(c PolicyConfig) (*Policy, error) {
	p := &Policy{pipes: make(map[string]*pipe), rate: copyRate(c.RateLimit), concurrency: c.Concurrency}
	if c.TokenName != "" {
		t, err := ParseTemplate(c.TokenName, c.CheckPlaceholder)
		if err != nil {
			return nil, fmt.Errorf("token name: %w", err)
		}
		if literal, ok := t.Literal(); ok {
			if err := checkText(literal); err != nil {
				return nil, fmt.Errorf("token name: %w: remove it to count by organization, else by user", err)
			}
		}
		p.tokenName = t
	}
	if err := checkLimits(c.RateLimit, c.Concurrency); err != nil {
		return nil, err
	}
	shared, err := compileFixed(c.FixedParams, c.CheckPlaceholder)
	if err != nil {
		return nil, err
	}
	for _, pc := range c.Pipes {
		if err := p.add(pc, c, shared); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// add checks one pipe block and adds its pipes.
func (p *Policy) add(pc PipeConfig, c PolicyConfig, shared []fixedParam) error {
	if len(pc.Names) == 0 {
		return errors.New("pipe has no name: write the name of the pipe in Tinybird")
	}
	for _, name := range pc.Names {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("pipe: %w", err)
		}
		if _, ok := p.pipes[name]; ok {
			return fmt.Errorf("pipe %s is listed twice: keep one of them", name)
		}
		compiled, err := compilePipe(name, pc, c, shared)
		if err != nil {
			return fmt.Errorf("pipe %s: %w", name, err)
		}
		p.pipes[name] = compiled
	}
	return nil
}

func compilePipe(name string, pc PipeConfig, c PolicyConfig, shared []fixedParam) (*pipe, error) {
	fixed, err := pipeFixed(pc, c.CheckPlaceholder, shared)
	if err != nil {
		return nil, err
	}
	out := &pipe{
		name: name, fixed: fixed, withheld: slices.Clone(c.Credentials), formats: DefaultFormats(),
		rate: copyRate(c.RateLimit), concurrency: c.Concurrency,
	}
	if pc.Unrestricted {
		for _, s := range shared {
			out.withheld = append(out.withheld, s.name)
		}
	}
	for _, r := range pc.Require {
		if err := CheckRequirement(r); err != nil {
			return nil, err
		}
		out.require = append(out.require, Requirement{Kind: r.Kind, Values: slices.Clone(r.Values)})
	}
	if pc.Formats != nil {
		if err := CheckFormats(pc.Formats); err != nil {
			return nil, err
		}
		out.formats = slices.Clone(pc.Formats)
	}
	if pc.Params != nil {
		if out.params, err = compileParams(pc.Params, fixed, c.Credentials); err != nil {
			return nil, err
		}
	}
	for _, f := range out.formats {
		out.paths = append(out.paths, pathPrefix+name+"."+f)
	}
	if err := checkLimits(pc.RateLimit, pc.Concurrency); err != nil {
		return nil, err
	}
	if pc.RateLimit != nil {
		out.rate, out.ownRate = copyRate(pc.RateLimit), true
	}
	if pc.Concurrency != "" {
		out.concurrency, out.ownConcurrency = pc.Concurrency, true
	}
	return out, nil
}

func checkLimits(rate *RateSpec, concurrency string) error {
	if rate != nil {
		if err := CheckRate(*rate); err != nil {
			return err
		}
	}
	return CheckConcurrency(concurrency)
}

// pipeFixed merges a pipe's own fixed parameters with the shared ones, sorted by name.
func pipeFixed(pc PipeConfig, check func(string) error, shared []fixedParam) ([]fixedParam, error) {
	own, err := compileFixed(pc.FixedParams, check)
	if err != nil {
		return nil, err
	}
	if pc.Unrestricted {
		if len(own) > 0 {
			return nil, fmt.Errorf("unrestricted contradicts fixed_param %s: remove one of them", own[0].name)
		}
		return nil, nil
	}
	fixed := own
	for _, s := range shared {
		i := slices.IndexFunc(own, func(o fixedParam) bool { return strings.EqualFold(o.name, s.name) })
		switch {
		case i < 0:
			fixed = append(fixed, s)
		case own[i].name != s.name:
			// Both would go up, and which one the pipe's SQL reads is anyone's guess.
			return nil, fmt.Errorf("fixed_param %s differs from the shared fixed_param %s only in letter case: "+
				"spell them alike to override it", own[i].name, s.name)
		}
	}
	if len(fixed) == 0 {
		return nil, errors.New("no fixed_param: every signed-in user would read every row; " +
			"add `fixed_param <name> <value>`, or say `unrestricted` if that is what you want")
	}
	slices.SortFunc(fixed, func(a, b fixedParam) int { return strings.Compare(a.name, b.name) })
	return fixed, nil
}

// compileParams checks the allow-list of client parameters.
func compileParams(names []string, fixed []fixedParam, credentials []string) (map[string]struct{}, error) {
	if len(names) == 0 {
		return nil, errors.New("params lists no name: name the parameters to let through, " +
			"or remove it to let all but the reserved ones through")
	}
	set := make(map[string]struct{}, len(names))
	for _, name := range names {
		if err := CheckName(name); err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		if reserved(name) {
			return nil, fmt.Errorf("params %s is reserved: %s; remove it", name, reservedWhy)
		}
		if slices.ContainsFunc(fixed, func(f fixedParam) bool { return strings.EqualFold(f.name, name) }) {
			return nil, fmt.Errorf("params %s is a fixed parameter of this pipe, which no client sets: remove it", name)
		}
		if slices.ContainsFunc(credentials, func(c string) bool { return strings.EqualFold(c, name) }) {
			return nil, fmt.Errorf("params %s is where token_from reads the session token, which never goes up: remove it", name)
		}
		if _, ok := set[name]; ok {
			return nil, fmt.Errorf("params %s is listed twice: keep one of them", name)
		}
		set[name] = struct{}{}
	}
	return set, nil
}

// Listed reports whether the policy knows the pipe, in whatever format. It answers the operator's metrics,
// never the client: to a client an unlisted pipe and a format that is not allowed look alike.
func (p *Policy) Listed(pipe string) bool {
	_, ok := p.pipes[pipe]
	return ok
}

// Pipes returns the names of all listed pipes, sorted.
func (p *Policy) Pipes() []string {
	names := make([]string, 0, len(p.pipes))
	for name := range p.pipes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
