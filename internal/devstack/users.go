package devstack

import "slices"

// Organization is a tenant, with what one member may do in it.
type Organization struct {
	ID          string   `json:"id"`
	Slug        string   `json:"slug"`
	Name        string   `json:"name"`
	Role        string   `json:"role"`        // as Clerk shows it: "org:admin"
	Permissions []string `json:"permissions"` // as Clerk shows them: "org:reports:read"
	Plan        string   `json:"plan"`        // bare: "pro"
	Features    []string `json:"features"`    // bare: "reports"
}

// User is somebody who can sign in.
type User struct {
	Key          string        `json:"key"` // what sign-in asks for: "ada"
	ID           string        `json:"id"`
	Name         string        `json:"name"`
	SessionID    string        `json:"session_id"`
	Organization *Organization `json:"organization"` // the active one; nil: none
	TeamID       string        `json:"team_id,omitempty"`
	Teams        []string      `json:"teams,omitempty"`

	// UserPlan and UserFeatures are the user's own, bare, and go into the token in the scope "u:".
	UserPlan     string   `json:"user_plan"`
	UserFeatures []string `json:"user_features"`
}

// The tenants whose rows the API holds. Nobody can sign in to Initech.
const (
	AcmeID    = "org_2acmeB3JrTAwR4y9ojfljoQoaF1"
	GlobexID  = "org_2globexLlqsajAIxNKu8iS2G8NP"
	InitechID = "org_2initechRVdD53X83RZJzzzzgEO"
)

// The teams. Their ids repeat between organizations on purpose: a filter on the team alone mixes tenants.
const (
	TeamSales = "team_sales"
	TeamOps   = "team_ops"
)

const (
	adaID  = "user_2adau8jzPde0IgxLd6GncfBAepf"
	benID  = "user_2benJBd0Kh8oOOL8dKLzdocJ2is"
	cleoID = "user_2cleoAjIhKtJ0RlgLKOmxgJTeKd"
	danaID = "user_2danaNnFRIBXuDL7DxtpYlSXpfK"
)

// Users returns everybody who can sign in: ada (admin of Acme, plan pro, two teams), ben (member of Acme, one
// team), cleo (admin of Globex, free plan, one team whose id also exists in Acme) and dana (no organization).
func Users() []User {
	return []User{
		{
			Key: "ada", ID: adaID, Name: "Ada Acme", SessionID: "sess_2adanNyjOq9wMxEhh2FDEEtfjgV",
			Organization: &Organization{
				ID: AcmeID, Slug: "acme", Name: "Acme", Role: "org:admin", Plan: "pro",
				Permissions: []string{"org:reports:manage", "org:reports:read", "org:teams:manage"},
				Features:    []string{"dashboard", "reports", "teams"},
			},
			TeamID: TeamSales, Teams: []string{TeamSales, TeamOps}, UserPlan: "free_user", UserFeatures: []string{"profile"},
		},
		{
			Key: "ben", ID: benID, Name: "Ben Acme", SessionID: "sess_2bennNyjOq9wMxEhh2FDEEtfjgV",
			Organization: &Organization{
				ID: AcmeID, Slug: "acme", Name: "Acme", Role: "org:member", Plan: "pro",
				Permissions: []string{"org:reports:read"},
				Features:    []string{"dashboard", "reports", "teams"},
			},
			TeamID: TeamOps, Teams: []string{TeamOps}, UserPlan: "free_user", UserFeatures: []string{"profile"},
		},
		{
			Key: "cleo", ID: cleoID, Name: "Cleo Globex", SessionID: "sess_2cleoNyjOq9wMxEhh2FDEEtfjg",
			Organization: &Organization{
				ID: GlobexID, Slug: "globex", Name: "Globex", Role: "org:admin", Plan: "free_org",
				Permissions: []string{"org:reports:read"},
				Features:    []string{"dashboard", "reports"},
			},
			TeamID: TeamOps, Teams: []string{TeamOps}, UserPlan: "free_user", UserFeatures: []string{"profile"},
		},
		{
			Key: "dana", ID: danaID, Name: "Dana", SessionID: "sess_2dananNyjOq9wMxEhh2FDEEtfjg",
			UserPlan: "free_user", UserFeatures: []string{"profile"},
		},
	}
}

// UserByKey returns the user that key names.
func UserByKey(key string) (User, bool) {
	all := Users()
	n := slices.IndexFunc(all, func(u User) bool { return u.Key == key })
	if n < 0 {
		return User{}, false
	}
	return all[n], true
}
