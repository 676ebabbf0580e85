package engine

import (
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// A template's values: nil for what is not defined, string, bool, number, list, and sql, which is SQL already.
type (
	list []any
	sql  string
)

// number is a whole one, in i, or one with a fraction, in f. One that went through a typed function has its type.
type number struct {
	typ string
	i   *big.Int
	f   float64
}

func (n number) String() string {
	digits := floatText(n.f)
	if n.i != nil {
		digits = n.i.String()
	}
	if n.typ == "" {
		return digits
	}
	return "to" + n.typ + "('" + digits + "')"
}

func (n number) compare(m number) int {
	if n.i != nil && m.i != nil {
		return n.i.Cmp(m.i)
	}
	a, b := n.float(), m.float()
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (n number) float() float64 {
	if n.i == nil {
		return n.f
	}
	f, _ := new(big.Float).SetInt(n.i).Float64()
	return f
}

// floatText writes a float as Python does: 1.0, 0.25, 1e+16, nan.
func floatText(f float64) string {
	text := strconv.FormatFloat(f, 'e', -1, 64)
	switch text {
	case "NaN":
		return "nan"
	case "+Inf", "-Inf":
		return strings.ToLower(strings.TrimPrefix(text, "+"))
	}
	_, e, _ := strings.Cut(text, "e")
	if exp, err := strconv.Atoi(e); err != nil || exp < -4 || exp >= 16 {
		return text
	}
	text = strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// escapes are the characters that Tinybird escapes in a literal. ClickHouse keeps the backslash before % and z, so a
// value with one of these finds nothing that is equal to it: a nuisance, and no leak.
var escapes = strings.NewReplacer(
	"\x00", `\0`, "\r", `\r`, "\b", `\b`, "\t", `\t`, "\x1a", `\z`, "\n", `\n`,
	`"`, `\"`, "'", `\'`, `\`, `\\`, "%", `\%`, "`", "\\`",
)

// quote makes a literal of any text.
func quote(s string) string { return "'" + escapes.Replace(s) + "'" }

// quoteName makes a column's name of any text: quoted part by part at the dots. Double quotes go, as they do at Tinybird.
func quoteName(s string) string {
	parts := strings.Split(strings.ReplaceAll(s, `"`, ""), ".")
	for n, p := range parts {
		parts[n] = "`" + escapes.Replace(p) + "`"
	}
	return strings.Join(parts, ".")
}

// show is what {{ }} leaves in the SQL.
func show(v any, source string) (string, error) {
	switch v := v.(type) {
	case nil:
		if len(source) > 20 {
			source = source[:20] + "..."
		}
		return "", syntaxError("expression \"%s\" evaluated to null", source)
	case string:
		return quote(v), nil
	case sql:
		return string(v), nil
	case number:
		return v.String(), nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	}
	return "", syntaxError("expression \"%s\" is a list; loop over it, or use Array()", source)
}

// truth is Python's.
func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case string:
		return v != ""
	case sql:
		return v != ""
	case bool:
		return v
	case number:
		return v.compare(number{i: new(big.Int)}) != 0
	case list:
		return len(v) > 0
	}
	return false
}

// equal compares as Python does: values of two kinds are different, but True is 1.
func equal(a, b any) bool {
	switch x := a.(type) {
	case nil:
		return b == nil
	case string, sql:
		return plain(x) == plain(b)
	case list:
		y, ok := b.(list)
		return ok && slices.EqualFunc(x, y, equal)
	}
	x, ok := asNumber(a)
	y, also := asNumber(b)
	return ok && also && x.compare(y) == 0
}

func plain(v any) any {
	if s, ok := v.(sql); ok {
		return string(s)
	}
	return v
}

func asNumber(v any) (number, bool) {
	switch v := v.(type) {
	case number:
		return v, true
	case bool:
		if v {
			return number{i: big.NewInt(1)}, true
		}
		return number{i: new(big.Int)}, true
	}
	return number{}, false
}

func contains(in, v any) (bool, error) {
	switch in := in.(type) {
	case list:
		return slices.ContainsFunc(in, func(e any) bool { return equal(e, v) }), nil
	case string:
		if s, ok := v.(string); ok {
			return strings.Contains(in, s), nil
		}
	}
	return false, syntaxError("argument of type '%s' is not iterable", kindOf(in))
}

// kindOf is Python's name for a value's type, for messages.
func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case string, sql:
		return "str"
	case bool:
		return boolType
	case number:
		if v.i != nil {
			return "int"
		}
		return "float"
	}
	return "list"
}

func syntaxError(format string, args ...any) error {
	return &devstack.QueryError{Status: http.StatusBadRequest, Text: "Template Syntax Error: " + fmt.Sprintf(format, args...)}
}
