package tinybird

import (
	"errors"
	"fmt"
	"strings"
)

// maxTemplate is the longest operator text, in bytes.
const maxTemplate = 4 << 10

// Template is operator text, parsed once: literal pieces and placeholders. What a placeholder resolves to
// is put in as it is and never looked at for placeholders again.
type Template struct {
	parts []part
}

// part is a literal or a placeholder; exactly one of the two is set.
type part struct {
	literal     string
	placeholder string // without braces
}

// ParseTemplate parses operator text: literals and {placeholders}, where `\{` and `\}` stand for the
// braces themselves. Every placeholder must pass checkPlaceholder, which gets its name without braces; nil
// refuses them all. The error names the placeholder.
func ParseTemplate(text string, checkPlaceholder func(name string) error) (Template, error) {
	var t Template
	if len(text) > maxTemplate {
		return t, fmt.Errorf("the text is longer than %d bytes", maxTemplate)
	}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t.parts = append(t.parts, part{literal: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && (text[i+1] == '{' || text[i+1] == '}'):
			i++
			literal.WriteByte(text[i])
		case c == '}':
			return Template{}, errors.New(`a "}" closes nothing: write "\}" for the character itself`)
		case c == '{':
			name, err := placeholderAt(text[i+1:], checkPlaceholder)
			if err != nil {
				return Template{}, err
			}
			flush()
			t.parts = append(t.parts, part{placeholder: name})
			i += len(name) + 1
		default:
			literal.WriteByte(c)
		}
	}
	flush()
	return t, t.checkLiterals()
}

// checkLiterals refuses text that no identity could complete to a usable value.
func (t Template) checkLiterals() error {
	size := 0
	for _, p := range t.parts {
		if size += len(p.literal); size > maxValue {
			return errTooLong
		}
		if err := checkRunes(p.literal); err != nil {
			return err
		}
	}
	return nil
}

// placeholderAt returns the name of the placeholder whose opening brace precedes rest.
func placeholderAt(rest string, check func(string) error) (string, error) {
	end := strings.IndexAny(rest, "{}")
	if end < 0 || rest[end] == '{' {
		return "", errors.New(`a "{" is not closed: write "}" after the placeholder, or "\{" for the character itself`)
	}
	name := rest[:end]
	if name == "" {
		return "", errors.New(`"{}" names no placeholder: write "\{\}" for the characters themselves`)
	}
	if check == nil {
		return "", fmt.Errorf("the placeholder %s cannot be used here", Shown(name))
	}
	if err := check(name); err != nil {
		return "", fmt.Errorf("the placeholder %s cannot be used here: %w", Shown(name), err)
	}
	return name, nil
}

// Literal returns the text of a template without placeholders.
func (t Template) Literal() (string, bool) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.placeholder != "" {
			return "", false
		}
		b.WriteString(p.literal)
	}
	return b.String(), true
}

// alone returns the placeholder of a template that is nothing but one.
func (t Template) alone() (placeholder string, ok bool) {
	if len(t.parts) != 1 || t.parts[0].placeholder == "" {
		return "", false
	}
	return t.parts[0].placeholder, true
}

// Resolve puts the values that lookup has into the text. Every placeholder must have a usable value, and so
// must the whole (see the rules for values at ValueText); the error says which one has not, and never
// quotes it.
func (t Template) Resolve(lookup func(name string) (any, bool)) (string, error) {
	return t.resolve(lookup, ValueText)
}

// resolve is Resolve with the conversion of a placeholder's value to text given.
func (t Template) resolve(lookup func(string) (any, bool), toText func(any) (string, error)) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.placeholder == "" {
			b.WriteString(p.literal)
			continue
		}
		v, ok := lookup(p.placeholder)
		if !ok {
			return "", fmt.Errorf("%s: %w", p.placeholder, errNoValue)
		}
		text, err := toText(v)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.placeholder, err)
		}
		// Checked at every step, so that many placeholders cannot add up to much.
		if b.Len()+len(text) > maxValue {
			return "", errTooLong
		}
		b.WriteString(text)
	}
	text := b.String()
	return text, checkText(text)
}
