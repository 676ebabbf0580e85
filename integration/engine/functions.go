package engine

import (
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// call is one call of a function: its arguments by position and by name.
type call struct {
	name  string
	args  []any
	named map[string]any
	line  int
}

// arg is the argument at a position, or of that name.
func (c *call) arg(at int, name string) any {
	if at < len(c.args) {
		return c.args[at]
	}
	return c.named[name]
}

// value is the first argument, or the default at a position where that is not defined.
func (c *call) value(at int) any {
	if v := c.args[0]; v != nil {
		return v
	}
	return c.arg(at, "default")
}

func (r *renderer) call(e *expr) (any, error) {
	c := &call{name: e.name, named: map[string]any{}, line: e.line}
	var err error
	if c.args, err = r.all(e.args); err != nil {
		return nil, err
	}
	for name, a := range e.named {
		if c.named[name], err = r.eval(a); err != nil {
			return nil, err
		}
	}
	if isType(c.name) {
		return r.typed(c)
	}
	f, ok := functions[c.name]
	if !ok {
		return nil, syntaxError("'%s' is not a valid function, line %d", c.name, c.line)
	}
	if len(c.args) == 0 {
		return nil, syntaxError("%s() is missing an argument, line %d", c.name, c.line)
	}
	return f(c)
}

var functions = map[string]func(*call) (any, error){
	"defined":             func(c *call) (any, error) { return c.args[0] != nil, nil },
	"column":              columnFunction,
	"columns":             columnsFunction,
	"split_to_array":      splitToArray,
	"enumerate_with_last": enumerateWithLast,
	"error":               raise,
	"custom_error":        raise,
}

// raise is error('text') and custom_error('text', 400).
func raise(c *call) (any, error) {
	text, ok := c.args[0].(string)
	if !ok {
		return nil, syntaxError("%s() of anything but text is not understood, line %d", c.name, c.line)
	}
	status := 400
	if n, ok := c.arg(1, "code").(number); ok && n.i != nil && n.i.IsInt64() && n.i.Int64() >= 400 && n.i.Int64() < 600 {
		status = int(n.i.Int64())
	}
	return nil, &devstack.QueryError{Status: status, Text: text}
}

func columnFunction(c *call) (any, error) {
	name, ok := c.value(1).(string)
	if !ok {
		return nil, syntaxError("Missing column() default value, use `column(column_name, 'default_column_name')`")
	}
	return sql(quoteName(name)), nil
}

func columnsFunction(c *call) (any, error) {
	names, ok := c.value(1).(string)
	if !ok {
		return nil, syntaxError("Missing columns() default value, use `columns(column_names, 'default_column_name')`")
	}
	if c.arg(2, "fn") != nil {
		return nil, syntaxError("columns() with fn is not understood, line %d", c.line)
	}
	var quoted []string
	for name := range strings.SplitSeq(names, ",") {
		quoted = append(quoted, quoteName(strings.TrimSpace(name)))
	}
	return sql(strings.Join(quoted, ",")), nil
}

func splitToArray(c *call) (any, error) {
	v := c.value(1)
	if v == nil {
		v = ""
	}
	text, ok := v.(string)
	separator, sepOK := c.arg(2, "separator").(string)
	if !sepOK {
		separator = ","
	}
	if !ok || separator == "" {
		return nil, syntaxError("First argument of split_to_array has to be a value that can be split to a list of elements")
	}
	var parts list
	for p := range strings.SplitSeq(text, separator) {
		parts = append(parts, strings.TrimSpace(p))
	}
	return parts, nil
}

func enumerateWithLast(c *call) (any, error) {
	items, ok := c.args[0].(list)
	if !ok {
		return nil, syntaxError("object of type '%s' has no len()", kindOf(c.args[0]))
	}
	pairs := make(list, len(items))
	for n, item := range items {
		pairs[n] = list{n == len(items)-1, item}
	}
	return pairs, nil
}

var (
	integer   = regexp.MustCompile(`^(U?)Int(8|16|32|64|128|256)$`)
	signed    = regexp.MustCompile(`^[+-]?\d+$`)
	unsigned  = regexp.MustCompile(`^\d+$`)
	date      = regexp.MustCompile(`^\d{4}-\d\d-\d\d\n?$`)
	dateTimes = map[string]*regexp.Regexp{ // of the beginning only: whatever follows is a part of the literal
		"DateTime":   regexp.MustCompile(`^(\d{4}.\d\d.\d\d[T\s]\d\d:\d\d:\d\d|\d\d.\d\d.\d{4}.\d{1,2}:\d{1,2}:\d{1,2})`),
		"DateTime64": regexp.MustCompile(`^(\d{4}.\d\d.\d\d[T\s]\d\d:\d\d:\d\d.\d{3}|\d\d.\d\d.\d{4}.\d{1,2}:\d{1,2}:\d{1,2}.\d{1,3})`),
	}
)

// aliases of types give a number without its type.
var aliases = map[string]string{"Int": "Int32", "Integer": "Int32"}

const (
	arrayType = "Array"
	boolType  = "bool" // the same as Boolean; also Python's name for it
)

func isType(name string) bool {
	return integer.MatchString(name) || aliases[name] != "" ||
		slices.Contains([]string{"String", "Boolean", boolType, arrayType, "Date", "DateTime", "DateTime64", "Float32", "Float64"}, name)
}

// options are what a typed function takes by name. All but default and defined describe the parameter and check nothing.
var options = []string{"default", "defined", "required", "description", "enum", "example", "format"}

func (r *renderer) typed(c *call) (any, error) {
	for name := range c.named {
		if !slices.Contains(options, name) {
			return nil, syntaxError("%s() got an unexpected keyword argument '%s', line %d", c.name, name, c.line)
		}
	}
	if len(c.args) == 0 {
		return nil, syntaxError("one of the transform type functions is missing an argument")
	}
	at := 1
	if c.name == arrayType {
		at = 2
	}
	v := c.value(at)
	switch {
	case c.name == "Boolean", c.name == boolType:
		return boolean(v), nil
	case v == nil:
		if defined, given := c.named["defined"]; given && !truth(defined) {
			return nil, nil //nolint:nilnil // None, as in Python
		}
		return nil, r.missing()
	case c.name == arrayType:
		element, ok := c.arg(1, "").(string)
		if !ok {
			element = "String"
		}
		return array(v, element)
	}
	return convert(c.name, v)
}

func (r *renderer) missing() error {
	const why = "Required parameter is not defined"
	names := r.required
	switch len(names) {
	case 0:
		return syntaxError(why)
	case 1:
	default:
		names = []string{strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]}
	}
	return syntaxError(why+". Check the parameters %s. Please provide a value or set a default value in the pipe code.", names[0])
}

