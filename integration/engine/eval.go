package engine

import (
	"math/big"
	"strings"
)

func (r *renderer) eval(e *expr) (any, error) {
	switch e.op {
	case "lit":
		return e.value, nil
	case "name":
		return r.vars[e.name], nil // nil: not defined
	case "call":
		return r.call(e)
	case "and", "or":
		left, err := r.eval(e.args[0])
		if err != nil || truth(left) == (e.op == "or") {
			return left, err
		}
		return r.eval(e.args[1])
	}
	values, err := r.all(e.args)
	if err != nil {
		return nil, err
	}
	switch e.op {
	case "list":
		return list(values), nil
	case "not":
		return !truth(values[0]), nil
	case "neg":
		return negative(values[0])
	case "+":
		return add(values[0], values[1])
	}
	return compare(e.op, values[0], values[1])
}

func (r *renderer) all(args []*expr) ([]any, error) {
	values := make([]any, len(args))
	for n, a := range args {
		v, err := r.eval(a)
		if err != nil {
			return nil, err
		}
		values[n] = v
	}
	return values, nil
}

func negative(v any) (any, error) {
	n, ok := asNumber(v)
	if !ok {
		return nil, syntaxError("bad operand type for unary -: '%s'", kindOf(v))
	}
	if n.i != nil {
		return number{i: new(big.Int).Neg(n.i)}, nil
	}
	return number{f: -n.f}, nil
}

// add joins strings and adds numbers, as Python does.
func add(a, b any) (any, error) {
	if x, ok := a.(string); ok {
		if y, ok := b.(string); ok {
			if len(x)+len(y) > maxRendered {
				return nil, syntaxError("a text is too long")
			}
			return x + y, nil
		}
	}
	x, ok := asNumber(a)
	y, also := asNumber(b)
	switch {
	case !ok || !also:
		return nil, syntaxError("unsupported operand type(s) for +: '%s' and '%s'", kindOf(a), kindOf(b))
	case x.i != nil && y.i != nil:
		return number{i: new(big.Int).Add(x.i, y.i)}, nil
	}
	return number{f: x.float() + y.float()}, nil
}

func compare(op string, a, b any) (any, error) {
	switch op {
	case "==":
		return equal(a, b), nil
	case "!=":
		return !equal(a, b), nil
	case "is", "is not": // of use with None only
		return (a == nil && b == nil) == (op == "is"), nil
	case "in", "not in":
		found, err := contains(b, a)
		return found == (op == "in"), err
	}
	var c int
	x, ok := asNumber(a)
	y, also := asNumber(b)
	s, text := a.(string)
	t, both := b.(string)
	switch {
	case ok && also:
		c = x.compare(y)
	case text && both:
		c = strings.Compare(s, t)
	default:
		return nil, syntaxError("'%s' not supported between instances of '%s' and '%s'", op, kindOf(a), kindOf(b))
	}
	switch op {
	case "<":
		return c < 0, nil
	case "<=":
		return c <= 0, nil
	case ">":
		return c > 0, nil
	}
	return c >= 0, nil
}
