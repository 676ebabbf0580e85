package engine

import (
	"errors"
	"fmt"
	"strings"
)

// template is a node's SQL, parsed.
type template struct{ parts []part }

// part is text, an expression that becomes text, or a choice between templates.
type part struct {
	text   string
	expr   *expr
	choice []arm
}

// arm is one way of a choice. An arm without a condition is {% else %}.
type arm struct {
	condition *expr
	body      template
}

// Error is what Tinybird says about a call that its template refuses.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

func syntaxError(format string, args ...any) error {
	return &Error{"Template Syntax Error: " + fmt.Sprintf(format, args...)}
}

// token is a piece of a template's text.
type token struct {
	kind byte // 't' text, 'e' expression, 'b' block
	text string
}

// tokenize splits a text at {{ }}, {% %} and {# #}.
func tokenize(text string) ([]token, error) {
	var list []token
	for {
		i := strings.IndexByte(text, '{')
		for i >= 0 && (i+1 == len(text) || strings.IndexByte("{%#", text[i+1]) < 0) {
			next := strings.IndexByte(text[i+1:], '{')
			if next < 0 {
				i = -1
				break
			}
			i += 1 + next
		}
		if i < 0 {
			return append(list, token{'t', text}), nil
		}
		list = append(list, token{'t', text[:i]})
		closing := map[byte]string{'{': "}}", '%': "%}", '#': "#}"}[text[i+1]]
		end := strings.Index(text[i+2:], closing)
		if end < 0 {
			return nil, errors.New("a " + text[i:i+2] + " is not closed")
		}
		inside := strings.TrimSpace(text[i+2 : i+2+end])
		switch text[i+1] {
		case '{':
			list = append(list, token{'e', inside})
		case '%':
			list = append(list, token{'b', inside})
		}
		text = text[i+2+end+2:]
	}
}

// parseTemplate parses a node's SQL. Only SQL that begins with a line of % alone is a template.
func parseTemplate(sql string) (template, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(sql), "%")
	if !ok {
		return template{parts: []part{{text: sql}}}, nil
	}
	tokens, err := tokenize(rest)
	if err != nil {
		return template{}, err
	}
	p := parser{tokens: tokens}
	t, word, err := p.body()
	if err == nil && word != "" {
		err = fmt.Errorf("{%% %s %%} without {%% if %%}", word)
	}
	return t, err
}

type parser struct{ tokens []token }

// body parses up to a block that ends it, whose words it returns; "" at the end of the text.
func (p *parser) body() (template, string, error) {
	var t template
	for len(p.tokens) > 0 {
		tok := p.tokens[0]
		p.tokens = p.tokens[1:]
		switch tok.kind {
		case 't':
			t.parts = append(t.parts, part{text: tok.text})
		case 'e':
			e, err := parseExpr(tok.text)
			if err != nil {
				return t, "", fmt.Errorf("{{%s}}: %w", tok.text, err)
			}
			t.parts = append(t.parts, part{expr: e})
		default:
			condition, isIf := strings.CutPrefix(tok.text, "if ")
			if !isIf {
				return t, tok.text, nil
			}
			choice, err := p.choice(condition)
			if err != nil {
				return t, "", err
			}
			t.parts = append(t.parts, part{choice: choice})
		}
	}
	return t, "", nil
}

// choice parses the arms of an {% if %} up to its {% end %}.
func (p *parser) choice(condition string) ([]arm, error) {
	var arms []arm
	for {
		a := arm{}
		if condition != "" {
			e, err := parseExpr(condition)
			if err != nil {
				return nil, fmt.Errorf("{%% if %s %%}: %w", condition, err)
			}
			a.condition = e
		}
		body, word, err := p.body()
		if err != nil {
			return nil, err
		}
		a.body = body
		arms = append(arms, a)
		next, isElif := strings.CutPrefix(word, "elif ")
		switch {
		case word == "end":
			return arms, nil
		case condition == "":
			return nil, errors.New("{% else %} is followed by another arm, or not closed by {% end %}")
		case isElif:
			condition = strings.TrimSpace(next)
		case word == "else":
			condition = ""
		case word == "":
			return nil, errors.New("{% if %} is not closed by {% end %}")
		default:
			return nil, fmt.Errorf("{%% %s %%} is not understood here", word)
		}
	}
}

// render writes the SQL for parameters.
func (t *template) render(params map[string]string) (string, error) {
	var b strings.Builder
	err := t.write(&b, params)
	return b.String(), err
}

func (t *template) write(b *strings.Builder, params map[string]string) error {
	for i := range t.parts {
		p := &t.parts[i]
		switch {
		case p.expr != nil:
			v, err := p.expr.eval(params)
			if err != nil {
				return err
			}
			b.WriteString(v.sql())
		case p.choice != nil:
			if err := writeChoice(b, p.choice, params); err != nil {
				return err
			}
		default:
			b.WriteString(p.text)
		}
	}
	return nil
}

func writeChoice(b *strings.Builder, arms []arm, params map[string]string) error {
	for i := range arms {
		if arms[i].condition != nil {
			v, err := arms[i].condition.eval(params)
			if err != nil {
				return err
			}
			if !v.truth() {
				continue
			}
		}
		return arms[i].body.write(b, params)
	}
	return nil
}
