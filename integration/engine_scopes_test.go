//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// Each level of scoping gives a session the rows that SQL says are its own: all of them, and no other.
func TestEngineScopes(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, enginePipes)
	ben, _ := devstack.UserByKey("ben")
	cleo, _ := devstack.UserByKey("cleo")
	byUser := "SELECT organization_id, user_id, count() AS events FROM events WHERE %s GROUP BY organization_id, user_id ORDER BY user_id"
	byTeam := "SELECT team_id, user_id, count() AS events, round(sum(amount), 2) AS amount FROM events WHERE organization_id = '%s' AND team_id = '%s' GROUP BY team_id, user_id ORDER BY team_id, user_id"
	own := "SELECT ts, event_id, path, amount, country FROM events WHERE organization_id = '%s' AND user_id = '%s' ORDER BY ts DESC, event_id"
	for name, c := range map[string]struct {
		user, target, sql string
		none              bool
	}{
		"organization":                {user: "ada", target: "activity.json", sql: fmt.Sprintf(byUser, "organization_id = '"+devstack.AcmeID+"'")},
		"another organization":        {user: "cleo", target: "activity.json", sql: fmt.Sprintf(byUser, "organization_id = '"+devstack.GlobexID+"'")},
		"optional user":               {user: "ada", target: "activity.json?user_id=" + ben.ID, sql: fmt.Sprintf(byUser, "organization_id = '"+devstack.AcmeID+"' AND user_id = '"+ben.ID+"'")},
		"user of others":              {user: "ada", target: "activity.json?user_id=" + cleo.ID, sql: fmt.Sprintf(byUser, "0"), none: true},
		"organization of others":      {user: "ada", target: "activity.json?organization_id=" + devstack.GlobexID, sql: fmt.Sprintf(byUser, "organization_id = '"+devstack.AcmeID+"'")},
		"required user":               {user: "ben", target: "my_activity.json?limit=100000", sql: fmt.Sprintf(own, devstack.AcmeID, ben.ID)},
		"required user, of others":    {user: "ben", target: "my_activity.json?limit=100000&user_id=" + cleo.ID, sql: fmt.Sprintf(own, devstack.AcmeID, ben.ID)},
		"team":                        {user: "ada", target: "team_activity.json", sql: fmt.Sprintf(byTeam, devstack.AcmeID, devstack.TeamSales)},
		"team, the same id elsewhere": {user: "cleo", target: "team_activity.json", sql: fmt.Sprintf(byTeam, devstack.GlobexID, devstack.TeamOps)},
		"team of others":              {user: "ben", target: "team_activity.json?team_id=" + devstack.TeamSales, sql: fmt.Sprintf(byTeam, devstack.AcmeID, devstack.TeamOps)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, want := e.get(t, c.user, "/v0/pipes/"+c.target).rows(t), e.sql(t, "%s", c.sql)
			if !reflect.DeepEqual(got, want) || (len(want) == 0) != c.none {
				t.Errorf("%d rows, of which SQL says %d:\n%v\n%v", len(got), len(want), got, want)
			}
		})
	}
}

// A thousand tenants: what the edge gives to them is together what there is, and nothing is given twice.
func TestEngineTenantsAreDisjoint(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, enginePipes)
	all := e.sql(t, "SELECT organization_id, toFloat64(count()) AS events FROM events GROUP BY organization_id")
	if len(all) != 1000 {
		t.Fatalf("%d tenants", len(all))
	}
	var sum float64
	for _, tenant := range all {
		id, _ := tenant["organization_id"].(string)
		var events float64
		for _, row := range e.as(t, "ada", "/v0/pipes/activity.json", inOrganization(id, "any")...).rows(t) {
			n, _ := row["events"].(float64)
			events += n
			if row["organization_id"] != id {
				t.Fatalf("%s reads %v", id, row)
			}
		}
		if events != tenant["events"] {
			t.Fatalf("%s reads %v events of %v", id, events, tenant["events"])
		}
		sum += events
	}
	if sum != 1_000_000 {
		t.Errorf("together %v events", sum)
	}
}

