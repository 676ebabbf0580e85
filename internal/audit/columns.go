package audit

import "slices"

// called reports whether the result has the item under the name.
func (c *column) called(name string) bool { return c.name() == name }

// name is what the item is called in the result; "" for an expression without an alias.
func (c *column) name() string {
	if c.alias != "" {
		return c.alias
	}
	r, _ := columnOf(c.tokens)
	return r.name
}

// several reports whether the item may stand for any number of columns.
func (c *column) several() bool {
	return slices.ContainsFunc(c.tokens, func(t token) bool { return t.mark("*") || t.kind == tokenParam || t.keyword("COLUMNS") })
}

// grouped reports whether the column is a key, where there is a GROUP BY.
func (s *selection) grouped(names ...string) bool {
	if !s.clauses["GROUP"] {
		return true
	}
	return slices.ContainsFunc(split(s.group, comma), func(key []token) bool {
		r, ok := columnOf(key)
		return ok && r.name != "" && slices.Contains(names, r.name)
	})
}

// totals reports whether a row over all groups is returned, too.
func (s *selection) totals() bool {
	return slices.ContainsFunc(s.group, func(t token) bool { return t.keyword("TOTALS", "ROLLUP", "CUBE") })
}

// returned are the expressions whose values are in the result, or are computed with.
func (s *selection) returned() [][]token {
	lists := [][]token{s.having, s.group}
	for _, c := range slices.Concat(s.columns, s.scalars, s.arrays) {
		lists = append(lists, c.tokens)
	}
	for _, f := range s.sources {
		lists = append(lists, f.args)
	}
	return append(lists, s.rest...)
}

// deciding are the expressions that decide which rows are left.
func (s *selection) deciding() [][]token {
	lists := slices.Clone(s.where)
	for _, f := range s.sources {
		lists = append(lists, f.on)
	}
	return lists
}

// names reports whether WITH or an alias gives the name to an expression.
func (s *selection) names(name string) bool {
	return slices.ContainsFunc(slices.Concat(s.columns, s.named, s.arrays), func(c column) bool { return c.alias == name })
}

// shadowed reports whether an alias stands in for the column of that name: ClickHouse then means the alias, wherever in the query
// it is given.
func (s *selection) shadowed(name string, but column) bool {
	for _, tokens := range slices.Concat(s.returned(), s.deciding()) {
		if slices.Contains(aliasesIn(tokens), name) || choosesAlias(tokens) {
			return true
		}
	}
	if slices.ContainsFunc(s.arrays, func(c column) bool { return c.called(name) }) {
		return true // it is an element of what the row has
	}
	return slices.ContainsFunc(slices.Concat(s.columns, s.named), func(c column) bool {
		if c.alias != name || but.alias == c.alias && len(but.tokens) > 0 {
			return false
		}
		r, plain := columnOf(c.tokens)
		return !plain || r.name != name
	})
}

// aliasesIn lists the names that AS gives to parts of an expression. Those of a query in it are its own.
func aliasesIn(tokens []token) []string {
	var found []string
	for i, t := range tokens {
		if isQuery(t) {
			continue
		}
		if t.keyword("AS") && i+1 < len(tokens) && tokens[i+1].name() {
			found = append(found, tokens[i+1].text)
		}
		found = append(found, aliasesIn(t.inner)...)
	}
	return found
}

// aggregates are functions that ClickHouse refuses in a WHERE, under whatever name.
var aggregates = []string{
	"ANY", "ANYIF", "AVG", "AVGIF", "COUNT", "COUNTIF", "MAX", "MAXIF", "MIN", "MINIF", "SUM", "SUMIF", "UNIQ", "UNIQIF", "UNIQEXACT", "UNIQEXACTIF",
}

// choosesAlias reports whether a parameter is an alias, and so perhaps that of the tenant's column.
func choosesAlias(tokens []token) bool {
	for i, t := range tokens {
		chosen := t.keyword("AS") && i+1 < len(tokens) && tokens[i+1].kind == tokenParam
		total := i > 1 && tokens[i-1].round() && tokens[i-2].keyword(aggregates...)
		if chosen && !total || choosesAlias(t.inner) {
			return true
		}
	}
	return false
}

// isStar knows * and t.*, also with the EXCEPT that leaves columns out; not REPLACE and APPLY, which change them.
func isStar(tokens []token) bool {
	if len(tokens) >= 3 && tokens[0].name() && tokens[1].mark(".") {
		tokens = tokens[2:]
	}
	return len(tokens) > 0 && tokens[0].mark("*") && (len(tokens) == 1 || tokens[1].keyword("EXCEPT") && len(tokens) == 3)
}

// neighbours are functions that compute with the rows before or after.
var neighbours = []string{
	"NEIGHBOR", "RUNNINGDIFFERENCE", "RUNNINGDIFFERENCESTARTINGWITHFIRSTVALUE", "RUNNINGACCUMULATE", "RUNNINGCONCURRENCY", "INTERPOLATE",
}

// mixesRows reports whether a row of the result may hold something of rows with another value of the same column: by a window
// function, by one of the neighbours, or as a total.
func (s *selection) mixesRows() bool {
	return s.totals() || slices.ContainsFunc(s.returned(), func(tokens []token) bool {
		return anywhere(tokens, func(t token) bool { return t.keyword("OVER") || t.keyword(neighbours...) })
	})
}

// anywhere reports whether a token matches, in brackets too.
func anywhere(tokens []token, match func(token) bool) bool {
	return slices.ContainsFunc(tokens, func(t token) bool { return match(t) || anywhere(t.inner, match) })
}

// inArm is what a column of the result is called in one of the arms. UNION goes by the place, and takes the names of the first; an
// arm that has the name at another place mixes the two up.
func (q *query) inArm(i int, name string) (string, bool) {
	if i == 0 {
		return name, true
	}
	first, own := q.arms[0].list(), q.arms[i].list()
	if first.isAll() && own.isAll() && first.sources[0].table == own.sources[0].table {
		return name, true
	}
	for n, c := range first.columns {
		if c.several() || n >= len(own.columns) || own.columns[n].several() {
			return "", false
		}
		if c.called(name) {
			there := own.columns[n].name()
			elsewhere := slices.ContainsFunc(own.columns, func(c column) bool { return c.called(name) })
			return there, there == name || there != "" && !elsewhere
		}
	}
	return "", false
}

// list is the SELECT whose list of columns is that of the result.
func (s *selection) list() *selection {
	for s.nested != nil {
		s = s.nested.arms[0]
	}
	return s
}

// isAll reports whether the result has the columns of one table, as they are.
func (s *selection) isAll() bool {
	return len(s.columns) == 1 && len(s.columns[0].tokens) == 1 && isStar(s.columns[0].tokens) && len(s.sources) == 1 && s.sources[0].table != ""
}
