package tinybird

import "strings"

// lets reports whether a client parameter of that name, decoded once, goes up. The query and the body's
// members are filtered by this one rule.
func (g *Grant) lets(name string) bool {
	taken := g.goesUp(name)
	if g.noted != nil {
		g.noted.add(name, taken)
	}
	return taken
}

func (g *Grant) goesUp(name string) bool {
	// The grammar comes first: it leaves only ASCII, so that no exotic letter can fold into a reserved name,
	// and no % or [ that someone downstream would decode once more.
	if !validName(name) || reserved(name) {
		return false
	}
	for i := range g.Fixed {
		if strings.EqualFold(g.Fixed[i].Name, name) {
			return false
		}
	}
	for _, withheld := range g.withheld {
		if strings.EqualFold(withheld, name) {
			return false
		}
	}
	if g.params == nil {
		return true
	}
	_, ok := g.params[name]
	return ok
}
