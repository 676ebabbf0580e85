package caddytinybird

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// withEvents adds two data sources, stamped with the organization and the user.
func withEvents(t testing.TB, stack *devstack.Stack) func(*Handler) {
	t.Helper()
	token := secretFile(t, stack.API.AppendToken())
	return func(h *Handler) {
		h.Events = []Events{{
			Datasources: []string{"events", "analytics_events"},
			AppendToken: token,
			Stamp:       []FixedParam{{Name: "organization_id", Value: "{clerk.org.id}"}, {Name: "user_id", Value: "{clerk.user.id}"}},
		}}
	}
}

// counted is the answer's numbers.
type counted struct {
	Successful  *int   `json:"successful_rows"`
	Quarantined *int   `json:"quarantined_rows"`
	Unknown     int    `json:"unknown_rows"`
	Row         int    `json:"row"`
	Code        string `json:"code"`
}

func (r reply) counted(t testing.TB) counted {
	t.Helper()
	var c counted
	if err := json.Unmarshal(r.body, &c); err != nil || c.Successful == nil || c.Quarantined == nil {
		t.Fatalf("status %d, no numbers: %q", r.StatusCode, r.body)
	}
	return c
}

// stored fails unless the data source has so many rows, each with ada's stamps, and returns them.
func stored(t testing.TB, stack *devstack.Stack, datasource string, want int) []map[string]any {
	t.Helper()
	var rows []map[string]any
	for _, raw := range stack.API.Events(datasource) {
		var row map[string]any
		if err := json.Unmarshal(raw, &row); err != nil {
			t.Fatal(err)
		}
		if org, _ := row["organization_id"].(string); !strings.HasPrefix(org, "org_") || bytes.Contains(bytes.ToLower(raw), []byte("evil")) {
			t.Errorf("row %s", raw)
		}
		rows = append(rows, row)
	}
	if len(rows) != want {
		t.Fatalf("%d rows were stored, not %d", len(rows), want)
	}
	return rows
}

func packed(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestEventsOfEachClient sends what each of Tinybird's clients sends.
func TestEventsOfEachClient(t *testing.T) {
	t.Parallel()
	flock := `{"timestamp":"2026-01-02T03:04:05.678Z","action":"page_hit","version":"1","session_id":"s","organization_id":"evil","payload":"{\"href\":\"/\"}"}`
	for name, tt := range map[string]struct {
		target, contentType, encoding string
		body                          []byte
		datasource                    string
		rows, status                  int
	}{
		"SDK":                     {"/v0/events?name=events&wait=true", "application/x-ndjson", "", []byte("{\"a\":1}\n{\"a\":2}"), "events", 2, 200},
		"SDK without waiting":     {"/v0/events?name=events", "application/x-ndjson", "", []byte(`{"a":1}`), "events", 1, 202},
		"zod-bird":                {"/v0/events?name=events", "application/json", "", []byte("{\"a\":1}\n{\"a\":2}\n{\"a\":3}"), "events", 3, 202},
		"flock.js, data-host":     {"/v0/events?name=analytics_events&token=null", "application/json", "", []byte(flock), "analytics_events", 1, 202},
		"flock.js, data-proxy":    {"/api/tracking", "application/json", "", []byte(flock), "analytics_events", 1, 202},
		"sendBeacon":              {"/v0/events?name=events", "text/plain;charset=UTF-8", "", []byte(flock), "events", 1, 202},
		"curl, a list":            {"/v0/events?name=events&format=json", "", "", []byte(`[{"a":1},{"a":2}]`), "events", 2, 202},
		"Vector and others, gzip": {"/v0/events?name=events", "application/x-ndjson", "gzip", packed(t, "{\"a\":1}\n{\"a\":2}\n"), "events", 2, 202},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stack := newStack(t, devstack.Options{})
			e := newEdge(t, stack, withEvents(t, stack))
			r := e.request(t, "ada", http.MethodPost, tt.target, tt.body)
			r.Header.Del("Content-Type")
			for field, v := range map[string]string{"Content-Type": tt.contentType, "Content-Encoding": tt.encoding} {
				if v != "" {
					r.Header.Set(field, v)
				}
			}
			got := e.do(t, r)
			if c := got.counted(t); got.StatusCode != tt.status || *c.Successful != tt.rows || *c.Quarantined != 0 || got.Header.Get("Cache-Control") != "private, no-store" {
				t.Errorf("status %d %v: %s", got.StatusCode, got.Header, got.body)
			}
			for _, row := range stored(t, stack, tt.datasource, tt.rows) {
				if user, _ := row["user_id"].(string); !strings.HasPrefix(user, "user_") {
					t.Errorf("row %v", row)
				}
			}
			up := stack.API.Requests()
			if len(up) != 1 || up[0].RawQuery != "name="+tt.datasource+map[int]string{200: "&wait=true", 202: ""}[tt.status] {
				t.Errorf("%+v", up)
			}
		})
	}
}

