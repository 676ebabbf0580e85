package ingest

import (
	"bytes"
	"errors"
	"unicode"
	"unicode/utf8"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/jsonobject"
)

var errName = errors.New("a member's name holds a control character")

// stamp appends to dst the row raw, written anew: all members but those that the client cannot set, then the stamps. After an
// error dst is as long as it was. The row is on one line, and grows by no more than g.growth.
func (g *Grant) stamp(dst, raw []byte) ([]byte, error) {
	out, kept, _, err := jsonobject.Rewrite(dst, raw, g.keep)
	if err != nil {
		return dst, err
	}
	out = out[:len(out)-1] // the closing brace
	if kept > 0 {
		out = append(out, ',')
	}
	return append(append(out, g.stamps...), '}'), nil
}

// growth is how much longer a row can get, its line break included.
func (g *Grant) growth() int { return len(",") + len(g.stamps) + len("\n") }

// keep tells whether a member of a row is the client's to set.
func (g *Grant) keep(name []byte) (bool, error) {
	// To one that reads names up to a NUL, more names than those compared here are a field's.
	if bytes.ContainsFunc(name, unicode.IsControl) {
		return false, errName
	}
	for _, field := range g.fields {
		if sameField(name, field) {
			return false, nil
		}
	}
	return true, nil
}

// sameField tells whether anything that ignores letter case could take name for the field: by folding, as
// strings.EqualFold does, or by changing both to upper or to lower case, which makes of "ı" an I and of "İ" an i.
func sameField(name []byte, field string) bool {
	if isASCII(name) {
		return len(name) == len(field) && bytes.EqualFold(name, []byte(field))
	}
	return bytes.EqualFold(name, []byte(field)) ||
		bytes.EqualFold(bytes.ToUpper(name), []byte(field)) || bytes.EqualFold(bytes.ToLower(name), []byte(field))
}

func isASCII(text []byte) bool {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
