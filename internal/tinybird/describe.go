package tinybird

import "slices"

// FixedInfo is what the policy says about one fixed parameter of a pipe.
type FixedInfo struct {
	Name    string
	Type    ParamType
	Literal any // the value, when it is the same for everybody; else nil
}

// PipeInfo is what the policy says about one pipe.
type PipeInfo struct {
	Name    string
	Fixed   []FixedInfo   // sorted by name; empty for an unrestricted pipe
	Params  []string      // client parameters let through, sorted; nil: all but the reserved and the fixed
	Formats []string      // that may be asked for, the preferred one first
	Require []Requirement // all must hold
	Rate    *RateSpec     // nil: no limit
	OwnRate bool          // it is counted apart from the tenant's other pipes
}

// Describe lists the pipes of the policy, sorted by name.
func (p *Policy) Describe() []PipeInfo {
	list := make([]PipeInfo, 0, len(p.pipes))
	for _, name := range p.Pipes() {
		pipe := p.pipes[name]
		info := PipeInfo{
			Name: name, Formats: slices.Clone(pipe.formats), Require: slices.Clone(pipe.require), Rate: copyRate(pipe.rate), OwnRate: pipe.ownRate,
		}
		for _, f := range pipe.fixed {
			info.Fixed = append(info.Fixed, FixedInfo{f.name, f.typ, f.constant})
		}
		for param := range pipe.params {
			info.Params = append(info.Params, param)
		}
		slices.Sort(info.Params)
		list = append(list, info)
	}
	return list
}

// TypedValue gives the text of a fixed parameter's value its type.
func TypedValue(text string, t ParamType) (any, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	if t == "" {
		t = TypeString
	}
	return typed(text, t)
}
