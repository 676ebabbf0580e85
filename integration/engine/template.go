package engine

import (
	"slices"
	"strings"
)

// Template is the SQL of a node. It is parsed once and rendered for each call.
type Template struct {
	body     []part
	required []string // parameters without a default, in the order of their first use
}

// part is text, {{ }}, {% set %}, or a block; what is zero is not there.
type part struct {
	text   string
	source string // of an expression, for messages
	show   *expr
	name   string // of what {% set %} sets
	set    *expr
	arms   []arm    // of {% if %}; a nil condition is {% else %}
	over   *expr    // of {% for %}
	vars   []string // of {% for %}
	body   []part   // of {% for %}
}

type arm struct {
	cond *expr
	body []part
}

// ParseTemplate reads a node's SQL. Without a % at its start it is no template, and is used as it is.
func ParseTemplate(text string) (*Template, error) {
	trimmed := strings.TrimLeft(text, " \t\r\n")
	if !strings.HasPrefix(trimmed, "%") {
		return &Template{body: []part{{text: text}}}, nil
	}
	p := &templateParser{rest: trimmed[1:], line: 1}
	body, end, err := p.parts(0)
	if err != nil {
		return nil, err
	}
	if end != "" {
		return nil, syntaxError("Extra {%% %s %%} block at line %d", end, p.line)
	}
	return &Template{body: body, required: p.required}, nil
}

const wordElse = "else"

type templateParser struct {
	rest     string
	line     int
	required []string
}

// maxDepth bounds how deep blocks and expressions may be in one another.
const maxDepth = 50

// next takes the text before the next tag, and the tag: its kind is the character after the brace.
func (p *templateParser) next() (text string, kind byte, inner string, err error) {
	var b strings.Builder
	for {
		n := strings.IndexByte(p.rest, '{')
		if n < 0 || n+1 == len(p.rest) {
			b.WriteString(p.take(len(p.rest)))
			return b.String(), 0, "", nil
		}
		b.WriteString(p.take(n))
		kind = p.rest[1]
		if kind != '{' && kind != '%' && kind != '#' {
			b.WriteString(p.take(1))
			continue
		}
		if strings.HasPrefix(p.rest[2:], "!") { // {{! is a plain {{
			b.WriteString(p.take(2))
			p.take(1)
			continue
		}
		closing := map[byte]string{'{': "}}", '%': "%}", '#': "#}"}[kind]
		end := strings.Index(p.rest[2:], closing)
		if end < 0 {
			return "", 0, "", syntaxError("Missing end %s at line %d", closing, p.line)
		}
		inner = p.take(end + 4)
		return b.String(), kind, strings.TrimSpace(inner[2 : len(inner)-2]), nil
	}
}

func (p *templateParser) take(n int) string {
	text := p.rest[:n]
	p.rest = p.rest[n:]
	p.line += strings.Count(text, "\n")
	return text
}

// parts reads up to the end of the text or to a tag that ends or continues a block, which it returns.
func (p *templateParser) parts(depth int) (body []part, end string, err error) {
	if depth > maxDepth {
		return nil, "", syntaxError("blocks are too deep in one another at line %d", p.line)
	}
	for {
		text, kind, inner, err := p.next()
		if err != nil {
			return nil, "", err
		}
		if text != "" {
			body = append(body, part{text: text})
		}
		switch kind {
		case 0:
			return body, "", nil
		case '#':
			continue
		case '{':
			e, err := p.expression(inner)
			if err != nil {
				return nil, "", err
			}
			body = append(body, part{show: e, source: inner})
			continue
		}
		word, rest, _ := strings.Cut(inner, " ")
		if slices.Contains([]string{"end", wordElse, "elif"}, word) {
			return body, inner, nil
		}
		b, err := p.block(word, strings.TrimSpace(rest), depth)
		if err != nil {
			return nil, "", err
		}
		body = append(body, b)
	}
}

func (p *templateParser) block(word, rest string, depth int) (part, error) {
	switch word {
	case "if":
		return p.ifBlock(rest, depth)
	case "for":
		return p.forBlock(rest, depth)
	case "set":
		name, value, ok := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if !ok || !identifier.MatchString(name) {
			return part{}, syntaxError("{%% set %s %%} is not understood, line %d", rest, p.line)
		}
		e, err := p.expression(strings.TrimSpace(value))
		return part{name: name, set: e}, err
	case "import", "from":
		return part{}, syntaxError("%s is forbidden at line %d", word, p.line)
	}
	return part{}, syntaxError("{%% %s %%} is not understood, line %d", word, p.line)
}

