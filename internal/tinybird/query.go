package tinybird

import (
	"errors"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errSemicolon   = errors.New("a semicolon in the query")
	errEscape      = errors.New("a bad percent-escape in the query")
	errQueryText   = errors.New("text in the query that is not UTF-8")
	errQueryByte   = errors.New("a control character in the query")
	errNameControl = errors.New("a control character in a parameter's name")
)

// buildQuery parses the client's query and writes a new one from the parameters that may go up, in their
// order and with repetitions, which is how Tinybird's SDK passes arrays. It returns how many were left out.
//
// The parser is strict, because a pair that two parsers read differently is how a parameter gets past a
// filter: a semicolon (a separator to some), a bad escape and broken text are errors, in pairs that would
// be left out as well.
func buildQuery(raw string, lets func(name string) bool) (query string, dropped int, err error) {
	var room [512]byte
	b := room[:0]
	err = ParseQuery(raw, func(name, value string) {
		if !lets(name) {
			dropped++
			return
		}
		if len(b) > 0 {
			b = append(b, '&')
		}
		b = append(append(b, name...), '=') // in the grammar of names: nothing to escape
		b = append(b, url.QueryEscape(value)...)
	})
	if err != nil {
		return "", 0, err
	}
	if string(b) == raw { // most clients write what this does, and then it need not be kept
		return raw, dropped, nil
	}
	return string(b), dropped, nil
}

// ParseQuery calls visit with each parameter of an encoded query, decoded once, in their order. No error quotes the query.
func ParseQuery(raw string, visit func(name, value string)) error {
	if strings.Contains(raw, ";") {
		return errSemicolon
	}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, err := parsePair(pair)
		if err != nil {
			return err
		}
		visit(name, value)
	}
	return nil
}

// parsePair decodes one name=value. A pair without "=" has the empty value.
func parsePair(pair string) (name, value string, err error) {
	rawName, rawValue, _ := strings.Cut(pair, "=")
	if name, err = unescape(rawName); err != nil {
		return "", "", err
	}
	if strings.ContainsFunc(name, unicode.IsControl) {
		return "", "", errNameControl
	}
	value, err = unescape(rawValue)
	return name, value, err
}

// unescape decodes %XX and "+" once (application/x-www-form-urlencoded, WHATWG URL Standard section 5).
func unescape(s string) (string, error) {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return "", errQueryByte
		}
	}
	text, err := url.QueryUnescape(s)
	if err != nil {
		return "", errEscape // url's own error quotes the client
	}
	if !utf8.ValidString(text) {
		return "", errQueryText
	}
	return text, nil
}
