package audit

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// path is one way through a template: the SQL that comes out, with the parameters in it not yet filled in.
type path struct {
	pieces  []piece
	open    string // what would end the string or comment that the text so far leaves open
	choices []choice
	aborts  bool // it ends in error() or custom_error(): no SQL runs
	set     []string
	loose   *why // a variable may hold more than a value
}

// piece is text or, with out, an expression.
type piece struct {
	text string
	out  *expr
}

// choice is a condition and which way it went.
type choice struct {
	condition string
	holds     bool
}

// maxPaths bounds the ways through one template.
const maxPaths = 4096

var errPaths = errors.New("it has too many branches to look at each combination; split it into several nodes")

// expand lists the ways through a template. Branches that only add an AND without any of the names are left out: they narrow.
func expand(items []item, names []string) ([]path, error) {
	x := expander{names: names}
	return x.all(items, []path{{}})
}

type expander struct{ names []string }

func (x *expander) all(items []item, paths []path) ([]path, error) {
	var err error
	for _, it := range items {
		switch it := it.(type) {
		case string:
			paths = each(paths, func(p *path) { p.add(piece{text: it}) })
		case output:
			paths = each(paths, func(p *path) {
				p.aborts = p.aborts || it.value.aborts()
				p.add(piece{out: it.value})
			})
		case assign:
			paths = each(paths, func(p *path) {
				p.set = append(slices.Clip(p.set), it.names...)
				p.loose = cmp.Or(p.loose, it.value.unquoted())
			})
		case loop:
			paths, err = x.loop(it, paths)
		case branch:
			if quoted := func(p path) bool { return p.open != "" }; slices.ContainsFunc(paths, quoted) || !x.narrows(it) {
				paths, err = x.branch(it, paths)
			}
		}
		if err != nil {
			return nil, err
		}
		if len(paths) > maxPaths {
			return nil, errPaths
		}
	}
	return paths, nil
}

func each(paths []path, f func(*path)) []path {
	for i := range paths {
		if !paths[i].aborts {
			f(&paths[i])
		}
	}
	return paths
}

func (p *path) add(q piece) {
	p.pieces = append(slices.Clip(p.pieces), q)
	p.open = openAfter(p.open, q)
}

// loop runs the body never, once and twice.
func (x *expander) loop(l loop, paths []path) ([]path, error) {
	out := slices.Clone(paths)
	round := each(slices.Clone(paths), func(p *path) {
		p.set = append(slices.Clip(p.set), l.names...)
		p.loose = cmp.Or(p.loose, l.over.unquoted())
	})
	for range 2 {
		var err error
		if round, err = x.all(l.body, slices.Clone(round)); err != nil {
			return nil, err
		}
		if out = append(out, round...); len(out) > maxPaths {
			return nil, errPaths
		}
	}
	return out, nil
}

func (x *expander) branch(b branch, paths []path) ([]path, error) {
	var out []path
	for _, p := range paths {
		if p.aborts {
			out = append(out, p)
			continue
		}
		for _, a := range b.arms {
			taken := p
			open := true
			if a.when != nil {
				taken, open = p.choose(a.when, true)
			}
			if open {
				through, err := x.all(a.body, []path{taken})
				if err != nil {
					return nil, err
				}
				if out = append(out, through...); len(out) > maxPaths {
					return nil, errPaths
				}
			}
			if a.when == nil {
				break
			}
			if p, open = p.choose(a.when, false); !open {
				break
			}
		}
	}
	return out, nil
}

// choose takes one side of a condition, unless the path has gone the other way at the same condition before.
func (p *path) choose(when *condition, holds bool) (path, bool) {
	holds = holds != when.negated
	for _, c := range p.choices {
		if c.condition == when.text && !slices.ContainsFunc(p.set, when.mentions) {
			return *p, c.holds == holds
		}
	}
	taken := *p
	taken.choices = append(slices.Clip(p.choices), choice{when.text, holds})
	return taken, true
}

// describe is the path in words.
func (p *path) describe() string {
	parts := make([]string, 0, len(p.choices))
	for _, c := range p.choices {
		text := "`" + short(c.condition) + "` does not hold"
		if c.holds {
			text = "`" + short(c.condition) + "` holds"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// narrows reports whether whatever arm is taken adds nothing but further conditions, none of them about the names.
func (x *expander) narrows(b branch) bool {
	for _, a := range b.arms {
		var p path
		for _, it := range a.body {
			switch it := it.(type) {
			case string:
				p.add(piece{text: it})
			case output:
				if it.value.aborts() || it.value.unquoted() != nil || slices.ContainsFunc(x.names, it.value.mentions) {
					return false
				}
				p.add(piece{out: it.value})
			case branch:
				if !x.narrows(it) {
					return false
				}
			default:
				return false
			}
		}
		if !narrowing(p.pieces) {
			return false
		}
	}
	return true
}

// narrowing reports whether the SQL is a chain of whole conditions, each begun by AND.
func narrowing(pieces []piece) bool {
	sql, err := lexSQL(pieces)
	if err != nil || sql.comments || sql.loose != nil {
		return false
	}
	tokens := sql.tokens
	if len(tokens) == 0 {
		return true
	}
	if !tokens[0].keyword("AND") {
		return false
	}
	last := tokens[len(tokens)-1]
	if last.kind == tokenMark || last.keyword("AND", "NOT", "IN", "LIKE", "BETWEEN", "IS") || slices.ContainsFunc(tokens, widening) || len(aliasesIn(tokens)) > 0 {
		return false
	}
	if _, ok := foldCases(tokens); !ok {
		return false
	}
	// A BETWEEN without its AND would take that of what comes after it.
	between := false
	for _, t := range tokens {
		if t.keyword("BETWEEN") {
			if between {
				return false
			}
			between = true
		}
		between = between && !t.keyword("AND")
	}
	return !between
}

// widening reports whether what follows the token may be more than a condition that is added.
func widening(t token) bool {
	return clauseWord(t) || t.keyword("OR", "AS", "UNION", "EXCEPT", "INTERSECT", "JOIN", "ON", "USING") ||
		t.kind == tokenMark && slices.Contains([]string{"?", ":", "->", ",", ";"}, t.text)
}
