package audit

import (
	"slices"
	"strings"
)

// resolver finds what a name in FROM stands for.
type resolver interface {
	// relation returns what a name in the SQL of a node stands for: the ways through another node's template, or nothing for
	// a data source. The why is of something that could not be read.
	relation(name, from string) (variants []variant, node string, w *why)
}

// variant is the query that comes out of one way through a template.
type variant struct {
	query  *query
	branch string   // the way, in words
	set    []string // names that the template itself gives a value
	loose  *why     // a parameter may turn out as more than a value
}

// prover tells whether what a query returns is restricted by one parameter.
type prover struct {
	resolver

	param string
	node  string   // whose SQL is being looked at
	outer []source // of the queries around, whose columns a subquery can mean
	depth int
	steps int

	proofs map[string]finding // of nodes, by label; those under way are not proven
	passed map[string]bool    // of nodes' columns, by both; those under way do not pass
}

// maxSteps bounds the work on one parameter: queries that name each other can be looked at very often.
const maxSteps = 200_000

// tooFar counts a step.
func (p *prover) tooFar() bool {
	p.steps++
	return p.depth > maxNesting || p.steps > maxSteps
}

// finding is the outcome: nil why is a proof, and columns are those of the result that hold the parameter's value.
type finding struct {
	columns []string
	why     *why
}

func (p *prover) fail(w *why) finding {
	if w.node == "" {
		w = &why{code: w.code, text: w.text, node: p.node, branch: w.branch}
	}
	return finding{why: w}
}

// query holds when each of its arms does.
func (p *prover) query(q *query) finding {
	if p.tooFar() {
		return p.fail(notProven("nodes and subqueries are nested too deeply, or read each other too often"))
	}
	p.depth++
	defer func() { p.depth-- }()
	var out finding
	for i, s := range q.arms {
		f := p.selection(s)
		if f.why != nil {
			return f
		}
		if i == 0 {
			out.columns = f.columns
			continue
		}
		out.columns = slices.DeleteFunc(slices.Clone(out.columns), func(name string) bool {
			own, ok := q.inArm(i, name)
			return !ok || !slices.Contains(f.columns, own)
		})
	}
	return out
}

// selection holds when its own condition restricts it, or when all that it reads is restricted.
func (p *prover) selection(s *selection) finding {
	if s.nested != nil {
		return p.query(s.nested)
	}
	if w := p.extras(s); w != nil {
		return p.fail(w)
	}
	if len(s.sources) == 0 {
		return finding{}
	}
	j := join{prover: p, selection: s, held: make([]map[string]bool, len(s.sources)), whys: make([]*why, len(s.sources))}
	j.own()
	issue := j.conditions()
	j.ties()
	for i, w := range j.whys {
		if w == nil {
			continue
		}
		if issue != nil {
			return p.fail(issue)
		}
		if i > 0 && !w.certain() || i == 0 && len(s.sources) == 1 || len(j.where) == 0 {
			return p.fail(w)
		}
		return p.fail(notProven("`" + s.sources[i].label() + "` is joined without it: filter it too, or join on the tenant's column as well"))
	}
	return finding{columns: j.columns()}
}

// extras looks at what is read outside of FROM and returned or computed with. What is in WHERE and ON only decides which rows are
// left, unless it has a name there by which it can be returned.
func (p *prover) extras(s *selection) *why {
	before := len(p.outer)
	p.outer = append(p.outer, s.sources...)
	defer func() { p.outer = p.outer[:before] }()
	for _, tokens := range s.deciding() {
		if len(aliasesIn(tokens)) == 0 {
			continue
		}
		if w := p.reads(tokens, s); w != nil {
			return w
		}
	}
	for _, tokens := range s.returned() {
		if w := p.reads(tokens, s); w != nil {
			return w
		}
	}
	return nil
}

// reads looks at the queries in an expression, and at what else in it reads a table.
func (p *prover) reads(tokens []token, s *selection) *why {
	for i, t := range tokens {
		switch {
		case isQuery(t):
			q, err := parseQuery(t.inner, s.scope, p.depth)
			if err != nil {
				return notProven(err.Error())
			}
			if f := p.query(q); f.why != nil {
				return f.why
			}
		case i+1 < len(tokens) && tokens[i+1].round() && readsTable(t):
			return notProven("the function `" + t.text + "` reads a table or dictionary by itself")
		case t.keyword("IN") && i+1 < len(tokens) && tokens[i+1].name() && !s.names(tokens[i+1].text) && (i+2 == len(tokens) || !tokens[i+2].round()):
			return notProven("`IN " + tokens[i+1].text + "` reads a table by itself")
		default:
			if w := p.reads(t.inner, s); w != nil {
				return w
			}
		}
	}
	return nil
}

// readsTable knows the functions that look something up in a table, dictionary or file.
func readsTable(t token) bool {
	name := strings.ToLower(t.text)
	return t.kind == tokenWord && (strings.HasPrefix(name, "joinget") || strings.HasPrefix(name, "dict") || name == "file")
}

