//go:build integration

package integration

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// templateToken is what Clerk's Tinybird template makes for a member of an organization.
func (c *clients) templateToken(t *testing.T, org any) string {
	t.Helper()
	now := time.Now().Unix()
	scope := func(pipe string) map[string]any {
		return map[string]any{"type": "PIPES:READ", "resource": pipe, "fixed_params": map[string]any{"organization_id": org}}
	}
	token, err := devstack.SignToken(c.stack.API.SigningKey(), map[string]any{
		"iss": c.stack.IssuerURL, "sub": "user_of_the_template", "azp": "https://app.example.com", "jti": "1",
		"iat": now, "nbf": now - 5, "exp": now + 60, "workspace_id": c.stack.API.WorkspaceID(), "name": "frontend", "limits": map[string]any{"rps": 10},
		"scopes": []any{scope("top_pages"), scope("sales_by_day")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestClientsOfClerksTemplate: a front end that was made for Clerk's template goes on with its tokens, whatever client it uses.
func TestClientsOfClerksTemplate(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	n := c.startNode(t)
	for org, slug := range map[string]string{devstack.AcmeID: "acme", devstack.GlobexID: "globex"} {
		for _, client := range []string{"template", "sdk", "zod-bird"} {
			o := n.do(t, call{Client: client, Call: "topPages", Args: []any{c.templateToken(t, org), map[string]any{}}})
			if rows := string(o.Value); o.Error != nil || strings.Count(rows, `"path"`) == 0 || strings.Count(rows, `"path"`) != strings.Count(rows, `"/`+slug+`/`) {
				t.Errorf("%s for %s: %+v %s", client, slug, o.Error, rows)
			}
		}
		// As Tinybird's charts send it.
		charts := c.get(t, "", "/v0/pipes/top_pages.json?token="+url.QueryEscape(c.templateToken(t, org)))
		for _, row := range charts.rows(t) {
			if path, _ := row["path"].(string); !strings.HasPrefix(path, "/"+slug+"/") {
				t.Errorf("charts for %s: %v", slug, row)
			}
		}
	}
	// Nobody chose an organization: the shortcode is null.
	o := n.do(t, call{Client: "template", Call: "topPages", Args: []any{c.templateToken(t, nil)}})
	if o.Error == nil || !strings.Contains(o.Error.Message, "Choose an organization") || o.Answers[0].Status != http.StatusForbidden {
		t.Errorf("without an organization: %+v %s", o.Error, o.Value)
	}
}