func (p *templateParser) ifBlock(cond string, depth int) (part, error) {
	line := p.line
	var b part
	word, last := "if", false
	for {
		var a arm
		var err error
		if word != wordElse {
			if a.cond, err = p.expression(cond); err != nil {
				return part{}, err
			}
		}
		var end string
		if a.body, end, err = p.parts(depth + 1); err != nil {
			return part{}, err
		}
		b.arms = append(b.arms, a)
		last = last || word == wordElse
		word, cond, _ = strings.Cut(end, " ")
		switch {
		case word == "":
			return part{}, syntaxError("Missing {%% end %%} block for if at line %d", line)
		case word == "end":
			return b, nil
		case last:
			return part{}, syntaxError("{%% %s %%} after {%% else %%} at line %d", word, p.line)
		}
	}
}

func (p *templateParser) forBlock(rest string, depth int) (part, error) {
	line := p.line
	names, over, ok := strings.Cut(rest, " in ")
	if !ok {
		return part{}, syntaxError("{%% for %s %%} is not understood, line %d", rest, line)
	}
	var b part
	for name := range strings.SplitSeq(names, ",") {
		if name = strings.TrimSpace(name); !identifier.MatchString(name) {
			return part{}, syntaxError("{%% for %s %%} is not understood, line %d", rest, line)
		}
		b.vars = append(b.vars, name)
	}
	var err error
	if b.over, err = p.expression(over); err != nil {
		return part{}, err
	}
	var end string
	if b.body, end, err = p.parts(depth + 1); err != nil {
		return part{}, err
	}
	if end != "end" {
		return part{}, syntaxError("Missing {%% end %%} block for %s at line %d", "for", line)
	}
	return b, nil
}

func (p *templateParser) expression(text string) (*expr, error) {
	e, err := parseExpr(text, p.line)
	if err != nil {
		return nil, err
	}
	for _, name := range e.required() {
		if !slices.Contains(p.required, name) {
			p.required = append(p.required, name)
		}
	}
	return e, nil
}

// maxRendered bounds what loops can make of a template.
const maxRendered = 1 << 20

// Render makes SQL with the parameters of a call. An error is a *devstack.QueryError.
func (t *Template) Render(params map[string]string) (string, error) {
	r := renderer{vars: map[string]any{}, required: t.required}
	for name, v := range params {
		r.vars[name] = v
	}
	if err := r.run(t.body); err != nil {
		return "", err
	}
	return r.out.String(), nil
}

type renderer struct {
	vars     map[string]any
	required []string
	out      strings.Builder
}

func (r *renderer) run(body []part) error {
	for n := range body {
		if err := r.part(&body[n]); err != nil {
			return err
		}
		if r.out.Len() > maxRendered {
			return syntaxError("the query is too long")
		}
	}
	return nil
}

func (r *renderer) part(p *part) error {
	switch {
	case p.show != nil:
		v, err := r.eval(p.show)
		if err != nil {
			return err
		}
		text, err := show(v, p.source)
		r.out.WriteString(text)
		return err
	case p.set != nil:
		v, err := r.eval(p.set)
		r.vars[p.name] = v
		return err
	case p.over != nil:
		return r.loop(p)
	}
	for _, a := range p.arms {
		yes := true
		if a.cond != nil {
			v, err := r.eval(a.cond)
			if err != nil {
				return err
			}
			yes = truth(v)
		}
		if yes {
			return r.run(a.body)
		}
	}
	r.out.WriteString(p.text)
	return nil
}

func (r *renderer) loop(p *part) error {
	v, err := r.eval(p.over)
	if err != nil {
		return err
	}
	items, ok := v.(list)
	if !ok {
		return syntaxError("'%s' object is not iterable", kindOf(v))
	}
	for _, item := range items {
		values := list{item}
		if len(p.vars) > 1 {
			if values, ok = item.(list); !ok || len(values) != len(p.vars) {
				return syntaxError("cannot unpack what {%% for %%} goes over into %d names", len(p.vars))
			}
		}
		for n, name := range p.vars {
			r.vars[name] = values[n]
		}
		if err := r.run(p.body); err != nil {
			return err
		}
	}
	return nil
}
