package audit

import (
	"maps"
	"slices"
)

// opener is a client's parameter that decides between branches, with values that open some of them.
type opener struct {
	name   string
	values []string
}

// Bounds of what is tried against one pipe.
const (
	maxOpeners = 20
	maxValues  = 6
)

// notParams are the words of conditions that name no parameter.
var notParams = []string{
	"and", "or", "not", "in", "is", "if", "else", "for", "lambda", "True", "False", "None", definedName, "len", "int", "str", "float", "split_to_array",
	"enumerate_with_last", "day_diff", "date_diff_in_days", "date_diff_in_hours", "date_diff_in_minutes", "date_diff_in_seconds", "tb_var", "tb_secret",
	"list", "range", "sum", "min", "max", "lower", "upper",
}

// openers lists the client's parameters in the conditions of all nodes that were read.
func (a *analysis) openers() []opener {
	values := map[string][]string{}
	kinds := map[string]typed{}
	labels := slices.Sorted(maps.Keys(a.nodes))
	for _, label := range labels {
		walk(a.nodes[label].items, func(e *expr, condition bool) {
			for _, t := range typedIn(e) {
				if kinds[t.param].typ == "" {
					kinds[t.param] = t
				}
			}
			if !condition {
				return
			}
			for _, name := range e.names {
				if _, isType := paramTypes[name]; !isType && !slices.Contains(notParams, name) && !slices.Contains(a.names, name) {
					values[name] = append(values[name], literalsIn(e.text)...)
				}
			}
		})
	}
	found := make([]opener, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		t := kinds[name]
		all := slices.Concat(values[name], t.values)
		if t.fallback != "" {
			all = append(all, t.fallback)
		}
		all = append(all, plausible(t))
		slices.Sort(all)
		all = slices.Compact(all)
		found = append(found, opener{name, all[:min(len(all), maxValues)]})
	}
	return found[:min(len(found), maxOpeners)]
}

func literalsIn(text string) []string {
	var found []string
	for _, t := range pyTokens(text) {
		if (t.kind == 's' || t.kind == 'n') && t.text != "" {
			found = append(found, t.text)
		}
	}
	return found
}

// plausible is a value that the parameter's type accepts.
func plausible(t typed) string {
	value := paramTypes[t.typ]
	if t.typ == typeArray {
		value = paramTypes[t.element]
	}
	if value == "" {
		return "a"
	}
	return value
}
