//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestRowsBelongToTheTenant: three users of two organizations, each with a token in the header, with one in Clerk's
// cookies, and with tokens of both versions, read every kind of pipe.
func TestRowsBelongToTheTenant(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	for _, user := range []string{"ada", "ben", "cleo"} {
		for _, pipe := range []string{"live_events", "top_pages", "my_activity"} {
			target := "/v0/pipes/" + pipe + ".json"
			t.Run(user+" "+pipe, func(t *testing.T) {
				t.Parallel()
				ownRows(t, user, e.get(t, user, target))

				r := e.request(t, "", http.MethodGet, target, "")
				for _, c := range e.cookies(t, user) {
					r.AddCookie(c)
				}
				ownRows(t, user, e.do(t, r))

				r = e.request(t, "", http.MethodGet, target, "")
				r.Header.Set("Authorization", "Bearer "+e.token(t, user, devstack.V1()))
				ownRows(t, user, e.do(t, r))
			})
		}
	}
}

// TestTenantIsNotTheClients: the parameters that make a tenant are the edge's, in the query and in the body.
func TestTenantIsNotTheClients(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	const other = devstack.GlobexID
	for _, query := range []string{
		"organization_id=" + other, "ORGANIZATION_ID=" + other, "organization%5Fid=" + other,
		"organization_id=" + other + "&organization_id=" + other, "__tb__semver=1.0.0", "q=SELECT+1", "pipeline=x",
	} {
		ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json?"+query))
	}
	for _, body := range []string{
		`{"organization_id":"` + other + `"}`, `{"Organization_ID":"` + other + `"}`, `{"organization\u005fid":"` + other + `"}`,
		`{"q":"SELECT * FROM events"}`, `{"limit":3,"token":"x"}`,
	} {
		ownRows(t, "ada", e.do(t, e.request(t, "ada", http.MethodPost, "/v0/pipes/live_events.json?organization_id="+other, body)))
	}
	for _, up := range e.stack.API.Requests() {
		wellFormed(t, e, up, "ada", "live_events")
		for _, name := range []string{other, "__tb__", "pipeline", "SELECT", "token="} {
			if strings.Contains(up.RawQuery, name) || bytes.Contains(up.Body, []byte(name)) {
				t.Errorf("%q went up: %s %s", name, up.RawQuery, up.Body)
			}
		}
	}
}

// TestTeamIsTheClaims: a parameter out of a custom claim keeps teams apart that have one id in two organizations.
func TestTeamIsTheClaims(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	seen := make(map[string]string)
	for _, user := range []string{"ben", "cleo"} {
		for _, row := range e.get(t, user, "/v0/pipes/team_activity.json").rows(t) {
			id, _ := row["user_id"].(string)
			if row["team_id"] != devstack.TeamOps {
				t.Errorf("%s reads the team %v", user, row["team_id"])
			}
			if other, ok := seen[id]; ok && other != user {
				t.Errorf("%s and %s both read rows of %s", other, user, id)
			}
			seen[id] = user
		}
	}
	if len(seen) < 2 {
		t.Errorf("rows of %d users, so the test shows nothing", len(seen))
	}
}

// TestFormats: each format comes with its type and its shape, uncached, and with the tenant's rows only.
func TestFormats(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	for format, want := range map[string]struct{ contentType, begins, holds string }{
		"json":         {"application/json; charset=UTF-8", `{"meta":`, "/acme/"},
		"ndjson":       {"application/x-ndjson", `{"`, "/acme/"},
		"csv":          {"text/csv; charset=UTF-8; header=absent", `"`, "/acme/"},
		"csvwithnames": {"text/csv; charset=UTF-8; header=present", `"ts","user_id","path"`, "/acme/"},
		"parquet":      {"application/octet-stream", "PAR1", "/acme/"},
		"prometheus":   {"text/plain; version=0.0.4; charset=UTF-8", "#", "events_total"},
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			pipe := "live_events"
			if format == "prometheus" {
				pipe = "org_metrics"
			}
			got := e.get(t, "ada", "/v0/pipes/"+pipe+"."+format)
			if got.StatusCode != http.StatusOK {
				t.Fatalf("status %d: %s", got.StatusCode, got.body)
			}
			if ct := got.Header.Get("Content-Type"); ct != want.contentType {
				t.Errorf("Content-Type %q, want %q", ct, want.contentType)
			}
			if !bytes.HasPrefix(got.body, []byte(want.begins)) || !bytes.Contains(got.body, []byte(want.holds)) {
				t.Errorf("body: %.200q", got.body)
			}
			if bytes.Contains(got.body, []byte("/globex/")) {
				t.Error("rows of another organization")
			}
			wantPrivate(t, got)
		})
	}
}

// wantPrivate: nothing between the edge and the client may keep an answer or a refusal.
func wantPrivate(t *testing.T, r reply) {
	t.Helper()
	if got := r.Header.Values("Cache-Control"); len(got) != 1 || got[0] != "private, no-store" {
		t.Errorf("status %d, Cache-Control %q", r.StatusCode, got)
	}
}

