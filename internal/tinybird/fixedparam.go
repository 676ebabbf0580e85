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

// fixedParam is a FixedParam, parsed.
type fixedParam struct {
	name     string
	typ      ParamType
	text     Template
	constant any // the value when there is no placeholder, else nil
}

func compileFixedParam(p FixedParam, check func(string) error) (fixedParam, error) {
	if err := CheckName(p.Name); err != nil {
		return fixedParam{}, fmt.Errorf("fixed_param: %w", err)
	}
	if reserved(p.Name) {
		return fixedParam{}, fmt.Errorf("fixed_param %s is reserved: %s; choose another name for the pipe's parameter",
			p.Name, reservedWhy)
	}
	out := fixedParam{name: p.Name, typ: p.Type}
	switch p.Type {
	case "":
		out.typ = TypeString
	case TypeString, TypeNumber, TypeBoolean:
	default:
		return fixedParam{}, fmt.Errorf("fixed_param %s: the type %s is unknown: write string, number or boolean",
			p.Name, Shown(string(p.Type)))
	}
	text, err := ParseTemplate(p.Value, check)
	if err != nil {
		return fixedParam{}, fmt.Errorf("fixed_param %s: %w", p.Name, err)
	}
	out.text = text
	if literal, ok := text.Literal(); ok {
		err := checkText(literal)
		if err == nil {
			out.constant, err = typed(literal, out.typ)
		}
		if err != nil {
			return fixedParam{}, fmt.Errorf("fixed_param %s: %w: write a %s, or a placeholder that has one",
				p.Name, err, out.typ)
		}
	}
	return out, nil
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

// value resolves the parameter for one identity.
func (p *fixedParam) value(lookup func(string) (any, bool)) (any, error) {
	if p.constant != nil {
		return p.constant, nil
	}
	toText := ValueText
	if p.typ != TypeString {
		// A list of one number is not a number: it becomes two the day a second element is added.
		toText = scalarText
	}
	text, err := p.text.resolve(lookup, toText)
	if err != nil {
		return nil, err
	}
	return typed(text, p.typ)
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
