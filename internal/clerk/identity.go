package clerk

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Identity is who a session token speaks for. It is shared between requests: read it, never change it.
type Identity struct {
	UserID    string
	SessionID string

	// The active organization; empty for a personal account. OrgRole is spelled as Clerk shows it: "org:admin".
	OrgID, OrgSlug, OrgRole string
	// Permissions in the active organization, such as "org:reports:read".
	Permissions []string
	// Features with their scope, such as "o:dashboard" (of the organization) or "u:beta" (of the user).
	Features []string
	// Plan with its scope, such as "o:pro".
	Plan string

	Status          string // of the session: "active", or "" in tokens that do not say
	Issuer          string
	AuthorizedParty string
	IssuedAt        time.Time // zero if the token does not say
	ExpiresAt       time.Time

	// Claims are all claims of the token by their exact names, numbers as json.Number.
	Claims map[string]any

	values *[len(placeholders)]any // of the placeholders; nil in an Identity that was made by hand
}

// Claimed returns who a session token with these claims speaks for. The claims may be those of a token that nobody has verified: it is
// for telling people, never for deciding.
func Claimed(all map[string]any) *Identity { return newIdentity(all) }

// newIdentity reads the claims of a token that was verified. Claims of a wrong type count as absent: what
// follows from them, such as a role, is then not granted.
func newIdentity(c claims) *Identity {
	id := &Identity{Claims: c}
	id.UserID, _ = c.text("sub")
	id.SessionID, _ = c.text("sid")
	id.Issuer, _ = c.text("iss")
	id.AuthorizedParty, _ = c.text("azp")
	id.Status, _ = c.text("sts")
	if at, ok, _ := c.seconds("exp"); ok {
		id.ExpiresAt = time.Unix(at, 0)
	}
	if at, ok, _ := c.seconds("iat"); ok {
		id.IssuedAt = time.Unix(at, 0)
	}
	if c.version2() {
		id.readV2(c)
	} else {
		id.readV1(c)
	}
	id.keepValues()
	return id
}

// version2 reports whether v is the number 2. Anything else counts as version 1, as it does for the SDK.
func (c claims) version2() bool {
	n, ok := c["v"].(json.Number)
	if !ok {
		return false
	}
	f, err := n.Float64()
	return err == nil && f == 2
}

// readV1 reads the organization from org_id, org_slug, org_role and org_permissions.
func (id *Identity) readV1(c claims) {
	id.OrgID, _ = c.text("org_id")
	id.OrgSlug, _ = c.text("org_slug")
	id.OrgRole, _ = c.text("org_role")
	list, _ := c["org_permissions"].([]any)
	for _, p := range list {
		if s, ok := p.(string); ok && s != "" {
			id.Permissions = append(id.Permissions, s)
		}
	}
}

// readV2 reads plan and features, and the organization from the claim o, whose role lacks its prefix.
func (id *Identity) readV2(c claims) {
	id.Plan, _ = c.text("pla")
	fea, _ := c.text("fea")
	for _, f := range splitList(fea) {
		if scope, name, _ := strings.Cut(f, ":"); name != "" && scopes[scope] != 0 {
			id.Features = append(id.Features, f)
		}
	}
	org, _ := c["o"].(map[string]any)
	o := claims(org)
	id.OrgID, _ = o.text("id")
	id.OrgSlug, _ = o.text("slg")
	if role, _ := o.text("rol"); role != "" {
		id.OrgRole = "org:" + role
	}
	per, _ := o.text("per")
	fpm, _ := o.text("fpm")
	id.Permissions = permissions(fea, per, fpm)
}

// HasRole reports whether the role in the active organization is role, such as "org:admin".
func (id *Identity) HasRole(role string) bool {
	return id.OrgID != "" && role != "" && role == id.OrgRole
}

// HasPermission reports whether the session has the permission in the active organization, such as
// "org:reports:read".
func (id *Identity) HasPermission(permission string) bool {
	return id.OrgID != "" && slices.Contains(id.Permissions, permission)
}

// HasFeature reports whether the organization or the user has the feature: "dashboard", or with a scope
// "o:dashboard" or "u:dashboard".
func (id *Identity) HasFeature(feature string) bool { return hasScoped(id.Features, feature) }

// HasPlan reports whether the organization or the user has the plan: "pro", or with a scope "o:pro" or
// "u:pro".
func (id *Identity) HasPlan(plan string) bool { return hasScoped(splitList(id.Plan), plan) }

// The scopes of features and plans.
const (
	scopeOrg = 1 << iota
	scopeUser
)

var scopes = map[string]int{"o": scopeOrg, "u": scopeUser, "uo": scopeOrg | scopeUser, "ou": scopeOrg | scopeUser}

// hasScoped reports whether the list of scoped names holds the one that is asked for, bare or scoped.
func hasScoped(list []string, asked string) bool {
	want := scopeOrg | scopeUser
	if scope, name, ok := strings.Cut(asked, ":"); ok {
		want, asked = scopes[scope], name
	}
	return asked != "" && slices.ContainsFunc(list, func(one string) bool {
		scope, name, _ := strings.Cut(one, ":")
		return name == asked && scopes[scope]&want != 0
	})
}
