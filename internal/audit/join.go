package audit

import (
	"maps"
	"slices"
)

// join follows the restriction from source to source.
type join struct {
	*prover
	*selection

	where []ref             // columns that WHERE or HAVING makes equal to the parameter
	held  []map[string]bool // for each source, the columns known to hold the parameter's value
	solid []bool            // for each source, whether that is by WHERE, which also drops the rows of outer joins
	whys  []*why            // for each source, why it is not restricted; nil when it is
}

// own looks at the sources by themselves.
func (j *join) own() {
	j.solid = make([]bool, len(j.sources))
	for i, s := range j.sources {
		f := j.source(s, j.ctes)
		j.whys[i] = f.why
		j.held[i] = map[string]bool{}
		for _, c := range f.columns {
			j.held[i][c] = true
		}
	}
}

// conditions applies WHERE, PREWHERE and HAVING. The why is of a condition that uses the parameter without effect.
func (j *join) conditions() *why {
	var issue *why
	for _, tokens := range j.selection.where {
		f := filters(tokens, j.param)
		if issue == nil {
			issue = f.issue
		}
		j.where = append(j.where, f.columns...)
	}
	f := filters(j.having, j.param)
	if issue == nil {
		issue = f.issue
	}
	for _, r := range f.columns {
		if j.grouped(r.name) && j.clauses["GROUP"] && !j.totals() {
			j.where = append(j.where, r)
		} else if issue == nil {
			issue = notProven("HAVING compares it with what is no key of GROUP BY, or the totals are over all tenants")
		}
	}
	for _, r := range j.where {
		if w := j.hold(r); w != nil && issue == nil {
			issue = w
		}
	}
	return issue
}

// hold finds the source of a column that is equal to the parameter.
func (j *join) hold(r ref) *why {
	if j.shadowed(r.name, column{}) {
		return notProven("`" + r.name + "` is also the name of an expression in SELECT or WITH, which is what ClickHouse compares then")
	}
	var candidates []int
	for i, s := range j.sources {
		if r.table != "" && s.called(r.table) || r.table == "" && j.mayHave(s, r.name) {
			candidates = append(candidates, i)
		}
	}
	if around := func(s source) bool { return s.called(r.table) }; len(candidates) == 0 && len(j.sources) == 1 && !slices.ContainsFunc(j.outer, around) {
		candidates = []int{0} // the table may be a part of the column's name
	}
	if len(candidates) != 1 {
		return notProven("it is not clear whose column `" + r.name + "` is; write the table before it, as in `t." + r.name + "`")
	}
	i := candidates[0]
	if !j.passes(j.sources[i], j.ctes, r.name) {
		return notProven("`" + r.name + "` is not known to be the column of a data source, unchanged: it is computed, rows of several tenants were already put together, " +
			"or it is not clear which column of each SELECT of a UNION it is")
	}
	j.held[i][r.name], j.solid[i], j.whys[i] = true, true, nil
	return nil
}

// mayHave reports whether a source may have the column: one that lists its columns without it has not.
func (j *join) mayHave(s source, name string) bool {
	q := s.sub
	if q == nil {
		q = j.ctes[s.table]
	}
	if q == nil || q.arms[0].nested != nil {
		return true
	}
	return slices.ContainsFunc(q.arms[0].columns, func(c column) bool {
		return c.called(name) || slices.ContainsFunc(c.tokens, func(t token) bool { return t.mark("*") })
	})
}

// ties carries the restriction over to what is joined on the tenant's column, until nothing changes.
func (j *join) ties() {
	for range j.sources {
		for i := range j.sources {
			if i == 0 {
				continue
			}
			s := &j.sources[i]
			for _, c := range s.using {
				j.using(i, c)
			}
			for _, part := range allOn(s.on) {
				j.on(i, part)
			}
		}
	}
}

// allOn is the conditions of an ON that all have to hold.
func allOn(on []token) [][]token {
	on, ok := foldCases(on)
	if !ok || slices.ContainsFunc(on, func(t token) bool { return t.keyword("OR") || t.mark("?") || t.mark("->") }) {
		return nil
	}
	return conjuncts(on)
}

// keepsUnmatched reports whether rows of the joined source are returned that match nothing.
func (j *join) keepsUnmatched(i int) bool {
	return slices.ContainsFunc(j.sources[i].join, func(w string) bool { return w == "RIGHT" || w == "FULL" || w == "CROSS" || w == "PASTE" })
}

// using ties a column that both sides have. With more than two sources it is not known which of those before has it, so all
// have to.
func (j *join) using(i int, name string) {
	if i > 1 && slices.ContainsFunc(j.held[:i], func(held map[string]bool) bool { return !held[name] }) {
		return
	}
	j.tie(i, name, 0, name)
}

// tie is an equality of two columns, the first of the source that is joined at i.
func (j *join) tie(i int, a string, t int, b string) {
	if j.held[t][b] && (j.solid[t] || !j.keepsUnmatched(i)) {
		j.held[i][a], j.whys[i] = true, nil
		j.solid[i] = j.solid[i] || j.solid[t]
	}
	inner := !j.keepsUnmatched(i) && !slices.Contains(j.sources[i].join, "LEFT")
	if j.held[i][a] && (j.solid[i] || inner) {
		j.held[t][b], j.whys[t] = true, nil
		j.solid[t] = j.solid[t] || j.solid[i]
	}
}

func (j *join) on(i int, part []token) {
	for len(part) == 1 && part[0].round() {
		part = part[0].inner
	}
	if f := filters(part, j.param); len(f.columns) > 0 {
		for _, r := range f.columns {
			if r.table != "" && j.sources[i].called(r.table) && !j.keepsUnmatched(i) && j.passes(j.sources[i], j.ctes, r.name) {
				j.held[i][r.name], j.whys[i] = true, nil
			}
		}
		return
	}
	if a, b, ok := columnsOf(part); ok {
		j.equal(i, a, b)
		j.equal(i, b, a)
	}
}

// columnsOf reads an equality of two columns.
func columnsOf(part []token) (a, b ref, ok bool) {
	sides := split(part, func(t token) bool { return t.mark("=") || t.mark("==") })
	if len(sides) != 2 {
		return a, b, false
	}
	a, okA := columnOf(sides[0])
	b, okB := columnOf(sides[1])
	return a, b, okA && okB
}

// equal ties a column of the source that is joined at i to one of a source before it.
func (j *join) equal(i int, own, other ref) {
	if !j.sources[i].called(own.table) {
		return
	}
	for t := range i {
		if j.sources[t].called(other.table) {
			j.tie(i, own.name, t, other.name)
		}
	}
}

// columns are those of the result that hold the parameter's value, and whose names no other has.
func (j *join) columns() []string {
	var out, others []string
	for _, c := range j.selection.columns {
		r, plain := columnOf(c.tokens)
		switch {
		case plain && j.holds(r):
			out = append(out, c.name())
		case isStar(c.tokens) && len(j.sources) == 1:
			out = append(out, slices.Collect(maps.Keys(j.held[0]))...)
		default:
			others = append(others, c.name())
		}
	}
	return slices.DeleteFunc(out, func(name string) bool { return slices.Contains(others, name) })
}

// holds reports whether the column is that of a source in which it holds the parameter's value.
func (j *join) holds(r ref) bool {
	if j.shadowed(r.name, column{}) {
		return false
	}
	if r.table == "" {
		return !slices.ContainsFunc(j.held, func(held map[string]bool) bool { return !held[r.name] })
	}
	for i, s := range j.sources {
		if j.held[i][r.name] && (len(j.sources) == 1 || s.called(r.table)) {
			return true
		}
	}
	return false
}
