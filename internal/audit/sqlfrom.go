package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var errFrom = errors.New("its SQL is not understood: something in FROM")

var joinWords = []string{"GLOBAL", "LOCAL", "ANY", "ALL", "ASOF", "SEMI", "ANTI", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "OUTER", "PASTE", "ARRAY"}

// parseFrom reads the sources and how they are joined, and the expressions of ARRAY JOIN.
func parseFrom(tokens []token, outer scope, depth int) (sources []source, arrays []column, err error) {
	var join []string
	for {
		s, rest, err := parseSource(tokens, outer, depth)
		if err != nil {
			return nil, nil, err
		}
		s.join = join
		if rest, err = s.condition(rest); err != nil {
			return nil, nil, err
		}
		sources = append(sources, s)
		for {
			if len(rest) == 0 {
				return sources, arrays, nil
			}
			if join, tokens, err = parseJoin(rest); err != nil {
				return nil, nil, err
			}
			if !slices.Contains(join, "ARRAY") {
				break
			}
			n := untilJoin(tokens)
			arrays = append(arrays, parseColumns(tokens[:n])...)
			rest = tokens[n:]
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

// untilJoin is how many tokens there are before the words of the next JOIN.
func untilJoin(tokens []token) int {
	n := slices.IndexFunc(tokens, func(t token) bool { return t.keyword("JOIN") })
	if n < 0 {
		return len(tokens)
	}
	for n > 0 && tokens[n-1].keyword(joinWords...) {
		n--
	}
	return n
}

func parseSource(tokens []token, outer scope, depth int) (s source, rest []token, err error) {
	if len(tokens) == 0 {
		return s, nil, errFrom
	}
	t := tokens[0]
	rest = tokens[1:]
	switch {
	case t.kind == tokenParam:
		s.dynamic = true
	case isQuery(t):
		if s.sub, err = parseQuery(t.inner, outer, depth+1); err != nil {
			return s, nil, err
		}
	case t.name() && len(rest) > 0 && rest[0].round():
		s.function, s.args = strings.ToLower(t.text), rest[0].inner
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
	rest = s.modifiers(rest)
	return s, rest, nil
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
	rest = rest[1:]
	end := untilJoin(rest)
	if i := slices.IndexFunc(rest, comma); i >= 0 {
		end = min(end, i)
	}
	s.on = rest[:end]
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
