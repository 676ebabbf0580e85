package audit

import (
	"slices"
	"strings"
)

// why says what keeps a part of a pipe from being restricted by a parameter.
type why struct {
	code   Code
	text   string
	node   string
	branch string
}

// certain reports whether rows do get past the parameter; otherwise the audit only cannot tell.
func (w *why) certain() bool { return w != nil && w.code != CodeNotProven }

func notProven(text string) *why { return &why{code: CodeNotProven, text: text} }

// ref is a column, perhaps with its table.
type ref struct{ table, name string }

// restriction is what a condition does about one parameter: the columns that it makes equal to it, or why it does not.
type restriction struct {
	columns []ref
	issue   *why
}

// filters reads a condition.
func filters(tokens []token, param string) restriction {
	if len(tokens) == 1 && tokens[0].round() && !isQuery(tokens[0]) {
		return filters(tokens[0].inner, param)
	}
	if !mentions(tokens, param) {
		return restriction{}
	}
	tokens, ok := foldCases(tokens)
	if !ok || slices.ContainsFunc(tokens, func(t token) bool { return t.mark("?") || t.mark("->") }) {
		return restriction{issue: notProven("a condition with `?`, `->` or CASE uses it")}
	}
	if parts := split(tokens, func(t token) bool { return t.keyword("OR") }); len(parts) > 1 {
		return anyOf(parts, param)
	}
	if parts := conjuncts(tokens); len(parts) > 1 {
		return allOf(parts, param)
	}
	return comparison(tokens, param)
}

// anyOf is a condition with OR: each side has to restrict the same column.
func anyOf(parts [][]token, param string) restriction {
	var common []ref
	for i, part := range parts {
		f := filters(part, param)
		if len(f.columns) == 0 {
			if f.issue == nil {
				f.issue = &why{code: CodeWeakened, text: "an OR lets other rows through as well"}
			}
			return restriction{issue: f.issue}
		}
		if i == 0 {
			common = f.columns
			continue
		}
		common = inBoth(common, f.columns)
	}
	if len(common) == 0 {
		return restriction{issue: notProven("the two sides of an OR compare it with different columns")}
	}
	return restriction{columns: common}
}

// inBoth returns what is in both lists, in the order of the first.
func inBoth[T comparable](a, b []T) []T {
	return slices.DeleteFunc(slices.Clone(a), func(v T) bool { return !slices.Contains(b, v) })
}

func allOf(parts [][]token, param string) restriction {
	var r restriction
	for _, part := range parts {
		f := filters(part, param)
		r.columns = append(r.columns, f.columns...)
		if r.issue == nil {
			r.issue = f.issue
		}
	}
	if len(r.columns) > 0 {
		r.issue = nil
	}
	return r
}

// foldCases makes one token of each CASE with all up to its END: an AND in it is not one beside it. It is not ok if one has no END.
func foldCases(tokens []token) (folded []token, ok bool) {
	var begins []int
	for _, t := range tokens {
		folded = append(folded, t)
		switch n := len(begins); {
		case t.keyword("CASE"):
			begins = append(begins, len(folded)-1)
		case t.keyword("END") && n > 0:
			from := begins[n-1]
			begins = begins[:n-1]
			folded = append(folded[:from:from], token{kind: tokenGroup, text: "CASE", inner: slices.Clone(folded[from:])})
		}
	}
	return folded, len(begins) == 0
}

// conjuncts splits at AND, but for the one that belongs to a BETWEEN.
func conjuncts(tokens []token) [][]token {
	between := 0
	return split(tokens, func(t token) bool {
		if t.keyword("BETWEEN") {
			between++
		}
		if !t.keyword("AND") {
			return false
		}
		if between > 0 {
			between--
			return false
		}
		return true
	})
}

// comparison reads one condition. Only equality with a column restricts: = and ==, IN a list of nothing else, and has().
func comparison(tokens []token, param string) restriction {
	if len(tokens) == 2 && tokens[1].round() && tokens[0].keyword("HAS", "EQUALS") {
		if args := split(tokens[1].inner, comma); len(args) == 2 {
			return equality(args[0], args[1], param, tokens[0].keyword("HAS"))
		}
	}
	for i, t := range tokens {
		switch {
		case t.mark("=") || t.mark("=="):
			return equality(tokens[:i], tokens[i+1:], param, false)
		case t.keyword("IN"):
			left := tokens[:i]
			if n := len(left); n > 0 && left[n-1].keyword("GLOBAL") {
				left = left[:n-1]
			}
			return membership(left, tokens[i+1:], param)
		}
	}
	return restriction{issue: misuse(tokens)}
}

