package devstack

import (
	"net/http"
	"slices"
	"strings"
)

// aboutWorkspace answers what only an admin token may ask.
func (a *API) aboutWorkspace(path string, out *answer) (bad *refusal, known bool) {
	if path == "/v0/tokens" || path == "/v0/tokens/" {
		return a.staticTokens(out), true
	}
	for prefix, about := range map[string]func(string, *answer) *refusal{"/v0/pipes/": a.definition, "/v0/datasources/": a.datasource} {
		if name, ok := strings.CutPrefix(path, prefix); ok && !strings.Contains(name, "/") {
			return about(name, out), true
		}
	}
	return nil, false
}

// staticTokens answers GET /v0/tokens in the shape of Tinybird's document "Token API".
func (a *API) staticTokens(out *answer) *refusal {
	type scope struct {
		Type     string `json:"type"`
		Resource string `json:"resource,omitempty"`
	}
	type token struct {
		Name        string  `json:"name"`
		Description string  `json:"description"`
		Scopes      []scope `json:"scopes"`
		Token       string  `json:"token"`
	}
	appends := make([]scope, 0, len(a.datasources))
	for _, name := range a.datasources {
		appends = append(appends, scope{"DATASOURCES:APPEND", name})
	}
	return a.document(out, map[string][]token{"tokens": {
		{Name: "workspace admin token", Scopes: []scope{{Type: "ADMIN"}}, Token: a.key},
		{Name: "tracker", Scopes: appends, Token: a.append},
	}})
}

// eventColumns are those of each data source: what the stand-in's pages and tests send, with the tenant.
var eventColumns = []string{"timestamp", "action", "version", "session_id", "organization_id", "user_id", "payload"}

// datasource answers GET /v0/datasources/<name> in the shape of Tinybird's document "Data Source API", with the columns that
// Tinybird's own tools read from it.
func (a *API) datasource(name string, out *answer) *refusal {
	if !slices.Contains(a.datasources, name) {
		return &refusal{status: http.StatusNotFound, text: "Data Source '" + name + "' does not exist", doc: docEvents}
	}
	type column struct {
		Name     string `json:"name"`
		Type     string `json:"type"`
		Nullable bool   `json:"nullable"`
	}
	var columns []column
	for _, c := range eventColumns {
		columns = append(columns, column{Name: c, Type: "String"})
	}
	return a.document(out, map[string]any{
		"id": "t_" + name, "name": name, "type": "ndjson", "replicated": false, "columns": columns, "used_by": []string{},
	})
}

// document answers with JSON.
func (a *API) document(out *answer, doc any) *refusal {
	body, err := marshal(doc)
	if err != nil {
		return badQuery("%s", err)
	}
	out.header.Set("Content-Type", "application/json; charset=UTF-8")
	out.body = body
	return nil
}