// The series of a template with branches has all of the tenant's events, however they are cut.
func TestEngineBranches(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, enginePipes)
	total := e.sql(t, "SELECT toFloat64(count()) AS n FROM events WHERE organization_id = '%s'", devstack.AcmeID)[0]["n"]
	for query, rows := range map[string]int{"granularity=hour": 0, "granularity=day": 90, "granularity=month": 3, "": 90} {
		got := e.get(t, "ada", "/v0/pipes/events_over_time.json?"+query).rows(t)
		var sum float64
		for _, r := range got {
			n, _ := r["events"].(float64)
			sum += n
		}
		if sum != total || (rows != 0 && len(got) != rows) || len(got) < 3 {
			t.Errorf("%q: %d rows with %v events of %v", query, len(got), sum, total)
		}
	}
	refused := e.get(t, "ada", "/v0/pipes/events_over_time.json?granularity=week")
	if code, _ := refused.refusal(t); refused.StatusCode != http.StatusBadRequest || code != "query_refused" {
		t.Errorf("status %d, code %s", refused.StatusCode, code)
	}
	if got := e.get(t, "ada", "/v0/pipes/country_flags.json?countries=JP,US,FR").rows(t); len(got) != 1 || len(got[0]) != 3 {
		t.Errorf("a loop over three countries: %v", got)
	}
}

// A pipe that does not use the fixed parameter, or uses it only if it is defined, isolates nothing, whatever the edge does: that
// is what `caddy tinybird audit` looks for.
func TestEngineBadPipes(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, enginePipes)
	if got := e.get(t, "cleo", "/v0/pipes/leaky_report.json").rows(t); len(got) != 1000 {
		t.Errorf("the pipe that forgets to filter shows %d tenants", len(got))
	}
	if got := e.get(t, "cleo", "/v0/pipes/optional_report.json").rows(t); len(got) != 1 || got[0]["organization_id"] != devstack.GlobexID {
		t.Errorf("with the parameter there are %d tenants", len(got))
	}
	// The edge mints no token without the parameter. Whoever else does, as Clerk's template does without an active
	// organization, shows everything.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+"/v0/pipes/optional_report.json", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+e.key)
	if got := e.do(t, r).rows(t); len(got) != 1000 {
		t.Errorf("without the parameter there are %d tenants", len(got))
	}
}

// A pipe that requires what the config does not give is refused, with the same code as any other bad query.
func TestEngineMissingParameter(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, "fixed_param organization_id {clerk.org.id}\n pipe my_activity team_activity\n")
	for _, target := range []string{"my_activity.json", "team_activity.json", "team_activity.csv"} {
		got := e.get(t, "ada", "/v0/pipes/"+target)
		if code, text := got.refusal(t); got.StatusCode != http.StatusBadRequest || code != "query_refused" {
			t.Errorf("%s: status %d, %s: %s", target, got.StatusCode, code, text)
		}
	}
}

// What a tracker sent is read by its tenant alone, and a row that does not fit is told, not lost silently.
func TestEngineTrackedActions(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, enginePipes)
	row := func(session, payload, tenant string) string {
		return fmt.Sprintf(`{"timestamp":"2026-05-06T07:08:09.123Z","session_id":%q,"action":"page_hit","version":"1","payload":%s,"tenant_id":%q}`, session, payload, tenant)
	}
	ok, quarantined := e.add(t,
		row("s1", `"{\"href\":\"https://acme.example/?a='b\"}"`, "org_tracked"),
		row("s2", `"{}"`, "org_tracked_too"),
		`{"action":"no more than that"}`,
	)
	if ok != 2 || quarantined != 1 {
		t.Errorf("%d taken, %d quarantined", ok, quarantined)
	}
	got := e.as(t, "ada", "/v0/pipes/tracked_actions.json", inOrganization("org_tracked", "any")...).rows(t)
	if len(got) == 0 { // Tinybird Local keeps them from one run to the next
		t.Fatal("no rows")
	}
	for _, r := range got {
		if r["tenant_id"] != "org_tracked" || r["session_id"] != "s1" || r["payload"] != `{"href":"https://acme.example/?a='b"}` || r["timestamp"] != "2026-05-06 07:08:09" {
			t.Errorf("%v", r)
		}
	}
}
