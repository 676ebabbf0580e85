package tinybird

import (
	"encoding/json"
	"fmt"
	"strings"
)

// ParamType is the JSON type a fixed parameter has in the minted token.
type ParamType string

// The types of fixed parameters. The empty type is a string.
const (
	TypeString  ParamType = "string"
	TypeNumber  ParamType = "number"
	TypeBoolean ParamType = "boolean"
)

// FixedParam is a parameter that the token fixes, so that no client can set it.
type FixedParam struct {
	Name  string
	Value string // operator text with placeholders
	Type  ParamType
}

// FixedValue is a fixed parameter with the value it has for one identity.
type FixedValue struct {
	Name  string
	Value any // string, json.Number or bool
}

// CheckFixedParam tells whether p can be used. A placeholder that checkPlaceholder refuses is an error,
// because its value would not come from the verified identity.
func CheckFixedParam(p FixedParam, checkPlaceholder func(name string) error) error {
	_, err := compileFixedParam(p, checkPlaceholder)
	return err
}

// Value is operator text with a type, parsed once: what a fixed parameter, or a field of a row, is set to.
type Value struct {
	typ      ParamType
	text     Template
	constant any // the value when there is no placeholder, else nil
}

// CompileValue parses operator text for a value of a type, by the rules of [ParseTemplate] and [ValueText].
func CompileValue(text string, typ ParamType, checkPlaceholder func(name string) error) (Value, error) {
	v := Value{typ: typ}
	switch typ {
	case "":
		v.typ = TypeString
	case TypeString, TypeNumber, TypeBoolean:
	default:
		return Value{}, fmt.Errorf("the type %s is unknown: write string, number or boolean", Shown(string(typ)))
	}
	parsed, err := ParseTemplate(text, checkPlaceholder)
	if err != nil {
		return Value{}, err
	}
	v.text = parsed
	if literal, ok := parsed.Literal(); ok {
		err := checkText(literal)
		if err == nil {
			v.constant, err = typed(literal, v.typ)
		}
		if err != nil {
			return Value{}, fmt.Errorf("%w: write a %s, or a placeholder that has one", err, v.typ)
		}
	}
	return v, nil
}

// Resolve returns the value for one identity: a string, json.Number or bool, never empty. No error quotes it.
func (v *Value) Resolve(lookup func(string) (any, bool)) (any, error) {
	if v.constant != nil {
		return v.constant, nil
	}
	if v.typ == TypeString {
		// The usual case: one placeholder, whose text is the value itself.
		if name, ok := v.text.alone(); ok {
			value, _ := lookup(name)
			if text, ok := value.(string); ok && checkText(text) == nil {
				return value, nil
			}
		}
	}
	toText := ValueText
	if v.typ != TypeString {
		// A list of one number is not a number: it becomes two the day a second element is added.
		toText = scalarText
	}
	text, err := v.text.resolve(lookup, toText)
	if err != nil {
		return nil, err
	}
	return typed(text, v.typ)
}

// fixedParam is a FixedParam, parsed.
type fixedParam struct {
	Value

	name string
}

func compileFixedParam(p FixedParam, check func(string) error) (fixedParam, error) {
	if err := CheckName(p.Name); err != nil {
		return fixedParam{}, fmt.Errorf("fixed_param: %w", err)
	}
	if reserved(p.Name) {
		return fixedParam{}, fmt.Errorf("fixed_param %s is reserved: %s; choose another name for the pipe's parameter",
			p.Name, reservedWhy)
	}
	v, err := CompileValue(p.Value, p.Type, check)
	if err != nil {
		return fixedParam{}, fmt.Errorf("fixed_param %s: %w", p.Name, err)
	}
	return fixedParam{Value: v, name: p.Name}, nil
}

// compileFixed parses the fixed parameters of one scope. Names that differ only in letter case are the same
// name twice.
func compileFixed(params []FixedParam, check func(string) error) ([]fixedParam, error) {
	out := make([]fixedParam, 0, len(params))
	for _, p := range params {
		compiled, err := compileFixedParam(p, check)
		if err != nil {
			return nil, err
		}
		for _, o := range out {
			if strings.EqualFold(o.name, p.Name) {
				return nil, fmt.Errorf("fixed_param %s is given twice (letter case does not count): keep one of them", p.Name)
			}
		}
		out = append(out, compiled)
	}
	return out, nil
}

// typed gives text its JSON type. A number keeps its digits.
func typed(text string, t ParamType) (any, error) {
	switch t {
	case TypeNumber:
		if !validNumber(text) {
			return nil, errNumber
		}
		return json.Number(text), nil
	case TypeBoolean:
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, errBoolean
	case TypeString:
		return text, nil
	}
	return nil, errKind
}
