package audit

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// query is a SELECT, or several with UNION, EXCEPT or INTERSECT between them.
type query struct{ arms []*selection }

// selection is one SELECT, or a query in parentheses in its place.
type selection struct {
	scope

	nested  *query
	columns []column
	scalars []column // WITH <expression> AS <name>
	sources []source
	arrays  []column  // of ARRAY JOIN
	where   [][]token // WHERE and PREWHERE
	having  []token
	group   []token
	rest    [][]token // clauses that decide neither which rows nor which sources
	clauses map[string]bool
}

// scope is what WITH names for a query, that of the queries around it and before it included: ClickHouse passes both on.
type scope struct {
	ctes  map[string]*query // WITH <name> AS (<query>); nil for one that is named later, which not every version sees
	named []column          // WITH <expression> AS <name>
}

// column is an item of a SELECT's list.
type column struct {
	tokens []token // without the alias
	alias  string
}

// source is what follows FROM or a JOIN.
type source struct {
	table    string // a data source, node or pipe; with its database, if one is named
	function string // a table function
	args     []token
	sub      *query
	dynamic  bool // chosen by a parameter
	alias    string
	join     []string // the words before JOIN; nil for the first source
	on       []token
	using    []string
}

var (
	errNoSelect = errors.New("its SQL is not understood: a SELECT is missing")
	errTwice    = errors.New("its SQL is not understood: a clause comes twice")
)

// parseQuery reads the tokens of a whole query, or of what is in its parentheses.
func parseQuery(tokens []token, outer scope, depth int) (*query, error) {
	if depth > maxNesting {
		return nil, errNesting
	}
	for len(tokens) > 0 && tokens[len(tokens)-1].mark(";") {
		tokens = tokens[:len(tokens)-1]
	}
	q := new(query)
	for _, part := range splitArms(tokens) {
		s, err := parseSelection(part, outer, depth)
		if err != nil {
			return nil, err
		}
		// What the first SELECT names is known to the others.
		outer = s.scope
		q.arms = append(q.arms, s)
	}
	return q, nil
}

// splitArms splits at UNION, EXCEPT and INTERSECT. `* EXCEPT (a, b)` and `* EXCEPT a` name columns.
func splitArms(tokens []token) [][]token {
	var parts [][]token
	from := 0
	for i := 0; i < len(tokens); i++ {
		if !tokens[i].keyword("UNION", "EXCEPT", "INTERSECT") {
			continue
		}
		next := i + 1
		for next < len(tokens) && tokens[next].keyword("ALL", "DISTINCT") {
			next++
		}
		if next < len(tokens) && (tokens[next].keyword("SELECT", "WITH", "FROM") || isQuery(tokens[next])) {
			parts = append(parts, tokens[from:i])
			from = next
			i = next - 1
		}
	}
	return append(parts, tokens[from:])
}

// isQuery reports whether the token is a query in parentheses.
func isQuery(t token) bool {
	if !t.round() || len(t.inner) == 0 {
		return false
	}
	first := t.inner[0]
	if isQuery(first) { // and no expression that begins with one
		return len(t.inner) == 1 || t.inner[1].keyword("UNION", "EXCEPT", "INTERSECT")
	}
	return first.keyword("SELECT", "WITH") || fromFirst(t.inner)
}

// fromFirst knows ClickHouse's FROM t SELECT a.
func fromFirst(tokens []token) bool {
	return tokens[0].keyword("FROM") && slices.ContainsFunc(tokens, func(t token) bool { return t.keyword("SELECT") })
}

func parseSelection(tokens []token, outer scope, depth int) (*selection, error) {
	s := &selection{scope: outer, clauses: map[string]bool{}}
	if len(tokens) == 1 && tokens[0].round() {
		var err error
		s.nested, err = parseQuery(tokens[0].inner, outer, depth+1)
		return s, err
	}
	clauses, err := splitClauses(tokens)
	if err != nil {
		return nil, err
	}
	for _, c := range clauses {
		s.clauses[c.word] = true
		switch c.word {
		case "WITH":
			err = s.with(c.body, depth)
		case "SELECT":
			for len(c.body) > 0 && c.body[0].keyword("DISTINCT") {
				c.body = c.body[1:]
			}
			s.columns = parseColumns(c.body)
		case "FROM":
			s.sources, s.arrays, err = parseFrom(c.body, s.scope, depth)
		case "WHERE", "PREWHERE":
			s.where = append(s.where, c.body)
		case "HAVING":
			s.having = c.body
		case "GROUP":
			s.group = c.body
		default:
			s.rest = append(s.rest, c.body)
		}
		if err != nil {
			return nil, err
		}
	}
	if !s.clauses["SELECT"] {
		return nil, errNoSelect
	}
	return s, nil
}