// generators are table functions that read nobody's rows.
var generators = []string{"numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "values", "null", "generaterandom"}

// source holds when what it reads is restricted by itself.
func (p *prover) source(s source, ctes map[string]*query) finding {
	switch {
	case s.dynamic:
		return p.fail(notProven("a parameter chooses what is read"))
	case s.function != "" && slices.Contains(generators, s.function):
		return finding{}
	case s.function != "":
		return p.fail(&why{code: CodeNotFiltered, text: "the table function `" + s.function + "` is read without it"})
	case s.sub != nil:
		return p.query(s.sub)
	case s.table == "system.one" || s.table == "system.numbers":
		return finding{}
	}
	switch q, ok := ctes[s.table]; {
	case ok && q == nil:
		return p.fail(notProven("`" + s.table + "` is read before WITH names it; put it first"))
	case ok:
		return p.query(q)
	}
	variants, node, w := p.relation(s.table, p.node)
	if w != nil {
		return p.fail(w)
	}
	if variants == nil {
		return p.fail(&why{code: CodeNotFiltered, text: "`" + s.table + "` is read without it"})
	}
	return p.variants(variants, node)
}

// variants holds when all ways through the node's template do.
func (p *prover) variants(variants []variant, node string) finding {
	if f, ok := p.proofs[node]; ok {
		return f
	}
	p.proofs[node] = finding{why: &why{code: CodeNotProven, text: "nodes read each other", node: node}}
	f := p.within(node, func() finding { return p.allVariants(variants) })
	p.proofs[node] = f
	return f
}

func (p *prover) allVariants(variants []variant) finding {
	var out, failed finding
	proven := false
	for _, v := range variants {
		f := p.variant(v)
		switch {
		case f.why != nil && (failed.why == nil || f.why.certain() && !failed.why.certain()):
			failed = f
		case f.why != nil:
		case !proven:
			out, proven = f, true
		default:
			out.columns = inBoth(out.columns, f.columns)
		}
	}
	if w := failed.why; w != nil && w.code == CodeSomeBranches && !proven && w.node == p.node {
		// Not this branch is at fault: none filters.
		return finding{why: &why{code: CodeNotFiltered, text: w.text, node: w.node}}
	}
	if failed.why != nil {
		return failed
	}
	return out
}

func (p *prover) variant(v variant) finding {
	if slices.Contains(v.set, p.param) {
		return p.fail(&why{code: CodeOverridden, text: "the template itself gives it a value, with set or for", branch: v.branch})
	}
	f := p.query(v.query)
	if f.why == nil && v.loose != nil {
		f = p.fail(v.loose)
	}
	if f.why == nil || f.why.node != p.node || f.why.branch != "" {
		return f
	}
	w := *f.why
	w.branch = v.branch
	if w.code == CodeNotFiltered && v.branch != "" {
		w.code = CodeSomeBranches
	}
	return finding{why: &w}
}

func (p *prover) within(node string, f func() finding) finding {
	before := p.node
	p.node = node
	p.depth++
	defer func() { p.node = before; p.depth-- }()
	if p.depth > maxNesting {
		return p.fail(notProven("nodes are nested too deeply, or read each other"))
	}
	return f()
}

// passes reports whether a column of a source is one of a data source, unchanged, and no total over several tenants.
func (p *prover) passes(s source, ctes map[string]*query, name string) bool {
	switch {
	case s.dynamic || s.function != "":
		return false
	case s.sub != nil:
		return p.queryPasses(s.sub, name)
	}
	if q, ok := ctes[s.table]; ok {
		return q != nil && p.queryPasses(q, name)
	}
	variants, node, w := p.relation(s.table, p.node)
	if w != nil {
		return false
	}
	if variants == nil {
		return true
	}
	key := node + "\x00" + name
	if ok, known := p.passed[key]; known {
		return ok
	}
	p.passed[key] = false
	ok := true
	deep := p.within(node, func() finding {
		for _, v := range variants {
			ok = ok && p.queryPasses(v.query, name)
		}
		return finding{}
	})
	p.passed[key] = ok && deep.why == nil
	return p.passed[key]
}

func (p *prover) queryPasses(q *query, name string) bool {
	if p.tooFar() {
		return false
	}
	p.depth++
	defer func() { p.depth-- }()
	for i, s := range q.arms {
		own, ok := q.inArm(i, name)
		if !ok || !p.selectionPasses(s, own) {
			return false
		}
	}
	return true
}

func (p *prover) selectionPasses(s *selection, name string) bool {
	if s.nested != nil {
		return p.queryPasses(s.nested, name)
	}
	if p.extras(s) != nil || s.mixesRows() || len(s.sources) != 1 {
		return false
	}
	if i := slices.IndexFunc(s.columns, func(c column) bool { return c.called(name) }); i >= 0 {
		c := s.columns[i]
		r, plain := columnOf(c.tokens)
		return plain && !s.shadowed(r.name, c) && s.grouped(r.name, c.alias) && p.passes(s.sources[0], s.ctes, r.name)
	}
	star := slices.ContainsFunc(s.columns, func(c column) bool { return isStar(c.tokens) })
	return star && !s.clauses["GROUP"] && p.passes(s.sources[0], s.ctes, name)
}

func (s *source) label() string {
	switch {
	case s.alias != "":
		return s.alias
	case s.table != "":
		return s.table
	}
	return "a subquery"
}

// called reports whether the source answers to the name.
func (s *source) called(name string) bool {
	return name == s.alias || s.table == name || strings.HasSuffix(s.table, "."+name)
}
