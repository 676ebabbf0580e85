package tinybird

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxValue is the longest value of a fixed parameter and the longest token name, in bytes.
const maxValue = 1 << 10

// Why a value cannot be used. The value itself is in no error: it may be anything that was in a token.
var (
	errNoValue   = errors.New("the identity has no such value")
	errNull      = errors.New("the value is null")
	errEmpty     = errors.New("the value is empty")
	errTooLong   = fmt.Errorf("the value is longer than %d bytes", maxValue)
	errControl   = errors.New("the value holds control characters or broken text")
	errObject    = errors.New("the value is an object")
	errListEmpty = errors.New("the value is an empty list")
	errListComma = errors.New("an element of the list holds a comma")
	errListShape = errors.New("the value is a list inside a list")
	errList      = errors.New("the value is a list")
	errNumber    = errors.New("the value is not a number")
	errBoolean   = errors.New("the value is not true or false")
	errKind      = errors.New("the value is of an unknown kind")
)

// ValueText returns the text of a claim: a scalar as it is, a list of scalars joined by commas, which is
// how Tinybird's Array() parameters are passed. An empty list is refused, because to a pipe it looks like
// no filter; an element that holds a comma is, because it would turn into two.
func ValueText(v any) (string, error) {
	list, ok := v.([]any)
	if !ok {
		return scalarText(v)
	}
	if len(list) == 0 {
		return "", errListEmpty
	}
	var b strings.Builder
	for i, e := range list {
		if _, nested := e.([]any); nested {
			return "", errListShape
		}
		text, err := scalarText(e)
		if err != nil {
			return "", err
		}
		if strings.Contains(text, ",") {
			return "", errListComma
		}
		if b.Len()+len(text)+1 > maxValue {
			return "", errTooLong
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// scalarText returns the text of a string, number or boolean, and refuses everything else.
func scalarText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, checkText(v)
	case json.Number:
		if !validNumber(string(v)) {
			return "", errNumber
		}
		return string(v), checkText(string(v))
	case bool:
		return strconv.FormatBool(v), nil
	case nil:
		return "", errNull
	case map[string]any:
		return "", errObject
	case []any:
		return "", errList
	default:
		return "", errKind
	}
}

// checkText tells whether text can be a value: not blank, bounded, no control characters. Broken UTF-8 and
// the replacement character, which is what JSON decoders make of it, are refused, because two different
// values would become one.
func checkText(text string) error {
	if strings.TrimSpace(text) == "" {
		return errEmpty
	}
	if len(text) > maxValue {
		return errTooLong
	}
	return checkRunes(text)
}

func checkRunes(text string) error {
	for _, r := range text {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return errControl
		}
	}
	return nil
}

// validNumber reports whether text is a number as JSON spells them (RFC 8259 section 6), with nothing
// around it, that is finite as a double.
func validNumber(text string) bool {
	if text == "" || len(text) > maxValue {
		return false
	}
	first, last := text[0], text[len(text)-1]
	if first != '-' && !digit(first) || !digit(last) || !json.Valid([]byte(text)) {
		return false
	}
	_, err := strconv.ParseFloat(text, 64)
	return err == nil
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