type clause struct {
	word string
	body []token
}

// clauseWord reports whether the token begins a clause, whatever follows it.
func clauseWord(t token) bool {
	return t.keyword("WITH", "SELECT", "FROM", "PREWHERE", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "LIMIT", "SETTINGS", "FORMAT", "WINDOW", "INTO", "OFFSET")
}

// begins reports whether the token at i begins a clause. Some of the words are also good names of columns.
func begins(tokens []token, i int) bool {
	if !clauseWord(tokens[i]) {
		return false
	}
	rest := tokens[i+1:]
	after := func(n int, ok func(token) bool) bool { return n < len(rest) && ok(rest[n]) }
	switch strings.ToUpper(tokens[i].text) {
	case "GROUP", "ORDER":
		return after(0, func(t token) bool { return t.keyword("BY") })
	case "WITH":
		// WITH TOTALS and the like belong to the clause before.
		return !after(0, func(t token) bool { return t.keyword("TOTALS", "ROLLUP", "CUBE", "FILL", "TIES") })
	case "FORMAT", "INTO":
		return after(0, token.name) && len(rest) <= 2
	case "SETTINGS":
		return after(0, token.name) && after(1, func(t token) bool { return t.mark("=") })
	case "WINDOW":
		return after(0, token.name) && after(1, func(t token) bool { return t.keyword("AS") })
	case "LIMIT", "OFFSET":
		return after(0, func(t token) bool { return t.kind == tokenNumber || t.kind == tokenParam || t.round() })
	}
	return true
}

func splitClauses(tokens []token) ([]clause, error) {
	var clauses []clause
	seen := map[string]bool{}
	for i, t := range tokens {
		if i > 0 && tokens[i-1].mark(".") || !begins(tokens, i) {
			if len(clauses) == 0 {
				return nil, errNoSelect
			}
			c := &clauses[len(clauses)-1]
			c.body = append(c.body, t)
			continue
		}
		word := strings.ToUpper(t.text)
		if seen[word] && word != "LIMIT" && word != "OFFSET" {
			return nil, errTwice
		}
		seen[word] = true
		clauses = append(clauses, clause{word: word})
	}
	for i := range clauses {
		if w := clauses[i].word; w == "GROUP" || w == "ORDER" {
			clauses[i].body = clauses[i].body[1:] // BY
		}
	}
	return clauses, nil
}

// with reads named queries and named expressions.
func (s *selection) with(tokens []token, depth int) error {
	parts := split(tokens, comma)
	ctes := maps.Clone(s.ctes)
	if ctes == nil {
		ctes = map[string]*query{}
	}
	for _, part := range parts {
		if len(part) > 0 && part[0].keyword("RECURSIVE") {
			return errors.New("its SQL is not understood: WITH RECURSIVE")
		}
		if isCTE(part) {
			ctes[part[0].text] = nil
			continue
		}
		s.scalars = append(s.scalars, parseColumns(part)...)
	}
	s.named = slices.Concat(s.named, s.scalars)
	for _, part := range parts {
		if !isCTE(part) {
			continue
		}
		// By its own name a query reads what had that name before.
		name := part[0].text
		inner := scope{ctes: maps.Clone(ctes), named: s.named}
		if before, ok := s.ctes[name]; ok {
			inner.ctes[name] = before
		} else {
			delete(inner.ctes, name)
		}
		q, err := parseQuery(part[2].inner, inner, depth+1)
		if err != nil {
			return err
		}
		ctes[name] = q
	}
	s.ctes = ctes
	return nil
}

func isCTE(part []token) bool {
	return len(part) == 3 && part[0].name() && part[1].keyword("AS") && isQuery(part[2])
}

func parseColumns(tokens []token) []column {
	parts := split(tokens, comma)
	columns := make([]column, 0, len(parts))
	for _, part := range parts {
		c := column{tokens: part}
		n := len(part)
		switch {
		case n >= 3 && part[n-1].name() && part[n-2].keyword("AS"):
			c = column{part[:n-2], part[n-1].text}
		case n >= 2 && part[n-1].name() && operand(part[n-2]) && !part[n-1].keyword("END"):
			c = column{part[:n-1], part[n-1].text}
		}
		columns = append(columns, c)
	}
	return columns
}

// operand reports whether a name after the token can only be an alias.
func operand(t token) bool {
	return t.kind != tokenMark && !t.keyword("DISTINCT", "NOT", "AND", "OR", "IN", "IS", "LIKE", "BETWEEN", "CASE", "WHEN", "THEN", "ELSE", "INTERVAL", "EXCEPT", "REPLACE", "APPLY")
}
