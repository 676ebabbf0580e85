package engine

import (
	"errors"
	"fmt"
	"strings"
	"text/scanner"
)

// opName is the op of a bare name.
const opName = "name"

// expr is an expression of the template language, which is Python's as far as templates use it.
type expr struct {
	op    string // "name", "text", "number", "word", "call", "not", "and", "or", "==", "!=", "<", "<=", ">", ">=", "in"
	text  string
	args  []*expr
	named map[string]*expr
}

// lexer splits an expression.
type lexer struct {
	tokens []lexed
}

type lexed struct {
	kind rune // of text/scanner, or 'o' for an operator
	text string
}

func lex(text string) (*lexer, error) {
	l := new(lexer)
	for text = strings.TrimLeft(text, " \t\r\n"); text != ""; text = strings.TrimLeft(text, " \t\r\n") {
		t, n, err := lexOne(text)
		if err != nil {
			return nil, err
		}
		l.tokens = append(l.tokens, t)
		text = text[n:]
	}
	return l, nil
}

// lexOne reads the first token and says how long it is.
func lexOne(text string) (lexed, int, error) {
	switch c := text[0]; {
	case c == '\'' || c == '"':
		value, n, err := quoted(text)
		return lexed{scanner.String, value}, n, err
	case isWord(c) && !isDigit(c):
		n := span(text, isWord)
		return lexed{scanner.Ident, text[:n]}, n, nil
	case isWord(c) || c == '-' && len(text) > 1 && isDigit(text[1]):
		n := span(text, func(c byte) bool { return isWord(c) || c == '.' })
		return lexed{scanner.Int, text[:n]}, n, nil
	}
	for _, op := range []string{"==", "!=", "<=", ">=", "(", ")", ",", "=", "<", ">", "[", "]"} {
		if strings.HasPrefix(text, op) {
			return lexed{'o', op}, len(op), nil
		}
	}
	return lexed{}, 0, fmt.Errorf("the character %q is not understood here", text[0])
}

// span is how many bytes from the first on are part of a token; the first always is.
func span(text string, part func(byte) bool) int {
	n := 1
	for n < len(text) && part(text[n]) {
		n++
	}
	return n
}

func isWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// quoted reads a Python string literal and says how long it is.
func quoted(text string) (value string, n int, err error) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == text[0]:
			return b.String(), i + 1, nil
		case c == '\\' && i+1 < len(text):
			i++
			switch text[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			default:
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, errors.New("a text is not closed")
}

func (l *lexer) peek() lexed {
	if len(l.tokens) == 0 {
		return lexed{}
	}
	return l.tokens[0]
}

func (l *lexer) take(kind rune, text string) bool {
	if p := l.peek(); p.kind != kind || p.text != text {
		return false
	}
	l.tokens = l.tokens[1:]
	return true
}

const maxNesting = 64

func parseExpr(text string) (*expr, error) {
	l, err := lex(text)
	if err != nil {
		return nil, err
	}
	e, err := l.or(0)
	if err == nil && len(l.tokens) > 0 {
		err = fmt.Errorf("%q is left over", l.tokens[0].text)
	}
	return e, err
}

func (l *lexer) or(depth int) (*expr, error) { return l.binary("or", depth, l.and) }

func (l *lexer) and(depth int) (*expr, error) { return l.binary("and", depth, l.not) }

func (l *lexer) binary(word string, depth int, next func(int) (*expr, error)) (*expr, error) {
	e, err := next(depth)
	for err == nil && l.take(scanner.Ident, word) {
		var right *expr
		right, err = next(depth)
		e = &expr{op: word, args: []*expr{e, right}}
	}
	return e, err
}

func (l *lexer) not(depth int) (*expr, error) {
	if depth > maxNesting {
		return nil, errors.New("nested too deeply")
	}
	if l.take(scanner.Ident, "not") {
		e, err := l.not(depth + 1)
		return &expr{op: "not", args: []*expr{e}}, err
	}
	left, err := l.primary(depth)
	if err != nil {
		return nil, err
	}
	for _, op := range []string{"==", "!=", "<=", ">=", "<", ">"} {
		if l.take('o', op) {
			right, err := l.primary(depth)
			return &expr{op: op, args: []*expr{left, right}}, err
		}
	}
	if l.take(scanner.Ident, "in") {
		right, err := l.primary(depth)
		return &expr{op: "in", args: []*expr{left, right}}, err
	}
	return left, nil
}

func (l *lexer) primary(depth int) (*expr, error) {
	if depth > maxNesting {
		return nil, errors.New("nested too deeply")
	}
	t := l.peek()
	if t.kind == 0 {
		return nil, errors.New("it ends too early")
	}
	l.tokens = l.tokens[1:]
	switch t.kind {
	case scanner.String:
		return &expr{op: "text", text: t.text}, nil
	case scanner.Int:
		return &expr{op: "number", text: t.text}, nil
	case scanner.Ident:
		if l.take('o', "(") {
			return l.call(t.text, depth+1)
		}
		if t.text == "True" || t.text == "False" || t.text == "None" {
			return &expr{op: "word", text: t.text}, nil
		}
		return &expr{op: opName, text: t.text}, nil
	}
	switch t.text {
	case "(":
		e, err := l.or(depth + 1)
		if err == nil && !l.take('o', ")") {
			err = errors.New("a ) is missing")
		}
		return e, err
	case "[":
		return l.list("list", "]", depth+1)
	}
	return nil, fmt.Errorf("%q stands where a value belongs", t.text)
}

func (l *lexer) call(name string, depth int) (*expr, error) {
	e, err := l.list("call", ")", depth)
	if e != nil {
		e.text = name
	}
	return e, err
}

// list parses arguments up to the closing bracket.
func (l *lexer) list(op, closing string, depth int) (*expr, error) {
	e := &expr{op: op, named: map[string]*expr{}}
	for first := true; !l.take('o', closing); first = false {
		if !first && !l.take('o', ",") {
			return nil, fmt.Errorf("a , or %s is missing", closing)
		}
		if l.take('o', closing) { // after a comma at the end
			return e, nil
		}
		if len(l.tokens) > 1 && l.tokens[0].kind == scanner.Ident && l.tokens[1] == (lexed{'o', "="}) {
			name := l.tokens[0].text
			l.tokens = l.tokens[2:]
			v, err := l.or(depth)
			if err != nil {
				return nil, err
			}
			e.named[name] = v
			continue
		}
		v, err := l.or(depth)
		if err != nil {
			return nil, err
		}
		e.args = append(e.args, v)
	}
	return e, nil
}
