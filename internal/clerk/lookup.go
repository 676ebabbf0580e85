package clerk

import (
	"fmt"
	"slices"
	"strings"
)

const claimsPrefix = "clerk.claims."

// placeholders are the names that Lookup knows, apart from those of claims.
var placeholders = [...]string{
	"clerk.user.id", "clerk.org.id", "clerk.org.slug", "clerk.org.role", "clerk.session.id", "clerk.plan",
}

// Lookup returns the value of a placeholder, whose name is written without its braces: clerk.user.id,
// clerk.org.id, clerk.org.slug, clerk.org.role, clerk.session.id, clerk.plan, or clerk.claims. and the path
// of a claim. The value is a string, json.Number, bool, nil (a claim that is null), []any or map[string]any.
// ok is false if there is no such value, or an empty string.
func (id *Identity) Lookup(name string) (value any, ok bool) {
	if path, isClaim := strings.CutPrefix(name, claimsPrefix); isClaim {
		return lookupClaim(id.Claims, path)
	}
	i := slices.Index(placeholders[:], name)
	if i < 0 || id.values == nil {
		return id.field(name)
	}
	return id.values[i], id.values[i] != nil
}

// field returns the value of a placeholder that is not of a claim.
func (id *Identity) field(name string) (any, bool) {
	var s string
	switch name {
	case "clerk.user.id":
		s = id.UserID
	case "clerk.org.id":
		s = id.OrgID
	case "clerk.org.slug":
		s = id.OrgSlug
	case "clerk.org.role":
		s = id.OrgRole
	case "clerk.session.id":
		s = id.SessionID
	case "clerk.plan":
		s = id.Plan
	}
	if s == "" {
		return nil, false
	}
	return s, true
}

// keepValues makes the values of the placeholders once, because they are looked up with every request.
func (id *Identity) keepValues() {
	id.values = new([len(placeholders)]any)
	for i, name := range placeholders {
		id.values[i], _ = id.field(name)
	}
}

// lookupClaim follows a path of member names; lists have none.
func lookupClaim(object map[string]any, path string) (any, bool) {
	for {
		name, rest, more := strings.Cut(path, ".")
		value, ok := object[name]
		if !ok || value == "" {
			return nil, false
		}
		if !more {
			return value, true
		}
		if object, ok = value.(map[string]any); !ok {
			return nil, false
		}
		path = rest
	}
}

// CheckPlaceholder reports whether Lookup knows the name of a placeholder. The error lists the names.
func CheckPlaceholder(name string) error {
	if slices.Contains(placeholders[:], name) {
		return nil
	}
	if path, ok := strings.CutPrefix(name, claimsPrefix); ok && path != "" &&
		!strings.HasPrefix(path, ".") && !strings.HasSuffix(path, ".") && !strings.Contains(path, "..") {
		return nil
	}
	return fmt.Errorf("unknown placeholder {%s}: want one of {%s} or {%s<path>}", name, strings.Join(placeholders[:], "}, {"), claimsPrefix)
}
