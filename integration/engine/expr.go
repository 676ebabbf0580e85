package engine

import (
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// expr is an expression of Python, as far as templates use them. op says what it is: "lit", "name", "call", "list",
// "not", "and", "or", "neg", "+", or a comparison.
type expr struct {
	op    string
	name  string
	value any
	args  []*expr
	named map[string]*expr
	line  int
}

// required are the parameters that typed functions in the expression have no default for.
func (e *expr) required() []string {
	var names []string
	if e.op == "call" && isType(e.name) && len(e.args) > 0 && e.args[0].op == "name" {
		_, def := e.named["default"]
		_, optional := e.named["defined"]
		at := 1
		if e.name == arrayType {
			at = 2
		}
		if !def && !optional && len(e.args) <= at {
			names = append(names, e.args[0].name)
		}
	}
	for _, a := range e.args {
		names = append(names, a.required()...)
	}
	return names
}

var token = regexp.MustCompile(`^(?:` +
	`([A-Za-z_]\w*)` + // a name
	`|(\d+\.\d*|\.\d+|\d+)` + // a number
	`|('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")` + // a string
	`|(==|!=|<=|>=|[-+<>()\[\],=])` +
	`)`)

type exprParser struct {
	tokens []string
	line   int
	depth  int
}

func parseExpr(text string, line int) (*expr, error) {
	p := &exprParser{line: line}
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		t := token.FindString(rest)
		if t == "" {
			return nil, syntaxError("%q is not understood, line %d", rest, line)
		}
		p.tokens = append(p.tokens, t)
		rest = rest[len(t):]
	}
	e, err := p.or()
	if err == nil && len(p.tokens) > 0 {
		err = p.wrong()
	}
	return e, err
}

func (p *exprParser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *exprParser) accept(t string) bool {
	if p.peek() != t {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *exprParser) wrong() error {
	if t := p.peek(); t != "" {
		return syntaxError("invalid syntax at %q, line %d", t, p.line)
	}
	return syntaxError("invalid syntax at the end of an expression, line %d", p.line)
}

func (p *exprParser) or() (*expr, error) {
	p.depth++
	if p.depth > maxDepth {
		return nil, syntaxError("an expression is too deep, line %d", p.line)
	}
	defer func() { p.depth-- }()
	return p.chain("or", func() (*expr, error) { return p.chain("and", p.not) })
}

func (p *exprParser) chain(op string, next func() (*expr, error)) (*expr, error) {
	left, err := next()
	for err == nil && p.accept(op) {
		var right *expr
		right, err = next()
		left = &expr{op: op, args: []*expr{left, right}, line: p.line}
	}
	return left, err
}

func (p *exprParser) not() (*expr, error) {
	times := 0
	for p.accept("not") {
		times++
	}
	e, err := p.comparison()
	for range min(times, 2-times%2) { // an even number only makes a boolean of it
		e = &expr{op: "not", args: []*expr{e}, line: p.line}
	}
	return e, err
}

func (p *exprParser) comparison() (*expr, error) {
	left, err := p.chain("+", p.unary)
	if err != nil {
		return nil, err
	}
	op := p.peek()
	switch {
	case slices.Contains([]string{"==", "!=", "<", ">", "<=", ">=", "in", "is"}, op):
		p.tokens = p.tokens[1:]
		if op == "is" && p.accept("not") {
			op = "is not"
		}
	case p.accept("not"):
		if op = "not in"; !p.accept("in") {
			return nil, p.wrong()
		}
	default:
		return left, nil
	}
	right, err := p.chain("+", p.unary)
	return &expr{op: op, args: []*expr{left, right}, line: p.line}, err
}

func (p *exprParser) unary() (*expr, error) {
	if !p.accept("-") {
		return p.primary()
	}
	e, err := p.primary()
	return &expr{op: "neg", args: []*expr{e}, line: p.line}, err
}

var keywords = []string{"and", "or", "not", "in", "is", "if", "for", "lambda", wordElse}

var constants = map[string]any{"True": true, "False": false, "None": nil}

func (p *exprParser) primary() (*expr, error) {
	t := p.peek()
	switch {
	case p.accept("("):
		e, err := p.or()
		if err == nil && !p.accept(")") {
			err = p.wrong()
		}
		return e, err
	case p.accept("["):
		e := &expr{op: "list", line: p.line}
		return e, p.arguments(e, "]")
	case t == "" || slices.Contains(keywords, t):
		return nil, p.wrong()
	}
	e := &expr{line: p.line}
	if identifier.MatchString(t) {
		p.tokens = p.tokens[1:]
		if v, ok := constants[t]; ok {
			e.op, e.value = "lit", v
			return e, nil
		}
		e.op, e.name = "name", t
		if p.accept("(") {
			e.op, e.named = "call", map[string]*expr{}
			return e, p.arguments(e, ")")
		}
		return e, nil
	}
	v, ok := literal(t)
	if !ok {
		return nil, p.wrong()
	}
	p.tokens = p.tokens[1:]
	e.op, e.value = "lit", v
	return e, nil
}

// arguments reads what is in brackets. Names before a = are allowed in a call.
func (p *exprParser) arguments(e *expr, end string) error {
	for !p.accept(end) {
		name := ""
		if e.named != nil && len(p.tokens) > 1 && p.tokens[1] == "=" && identifier.MatchString(p.peek()) {
			name = p.peek()
			p.tokens = p.tokens[2:]
		}
		a, err := p.or()
		if err != nil {
			return err
		}
		switch {
		case name == "" && len(e.named) > 0:
			return syntaxError("positional argument follows keyword argument, line %d", p.line)
		case name == "":
			e.args = append(e.args, a)
		case e.named[name] != nil:
			return syntaxError("keyword argument repeated: %s, line %d", name, p.line)
		default:
			e.named[name] = a
		}
		if !p.accept(",") && p.peek() != end {
			return p.wrong()
		}
	}
	return nil
}

// literal is the value of a number or a string.
func literal(t string) (any, bool) {
	if t[0] == '\'' || t[0] == '"' {
		return unescape(t[1 : len(t)-1])
	}
	if i, ok := new(big.Int).SetString(t, 10); ok {
		return number{i: i}, true
	}
	f, err := strconv.ParseFloat(t, 64)
	return number{f: f}, err == nil
}

// unescape knows the escapes of a Python string that stand for one character, but not those by number.
func unescape(s string) (any, bool) {
	var b strings.Builder
	for n := 0; n < len(s); n++ {
		if s[n] != '\\' {
			b.WriteByte(s[n])
			continue
		}
		n++
		switch c := s[n]; c {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case '\\', '\'', '"':
			b.WriteByte(c)
		case 'x', 'u', 'U', 'N', '0', '1', '2', '3', '4', '5', '6', '7':
			return nil, false
		default:
			b.WriteString(s[n-1 : n+1])
		}
	}
	return b.String(), true
}
