package devstack

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestDefinition reads pipes as `tb` does, with the admin token; nobody else may.
func TestDefinition(t *testing.T) {
	t.Parallel()
	a := NewAPI(APIOptions{})
	admin := []string{"Authorization", "Bearer " + a.SigningKey()}
	var doc struct {
		ID, Name string
		Endpoint *string
		Nodes    []struct {
			ID, Name, SQL string
			Dependencies  []string
		}
	}
	get := func(path string, headers ...string) int {
		w := do(a, http.MethodGet, path, "", headers...)
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		return w.Code
	}
	if status := get("/v0/pipes/sales_by_day", admin...); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	last := doc.Nodes[len(doc.Nodes)-1]
	if doc.Name != "sales_by_day" || doc.Endpoint == nil || *doc.Endpoint != last.ID || len(last.Dependencies) != 1 || last.Dependencies[0] != "sales" {
		t.Errorf("%+v", doc)
	}
	if !strings.HasPrefix(doc.Nodes[0].SQL, "%\nSELECT") {
		t.Errorf("the first node is %q", doc.Nodes[0].SQL)
	}
	if get("/v0/pipes/draft_report", admin...); doc.Endpoint != nil {
		t.Error("a pipe without an endpoint has one")
	}
	if status := get("/v0/pipes/t_top0pages", admin...); status != http.StatusOK || doc.Name != "top_pages" {
		t.Errorf("by id: %d %s", status, doc.Name)
	}
	if status := get("/v0/pipes/events", admin...); status != http.StatusNotFound {
		t.Errorf("a data source: %d", status)
	}
	if status := get("/v0/pipes/top_pages", bearer(t, a, "top_pages", acme())...); status != http.StatusForbidden {
		t.Errorf("with a JWT: %d", status)
	}
	for _, p := range Pipes() {
		if len(p.Nodes) == 0 {
			t.Errorf("%s has no definition", p.Name)
		}
	}
}
