package clerk

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

var errNotJSON = errors.New("not JSON")

// composite stands for an object or a list whose content plays no part.
type composite struct{}

// scan reads the members of the object that have one of the names, and makes nothing of the others: what it
// reads is not signed yet, and whoever sends it must not decide how much memory that takes. One of the names
// twice is an error. Other than that it accepts all that object accepts, and reads it the same, but for
// objects and lists, which it leaves unread.
func (d document) scan(names []string) (map[string]any, error) {
	c := cursor{doc: string(d)}
	c.space()
	found := make(map[string]any, len(names))
	if c.doc[c.at] != '{' {
		return found, nil // as if it had no members
	}
	for c.at++; ; {
		name, value, ok := c.member()
		if !ok {
			return found, nil
		}
		i := indexOf(names, name)
		if i < 0 {
			continue
		}
		if _, twice := found[names[i]]; twice {
			return nil, errDuplicate
		}
		v, err := shallow(value)
		if err != nil {
			return nil, err
		}
		found[names[i]] = v
	}
}

// tooDeep reports whether objects and lists are nested too deeply. It says nothing about what is no JSON.
func tooDeep(doc []byte) bool {
	if len(doc) <= maxDepth { // as every token is, unless its size is set to more
		return false
	}
	depth, text := 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			depth++
			if depth > maxDepth+1 { // the outermost is at depth 0
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// cursor walks over a document.
type cursor struct {
	doc string
	at  int
}

// member returns the name and the value of the object's next member as they are written; the name without its
// quotes.
func (c *cursor) member() (name, value string, ok bool) {
	c.space()
	if c.doc[c.at] == ',' {
		c.at++
		c.space()
	}
	if c.doc[c.at] == '}' {
		return "", "", false
	}
	name = c.value()
	c.space()
	c.at++ // the colon
	c.space()
	return name[1 : len(name)-1], c.value(), true
}

func (c *cursor) space() {
	for isSpace(c.doc[c.at]) {
		c.at++
	}
}

// value returns the name or value that begins here, and goes past it.
func (c *cursor) value() string {
	start, depth := c.at, 0
	for {
		switch c.doc[c.at] {
		case '"':
			c.text()
		case '{', '[':
			depth++
			c.at++
		case '}', ']':
			depth--
			c.at++
		default:
			c.at++
		}
		if depth == 0 && (isEnd(c.doc[c.at-1]) || endsBefore(c.doc[c.at])) {
			return c.doc[start:c.at]
		}
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// endsBefore reports whether a value that does not end by itself ends before the byte.
func endsBefore(c byte) bool { return c == ',' || c == ']' || c == '}' || isSpace(c) }

// isEnd reports whether the byte ends a value by itself: that of a string, list or object.
func isEnd(c byte) bool { return c == '"' || c == ']' || c == '}' }

// text goes past a string. It looks at nothing twice, whatever is escaped: the quote that was found ends the string unless it is.
func (c *cursor) text() {
	c.at++
	for quote := -1; ; {
		if quote < c.at {
			quote = c.at + strings.IndexByte(c.doc[c.at:], '"')
		}
		escape := strings.IndexByte(c.doc[c.at:quote], '\\')
		if escape < 0 {
			c.at = quote + 1
			return
		}
		c.at += escape + 2
	}
}

// shallow is a value as object makes it, unless it is composite.
func shallow(value string) (v any, err error) {
	switch value[0] {
	case '{', '[':
		v = composite{}
	case 't', 'f':
		v = value[0] == 't'
	case 'n': // null
	case '"':
		return text(value)
	default:
		v = json.Number(value)
	}
	return v, nil
}

// text is a JSON string as it is written, with its quotes.
func text(raw string) (string, error) {
	if strings.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	var s string
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		return "", fmt.Errorf("JSON: %w", err)
	}
	return s, nil
}

// indexOf returns which of the names the inside of a JSON string is; -1 if none of them.
func indexOf(names []string, raw string) int {
	if strings.IndexByte(raw, '\\') < 0 {
		return slices.Index(names, raw)
	}
	return slices.IndexFunc(names, func(n string) bool { return spells(raw, n) })
}

// spells reports whether the inside of a JSON string, in which any character may be written as an escape, is
// the name. The name's characters are letters, digits and underscores.
func spells(raw, name string) bool {
	for i := range len(name) {
		c, size := character(raw)
		if size == 0 || c != name[i] {
			return false
		}
		raw = raw[size:]
	}
	return raw == ""
}

// character returns the first character and the number of bytes it is written with. It is 0 for all that can
// be in no name.
func character(raw string) (c byte, size int) {
	switch {
	case raw == "":
		return 0, 0
	case raw[0] != '\\':
		return raw[0], 1
	case raw[1] != 'u':
		return 0, 2
	}
	code, err := strconv.ParseUint(raw[2:6], 16, 8)
	if err != nil {
		return 0, 6
	}
	return byte(code), 6
}
