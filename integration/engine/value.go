package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is what an expression comes to.
type value struct {
	kind byte // 's' text, 'n' number, 'b' boolean, 'l' list of text, 'r' SQL as it is, 0 none
	text string
	list []string
	yes  bool
}

// quote writes a text as a literal of ClickHouse.
func quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// sql is the value as it stands in a query.
func (v value) sql() string {
	switch v.kind {
	case 's':
		return quote(v.text)
	case 'b':
		if v.yes {
			return "1"
		}
		return "0"
	case 'l':
		items := make([]string, len(v.list))
		for i, item := range v.list {
			items[i] = quote(item)
		}
		return "[" + strings.Join(items, ",") + "]"
	case 0:
		return "''"
	default:
		return v.text
	}
}

// given is the value as a client would have given it.
func (v value) given() string {
	switch v.kind {
	case 'b':
		return strconv.FormatBool(v.yes)
	case 'l':
		return strings.Join(v.list, ",")
	default:
		return v.text
	}
}

// truth is the value as a condition, by Python's rules.
func (v value) truth() bool {
	switch v.kind {
	case 's':
		return v.text != ""
	case 'n':
		f, err := strconv.ParseFloat(v.text, 64)
		return err == nil && f != 0
	case 'b':
		return v.yes
	case 'l':
		return len(v.list) > 0
	default:
		return false
	}
}

func boolean(yes bool) value { return value{kind: 'b', yes: yes} }

func (e *expr) eval(params map[string]string) (value, error) {
	switch e.op {
	case "text":
		return value{kind: 's', text: e.text}, nil
	case "number":
		return value{kind: 'n', text: e.text}, nil
	case "word":
		if e.text == "None" {
			return value{}, nil
		}
		return boolean(e.text == "True"), nil
	case opName:
		given, ok := params[e.text]
		if !ok {
			return value{}, nil
		}
		return value{kind: 's', text: given}, nil
	case "list":
		v := value{kind: 'l'}
		for _, a := range e.args {
			item, err := a.eval(params)
			if err != nil {
				return value{}, err
			}
			v.list = append(v.list, item.text)
		}
		return v, nil
	case "call":
		return e.call(params)
	case "not", "and", "or":
		return e.logic(params)
	default:
		return e.compare(params)
	}
}

func (e *expr) logic(params map[string]string) (value, error) {
	left, err := e.args[0].eval(params)
	switch {
	case err != nil:
		return value{}, err
	case e.op == "not":
		return boolean(!left.truth()), nil
	case e.op == "and" && !left.truth(), e.op == "or" && left.truth():
		return left, nil
	default:
		return e.args[1].eval(params)
	}
}

func (e *expr) compare(params map[string]string) (value, error) {
	left, err := e.args[0].eval(params)
	if err != nil {
		return value{}, err
	}
	right, err := e.args[1].eval(params)
	if err != nil {
		return value{}, err
	}
	if e.op == "in" {
		return boolean(slices.Contains(right.list, left.text) || right.kind == 's' && strings.Contains(right.text, left.text)), nil
	}
	order, ok := left.order(right)
	if !ok {
		return boolean(e.op == "!="), nil
	}
	return boolean(orders[e.op](order)), nil
}

// orders are the comparisons, by what the order of the two values is.
var orders = map[string]func(int) bool{
	"==": func(n int) bool { return n == 0 },
	"!=": func(n int) bool { return n != 0 },
	"<":  func(n int) bool { return n < 0 },
	"<=": func(n int) bool { return n <= 0 },
	">":  func(n int) bool { return n > 0 },
	">=": func(n int) bool { return n >= 0 },
}

// order compares two values of one kind: numbers as such, all others by their text.
func (v value) order(w value) (order int, ok bool) {
	if v.kind != w.kind || v.yes != w.yes {
		return 0, false
	}
	if v.kind != 'n' {
		return strings.Compare(v.text, w.text), true
	}
	a, errA := strconv.ParseFloat(v.text, 64)
	b, errB := strconv.ParseFloat(w.text, 64)
	return cmp.Compare(a, b), errA == nil && errB == nil
}

