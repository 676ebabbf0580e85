package devstack

import (
	"slices"
	"strconv"
	"strings"
)

func claimsV1(c map[string]any, org *Organization) {
	if org == nil {
		return
	}
	c["org_id"] = org.ID
	c["org_slug"] = org.Slug
	c["org_role"] = org.Role
	c["org_permissions"] = org.Permissions
}

func claimsV2(c map[string]any, u User, org *Organization) {
	c["v"] = 2
	c["sts"] = "active"
	c["pla"] = "u:" + u.UserPlan
	var features []string
	if org != nil {
		c["pla"] = "o:" + org.Plan
		for _, f := range org.Features {
			features = append(features, "o:"+f)
		}
		c["o"] = orgClaim(org)
	}
	for _, f := range u.UserFeatures {
		features = append(features, "u:"+f)
	}
	c["fea"] = strings.Join(features, ",")
}

// orgClaim is the claim "o". per lists the names of all permissions; fpm has one number for each feature of the
// organization, whose bit j, lowest first, grants name j of per in that feature.
func orgClaim(org *Organization) map[string]any {
	o := map[string]any{
		"id":  org.ID,
		"slg": org.Slug,
		"rol": strings.TrimPrefix(org.Role, "org:"),
	}
	var names []string
	for _, p := range org.Permissions {
		if _, name, ok := splitPermission(p); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return o
	}
	masks := make([]string, len(org.Features))
	for n, feature := range org.Features {
		var mask uint64
		for _, p := range org.Permissions {
			if f, name, ok := splitPermission(p); ok && f == feature {
				mask |= 1 << slices.Index(names, name)
			}
		}
		masks[n] = strconv.FormatUint(mask, 10)
	}
	o["per"] = strings.Join(names, ",")
	o["fpm"] = strings.Join(masks, ",")
	return o
}

// splitPermission takes "org:reports:read" apart into "reports" and "read".
func splitPermission(p string) (feature, name string, ok bool) {
	rest, ok := strings.CutPrefix(p, "org:")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}
