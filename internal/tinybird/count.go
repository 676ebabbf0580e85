package tinybird

import (
	"fmt"
	"strings"
)

const (
	// apartMark stands between a tenant and what of it is counted apart. No tenant's name holds it: control characters
	// are refused (see checkText). So no name that a claim may have can be taken for another tenant's part.
	apartMark = "\x00"
	// eventsPart is the part of the rows that a tenant sends. No pipe can have this name.
	eventsPart = "/events"
)

// MaxConcurrency is the largest bound on requests under way that can be configured. Far below it other bounds hold.
const MaxConcurrency = 1_000_000

var errConcurrency = fmt.Errorf("no whole number from 1 to %d", MaxConcurrency)

// Count says what a request is counted under at the edge, and with which limits.
type Count struct {
	Counter     string    // what it is counted under for Rate: the tenant, or a part of it that is counted apart
	Rate        *RateSpec // nil: no limit
	Gate        string    // what it is counted under, while it is under way, for Concurrency
	Concurrency string    // operator text for the most requests under way; empty: no bound
}

// Tenant returns whose request it is, whether or not it is counted apart.
func (c *Count) Tenant() string {
	tenant, _, _ := strings.Cut(c.Counter, apartMark)
	return tenant
}

// count is what a tenant's requests for the pipe count under; nil stands for all that is counted under the tenant alone.
func (p *Policy) count(tenant string, pol *pipe) Count {
	c := Count{Counter: tenant, Rate: p.rate, Gate: tenant, Concurrency: p.concurrency}
	if pol == nil {
		return c
	}
	c.Rate, c.Concurrency = pol.rate, pol.concurrency
	if pol.ownRate {
		c.Counter = apart(tenant, pol.name)
	}
	if pol.ownConcurrency {
		c.Gate = apart(tenant, pol.name)
	}
	return c
}

func apart(tenant, part string) string { return tenant + apartMark + part }

// CountEvents returns what the rows that s sends are counted under: by the shared limits, but apart from what s reads. The
// error is an *apierr.Error: 403 tenant_missing.
func (p *Policy) CountEvents(s Subject) (Count, error) {
	tenant, err := p.tenant(s)
	if err != nil {
		return Count{}, tenantMissing(fmt.Errorf("token name: %w", err))
	}
	part := apart(tenant, eventsPart)
	return Count{Counter: part, Rate: p.rate, Gate: part, Concurrency: p.concurrency}, nil
}

// nameAtTinybird returns the name of a minted token, under which Tinybird counts: the tenant, and for a pipe with a rate of
// its own ":" and the pipe. A tenant that could be taken for such a pair, or that ends in ":", gets one more ":", so that
// no two of them share a name.
func (p *Policy) nameAtTinybird(tenant string, pol *pipe) string {
	if at := strings.LastIndexByte(tenant, ':'); at >= 0 {
		last := tenant[at+1:]
		if other, ok := p.pipes[last]; last == "" || ok && other.ownRate {
			tenant += ":"
		}
	}
	if pol != nil && pol.ownRate {
		return tenant + ":" + pol.name
	}
	return tenant
}

// tenant returns whose requests are counted together. It is never empty: requests without a tenant would share one
// counter, or have none.
func (p *Policy) tenant(s Subject) (string, error) {
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

// constant reports whether the limits are the same for every session.
func (c *Count) constant() bool {
	return !strings.Contains(c.Concurrency, "{") && (c.Rate == nil || !strings.Contains(c.Rate.RPS, "{"))
}

// CheckConcurrency tells whether text can be used. What placeholders resolve to is for ParseConcurrency to check, per request.
func CheckConcurrency(text string) error {
	if text == "" {
		return nil
	}
	t, err := ParseTemplate(text, func(string) error { return nil })
	if err != nil {
		return fmt.Errorf("concurrency: %w", err)
	}
	if literal, ok := t.Literal(); ok {
		if _, err := ParseConcurrency(literal); err != nil {
			return fmt.Errorf("concurrency %s is %w; remove it for no bound", Shown(text), err)
		}
	}
	return nil
}

// ParseConcurrency reads a number of requests: decimal digits, 1 to MaxConcurrency.
func ParseConcurrency(text string) (int, error) {
	n, ok := parseCount(text, MaxConcurrency)
	if !ok {
		return 0, errConcurrency
	}
	return n, nil
}