// TestP1EventsCredential: Tinybird sees the append token, in the header, and nothing that the client sent as a credential.
func TestP1EventsCredential(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withEvents(t, stack))
	const planted = "planted-credential"
	r := e.request(t, "ada", http.MethodPost, "/v0/events?name=events&token="+planted+"&TOKEN="+planted+"&%74oken="+planted+"&__session="+planted+"&__tb__x="+planted, []byte(`{"token":"a field"}`))
	session := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, name := range []string{"Cookie", "Proxy-Authorization", "X-Tinybird-Token", "X-Forwarded-For", "Forwarded", "Via", "If-None-Match", "X-Events-Name"} {
		r.Header.Set(name, planted)
	}
	if got := e.do(t, r); got.StatusCode != http.StatusAccepted {
		t.Fatalf("status %d: %s", got.StatusCode, got.body)
	}
	up := stack.API.Requests()
	if len(up) != 1 || !slices.Equal(up[0].Tokens, []string{stack.API.AppendToken()}) || up[0].TokenFrom != "header" || up[0].RawQuery != "name=events" {
		t.Fatalf("%+v", up)
	}
	for _, secret := range []string{planted, session, stack.API.SigningKey()} {
		if mentions(up[0], secret) {
			t.Errorf("what the client sent as a credential went up: %+v", up[0])
		}
	}
	for name := range up[0].Header {
		if !slices.Contains(goesUp, name) {
			t.Errorf("header %s went up", name)
		}
	}
	if up[0].Header.Get("Content-Length") == "" && len(up[0].Body) == 0 {
		t.Error("no body")
	}
}

// TestP2EventsTenant: rows are stamped with the session's tenant, and without one none goes up.
func TestP2EventsTenant(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withEvents(t, stack))
	for _, row := range []string{`{"organization_id":"evil"}`, `{"organization\u005fid":"evil","ORGANIZATION_ID":"evil","user_ıd":"evil","uſer_id":"evil"}`} {
		if got := e.do(t, e.request(t, "ada", http.MethodPost, "/v0/events?name=events", []byte(row))); got.StatusCode != http.StatusAccepted {
			t.Errorf("status %d: %s", got.StatusCode, got.body)
		}
	}
	rows := stored(t, stack, "events", 2)
	if len(rows[1]) != 2 || rows[0]["organization_id"] != rows[1]["organization_id"] {
		t.Errorf("rows %v", rows)
	}
	stack.API.Reset()
	r := e.request(t, "", http.MethodPost, "/v0/events?name=events", []byte(`{"organization_id":"evil"}`))
	r.Header.Set("Authorization", "Bearer "+e.bearer(t, "ada", devstack.NoOrganization()))
	if got := e.do(t, r); got.StatusCode != http.StatusForbidden || got.code(t) != "tenant_missing" {
		t.Errorf("status %d: %s", got.StatusCode, got.body)
	}
	if up := stack.API.Requests(); len(up) != 0 {
		t.Errorf("%+v", up)
	}
}

// TestEventsRefusals: nothing of a refused request goes up.
func TestEventsRefusals(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withEvents(t, stack))
	for name, tt := range map[string]struct {
		user, method, target, body string
		header                     http.Header
		status                     int
		code                       string
	}{
		"signed out":        {"", "POST", "/v0/events?name=events", `{}`, nil, 401, "token_missing"},
		"GET":               {"ada", "GET", "/v0/events?name=events", "", nil, 405, "method_not_allowed"},
		"PUT, signed out":   {"", "PUT", "/api/tracking", `{}`, nil, 405, "method_not_allowed"},
		"unlisted":          {"ada", "POST", "/v0/events?name=top_pages", `{}`, nil, 404, "not_found"},
		"two names":         {"ada", "POST", "/v0/events?name=events&name=events", `{}`, nil, 400, "bad_query"},
		"name of no case":   {"ada", "POST", "/v0/events?NAME=events", `{}`, nil, 400, "bad_query"},
		"other path":        {"ada", "POST", "/v0/events/?name=events", `{}`, nil, 404, "not_found"},
		"escaped path":      {"ada", "POST", "/v0/%65vents?name=events", `{}`, nil, 404, "not_found"},
		"no rows":           {"ada", "POST", "/v0/events?name=events", "", nil, 400, "bad_body"},
		"bad row":           {"ada", "POST", "/v0/events?name=events", "{}\n7", nil, 400, "bad_body"},
		"br":                {"ada", "POST", "/v0/events?name=events", `{}`, http.Header{"Content-Encoding": {"br"}}, 415, "unsupported_body"},
		"form":              {"ada", "POST", "/v0/events?name=events", `a=1`, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415, "unsupported_body"},
		"no gzip":           {"ada", "POST", "/v0/events?name=events", `{}`, http.Header{"Content-Encoding": {"gzip"}}, 400, "bad_body"},
		"upgrade":           {"ada", "POST", "/v0/events?name=events", `{}`, http.Header{"Upgrade": {"websocket"}}, 400, "bad_request"},
		"long URL":          {"ada", "POST", "/v0/events?name=events&x=" + strings.Repeat("x", 9000), `{}`, nil, 414, "url_too_long"},
		"two authorization": {"ada", "POST", "/v0/events?name=events", `{}`, http.Header{"Authorization": {"Bearer a", "Bearer b"}}, 400, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			r := e.request(t, tt.user, tt.method, tt.target, []byte(tt.body))
			maps.Copy(r.Header, tt.header)
			got := e.do(t, r)
			if got.StatusCode != tt.status || got.code(t) != tt.code {
				t.Errorf("status %d: %s", got.StatusCode, got.body)
			}
			if tt.status == 405 && got.Header.Get("Allow") != "POST" {
				t.Errorf("Allow: %q", got.Header.Get("Allow"))
			}
			if name == "bad row" {
				if c := got.counted(t); c.Row != 2 || *c.Successful != 0 {
					t.Errorf("%s", got.body)
				}
			}
		})
	}
	if up := stack.API.Requests(); len(up) != 0 {
		t.Errorf("%d requests went up", len(up))
	}
}

