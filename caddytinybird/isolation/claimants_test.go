package isolation_test

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// claimant is somebody whose rows may be read with a request: who shows a session, or a token of Clerk's template.
type claimant struct {
	person   *person
	template *templateToken
}

// claimants are all whose credentials a site may take from a request. It is more than one only where the request has
// several and it does not matter which counts, since whoever sends them has both.
func (g *group) claimants(s *setting, site *site, r asked) []claimant {
	var out []claimant
	add := func(text string) {
		for token, p := range s.tokens {
			if strings.Contains(text, token) {
				out = append(out, claimant{person: p})
			}
		}
		for _, k := range g.templates {
			if site.templates && strings.Contains(text, k.token) {
				out = append(out, claimant{template: k})
			}
		}
	}
	if slices.Contains(site.sources, "header") {
		values := r.header["Authorization"]
		if len(values) > 1 {
			return nil
		}
		if len(values) == 1 {
			scheme, _, words := strings.Cut(strings.Trim(values[0], " \t"), " ")
			if scheme == "Bearer" || !words && scheme != "" {
				add(values[0])
				return out // never somebody else for a bad one
			}
		}
	}
	for _, source := range site.sources {
		if source == "cookie" {
			for _, line := range r.header["Cookie"] {
				add(line)
				if decoded, err := url.PathUnescape(line); err == nil && decoded != line {
					add(decoded)
				}
			}
		}
		if name, ok := strings.CutPrefix(source, "query "); ok {
			values, _ := url.ParseQuery(r.rawQuery)
			add(strings.Join(values[name], "\n"))
		}
	}
	return out
}

// tenant is what c may read of a pipe: the values that it has to be fixed to; false: nothing.
func (p *pipe) tenant(c claimant) (map[string]any, bool) {
	values := map[string]any{}
	if c.template != nil {
		if p.roles != nil {
			return nil, false
		}
		maps.Copy(values, c.template.fixed[p.name])
	} else if p.roles != nil && !slices.Contains(p.roles, c.person.role) {
		return nil, false
	}
	for _, f := range p.fixed {
		var value any
		var ok bool
		if c.template == nil {
			value, ok = f.of(c.person)
		} else {
			value, ok = f.ofTemplate(c.template, values[f.name])
		}
		if !ok {
			return nil, false
		}
		values[f.name] = value
	}
	return values, true
}

// ofTemplate is the value under the template's token: what the token fixes, unless the config or the user's id says something else.
func (f fixed) ofTemplate(k *templateToken, given any) (any, bool) {
	own, known := f.of(&person{user: k.user})
	if given == nil {
		return own, known
	}
	text, _ := given.(string)
	if !usable(text) {
		return nil, false
	}
	value, ok := fixed{parts: []part{text}, typ: f.typ}.of(&person{})
	return value, ok && (!known || own == value)
}

// countedAs is what Tinybird counts c's requests under.
func (s *site) countedAs(p *pipe, c claimant) string {
	name, ok := resolve(s.tokenName, c.person, true)
	if !ok || s.tokenName == nil {
		if name, ok = textOf(c.person.claim("clerk.org.id"), false); !ok {
			name = c.person.user
		}
	}
	if at := strings.LastIndex(name, ":"); at >= 0 {
		if other := s.pipes[name[at+1:]]; name[at+1:] == "" || other != nil && other.rate > 0 {
			name += ":"
		}
	}
	if p.rate > 0 {
		name += ":" + p.name
	}
	return name
}
