package tinybird

import (
	"fmt"
	"slices"
	"strings"
)

// The kinds of requirement.
const (
	KindRole       = "role"
	KindPermission = "permission"
	KindFeature    = "feature"
	KindPlan       = "plan"
)

// maxRequired is the longest value of a requirement, in bytes.
const maxRequired = 256

// Requirement holds for an identity that has any of the values.
type Requirement struct {
	Kind   string   // "role", "permission", "feature" or "plan"
	Values []string // roles and permissions as Clerk shows them, such as "org:admin"
}

// CheckRequirement tells whether r can be used.
func CheckRequirement(r Requirement) error {
	switch r.Kind {
	case KindRole, KindPermission, KindFeature, KindPlan:
	default:
		return fmt.Errorf("require %s is unknown: write role, permission, feature or plan", Shown(r.Kind))
	}
	if len(r.Values) == 0 {
		return fmt.Errorf("require %s lists no value: name at least one", r.Kind)
	}
	for _, v := range r.Values {
		// Nothing is expanded here, so a brace is a placeholder that would never hold.
		if checkText(v) != nil || len(v) > maxRequired || strings.ContainsAny(v, " {}") {
			return fmt.Errorf("require %s: the value %s is not usable: write it as Clerk shows it, "+
				"without spaces and placeholders", r.Kind, Shown(v))
		}
	}
	return nil
}

// Holds reports whether the identity has any of the values.
func (r Requirement) Holds(s Subject) bool {
	var has func(string) bool
	switch r.Kind {
	case KindRole:
		has = s.HasRole
	case KindPermission:
		has = s.HasPermission
	case KindFeature:
		has = s.HasFeature
	case KindPlan:
		has = s.HasPlan
	default:
		return false
	}
	return slices.ContainsFunc(r.Values, has)
}
