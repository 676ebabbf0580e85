// Package ingest decides which rows a client may send to Tinybird, and writes them anew with the tenant's mark on them.
//
// A [Policy] is the configuration, checked once. For every request [Policy.Authorize] turns a data source and a verified
// identity into a [Grant]: where the rows go and what every one of them is stamped with. [Grant.Send] reads the rows of a
// body one by one, writes each anew, and hands them on in batches.
package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jsonobject"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// Stamp is a field that is set in every row.
type Stamp = tinybird.FixedParam

// SourceConfig is what the operator says about one or more data sources.
type SourceConfig struct {
	Names  []string // the data sources' names in Tinybird, matched exactly
	Token  string   // what Tinybird accepts rows for them with
	Stamps []Stamp  // at least one
}

// Config is what the operator says about all data sources.
type Config struct {
	Sources []SourceConfig
	// CheckPlaceholder tells whether a placeholder (without braces) comes from the verified identity. It is what keeps
	// values that the client controls out of stamps; nil refuses every placeholder.
	CheckPlaceholder func(name string) error
	// MaxBody is the largest body, unpacked, in bytes; 0 is DefaultMaxBody. With its stamps it may have twice that.
	MaxBody int64
}

// Policy is a checked configuration. It is immutable and safe for concurrent use.
type Policy struct {
	sources map[string]*source
	most    int64 // how much of one body goes up, in bytes
}

type source struct {
	name, token string
	stamps      []stamp
}

// stamp is a Stamp, parsed.
type stamp struct {
	tinybird.Value

	field string
}

// NewPolicy checks c and returns its policy. Errors name the option at fault and what to write instead, and hold no token.
func NewPolicy(c Config) (*Policy, error) {
	if c.MaxBody <= 0 {
		c.MaxBody = DefaultMaxBody
	}
	p := &Policy{sources: make(map[string]*source), most: maxGrowth * min(c.MaxBody, mostBody)}
	for _, sc := range c.Sources {
		if len(sc.Names) == 0 {
			return nil, errors.New("events has no name: write the name of the data source in Tinybird")
		}
		stamps, err := compileStamps(sc.Stamps, c.CheckPlaceholder)
		if err != nil {
			return nil, fmt.Errorf("events %s: %w", tinybird.Shown(strings.Join(sc.Names, " ")), err)
		}
		for _, name := range sc.Names {
			if err := tinybird.CheckName(name); err != nil {
				return nil, fmt.Errorf("events: %w", err)
			}
			if _, ok := p.sources[name]; ok {
				return nil, fmt.Errorf("events: the data source %s is listed twice: keep one of them", name)
			}
			p.sources[name] = &source{name: name, token: sc.Token, stamps: stamps}
		}
	}
	return p, nil
}

func compileStamps(configured []Stamp, check func(string) error) ([]stamp, error) {
	if len(configured) == 0 {
		return nil, errors.New("no stamp: every signed-in user could write rows in everybody's name; " +
			"add `stamp <field> <value>`, such as `stamp organization_id {clerk.org.id}`")
	}
	out := make([]stamp, 0, len(configured))
	for _, c := range configured {
		v, err := compileStamp(c, check)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o stamp) bool { return strings.EqualFold(o.field, c.Name) }) {
			return nil, fmt.Errorf("stamp %s is given twice (letter case does not count): keep one of them", c.Name)
		}
		out = append(out, stamp{Value: v, field: c.Name})
	}
	return out, nil
}

// CheckStamp tells whether s can be used.
func CheckStamp(s Stamp, checkPlaceholder func(name string) error) error {
	_, err := compileStamp(s, checkPlaceholder)
	return err
}

func compileStamp(s Stamp, check func(string) error) (tinybird.Value, error) {
	if err := tinybird.CheckName(s.Name); err != nil {
		return tinybird.Value{}, fmt.Errorf("stamp: %w", err)
	}
	v, err := tinybird.CompileValue(s.Value, s.Type, check)
	if err != nil {
		return tinybird.Value{}, fmt.Errorf("stamp %s: %w", s.Name, err)
	}
	return v, nil
}

// Grant is where one identity's rows go, and what they are stamped with.
type Grant struct {
	Datasource string // the policy's own string, not the client's
	Token      string // the credential for Tinybird

	fields []string // the stamped ones
	stamps []byte   // as members of a JSON object, without its braces
	most   int64    // how much of one body goes up, in bytes
}

// Authorize decides whether s may send rows to the data source, and what they are stamped with. The error is always an
// *apierr.Error: 404 for a data source that is not listed, 403 tenant_missing when the identity has no usable value
// for a stamp. No error holds a value of the identity.
func (p *Policy) Authorize(datasource string, s tinybird.Subject) (*Grant, error) {
	src, ok := p.sources[datasource]
	if !ok {
		return nil, apierr.NoEndpoint()
	}
	g := &Grant{Datasource: src.name, Token: src.token, most: p.most}
	for i := range src.stamps {
		st := &src.stamps[i]
		v, err := st.Resolve(s.Lookup)
		if err == nil {
			err = g.add(st.field, v)
		}
		if err != nil {
			return nil, apierr.New(http.StatusForbidden, apierr.TenantMissing,
				"Your session does not say whose rows these are. Choose an organization and try again.").
				Wrap(fmt.Errorf("events %s: stamp %s: %w", src.name, st.field, err))
		}
	}
	if len(g.fields) == 0 {
		return nil, apierr.New(http.StatusInternalServerError, apierr.Internal, "The rows could not be marked.").
			Wrap(errors.New("a data source without a stamp"))
	}
	return g, nil
}

// add puts one more field into the stamps.
func (g *Grant) add(field string, value any) error {
	if len(g.stamps) > 0 {
		g.stamps = append(g.stamps, ',')
	}
	g.stamps = append(jsonobject.AppendString(g.stamps, field), ':')
	switch v := value.(type) {
	case string:
		g.stamps = jsonobject.AppendString(g.stamps, v)
	case json.Number:
		g.stamps = append(g.stamps, v...)
	case bool:
		if v {
			g.stamps = append(g.stamps, "true"...)
		} else {
			g.stamps = append(g.stamps, "false"...)
		}
	default:
		return fmt.Errorf("a value of type %T", value)
	}
	g.fields = append(g.fields, field)
	return nil
}
