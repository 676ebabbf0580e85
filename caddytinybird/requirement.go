package caddytinybird

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// requireOrganization is the kind of requirement that only clerk_auth has: a pipe's fixed parameters say it better.
const requireOrganization = "organization"

// checkRequirement tells whether clerk_auth can use the requirement.
func checkRequirement(q Requirement) error {
	switch q.Kind {
	case requireOrganization:
		if len(q.Values) == 0 {
			return nil
		}
		// Ids and slugs have the form of every other value.
		q.Kind = tinybird.KindRole
		if tinybird.CheckRequirement(tinybird.Requirement(q)) != nil {
			return fmt.Errorf("require organization: %s has a value that is neither id nor slug; write them as Clerk shows them, without spaces and placeholders",
				tinybird.Shown(strings.Join(q.Values, " ")))
		}
		return nil
	case tinybird.KindRole, tinybird.KindPermission, tinybird.KindFeature, tinybird.KindPlan:
		return tinybird.CheckRequirement(tinybird.Requirement(q))
	default:
		return fmt.Errorf("require %s is unknown: write organization, role, permission, feature or plan", tinybird.Shown(q.Kind))
	}
}

// holds reports whether the identity has what is required.
func holds(q Requirement, id *clerk.Identity) bool {
	if q.Kind != requireOrganization {
		return tinybird.Requirement(q).Holds(id)
	}
	if id.OrgID == "" || len(q.Values) == 0 {
		return id.OrgID != ""
	}
	return slices.ContainsFunc(q.Values, func(value string) bool {
		// An organization's administrators choose its slug, and must not be able to choose another one's id.
		if strings.HasPrefix(value, "org_") {
			return value == id.OrgID
		}
		return value == id.OrgSlug
	})
}

// unmet is the refusal of an identity that lacks something of what is required, nil if it has all of it.
func unmet(required []Requirement, id *clerk.Identity) *apierr.Error {
	for _, q := range required {
		if !holds(q, id) {
			return notAllowed(q)
		}
	}
	return nil
}

func notAllowed(q Requirement) *apierr.Error {
	return apierr.New(http.StatusForbidden, apierr.NotAllowed,
		"You are not allowed here: an organization, role, permission, feature or plan is asked for that you do not have.").
		Wrap(fmt.Errorf("require %s %s does not hold", q.Kind, strings.Join(q.Values, " ")))
}
