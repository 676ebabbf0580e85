// Package assume makes the session that a command is told to assume: an identity as it would come out of a token with these claims,
// without the token.
package assume

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

// Session describes a session. What is empty is not in it.
type Session struct {
	User, ID        string
	Org, Slug, Role string   // the role as Clerk shows it: org:admin
	Plan            string   // with its scope: o:pro
	Features        []string // with their scope: o:reports
	Permissions     []string // as Clerk shows them: org:reports:read
	Claims          []string // path=value
}

// Identity is who the session speaks for. It has the claims of a token of version 2.
func (s *Session) Identity() (*clerk.Identity, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	claims := map[string]any{"v": json.Number("2"), "sts": "active"}
	set(claims, "sub", s.User)
	set(claims, "sid", s.ID)
	set(claims, "pla", s.Plan)
	set(claims, "fea", strings.Join(s.Features, ","))
	if s.Org != "" {
		org := map[string]any{}
		set(org, "id", s.Org)
		set(org, "slg", s.Slug)
		set(org, "rol", strings.TrimPrefix(s.Role, "org:"))
		claims["o"] = org
	}
	for _, c := range s.Claims {
		if err := add(claims, c); err != nil {
			return nil, err
		}
	}
	id := clerk.Claimed(claims)
	id.Permissions = s.Permissions
	return id, nil
}

func set(claims map[string]any, name, value string) {
	if value != "" {
		claims[name] = value
	}
}

// check holds the spelling that Clerk's tokens have: another one would be compared with what it can never equal.
func (s *Session) check() error {
	switch {
	case s.Org == "" && (s.Slug != "" || s.Role != "" || len(s.Permissions) > 0):
		return errors.New("--org-slug, --role and --permission belong to an organization: name it with --org")
	case s.Role != "" && !strings.HasPrefix(s.Role, "org:"):
		return fmt.Errorf("--role %s: write it as Clerk shows it, such as org:admin", s.Role)
	}
	for _, p := range s.Permissions {
		if !strings.HasPrefix(p, "org:") || strings.Count(p, ":") < 2 {
			return fmt.Errorf("--permission %s: write it as Clerk shows it, such as org:reports:read", p)
		}
	}
	if s.Plan != "" && !scoped(s.Plan) {
		return fmt.Errorf("--plan %s: write it with its scope as tokens have it, o:%[1]s for one of the organization or u:%[1]s for one of the user", s.Plan)
	}
	for _, f := range s.Features {
		if !scoped(f) || strings.Contains(f, ",") {
			return fmt.Errorf("--feature %s: write one, with its scope as tokens have it, such as o:reports or u:beta", f)
		}
	}
	return nil
}

func scoped(text string) bool {
	scope, name, _ := strings.Cut(text, ":")
	return name != "" && (scope == "o" || scope == "u")
}

// add sets a claim, by the path that a placeholder has: {clerk.claims.<path>}.
func add(claims map[string]any, text string) error {
	path, value, ok := strings.Cut(text, "=")
	if !ok || clerk.CheckPlaceholder("clerk.claims."+path) != nil {
		return fmt.Errorf("--claim %q is no <path>=<value>; write team_id=sales, or metadata.team=sales", path)
	}
	object := claims
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		if object[name] == nil {
			object[name] = map[string]any{}
		}
		inner, ok := object[name].(map[string]any)
		if !ok {
			return fmt.Errorf("--claim %s: %s is no object", path, name)
		}
		object = inner
	}
	object[names[len(names)-1]] = claimValue(value)
	return nil
}

// claimValue reads lists, objects, numbers, true, false, null and quoted text as JSON. All else is text.
func claimValue(text string) any {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil || dec.More() {
		return text
	}
	return value
}