// call runs a function of the template language.
func (e *expr) call(params map[string]string) (value, error) {
	switch e.text {
	case "defined":
		if len(e.args) != 1 || e.args[0].op != opName {
			return value{}, syntaxError("defined takes the name of a parameter")
		}
		_, ok := params[e.args[0].text]
		return boolean(ok), nil
	case "error", "custom_error":
		text := "error"
		if len(e.args) > 0 {
			v, err := e.args[0].eval(params)
			if err != nil {
				return value{}, err
			}
			text = v.text
		}
		return value{}, &Error{text}
	default:
		return e.param(params)
	}
}

// param is a typed parameter, such as Int32(limit, 10, required=True).
func (e *expr) param(params map[string]string) (value, error) {
	check, known := types[e.text]
	if !known || len(e.args) == 0 || e.args[0].op != opName {
		return value{}, syntaxError("%s is not understood here", e.text)
	}
	name := e.args[0].text
	given, ok := params[name]
	if !ok {
		fallback, err := e.fallback(params)
		if err != nil {
			return value{}, err
		}
		if fallback.kind == 0 {
			if required, err := e.flag("required", params); required || err != nil {
				return value{}, requiredError(name, err)
			}
			return value{}, nil
		}
		given = fallback.given()
	}
	v, err := check(given)
	if err != nil {
		return value{}, syntaxError("Error validating '%s' to type %s", given, e.text)
	}
	return v, nil
}

func requiredError(name string, err error) error {
	if err != nil {
		return err
	}
	return syntaxError("Required parameter is not defined. Check the parameters %s. Please provide a value or set a default value in the pipe code.", name)
}

// fallback is the default value, which is the argument named so or the last one without a name.
func (e *expr) fallback(params map[string]string) (value, error) {
	if d, ok := e.named["default"]; ok {
		return d.eval(params)
	}
	at := 1
	if e.text == "Array" {
		at = 2 // the second is the type of its elements
	}
	if len(e.args) > at {
		return e.args[at].eval(params)
	}
	return value{}, nil
}

func (e *expr) flag(name string, params map[string]string) (bool, error) {
	f, ok := e.named[name]
	if !ok {
		return false, nil
	}
	v, err := f.eval(params)
	return v.truth(), err
}

// types turn a parameter's text into a value of the type that a template names.
var types = map[string]func(string) (value, error){
	"String": func(s string) (value, error) { return value{kind: 's', text: s}, nil },
	"Array": func(s string) (value, error) {
		return value{kind: 'l', list: strings.Split(s, ",")}, nil
	},
	"Int8": integer(8), "Int16": integer(16), "Int32": integer(32), "Int64": integer(64),
	"UInt8": natural(8), "UInt16": natural(16), "UInt32": natural(32), "UInt64": natural(64),
	"Float32": float, "Float64": float,
	"Boolean": func(s string) (value, error) {
		yes, err := strconv.ParseBool(strings.ToLower(s))
		return boolean(yes), err
	},
	"Date":     moment(time.DateOnly),
	"DateTime": moment(time.DateTime),
}

// invalid says that a text is no value of its type.
func invalid(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("invalid value: %w", err)
}

func integer(bits int) func(string) (value, error) {
	return func(s string) (value, error) {
		n, err := strconv.ParseInt(s, 10, bits)
		return value{kind: 'n', text: strconv.FormatInt(n, 10)}, invalid(err)
	}
}

func natural(bits int) func(string) (value, error) {
	return func(s string) (value, error) {
		n, err := strconv.ParseUint(s, 10, bits)
		return value{kind: 'n', text: strconv.FormatUint(n, 10)}, invalid(err)
	}
}

func float(s string) (value, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err == nil && (f != f || f > 1e308 || f < -1e308) {
		err = fmt.Errorf("%s is no number", s)
	}
	return value{kind: 'n', text: strconv.FormatFloat(f, 'g', -1, 64)}, err
}

func moment(layout string) func(string) (value, error) {
	return func(s string) (value, error) {
		_, err := time.Parse(layout, s)
		return value{kind: 's', text: s}, invalid(err)
	}
}
