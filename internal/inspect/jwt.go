package inspect

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

// The values of the header parameter cat (Clerk's jwtCategories).
const (
	categoryTemplate = "cl_B7d4PD222AAA"
	categoryM2M      = "cl_B7d4PD333AAA"
)

// jwt explains a token that could be taken apart.
func (e *explainer) jwt() {
	e.Algorithm, e.KeyID = e.text(e.header["alg"]), e.text(e.header["kid"])
	e.Issuer = e.text(e.claims["iss"])
	e.IssuedAt, e.NotBefore, e.ExpiresAt = e.date("iat"), e.date("nbf"), e.date("exp")
	e.Expired = e.ExpiresAt != nil && !e.ExpiresAt.After(e.now)
	sub := e.text(e.claims["sub"])
	cat, typ := e.header["cat"], strings.ToLower(e.text(e.header["typ"]))
	_, hasSID := e.claims["sid"].(string)
	scopes, hasScopes := e.claims["scopes"].([]any)
	switch {
	case hasScopes && e.claims["workspace_id"] != nil:
		e.tinybirdJWT(scopes, sub)
	case typ == "at+jwt" || typ == "application/at+jwt":
		e.is(KindOAuth, "An OAuth access token of Clerk's")
		e.Subject = sub
	case strings.HasPrefix(sub, "mch_") || cat == categoryM2M:
		e.is(KindM2M, "A machine (M2M) token of Clerk's")
		e.Subject = sub
	case e.claims["handshake"] != nil:
		e.is(KindHandshake, "A handshake of Clerk's: cookies on their way to a browser, not a session token by itself")
	case cat == categoryTemplate || !hasSID && strings.HasPrefix(sub, "user_"):
		e.is(KindTemplate, "A token of one of Clerk's JWT templates")
		e.note("Its claims are its template's. For the session token, call getToken() without a template.")
		e.User = sub
		e.rest()
	case hasSID:
		e.session()
	default:
		e.is(KindJWT, "A JWT, of neither Clerk nor Tinybird by what it says")
		e.Subject = sub
	}
	e.checkSignature()
}

// session explains the claims of a session, of version 1 or 2.
func (e *explainer) session() {
	id := clerk.Claimed(e.claims)
	e.Version = 1
	if n, ok := e.claims["v"].(json.Number); ok && n.String() == "2" {
		e.Version = 2
	}
	e.is(KindSession, fmt.Sprintf("A session token of Clerk's (claims of version %d)", e.Version))
	e.User, e.Session, e.AuthorizedParty = e.text(id.UserID), e.text(id.SessionID), e.text(id.AuthorizedParty)
	e.SessionStatus, e.Plan, e.Features = e.text(id.Status), e.text(id.Plan), e.texts(id.Features)
	if act, ok := e.claims["act"].(map[string]any); ok {
		e.Impersonator = e.text(act["sub"])
	}
	if id.OrgID != "" {
		e.Organization = &Organization{ID: e.text(id.OrgID), Slug: e.text(id.OrgSlug), Role: e.text(id.OrgRole), Permissions: e.texts(id.Permissions)}
	}
	e.rest()
}

// standard are the claims that a session has of its own, or that are said otherwise.
var standard = []string{
	"iss", "sub", "sid", "iat", "nbf", "exp", "jti", "fva", "azp", "v", "sts", "pla", "fea", "o", "act", "org_id", "org_slug", "org_role", "org_permissions",
}

// rest are the claims that somebody added.
func (e *explainer) rest() {
	for name, value := range e.claims {
		if slices.Contains(standard, name) {
			continue
		}
		if e.Claims == nil {
			e.Claims = map[string]any{}
		}
		e.Claims[e.text(name)] = e.value(value)
	}
}

// tinybirdJWT explains a token that reads pipes. Clerk adds its own claims to those that it signs.
func (e *explainer) tinybirdJWT(scopes []any, sub string) {
	e.is(KindTinybirdJWT, "A Tinybird JWT, as the edge and its token endpoint make them")
	if e.Issuer != "" || e.claims["azp"] != nil || sub != "" {
		e.is(KindTinybirdClerk, "A Tinybird JWT that Clerk made, by its JWT template for Tinybird")
		e.User, e.AuthorizedParty = sub, e.text(e.claims["azp"])
		e.note("The edge takes such a token only with accept_template_tokens.")
	} else {
		e.note("It is for Tinybird. The edge takes session tokens, and not these.")
	}
	t := &Tinybird{WorkspaceID: e.text(e.claims["workspace_id"]), Name: e.text(e.claims["name"])}
	if limits, ok := e.claims["limits"].(map[string]any); ok {
		if n, ok := limits["rps"].(json.Number); ok && !strings.HasPrefix(n.String(), "-") && n.String() != "0" {
			t.RPS = n.String()
		}
	}
	for _, s := range scopes {
		scope, _ := s.(map[string]any)
		out := Scope{Type: e.text(scope["type"]), Resource: e.text(scope["resource"]), Filter: e.text(scope["filter"])}
		if fixed, ok := scope["fixed_params"].(map[string]any); ok {
			out.FixedParams, _ = e.value(fixed).(map[string]any)
		}
		t.Scopes = append(t.Scopes, out)
	}
	e.Tinybird = t
}

// maxSeconds is the last second of the year 9999.
const maxSeconds = 253402300799

// date is a claim that is seconds since 1970; nil if it is none.
func (e *explainer) date(name string) *time.Time {
	n, ok := e.claims[name].(json.Number)
	if !ok {
		return nil
	}
	f, err := n.Float64()
	if err != nil || math.Abs(f) > maxSeconds {
		e.note("Its " + name + " is no date.")
		return nil
	}
	at := time.Unix(int64(f), 0).UTC()
	return &at
}
