package clerk

import (
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// maxDepth of the JSON in a token is that of encoding/json. The token's size is the narrower bound.
const maxDepth = 10_000

var (
	errNotUTF8   = errors.New("not UTF-8")
	errDuplicate = errors.New("a member is named twice")
	errTooDeep   = errors.New("nested too deeply")
)

// document is text that is known to be JSON, as encoding/json understands it, in UTF-8 and not too deep. What is read from it shares
// its memory.
type document string

// newDocument checks that raw is one.
func newDocument(raw []byte) (document, error) {
	switch {
	case !utf8.Valid(raw):
		return "", errNotUTF8
	case tooDeep(raw):
		return "", errTooDeep
	case !json.Valid(raw):
		return "", errNotJSON
	}
	return document(raw), nil
}

// object reads an object by the exact names of its members, numbers as json.Number. A member that is named twice, at any depth, is
// an error, because another reader may take the other one. (A struct would be filled without regard to case, so that a
// custom claim SUB could stand for sub; the decoder's tokens take three times as long.)
//
// A JSON value that is no object counts as one without members, as it does for the SDK.
func (d document) object() (map[string]any, error) {
	c := cursor{doc: string(d)}
	c.space()
	if first := c.doc[c.at]; first != '{' && first != '[' {
		return nil, nil //nolint:nilnil // no object has no members, and is no error
	}
	value, err := c.decode()
	if err != nil {
		return nil, err
	}
	object, _ := value.(map[string]any)
	return object, nil
}

// decodeObject reads one JSON object.
func decodeObject(raw []byte) (map[string]any, error) {
	d, err := newDocument(raw)
	if err != nil {
		return nil, err
	}
	return d.object()
}

// decode reads the value that begins here, and goes past it.
func (c *cursor) decode() (any, error) {
	switch c.doc[c.at] {
	case '{':
		return c.decodeMembers()
	case '[':
		return c.decodeElements()
	default:
		return shallow(c.value())
	}
}

func (c *cursor) decodeMembers() (any, error) {
	object := make(map[string]any)
	for c.at++; c.another('}'); {
		start := c.at
		c.text()
		name, err := text(c.doc[start:c.at])
		if err != nil {
			return nil, err
		}
		if _, ok := object[name]; ok {
			return nil, errDuplicate
		}
		c.space()
		c.at++ // the colon
		c.space()
		if object[name], err = c.decode(); err != nil {
			return nil, err
		}
	}
	return object, nil
}

func (c *cursor) decodeElements() (any, error) {
	list := []any{}
	for c.at++; c.another(']'); {
		value, err := c.decode()
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, nil
}

// another goes to the next member or element, or past the end.
func (c *cursor) another(end byte) bool {
	c.space()
	if c.doc[c.at] == ',' {
		c.at++
		c.space()
	}
	if c.doc[c.at] != end {
		return true
	}
	c.at++
	return false
}
