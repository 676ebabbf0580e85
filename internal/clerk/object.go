package clerk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth of the JSON in a token is that of encoding/json. The token's size is the narrower bound.
const maxDepth = 10_000

var (
	errNotUTF8   = errors.New("not UTF-8")
	errTrailing  = errors.New("data after the JSON value")
	errDuplicate = errors.New("a member is named twice")
	errTooDeep   = errors.New("nested too deeply")
)

// decodeObject reads one JSON object by the exact names of its members, numbers as json.Number. A member that
// is named twice, at any depth, is an error, because another reader may take the other one. (A struct would be
// filled without regard to case, so that a custom claim SUB could stand for sub.)
//
// A JSON value that is no object counts as one without members, as it does for the SDK.
func decodeObject(doc []byte) (map[string]any, error) {
	if !utf8.Valid(doc) {
		return nil, errNotUTF8
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	value, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	object, _ := value.(map[string]any)
	return object, nil
}

func decodeValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	token, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	switch token {
	case json.Delim('{'):
		return decodeMembers(d, depth)
	case json.Delim('['):
		return decodeElements(d, depth)
	default:
		return token, nil
	}
}

func decodeMembers(d *json.Decoder, depth int) (any, error) {
	object := make(map[string]any)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("JSON: %w", err)
		}
		name, _ := token.(string) // the decoder lets nothing else be a name
		if _, ok := object[name]; ok {
			return nil, errDuplicate
		}
		if object[name], err = decodeValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	return object, closeValue(d)
}

func decodeElements(d *json.Decoder, depth int) (any, error) {
	list := []any{}
	for d.More() {
		value, err := decodeValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, closeValue(d)
}

func closeValue(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("JSON: %w", err)
	}
	return nil
}