// TestEventsRate: rows are counted for the tenant, apart from what it reads.
func TestEventsRate(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	with := withEvents(t, stack)
	e := newEdge(t, stack, func(h *Handler) {
		with(h)
		h.RateLimit = &RateLimit{RPS: "1", Burst: 2}
	})
	send := func(user string) reply {
		return e.do(t, e.request(t, user, http.MethodPost, "/v0/events?name=events", []byte(`{}`)))
	}
	for n, want := range []int{202, 202, 429} {
		got := send("ada")
		if got.StatusCode != want || got.Header.Get("X-RateLimit-Limit") == "" || want == 429 && (got.code(t) != "rate_limited" || got.Header.Get("Retry-After") == "") {
			t.Errorf("%d: status %d %v: %s", n, got.StatusCode, got.Header, got.body)
		}
	}
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
}

// TestEventsOnly: a handler may have events and no pipe.
func TestEventsOnly(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	with := withEvents(t, stack)
	e := newEdge(t, stack, func(h *Handler) {
		with(h)
		h.Pipes = nil
	})
	if got := e.do(t, e.request(t, "ada", http.MethodPost, "/v0/events?name=events", []byte(`{}`))); got.StatusCode != 202 {
		t.Errorf("status %d: %s", got.StatusCode, got.body)
	}
	if got := e.get(t, "ada", "/v0/pipes/live_events.json"); got.StatusCode != 404 {
		t.Errorf("status %d: %s", got.StatusCode, got.body)
	}
}

// TestP6EventsMemory: the body's bound is the configured one, also for what is packed, and nothing beyond it goes up.
func TestP6EventsMemory(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	with := withEvents(t, stack)
	e := newEdge(t, stack, func(h *Handler) {
		with(h)
		h.Limits = &Limits{EventsSize: 1000}
	})
	send := func(body []byte, encoding string, told bool) reply {
		r := e.request(t, "ada", http.MethodPost, "/v0/events?name=events", body)
		if !told {
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
		}
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		return e.do(t, r)
	}
	row := `{"a":"` + strings.Repeat("x", 992) + `"}`
	for _, told := range []bool{true, false} {
		if got := send([]byte(row), "", told); got.StatusCode != 202 {
			t.Errorf("status %d: %s", got.StatusCode, got.body)
		}
		if got := send(packed(t, row), "gzip", told); got.StatusCode != 202 {
			t.Errorf("status %d: %s", got.StatusCode, got.body)
		}
		stack.API.Reset()
		for _, got := range []reply{send([]byte(row+" "), "", told), send(packed(t, row+" "), "gzip", told), send(packed(t, strings.Repeat(" ", 1<<20)), "gzip", told)} {
			if got.StatusCode != 413 || got.code(t) != "body_too_large" {
				t.Errorf("status %d: %s", got.StatusCode, got.body)
			}
		}
		if up := stack.API.Requests(); len(up) != 0 {
			t.Errorf("%d requests went up", len(up))
		}
	}
}

// TestEventsConfig: what is wrong in a config is named, and no secret is shown.
func TestEventsConfig(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	stamp := []FixedParam{{Name: "organization_id", Value: "{clerk.org.id}"}}
	good := secretFile(t, stack.API.AppendToken())
	for name, tt := range map[string]struct {
		events []Events
		text   string
	}{
		"no token":      {[]Events{{Datasources: []string{"events"}, Stamp: stamp}}, "append_token is missing"},
		"short token":   {[]Events{{Datasources: []string{"events"}, AppendToken: "hunter2", Stamp: stamp}}, "too short"},
		"no stamp":      {[]Events{{Datasources: []string{"events"}, AppendToken: good}}, "stamp"},
		"no datasource": {[]Events{{AppendToken: good, Stamp: stamp}}, "no name"},
		"twice":         {[]Events{{Datasources: []string{"events"}, AppendToken: good, Stamp: stamp}, {Datasources: []string{"events"}, AppendToken: good, Stamp: stamp}}, "listed twice"},
		"client's":      {[]Events{{Datasources: []string{"events"}, AppendToken: good, Stamp: []FixedParam{{Name: "a", Value: "{query.a}"}}}}, "query.a"},
	} {
		h := testHandler(t, stack)
		h.Events = tt.events
		err := provision(t, newContext(t, storageDir(t)), h)
		if err == nil || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