// TestParametersGoUp: what a client asks for reaches the pipe, by GET and by POST, in all its digits.
func TestParametersGoUp(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	if n := len(e.get(t, "ada", "/v0/pipes/live_events.json?limit=3").rows(t)); n != 3 {
		t.Errorf("%d rows by GET", n)
	}
	post := e.request(t, "ada", http.MethodPost, "/v0/pipes/live_events.json", `{"limit":4,"big":12345678901234567890,"name":"ü & <b>"}`)
	if n := len(e.do(t, post).rows(t)); n != 4 {
		t.Errorf("%d rows by POST", n)
	}
	if n := len(e.do(t, e.request(t, "ada", http.MethodPost, "/v0/pipes/live_events.json?limit=5", "")).rows(t)); n != 5 {
		t.Errorf("%d rows by POST without a body", n)
	}
	up := e.stack.API.Requests()[1]
	var body struct {
		Big  json.Number `json:"big"`
		Name string      `json:"name"`
	}
	if err := json.Unmarshal(up.Body, &body); err != nil || body.Big != "12345678901234567890" || body.Name != "ü & <b>" {
		t.Errorf("the body went up as %s", up.Body)
	}
}

// TestHeadersGoThrough: conditional requests, trace context and the client's name go up; validators and Tinybird's
// statistics come down; nothing else does either way.
func TestHeadersGoThrough(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		f := &devstack.Fault{Header: http.Header{
			"Etag": {`"v1"`}, "Last-Modified": {"Mon, 02 Jan 2006 15:04:05 GMT"}, "X-Db-Statistics": {"1"},
			"Set-Cookie": {"a=b"}, "X-Request-Id": {"secret"}, "Strict-Transport-Security": {"max-age=1"}, "Location": {"https://evil.example"},
		}}
		if r.Header.Get("If-None-Match") == `"v1"` {
			f.Status, f.Body = http.StatusNotModified, []byte{}
		}
		return f
	})
	sent := map[string]string{
		"If-None-Match": `"v0"`, "If-Modified-Since": "Mon, 02 Jan 2006 15:04:05 GMT", "User-Agent": "tests/1.0", "Accept": "application/json",
		"Accept-Encoding": "br;q=1", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate": "a=1",
	}
	r := e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", "")
	for name, value := range sent {
		r.Header.Set(name, value)
	}
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via", "X-Real-Ip", "Cookie", "Referer", "Origin", "X-Api-Key"} {
		r.Header.Set(name, "planted")
	}
	got := e.do(t, r)
	ownRows(t, "ada", got)
	for name, want := range map[string]string{
		"Etag": `"v1"`, "Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT", "X-Db-Statistics": "1", "X-Content-Type-Options": "nosniff",
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s %q came down, want %q", name, v, want)
		}
	}
	for _, name := range []string{"Set-Cookie", "X-Request-Id", "Strict-Transport-Security", "Location", "Access-Control-Allow-Origin"} {
		if v := got.Header.Values(name); len(v) != 0 {
			t.Errorf("%s %q came down", name, v)
		}
	}
	up := e.stack.API.Requests()[0]
	wellFormed(t, e, up, "ada", "live_events")
	for name, want := range sent {
		if v := up.Header.Get(name); v != want {
			t.Errorf("%s %q went up, want %q", name, v, want)
		}
	}

	r.Header.Set("If-None-Match", `"v1"`)
	unchanged := e.do(t, r)
	if unchanged.StatusCode != http.StatusNotModified || unchanged.Header.Get("Etag") != `"v1"` || len(unchanged.body) != 0 {
		t.Errorf("status %d, ETag %q, %d bytes, want 304", unchanged.StatusCode, unchanged.Header.Get("Etag"), len(unchanged.body))
	}
	wantPrivate(t, unchanged)
}

// TestAnswerIsStreamed: a piece of an answer arrives while the rest is not yet there.
func TestAnswerIsStreamed(t *testing.T) {
	t.Parallel()
	e := startEdge(t, strings.Replace(plainSite, "tinybird {", "log\n tinybird {", 1))
	step := make(chan struct{}, 1)
	e.stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Chunked: true, Step: step, Piece: 10} })
	step <- struct{}{}
	resp, err := e.http.Do(e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	piece := make([]byte, 10)
	if n, err := resp.Body.Read(piece); err != nil || n != 10 {
		t.Fatalf("%d bytes of the first piece: %v", n, err)
	}
	close(step)
	var rest bytes.Buffer
	if _, err := rest.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	ownRows(t, "ada", reply{resp, slices.Concat(piece, rest.Bytes())})
}

// TestBrokenAnswerIsSeen: an answer that breaks off upstream breaks off here too. It must not look whole.
func TestBrokenAnswerIsSeen(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	for _, chunked := range []bool{false, true} {
		e.stack.API.Fail(func(*http.Request) *devstack.Fault {
			return &devstack.Fault{Stop: devstack.DropInBody, Chunked: chunked}
		})
		resp, err := e.http.Do(e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", ""))
		if err != nil {
			continue // broken before anything was sent on: seen as well
		}
		var body bytes.Buffer
		_, err = body.ReadFrom(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("chunked %v: %d bytes look like the whole answer", chunked, body.Len())
		}
	}
}

// TestRotatedKey: a session that a new key signed is accepted, also when the key has the old one's id.
func TestRotatedKey(t *testing.T) {
	t.Parallel()
	for name, keepKid := range map[string]bool{"new kid": false, "same kid": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startEdge(t)
			ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json"))
			if err := e.stack.Issuer.Rotate(keepKid); err != nil {
				t.Fatal(err)
			}
			// The keys are fetched at most every ten seconds, so the first sessions may be refused.
			eventually(t, "the new key is known", func() bool {
				return e.get(t, "ada", "/v0/pipes/live_events.json").StatusCode == http.StatusOK
			})
			if n := e.stack.Issuer.Fetches(); n > 3 {
				t.Errorf("%d fetches of the keys", n)
			}
		})
	}
}
