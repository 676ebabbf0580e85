// Package jsonobject writes JSON objects anew: what a client sent is read once, by strict rules, and what goes on is written
// from what was read.
package jsonobject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

const (
	// MaxDepth is how deep the JSON may nest; the object itself is the first level.
	MaxDepth = 32
	// MaxMembers is how many members the object may have, with those of the objects inside it. It bounds the memory that
	// finding doubled ones takes.
	MaxMembers = 16 << 10
	// fewMembers is up to how many are compared one by one, which is faster than a map.
	fewMembers = 32
)

// Why an object is refused. No error quotes it.
var (
	ErrText      = errors.New("it is not UTF-8, or a \\u escape in it is half a character")
	ErrSyntax    = errors.New("it is not one JSON value")
	ErrObject    = errors.New("it is not a JSON object")
	ErrDepth     = fmt.Errorf("it nests deeper than %d levels", MaxDepth)
	ErrDuplicate = errors.New("it names a member twice")
	ErrMembers   = fmt.Errorf("it has more than %d members", MaxMembers)
)

// Keep decides about one member of the object by its decoded name, which it must not hold on to. An error refuses the object.
type Keep func(name []byte) (bool, error)

// Rewrite appends to dst the JSON object raw, written from the members that keep names, in their order, numbers with the
// digits they came with, on one line. It returns how many members were written and how many were left out. After an
// error dst is as long as it was.
//
// Everything that two JSON parsers read differently is an error (RFC 8259 sections 4 and 8): a member named
// twice, at whatever depth, broken text, and half a surrogate pair. Only what is left out may be named twice, for what
// is not written is not read. What is written is never longer than what was read.
func Rewrite(dst, raw []byte, keep Keep) (out []byte, kept, dropped int, err error) {
	if !utf8.Valid(raw) {
		return dst, 0, 0, ErrText
	}
	// The whole document is checked first, so that the walk below meets no syntax error and nothing after
	// the value.
	if !json.Valid(raw) {
		return dst, 0, 0, ErrSyntax
	}
	if halfSurrogate(raw) {
		return dst, 0, 0, ErrText
	}
	w := &writer{in: raw, out: dst}
	if w.next() != '{' {
		return dst, 0, 0, ErrObject
	}
	err = w.object(1, func(name []byte) (bool, error) {
		ok, err := keep(name)
		switch {
		case err != nil:
		case ok:
			kept++
		default:
			dropped++
		}
		return ok, err
	})
	if err != nil {
		return dst, 0, 0, err
	}
	return w.out, kept, dropped, nil
}

// writer writes the values it reads. It relies on json.Valid and only keeps from panicking if that
// should be wrong. (A json.Decoder would do as well, but takes seconds for the tokens of a megabyte.)
type writer struct {
	in      []byte
	pos     int
	out     []byte
	members int
}

// next skips white space and returns the byte after it, without taking it; 0 at the end.
func (w *writer) next() byte {
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
func (w *writer) take(c byte) bool {
	if w.next() != c {
		return false
	}
	w.pos++
	return true
}

// object copies the members that keep names, all for nil. The object is at the given depth.
func (w *writer) object(depth int, keep Keep) error {
	if !w.take('{') {
		return ErrSyntax
	}
	var seen names
	w.out = append(w.out, '{')
	first := true
	for more := w.next() != '}'; more; more = w.take(',') {
		name, err := w.text()
		if err != nil {
			return err
		}
		w.members++
		if w.members > MaxMembers {
			return ErrMembers
		}
		kept := true
		if keep != nil {
			if kept, err = keep(name); err != nil {
				return err
			}
		}
		if kept && !seen.add(name) {
			return ErrDuplicate
		}
		if !w.take(':') {
			return ErrSyntax
		}
		start := len(w.out)
		if !first {
			w.out = append(w.out, ',')
		}
		w.out = append(AppendString(w.out, name), ':')
		// The value of a member that is left out is read all the same: it has to be sound, too.
		if err := w.value(depth); err != nil {
			return err
		}
		if !kept {
			w.out = w.out[:start]
			continue
		}
		first = false
	}
	if !w.take('}') {
		return ErrSyntax
	}
	w.out = append(w.out, '}')
	return nil
}

// names is a set.
type names struct {
	few  [][]byte
	many map[string]struct{}
}

// add reports whether the name is new.
func (n *names) add(name []byte) bool {
	if n.many == nil {
		for _, f := range n.few {
			if bytes.Equal(f, name) {
				return false
			}
		}
		n.few = append(n.few, name)
		if len(n.few) <= fewMembers {
			return true
		}
		n.many = make(map[string]struct{}, 2*fewMembers)
		for _, f := range n.few {
			n.many[string(f)] = struct{}{}
		}
		n.few = nil
		return true
	}
	if _, ok := n.many[string(name)]; ok {
		return false
	}
	n.many[string(name)] = struct{}{}
	return true
}

// array copies all elements.
func (w *writer) array(depth int) error {
	if !w.take('[') {
		return ErrSyntax
	}
	w.out = append(w.out, '[')
	for first := true; !w.take(']'); first = false {
		if !first {
			if !w.take(',') {
				return ErrSyntax
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
func (w *writer) value(depth int) error {
	switch c := w.next(); c {
	case '{', '[':
		if depth == MaxDepth {
			return ErrDepth
		}
		if c == '{' {
			return w.object(depth+1, nil)
		}
		return w.array(depth + 1)
	case '"':
		text, err := w.text()
		w.out = AppendString(w.out, text)
		return err
	default:
		return w.word()
	}
}

// word copies a number, true, false or null as it is.
func (w *writer) word() error {
	n := bytes.IndexAny(w.in[w.pos:], ",]} \t\r\n")
	if n <= 0 {
		return ErrSyntax
	}
	w.out = append(w.out, w.in[w.pos:w.pos+n]...)
	w.pos += n
	return nil
}

// text takes a string and decodes it. The result may be a part of the input.
func (w *writer) text() ([]byte, error) {
	if w.next() != '"' {
		return nil, ErrSyntax
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
				return quoted[1 : len(quoted)-1], nil
			}
			var text string
			if json.Unmarshal(quoted, &text) != nil {
				return nil, ErrSyntax
			}
			return []byte(text), nil
		}
	}
	return nil, ErrSyntax
}

// AppendString appends s, which is valid UTF-8, as a JSON string with the shortest escapes there are.
func AppendString[T string | []byte](b []byte, s T) []byte {
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
