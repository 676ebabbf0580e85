package tinybird

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep the body's JSON may nest; the object itself is the first level.
const maxDepth = 32

var (
	errJSONText      = errors.New("the body is not UTF-8, or a \\u escape in it is half a character")
	errJSONSyntax    = errors.New("the body is not one JSON value")
	errJSONObject    = errors.New("the body is not a JSON object")
	errJSONDepth     = errors.New("the body nests deeper than " + strconv.Itoa(maxDepth) + " levels")
	errJSONDuplicate = errors.New("the body names a member twice")
)

// buildObject parses the client's JSON object and writes a new one from the members that may go up, in
// their order, numbers with the digits they came with. It returns nil when nothing is left, and how many
// members were left out.
//
// Everything that two JSON parsers read differently is an error (RFC 8259 sections 4 and 8): a member named
// twice, at whatever depth, broken text, and half a surrogate pair. What is written is never longer than
// what was read.
func buildObject(raw []byte, lets func(name string) bool) (object []byte, dropped int, err error) {
	if !utf8.Valid(raw) {
		return nil, 0, errJSONText
	}
	// The whole document is checked first, so that the walk below meets no syntax error and nothing after
	// the value.
	if !json.Valid(raw) {
		return nil, 0, errJSONSyntax
	}
	if halfSurrogate(raw) {
		return nil, 0, errJSONText
	}
	w := &objectWriter{in: raw, out: make([]byte, 0, len(raw))}
	if w.next() != '{' {
		return nil, 0, errJSONObject
	}
	kept := 0
	err = w.object(1, func(name string) bool {
		if lets(name) {
			kept++
			return true
		}
		dropped++
		return false
	})
	if err != nil {
		return nil, 0, err
	}
	if kept == 0 {
		return nil, dropped, nil
	}
	return w.out, dropped, nil
}

// objectWriter writes the values it reads. It relies on json.Valid and only keeps from panicking if that
// should be wrong. (A json.Decoder would do as well, but takes seconds for the tokens of a megabyte.)
type objectWriter struct {
	in  []byte
	pos int
	out []byte
}

// next skips white space and returns the byte after it, without taking it; 0 at the end.
func (w *objectWriter) next() byte {
	for ; w.pos < len(w.in); w.pos++ {
		switch c := w.in[w.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// take takes the next byte if it is c.
func (w *objectWriter) take(c byte) bool {
	if w.next() != c {
		return false
	}
	w.pos++
	return true
}

// object copies the members for which lets is true, all for nil. The object is at the given depth.
func (w *objectWriter) object(depth int, lets func(name string) bool) error {
	if !w.take('{') {
		return errJSONSyntax
	}
	seen := make(map[string]struct{})
	w.out = append(w.out, '{')
	for first := true; !w.take('}'); {
		if len(seen) > 0 && !w.take(',') {
			return errJSONSyntax
		}
		name, err := w.text()
		if err != nil {
			return err
		}
		if _, ok := seen[name]; ok {
			return errJSONDuplicate
		}
		seen[name] = struct{}{}
		if !w.take(':') {
			return errJSONSyntax
		}
		start := len(w.out)
		if !first {
			w.out = append(w.out, ',')
		}
		w.out = append(appendString(w.out, name), ':')
		// The value of a member that is left out is read all the same: it has to be sound, too.
		if err := w.value(depth); err != nil {
			return err
		}
		if lets != nil && !lets(name) {
			w.out = w.out[:start]
			continue
		}
		first = false
	}
	w.out = append(w.out, '}')
	return nil
}

// array copies all elements.
func (w *objectWriter) array(depth int) error {
	if !w.take('[') {
		return errJSONSyntax
	}
	w.out = append(w.out, '[')
	for first := true; !w.take(']'); first = false {
		if !first {
			if !w.take(',') {
				return errJSONSyntax
			}
			w.out = append(w.out, ',')
		}
		if err := w.value(depth); err != nil {
			return err
		}
	}
	w.out = append(w.out, ']')
	return nil
}

// value copies the next value, which is inside something at the given depth.
func (w *objectWriter) value(depth int) error {
	switch c := w.next(); c {
	case '{', '[':
		if depth == maxDepth {
			return errJSONDepth
		}
		if c == '{' {
			return w.object(depth+1, nil)
		}
		return w.array(depth + 1)
	case '"':
		text, err := w.text()
		w.out = appendString(w.out, text)
		return err
	default:
		return w.word()
	}
}

// word copies a number, true, false or null as it is.
func (w *objectWriter) word() error {
	n := bytes.IndexAny(w.in[w.pos:], ",]} \t\r\n")
	if n <= 0 {
		return errJSONSyntax
	}
	w.out = append(w.out, w.in[w.pos:w.pos+n]...)
	w.pos += n
	return nil
}

// text takes a string and decodes it.
func (w *objectWriter) text() (string, error) {
	if w.next() != '"' {
		return "", errJSONSyntax
	}
	escaped := false
	for i := w.pos + 1; i < len(w.in); i++ {
		switch w.in[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			quoted := w.in[w.pos : i+1]
			w.pos = i + 1
			if !escaped {
				return string(quoted[1 : len(quoted)-1]), nil
			}
			var text string
			if json.Unmarshal(quoted, &text) != nil {
				return "", errJSONSyntax
			}
			return text, nil
		}
	}
	return "", errJSONSyntax
}

// appendString appends s, which is valid UTF-8, as a JSON string with the shortest escapes there are.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			if c < ' ' {
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
				continue
			}
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// halfSurrogate reports whether a \u escape of a valid JSON document is half of a surrogate pair, which
// encoding/json would turn into U+FFFD without a word.
func halfSurrogate(doc []byte) bool {
	for {
		i := bytes.IndexByte(doc, '\\')
		if i < 0 {
			return false
		}
		unit, ok := escapedUnit(doc[i:])
		switch {
		case !ok:
			doc = doc[i+2:]
		case unit < 0xd800 || unit > 0xdfff:
			doc = doc[i+6:]
		default:
			low, ok := escapedUnit(doc[i+6:])
			if unit >= 0xdc00 || !ok || low < 0xdc00 || low > 0xdfff {
				return true
			}
			doc = doc[i+12:]
		}
	}
}

// escapedUnit returns the UTF-16 code unit if doc starts with a \u escape.
func escapedUnit(doc []byte) (uint64, bool) {
	if len(doc) < 6 || doc[0] != '\\' || doc[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(doc[2:6]), 16, 16)
	return unit, err == nil
}
