package audit

import (
	"errors"
	"fmt"
	"strings"
)

// item is a part of a template: text, output, branch, loop or assign.
type item any

type output struct{ value *expr } // {{ ... }}

// branch is {% if %} with its {% elif %} and {% else %}. A branch without {% else %} has an empty arm in its place.
type branch struct{ arms []arm }

type arm struct {
	when *condition // nil: else
	body []item
}

// condition is an expression without the `not` before it, so that both can be told to be the same.
type condition struct {
	*expr

	negated bool
}

func parseCondition(text string) *condition {
	tokens := pyTokens(text)
	c := new(condition)
	for len(tokens) > 1 && tokens[0] == (pyToken{'w', "not"}) && len(pySplit(tokens, "and")) == 1 && len(pySplit(tokens, "or")) == 1 {
		tokens, c.negated = tokens[1:], !c.negated
	}
	c.expr = build(tokens)
	return c
}

type loop struct {
	names []string
	over  *expr
	body  []item
}

type assign struct {
	names []string
	value *expr
}

// maxNesting is how deep blocks may be nested.
const maxNesting = 64

var errNesting = errors.New("its blocks are nested too deeply")

// parseTemplate reads the SQL of a node. Without a % at its start it is no template, and its braces mean nothing.
func parseTemplate(sql string) ([]item, error) {
	body, ok := strings.CutPrefix(strings.TrimLeft(sql, " \t\r\n"), "%")
	if !ok {
		return []item{sql}, nil
	}
	p := templateParser{rest: body}
	items, end, err := p.block(0)
	if err != nil {
		return nil, err
	}
	if end != "" {
		return nil, fmt.Errorf("{%% %s %%} closes nothing", short(end))
	}
	return items, nil
}

type templateParser struct{ rest string }

// block reads up to the tag that ends it, which is end, elif or else; "" at the end of the text.
func (p *templateParser) block(depth int) (items []item, end string, err error) {
	if depth > maxNesting {
		return nil, "", errNesting
	}
	for p.rest != "" {
		text, kind, inner, err := p.next()
		if err != nil {
			return nil, "", err
		}
		if text != "" {
			items = append(items, text)
		}
		switch kind {
		case '{':
			items = append(items, output{parseExpr(inner)})
		case '%':
			found, end, err := p.tag(inner, depth)
			if err != nil || end != "" {
				return items, end, err
			}
			if found != nil {
				items = append(items, found)
			}
		}
	}
	return items, "", nil
}

// next returns the text before the next tag, and the tag: its kind is the brace's second character, 0 at the end.
func (p *templateParser) next() (text string, kind byte, inner string, err error) {
	var before strings.Builder
	for {
		i := strings.IndexByte(p.rest, '{')
		if i < 0 || i+1 >= len(p.rest) {
			before.WriteString(p.rest)
			p.rest = ""
			return before.String(), 0, "", nil
		}
		kind = p.rest[i+1]
		innermost := strings.HasPrefix(p.rest[i+1:], "{{")
		if strings.IndexByte("{%#", kind) < 0 || innermost {
			// Of three braces the innermost two are the tag.
			before.WriteString(p.rest[:i+1])
			p.rest = p.rest[i+1:]
			continue
		}
		before.WriteString(p.rest[:i])
		p.rest = p.rest[i+2:]
		if strings.HasPrefix(p.rest, "!") {
			before.WriteString("{" + string(kind))
			p.rest = p.rest[1:]
			continue
		}
		closer := map[byte]string{'{': "}}", '%': "%}", '#': "#}"}[kind]
		inner, rest, ok := strings.Cut(p.rest, closer)
		if !ok {
			return "", 0, "", fmt.Errorf("a {%c is not closed by %s", kind, closer)
		}
		p.rest = rest
		return before.String(), kind, strings.TrimSpace(inner), nil
	}
}

// tag reads a {% %}: a whole block, or the end of the one that is being read.
func (p *templateParser) tag(inner string, depth int) (found item, end string, err error) {
	word, rest, _ := strings.Cut(inner, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "end", "else", "elif":
		return nil, inner, nil
	case "comment":
		return nil, "", nil
	case "set":
		return parseAssign(rest)
	case "if":
		found, err = p.branch(rest, depth)
	case "for":
		found, err = p.loop(rest, depth)
	default:
		err = fmt.Errorf("{%% %s %%} is not understood here", short(inner))
	}
	return found, "", err
}

func (p *templateParser) branch(head string, depth int) (item, error) {
	var b branch
	when := parseCondition(head)
	for {
		if when != nil && when.text == "" {
			return nil, errors.New("an {% if %} has no condition")
		}
		body, end, err := p.block(depth + 1)
		if err != nil {
			return nil, err
		}
		b.arms = append(b.arms, arm{when, body})
		word, rest, _ := strings.Cut(end, " ")
		switch {
		case word == "":
			return nil, errors.New("an {% if %} has no {% end %}")
		case word == "end":
			if when != nil {
				b.arms = append(b.arms, arm{})
			}
			return b, nil
		case when == nil:
			return nil, fmt.Errorf("{%% %s %%} comes after {%% else %%}", word)
		case word == "else":
			when = nil
		default:
			when = parseCondition(rest)
		}
	}
}

func (p *templateParser) loop(head string, depth int) (item, error) {
	names, over, ok := strings.Cut(head, " in ")
	if !ok {
		return nil, errors.New("a {% for %} has no `in`")
	}
	body, end, err := p.block(depth + 1)
	if err != nil {
		return nil, err
	}
	if end != "end" {
		return nil, errors.New("a {% for %} has no {% end %}")
	}
	return loop{parseExpr(names).names, parseExpr(over), body}, nil
}

func parseAssign(text string) (item, string, error) {
	tokens := pyTokens(text)
	for i, t := range tokens {
		if t.is("=") {
			return assign{words(tokens[:i]), build(tokens[i+1:])}, "", nil
		}
	}
	return nil, "", errors.New("a {% set %} has no =")
}

func words(tokens []pyToken) []string {
	var found []string
	for _, t := range tokens {
		if t.kind == 'w' {
			found = append(found, t.text)
		}
	}
	return found
}

// short is text for a message.
func short(text string) string {
	const longest = 60
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longest {
		return strings.ToValidUTF8(text[:longest], "") + "..."
	}
	return text
}