func comma(t token) bool { return t.mark(",") }

func equality(left, right []token, param string, list bool) restriction {
	for _, sides := range [...][2][]token{{left, right}, {right, left}} {
		c, ok := columnOf(sides[0])
		if ok && isParam(sides[1], param, list) {
			return restriction{columns: []ref{c}}
		}
	}
	return restriction{issue: misuse(slices.Concat(left, right))}
}

func membership(left, right []token, param string) restriction {
	c, ok := columnOf(left)
	if !ok {
		return restriction{issue: misuse(left)}
	}
	for len(right) == 1 && right[0].round() {
		right = right[0].inner
	}
	if isParam(right, param, true) || isParam(right, param, false) {
		return restriction{columns: []ref{c}}
	}
	return restriction{issue: notProven("it is one of several values in a list, or part of an expression")}
}

// misuse says what is wrong with a condition that uses the parameter and is no equality.
func misuse(tokens []token) *why {
	for _, t := range tokens {
		switch {
		case t.keyword("NOT") || t.mark("!=") || t.mark("<>"):
			return &why{code: CodeNotEquality, text: "the condition is negated, so it selects everything but the tenant"}
		case t.keyword("LIKE", "ILIKE", "REGEXP") || t.mark("<") || t.mark(">") || t.mark("<=") || t.mark(">="):
			return &why{code: CodeNotEquality, text: "it is compared by something else than equality, which can match other tenants"}
		}
	}
	return notProven("it is not compared with a plain column")
}

// columnOf reads a column, with its table if named. Names that are constants are none.
func columnOf(tokens []token) (ref, bool) {
	for len(tokens) == 1 && tokens[0].round() {
		tokens = tokens[0].inner
	}
	if len(tokens) == 2 && tokens[0].keyword("TOSTRING") && tokens[1].round() {
		return columnOf(tokens[1].inner)
	}
	if len(tokens)%2 == 0 || tokens[0].keyword("NULL", "TRUE", "FALSE", "NOT") {
		return ref{}, false
	}
	for i, t := range tokens {
		if i%2 == 0 && !t.name() || i%2 == 1 && !t.mark(".") {
			return ref{}, false
		}
	}
	r := ref{name: tokens[len(tokens)-1].text}
	if len(tokens) > 1 {
		r.table = tokens[len(tokens)-3].text
	}
	return r, true
}

// isParam reports whether the tokens are the parameter's value and nothing else; list, an array of values.
func isParam(tokens []token, param string, list bool) bool {
	for len(tokens) == 1 && tokens[0].round() {
		tokens = tokens[0].inner
	}
	if len(tokens) == 2 && tokens[0].kind == tokenWord && tokens[1].round() {
		return isConverted(strings.ToUpper(tokens[0].text), split(tokens[1].inner, comma), param, list)
	}
	if len(tokens) != 1 || tokens[0].kind != tokenParam {
		return false
	}
	e := tokens[0].param
	if e.plain() {
		return e.name == param && !list
	}
	t, ok := e.typedParam()
	if !ok || t.param != param {
		return false
	}
	switch t.typ {
	case typeColumn, typeSymbol, "JSON", "Float32", "Float64":
		// An identifier, an object, or a number that two tenants may round to.
		return false
	}
	return (t.typ == typeArray) == list
}

// isConverted knows the functions that give another type to a value and keep it apart from every other.
func isConverted(function string, args [][]token, param string, list bool) bool {
	switch function {
	case "SPLITBYCHAR":
		// At a separator that is sent, the parts could be what another tenant is called.
		return list && len(args) == 2 && len(args[0]) == 1 && args[0][0].kind == tokenString && isParam(args[1], param, false)
	case "TOSTRING", "TOUUID", "TOINT64", "TOUINT64":
		return !list && len(args) == 1 && isParam(args[0], param, false)
	}
	return false
}
