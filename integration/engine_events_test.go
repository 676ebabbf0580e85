//go:build integration

package integration

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// engineEvents takes rows for the tracker's data source, and lets the tenant read them.
const engineEvents = `
	fixed_param organization_id {clerk.org.id}
	pipe tracked_actions
	events analytics_events {
		append_token {env.TINYBIRD_APPEND_TOKEN}
		stamp tenant_id {clerk.org.id}
	}
`

// send posts rows as a member of an organization.
func (e *engineEdge) send(t *testing.T, org, target string, body []byte, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.addr+target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+e.token(t, "ada", inOrganization(org, "any")...))
	for n := 0; n+1 < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	// Megabytes are stored one batch after the other, by an engine that answers the other tests meanwhile.
	patient := *e.http
	patient.Timeout = 8 * patience
	resp, err := patient.Do(r)
	if err != nil {
		t.Fatalf("%v\n%s", err, e.log.tail())
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, answer}
}

// taken is what an answer says about the rows.
func (r reply) taken(t *testing.T) (successful, quarantined int) {
	t.Helper()
	var told struct {
		Successful  *int `json:"successful_rows"`
		Quarantined *int `json:"quarantined_rows"`
	}
	if err := json.Unmarshal(r.body, &told); err != nil || told.Successful == nil || told.Quarantined == nil {
		t.Fatalf("status %d: %s", r.StatusCode, r.body)
	}
	return *told.Successful, *told.Quarantined
}

// TestEngineStampsEvents: rows that claim to be another tenant's, in whatever way, are stored as the sender's. ClickHouse is the judge
// of what a row says.
func TestEngineStampsEvents(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, engineEvents)
	const sender, victim = "org_events_sender", "org_events_victim"
	row := func(more string) string {
		return `{"timestamp":"2026-03-04 05:06:07","session_id":"s","action":"attack","version":"1","payload":"{}"` + more + `}`
	}
	claims := []string{
		``, `,"tenant_id":"` + victim + `"`, `,"TENANT_ID":"` + victim + `"`, `,"tenant\u005fid":"` + victim + `"`,
		`,"tenant_id":"` + victim + `","tenant_id":"` + victim + `"`, `,"tenant_id":{"tenant_id":"` + victim + `"}`, `,"tenant_id":["` + victim + `"]`,
		`,"tenant_id":null`, `,"Tenant_Id":"` + victim + `","nested":{"tenant_id":"` + victim + `"}`,
	}
	rows := make([]string, len(claims))
	for n, claim := range claims {
		rows[n] = row(claim)
	}
	got := e.send(t, sender, "/v0/events?name=analytics_events&wait=true", []byte(strings.Join(rows, "\n")))
	if ok, put := got.taken(t); ok != len(rows) || put != 0 {
		t.Fatalf("%d rows taken and %d put aside of %d: %s", ok, put, len(rows), got.body)
	}
	read := e.as(t, "ada", "/v0/pipes/tracked_actions.json?limit=1000", inOrganization(sender, "any")...).rows(t)
	if len(read) != len(rows) {
		t.Errorf("the sender reads %d rows", len(read))
	}
	for _, r := range read {
		if r["tenant_id"] != sender {
			t.Errorf("a row of %v", r["tenant_id"])
		}
	}
	if stolen := e.as(t, "cleo", "/v0/pipes/tracked_actions.json", inOrganization(victim, "any")...).rows(t); len(stolen) != 0 {
		t.Errorf("the victim has %d rows", len(stolen))
	}
}

// TestEngineTakesManyEvents: ten megabytes, packed, in the tracker's way, arrive whole, and what ClickHouse cannot store is counted.
func TestEngineTakesManyEvents(t *testing.T) {
	t.Parallel()
	e := startEngineEdge(t, engineEvents)
	const org = "org_events_many"
	const n = 9000
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for i := range n {
		fmt.Fprintf(z, `{"timestamp":"2026-03-04 05:06:07","session_id":"s%d","action":"view","version":"1","payload":"%s"}`+"\n", i, strings.Repeat("x", 1000))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	got := e.send(t, org, "/api/tracking", packed.Bytes(), "Content-Encoding", "gzip", "Content-Type", "application/x-ndjson")
	if ok, put := got.taken(t); ok != n || put != 0 {
		t.Fatalf("%d rows taken and %d put aside: %d %s", ok, put, got.StatusCode, got.body)
	}
	if have := e.sql(t, "SELECT toInt32(count()) AS n, toInt32(uniqExact(session_id)) AS s FROM analytics_events WHERE tenant_id = '%s'", org); fmt.Sprint(have[0]["n"], have[0]["s"]) != fmt.Sprint(n, n) {
		t.Errorf("stored: %v", have[0])
	}
	// One row of two has no time that could be one.
	const rest = `,"session_id":"late","action":"a","version":"1","payload":"`
	got = e.send(t, org, "/v0/events?name=analytics_events", []byte(`[{"timestamp":"never"`+rest+`"},{"timestamp":"2026-03-04 05:06:07","session_id":"x","action":"a","version":"1","payload":""}]`))
	if ok, put := got.taken(t); ok != 1 || put != 1 {
		t.Errorf("%d rows taken and %d put aside: %d %s", ok, put, got.StatusCode, got.body)
	}
	// A bad row after megabytes of good ones: those are stored, and the answer says how many.
	var late bytes.Buffer
	for range 3000 {
		late.WriteString(`{"timestamp":"2026-03-04 05:06:07"` + rest + strings.Repeat("y", 1000) + `"}`)
	}
	late.WriteString(`"no object"`)
	got = e.send(t, org, "/v0/events?name=analytics_events", late.Bytes())
	ok, _ := got.taken(t)
	if got.StatusCode != http.StatusBadRequest || !bytes.Contains(got.body, []byte(`"code":"bad_body","row":3001,`)) || ok == 0 || ok == 3000 {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if have := e.sql(t, "SELECT toInt32(count()) AS n FROM analytics_events WHERE tenant_id = '%s' AND session_id = 'late'", org); fmt.Sprint(have[0]["n"]) != fmt.Sprint(ok) {
		t.Errorf("%v rows are stored, and the answer said %d", have[0]["n"], ok)
	}
}
