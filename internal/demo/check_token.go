package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// minted looks at the claims of the tokens that the API received. That it could read them says that the signature held.
func (c *checker) minted(ctx context.Context) {
	b, err := c.person(ctx, "ada")
	if err != nil {
		c.step("Ada", "nothing", "nothing", err)
		return
	}
	u := b.user
	for _, want := range []struct {
		pipe, name, rps string
		fixed           map[string]any
	}{
		{"top_pages", u.Organization.ID, "100", map[string]any{"organization_id": u.Organization.ID}},
		{"my_activity", u.Organization.ID, "100", map[string]any{"organization_id": u.Organization.ID, "user_id": u.ID}},
		{"team_activity", u.Organization.ID, "100", map[string]any{"organization_id": u.Organization.ID, "team_id": strings.Join(u.Teams, ",")}},
		{"live_events", u.Organization.ID + ":live_events", "5", map[string]any{"organization_id": u.Organization.ID}},
	} {
		q := get("/v0/pipes/" + want.pipe + ".json?limit=1")
		a, err := b.ask(ctx, q)
		came := "nothing"
		if err == nil && a.received == nil {
			err = fmt.Errorf("%s: the API has no record of it", a)
		}
		if err == nil {
			claims := a.received.Claims
			came = "fixed to " + strings.Join(slices.Sorted(maps.Keys(fixedParams(claims))), ", ")
			err = c.claims(claims, want.pipe, want.name, want.rps, want.fixed)
		}
		c.step("for "+want.pipe, q, came, err)
	}
}

// claims compares the claims with all that a minted token may hold.
func (c *checker) claims(claims map[string]any, pipe, name, rps string, fixed map[string]any) error {
	if got := slices.Sorted(maps.Keys(claims)); !slices.Equal(got, []string{"exp", "limits", "name", "scopes", "workspace_id"}) {
		return fmt.Errorf("the token has the claims %v", got)
	}
	exp, _ := claims["exp"].(json.Number)
	ends, err := exp.Int64()
	left := time.Until(time.Unix(ends, 0))
	limits, _ := claims["limits"].(map[string]any)
	scopes, _ := claims["scopes"].([]any)
	switch {
	case err != nil || left <= 0 || left > time.Minute+time.Second:
		return fmt.Errorf("the token ends in %s", left.Round(time.Second))
	case claims["workspace_id"] != c.Stack.API.WorkspaceID():
		return errors.New("the token is for another workspace")
	case claims["name"] != name:
		return fmt.Errorf("the token is named %v", claims["name"])
	case fmt.Sprint(limits["rps"]) != rps:
		return fmt.Errorf("the token allows %v a second", limits["rps"])
	case len(scopes) != 1:
		return fmt.Errorf("the token has %d scopes", len(scopes))
	}
	scope, _ := scopes[0].(map[string]any)
	if scope["type"] != "PIPES:READ" || scope["resource"] != pipe || !maps.Equal(fixedParams(claims), fixed) {
		return fmt.Errorf("the token's scope is %v", scope)
	}
	return nil
}

// fixedParams are those of the only scope.
func fixedParams(claims map[string]any) map[string]any {
	scopes, _ := claims["scopes"].([]any)
	if len(scopes) != 1 {
		return nil
	}
	scope, _ := scopes[0].(map[string]any)
	fixed, _ := scope["fixed_params"].(map[string]any)
	return fixed
}

// forged shows the edge tokens that are signed, dated or meant otherwise.
func (c *checker) forged(ctx context.Context) {
	b, err := c.newcomer()
	if err != nil {
		c.step("a browser", "nothing", "nothing", err)
		return
	}
	q := get("/v0/pipes/top_pages.json")
	for _, f := range []struct {
		name, code string
		option     devstack.TokenOption
	}{
		{"expired an hour ago", "token_expired", devstack.Expired()},
		{"for another site", "token_wrong_party", devstack.AZP("https://elsewhere.example")},
		{"of a JWT template", "token_wrong_type", devstack.Template()},
		{"of a machine", "token_wrong_type", devstack.M2M()},
		{"with an unfinished second factor", "session_pending", devstack.Pending()},
		{"opened by support in Ada's place", "token_invalid", devstack.Impersonated("user_2support")},
		{"unsigned", "token_invalid", devstack.AlgNone()},
		{"signed with the public key as a secret", "token_invalid", devstack.AlgHS256()},
		{"signed with another key", "token_invalid", devstack.ForeignKey()},
	} {
		token, err := c.Stack.Issuer.Token("ada", devstack.AZP(c.Origin), f.option)
		if err != nil {
			c.step(f.name, q, "nothing", err)
			continue
		}
		c.expect(ctx, b.bearing(token), f.name, q, http.StatusUnauthorized, f.code)
	}
	c.expect(ctx, b.bearing(c.Stack.API.SigningKey()), "the workspace's admin token", q, http.StatusUnauthorized, "token_invalid")
}

// leaks looks for minted tokens and both keys in everything that the edge answered.
func (c *checker) leaks(context.Context) {
	secrets := map[string]bool{c.Stack.API.SigningKey(): true, c.Stack.Issuer.SecretKey(): true}
	for _, got := range c.Stack.API.Requests() {
		for _, token := range got.Tokens {
			secrets[token] = true
		}
	}
	found := 0
	for _, text := range c.answers {
		for secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				found++
			}
		}
	}
	var err error
	if found > 0 {
		err = errors.New("a token of Tinybird or a key came back to the client")
	}
	c.step("no token of Tinybird and no key in any answer", fmt.Sprintf("%d answers, %d secrets", len(c.answers), len(secrets)), fmt.Sprintf("%d found", found), err)
}