// boolean is 0 for what is not defined and for the words that say so, and 1 for any other text.
func boolean(v any) any {
	yes := truth(v)
	if s, ok := v.(string); ok && (s == "0" || strings.EqualFold(s, "false")) {
		yes = false
	}
	if yes {
		return number{i: big.NewInt(1)}
	}
	return number{i: new(big.Int)}
}

// text is Python's str() of a value.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case sql:
		return string(v)
	case bool:
		if v {
			return "True"
		}
		return "False"
	case number:
		v.typ = ""
		return v.String()
	}
	return ""
}

// convert checks a value and makes what its type stands for in SQL: a literal, or a conversion of one.
func convert(typ string, v any) (any, error) {
	s := text(v)
	wrong := syntaxError("Error validating '%s' to type %s", s, typ)
	if _, ok := v.(list); ok {
		return nil, wrong
	}
	as := typ
	if alias := aliases[typ]; alias != "" {
		typ, as = alias, ""
	}
	if m := integer.FindStringSubmatch(typ); m != nil {
		i, ok := wholeNumber(s, m[1] == "U", m[2])
		if !ok {
			return nil, wrong
		}
		return number{typ: as, i: i}, nil
	}
	switch typ {
	case "String":
		return s, nil
	case "Date":
		if date.MatchString(s) {
			return s, nil
		}
	case "DateTime", "DateTime64":
		if dateTimes[typ].MatchString(s) {
			return s, nil
		}
	case "Float32", "Float64":
		if f, ok := fraction(s); ok {
			return number{typ: as, f: f}, nil
		}
	}
	return nil, wrong
}

func wholeNumber(s string, positive bool, bits string) (*big.Int, bool) {
	form := signed
	if positive {
		form = unsigned
	}
	n, err := strconv.Atoi(bits)
	if err != nil || !form.MatchString(s) || len(s) > 100 {
		return nil, false
	}
	i, ok := new(big.Int).SetString(strings.TrimPrefix(s, "+"), 10)
	if !ok {
		return nil, false
	}
	low, high := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(n))
	if !positive {
		high.Rsh(high, 1)
		low.Neg(high)
	}
	return i, i.Cmp(low) >= 0 && i.Cmp(high) < 0
}

// fraction reads what Python's float() reads, which has no hexadecimal.
func fraction(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	if strings.ContainsAny(s, "xX_") {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if n, ok := err.(*strconv.NumError); ok && n.Err == strconv.ErrRange { //nolint:errorlint // ParseFloat returns no other
		err = nil // Python rounds to infinity, as ParseFloat has done
	}
	return f, err == nil
}

func array(v any, element string) (any, error) {
	items, ok := v.(list)
	if !ok {
		for part := range strings.SplitSeq(text(v), ",") {
			items = append(items, part)
		}
	}
	if !isType(element) || element == arrayType {
		return nil, syntaxError("an array of %s is not understood", element)
	}
	parts := make([]string, len(items))
	for n, item := range items {
		one, err := arrayElement(item, element)
		if err != nil {
			shown := text(item)
			if shown == "" {
				shown = "empty string"
			}
			return nil, syntaxError("Error validating [%s][%d] (%s) to type %s", text(v), n, shown, element)
		}
		parts[n] = one
	}
	return sql("[" + strings.Join(parts, ",") + "]"), nil
}

func arrayElement(item any, element string) (string, error) {
	if element == "Boolean" || element == boolType {
		return show(boolean(item), "")
	}
	one, err := convert(element, item)
	if err != nil {
		return "", err
	}
	if n, ok := one.(number); ok {
		n.typ = ""
		one = n
	}
	return show(one, "")
}
