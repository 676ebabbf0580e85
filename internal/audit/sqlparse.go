package audit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// query is a SELECT, or several with UNION, EXCEPT or INTERSECT between them.
type query struct{ arms []*selection }

// selection is one SELECT, or a query in parentheses in its place.
type selection struct {
	nested  *query
	columns []column
	scalars []column // WITH <expression> AS <name>
	sources []source
	where   [][]token // WHERE and PREWHERE
	having  []token
	group   []token
	rest    [][]token // clauses that decide neither which rows nor which sources
	clauses map[string]bool
	ctes    map[string]*query // WITH <name> AS (<query>), those of the queries around it included
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
	sub      *query
	dynamic  bool // chosen by a parameter
	alias    string
	join     []string // the words before JOIN; nil for the first source
	on       []token
	using    []string
}

var (
	errNoSelect = errors.New("its SQL is not understood: a SELECT is missing")
	errFrom     = errors.New("its SQL is not understood: something in FROM")
	errTwice    = errors.New("its SQL is not understood: a clause comes twice")
)

// parseQuery reads the tokens of a whole query, or of what is in its parentheses.
func parseQuery(tokens []token, ctes map[string]*query, depth int) (*query, error) {
	if depth > maxNesting {
		return nil, errNesting
	}
	for len(tokens) > 0 && tokens[len(tokens)-1].mark(";") {
		tokens = tokens[:len(tokens)-1]
	}
	q := new(query)
	for _, part := range splitArms(tokens) {
		s, err := parseSelection(part, ctes, depth)
		if err != nil {
			return nil, err
		}
		// What the first SELECT names is known to the others.
		ctes = s.ctes
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
	return t.round() && len(t.inner) > 0 && (t.inner[0].keyword("SELECT", "WITH") || isQuery(t.inner[0]) || fromFirst(t.inner))
}

// fromFirst knows ClickHouse's FROM t SELECT a.
func fromFirst(tokens []token) bool {
	return tokens[0].keyword("FROM") && slices.ContainsFunc(tokens, func(t token) bool { return t.keyword("SELECT") })
}

func parseSelection(tokens []token, ctes map[string]*query, depth int) (*selection, error) {
	s := &selection{ctes: ctes, clauses: map[string]bool{}}
	if len(tokens) == 1 && tokens[0].round() {
		var err error
		s.nested, err = parseQuery(tokens[0].inner, ctes, depth+1)
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
			s.sources, err = parseFrom(c.body, s.ctes, depth)
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
	if !clauseWord(tokens[i]) || i > 0 && tokens[i-1].mark(".") {
		return false
	}
	next := token{}
	if i+1 < len(tokens) {
		next = tokens[i+1]
	}
	switch strings.ToUpper(tokens[i].text) {
	case "GROUP", "ORDER":
		return next.keyword("BY")
	case "WITH":
		// WITH TOTALS and the like belong to the clause before.
		return !next.keyword("TOTALS", "ROLLUP", "CUBE", "FILL", "TIES")
	case "FORMAT", "INTO":
		return next.name() && i+2 >= len(tokens)-1
	case "SETTINGS":
		return next.name() && i+2 < len(tokens) && tokens[i+2].mark("=")
	case "WINDOW":
		return next.name() && i+2 < len(tokens) && tokens[i+2].keyword("AS")
	case "LIMIT", "OFFSET":
		return next.kind == tokenNumber || next.kind == tokenParam || next.round()
	}
	return true
}

func splitClauses(tokens []token) ([]clause, error) {
	var clauses []clause
	seen := map[string]bool{}
	for i, t := range tokens {
		if !begins(tokens, i) {
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
	s.ctes = cloneCTEs(s.ctes)
	for _, part := range split(tokens, func(t token) bool { return t.mark(",") }) {
		if len(part) > 0 && part[0].keyword("RECURSIVE") {
			return errors.New("its SQL is not understood: WITH RECURSIVE")
		}
		if len(part) == 3 && part[0].name() && part[1].keyword("AS") && isQuery(part[2]) {
			q, err := parseQuery(part[2].inner, s.ctes, depth+1)
			if err != nil {
				return err
			}
			s.ctes[part[0].text] = q
			continue
		}
		s.scalars = append(s.scalars, parseColumns(part)...)
	}
	return nil
}

func cloneCTEs(ctes map[string]*query) map[string]*query {
	out := make(map[string]*query, len(ctes))
	maps.Copy(out, ctes)
	return out
}

func parseColumns(tokens []token) []column {
	var columns []column
	for _, part := range split(tokens, func(t token) bool { return t.mark(",") }) {
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

var joinWords = []string{"GLOBAL", "LOCAL", "ANY", "ALL", "ASOF", "SEMI", "ANTI", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "OUTER", "PASTE", "ARRAY"}

// parseFrom reads the sources and how they are joined.
func parseFrom(tokens []token, ctes map[string]*query, depth int) ([]source, error) {
	var sources []source
	var join []string
	for {
		s, rest, err := parseSource(tokens, ctes, depth)
		if err != nil {
			return nil, err
		}
		s.join = join
		if rest, err = s.condition(rest); err != nil {
			return nil, err
		}
		sources = append(sources, s)
		for {
			if len(rest) == 0 {
				return sources, nil
			}
			if join, tokens, err = parseJoin(rest); err != nil {
				return nil, err
			}
			if !slices.Contains(join, "ARRAY") {
				break
			}
			rest = afterArrays(tokens)
		}
	}
}

// parseJoin reads a comma or the words up to JOIN.
func parseJoin(tokens []token) (join []string, rest []token, err error) {
	if tokens[0].mark(",") {
		return []string{"CROSS"}, tokens[1:], nil
	}
	join = []string{}
	for i, t := range tokens {
		switch {
		case t.keyword("JOIN"):
			return join, tokens[i+1:], nil
		case t.keyword(joinWords...):
			join = append(join, strings.ToUpper(t.text))
		default:
			return nil, nil, errFrom
		}
	}
	return nil, nil, errFrom
}

// afterArrays skips the expressions of an ARRAY JOIN, which read nothing new.
func afterArrays(tokens []token) []token {
	for i, t := range tokens {
		if t.keyword("JOIN") {
			for i > 0 && tokens[i-1].keyword(joinWords...) {
				i--
			}
			return tokens[i:]
		}
	}
	return nil
}

func parseSource(tokens []token, ctes map[string]*query, depth int) (s source, rest []token, err error) {
	if len(tokens) == 0 {
		return s, nil, errFrom
	}
	t := tokens[0]
	rest = tokens[1:]
	switch {
	case t.kind == tokenParam:
		s.dynamic = true
	case isQuery(t):
		if s.sub, err = parseQuery(t.inner, ctes, depth+1); err != nil {
			return s, nil, err
		}
	case t.name() && len(rest) > 0 && rest[0].round():
		s.function = strings.ToLower(t.text)
		rest = rest[1:]
	case t.name():
		s.table = t.text
		for len(rest) >= 2 && rest[0].mark(".") && rest[1].name() {
			s.table += "." + rest[1].text
			rest = rest[2:]
		}
	default:
		return s, nil, fmt.Errorf("%w (near %q)", errFrom, short(t.text))
	}
	return s, s.modifiers(rest), nil
}

// modifiers reads the alias, FINAL and SAMPLE.
func (s *source) modifiers(rest []token) []token {
	for len(rest) > 0 {
		switch t := rest[0]; {
		case t.keyword("FINAL"):
			rest = rest[1:]
		case t.keyword("SAMPLE", "OFFSET") && len(rest) > 1:
			for rest = rest[2:]; len(rest) > 1 && rest[0].mark("/"); {
				rest = rest[2:]
			}
		case t.keyword("AS") && len(rest) > 1 && rest[1].name():
			s.alias, rest = rest[1].text, rest[2:]
		case t.name() && s.alias == "" && !t.keyword("JOIN", "ON", "USING") && !t.keyword(joinWords...):
			s.alias, rest = t.text, rest[1:]
		default:
			return rest
		}
	}
	return rest
}

// condition reads ON or USING.
func (s *source) condition(rest []token) ([]token, error) {
	if len(rest) == 0 || !rest[0].keyword("ON", "USING") {
		return rest, nil
	}
	if s.join == nil {
		return nil, errFrom
	}
	if rest[0].keyword("USING") {
		return s.columns(rest[1:])
	}
	end := 1
	for end < len(rest) && !rest[end].keyword("JOIN") && !rest[end].mark(",") {
		end++
	}
	if end < len(rest) && rest[end].keyword("JOIN") {
		for end > 1 && rest[end-1].keyword(joinWords...) {
			end--
		}
	}
	s.on = rest[1:end]
	return rest[end:], nil
}

// columns reads the list of USING, with or without parentheses.
func (s *source) columns(rest []token) ([]token, error) {
	if len(rest) > 0 && rest[0].round() {
		for _, t := range rest[0].inner {
			if t.name() {
				s.using = append(s.using, t.text)
			}
		}
		return rest[1:], nil
	}
	for len(rest) > 0 && rest[0].name() {
		s.using = append(s.using, rest[0].text)
		if rest = rest[1:]; len(rest) < 2 || !rest[0].mark(",") || !rest[1].name() {
			return rest, nil
		}
		rest = rest[1:]
	}
	return nil, errFrom
}
