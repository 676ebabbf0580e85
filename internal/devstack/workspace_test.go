package devstack

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestWorkspace reads the workspace's tokens and data sources with the admin token; nobody else may.
func TestWorkspace(t *testing.T) {
	t.Parallel()
	a := NewAPI(APIOptions{})
	admin := []string{"Authorization", "Bearer " + a.SigningKey()}
	var doc struct {
		Tokens []struct {
			Name, Token string
			Scopes      []struct{ Type, Resource string }
		}
		Name    string
		Columns []struct{ Name, Type string }
	}
	get := func(path string, headers ...string) int {
		w := do(a, http.MethodGet, path, "", headers...)
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		return w.Code
	}
	if status := get("/v0/tokens", admin...); status != http.StatusOK || len(doc.Tokens) != 2 || doc.Tokens[1].Token != a.AppendToken() {
		t.Errorf("%d %+v", status, doc)
	}
	if s := doc.Tokens[1].Scopes; len(s) != 2 || s[0].Type != "DATASOURCES:APPEND" || s[0].Resource != "analytics_events" {
		t.Errorf("%+v", s)
	}
	if status := get("/v0/datasources/events", admin...); status != http.StatusOK || doc.Name != "events" || len(doc.Columns) == 0 {
		t.Errorf("%d %+v", status, doc)
	}
	if status := get("/v0/datasources/none", admin...); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	for _, path := range []string{"/v0/tokens", "/v0/datasources/events"} {
		for _, token := range []string{a.AppendToken(), strings.TrimPrefix(bearer(t, a, "top_pages", acme())[1], "Bearer ")} {
			if status := get(path, "Authorization", "Bearer "+token); status != http.StatusForbidden {
				t.Errorf("%s: status %d for a lesser token", path, status)
			}
		}
		if w := do(a, http.MethodPost, path, "{}", admin...); w.Code != http.StatusForbidden {
			t.Errorf("%s: status %d for POST", path, w.Code)
		}
	}
}
