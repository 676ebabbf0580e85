package tinybird

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// request is one as the server hands it to a handler.
func request(t testing.TB, method, query, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "/v0/pipes/top_pages.json", strings.NewReader(body))
	r.URL.RawQuery = query
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func build(t testing.TB, r *http.Request, lim RequestLimits) (Question, error) {
	t.Helper()
	return Build(httptest.NewRecorder(), r, tenantGrant(t), lim)
}

// spellings of a name that somebody, somewhere, could read as that name.
func spellings(name string) []string {
	first, last := name[:1], name[1:]
	var percent, unicode strings.Builder
	for i := range len(name) {
		percent.WriteString("%" + string("0123456789ABCDEF"[name[i]>>4]) + string("0123456789abcdef"[name[i]&15]))
		unicode.WriteString("%5Cu00" + string("0123456789abcdef"[name[i]>>4]) + string("0123456789abcdef"[name[i]&15]))
	}
	return []string{
		name, strings.ToUpper(name), strings.ToUpper(first) + last, // letter case
		percent.String(), // escaped
		strings.ReplaceAll(percent.String(), "%", "%25"), // escaped twice
		unicode.String(),                           // a JSON escape in a URL
		name + "[]", name + "[0]", name + "%5B%5D", // PHP and Rails arrays
		"+" + name, name + "+", "%20" + name, name + "%09x", // trimmed by someone
		name + ".x", "x." + name, name + "%EF%BB%BF", "%E2%80%8B" + name, // a byte order mark, a zero-width space
		"%EF%BD%94" + last,                         // a fullwidth letter
		strings.ReplaceAll(name, "k", "%E2%84%AA"), // the Kelvin sign, which folds to k
		strings.ReplaceAll(name, "s", "%C5%BF"),    // the long s, which folds to s
		strings.ReplaceAll(name, "i", "%C4%B1"),    // the dotless i
		strings.ReplaceAll(name, "_", "%EF%BC%BF"), // a fullwidth underscore
	}
}

// P1: a credential of the client's, in any spelling of `token`, is in no query that goes up; the request is
// served, since stock clients send one always.
func TestP1TokenNeverGoesUpInTheQuery(t *testing.T) {
	t.Parallel()
	for _, name := range spellings("token") {
		for _, raw := range []string{
			name + "=LEAK", "a=1&" + name + "=LEAK&b=2", name + "=LEAK&" + name + "=LEAK", "&&" + name + "=LEAK", name + "=LEAK=LEAK",
		} {
			q, err := build(t, request(t, http.MethodGet, raw, ""), RequestLimits{})
			if err != nil {
				// A name with a control character is refused as a whole.
				wantRefusal(t, err, http.StatusBadRequest, apierr.BadQuery)
				continue
			}
			if strings.Contains(q.RawQuery, "LEAK") || q.Dropped == 0 {
				t.Errorf("%s goes up as %s (%d dropped)", raw, q.RawQuery, q.Dropped)
			}
		}
	}
}

// P1: nor is it in a body.
func TestP1TokenNeverGoesUpInTheBody(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"token", "TOKEN", "Token", `\u0074oken`, `\u0054\u004f\u004b\u0045\u004e`, `to\u006Ben`, "to\u212aen", `to\u212aen`,
		" token", "token ", "token[]", `token\u0000`, `\ttoken`, "%74oken", `\ufefftoken`, `"token`[1:] + `\u200b`,
	} {
		for _, body := range []string{
			`{"` + name + `":"LEAK"}`, `{"a":1,"` + name + `":"LEAK","b":2}`, `{"` + name + `":["LEAK"],"a":{}}`, `{"` + name + `":{"token":"LEAK"}}`,
		} {
			q, err := build(t, request(t, http.MethodPost, "", body), RequestLimits{})
			if err != nil {
				t.Errorf("%s: %v", body, err)
				continue
			}
			if bytes.Contains(q.Body, []byte("LEAK")) || q.Dropped != 1 {
				t.Errorf("%s goes up as %s (%d dropped)", body, q.Body, q.Dropped)
			}
		}
	}
	// In both places at once, as the charts library sends long requests.
	q, err := build(t, request(t, http.MethodPost, "token=LEAK&from=chart&a=1", `{"token":"LEAK","b":2}`), RequestLimits{})
	if err != nil {
		t.Fatal(err)
	}
	if q.RawQuery != "from=chart&a=1" || string(q.Body) != `{"b":2}` || q.Dropped != 2 || q.Method != http.MethodPost {
		t.Errorf("got %+v, body %s", q, q.Body)
	}
}

// P2: a fixed parameter cannot be set, doubled or shadowed, in the query or the body; nor can the
// parameters that Tinybird itself reads.
func TestP2FixedAndReservedParamsCannotBeSet(t *testing.T) {
	t.Parallel()
	names := []string{"organization_id", "User_Id", "user_id", "q", "pipeline", "__tb__deployment", "__tb__", "__tb__semver", "debug", "debug_source_tables", "explain", "finalize_aggregations", "playground", "query_id", "release_replacements", "template_parameters"}
	for _, name := range names {
		for _, spelled := range spellings(name) {
			for _, raw := range []string{spelled + "=org_evil", "a=1&" + spelled + "=org_evil&" + spelled + "=org_evil", spelled} {
				q, err := build(t, request(t, http.MethodGet, raw, ""), RequestLimits{})
				if err != nil {
					wantRefusal(t, err, http.StatusBadRequest, apierr.BadQuery)
					continue
				}
				up, err := url.ParseQuery(q.RawQuery)
				if err != nil {
					t.Fatal(err)
				}
				delete(up, "a")
				if len(up) != 0 || q.Dropped == 0 {
					t.Errorf("%s goes up as %s", raw, q.RawQuery)
				}
			}
		}
		for _, spelled := range []string{name, strings.ToUpper(name), strings.ToLower(name), `\u00` + hex(name[0]) + name[1:], name + " "} {
			// The JWT wins over the URL by Tinybird's word; about the body there is no word.
			body := `{"a":1,"` + spelled + `":"org_evil"}`
			q, err := build(t, request(t, http.MethodPost, "", body), RequestLimits{})
			if err != nil {
				t.Errorf("%s: %v", body, err)
			} else if string(q.Body) != `{"a":1}` || q.Dropped != 1 {
				t.Errorf("%s goes up as %s", body, q.Body)
			}
		}
	}
}

func hex(c byte) string {
	return string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15])
}

// P2: doubling a member, or hiding it behind a second value of the same name, is refused.
func TestP2DoubledMembersAreRefused(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"organization_id":"a","organization_id":"b"}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"x":{"a":1,"a":2}}`,
	} {
		_, err := build(t, request(t, http.MethodPost, "", body), RequestLimits{})
		wantRefusal(t, err, http.StatusBadRequest, apierr.BadBody)
	}
}

// A grant made elsewhere still cannot have its fixed parameters set.
func TestP2HoldsForGrantsFromAnywhere(t *testing.T) {
	t.Parallel()
	g := &Grant{Pipe: "a", Format: "json", TokenName: "n", Fixed: []FixedValue{{"tenant", "x"}}}
	q, err := Build(nil, request(t, http.MethodPost, "Tenant=y&token=z&b=1", `{"TENANT":1,"c":2}`), g, RequestLimits{})
	if err != nil {
		t.Fatal(err)
	}
	if q.RawQuery != "b=1" || string(q.Body) != `{"c":2}` || q.Dropped != 3 {
		t.Errorf("got %+v, body %s", q, q.Body)
	}
	for _, bad := range []*Grant{nil, {}, {Pipe: "../sql", Format: "json"}, {Pipe: "a", Format: "json/../b"}} {
		_, err := Build(nil, request(t, http.MethodGet, "", ""), bad, RequestLimits{})
		wantRefusal(t, err, http.StatusInternalServerError, apierr.Internal)
	}
}

func TestBuildParamsAllowList(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.Pipes[0].Params = []string{"limit", "date_from"}
	g, err := newPolicy(t, c).Authorize("top_pages", "json", acme())
	if err != nil {
		t.Fatal(err)
	}
	q, err := Build(nil, request(t, http.MethodPost, "limit=1&LIMIT=2&from=x&token=y", `{"date_from":"a","other":1,"limit":2}`), g, RequestLimits{})
	if err != nil {
		t.Fatal(err)
	}
	if q.RawQuery != "limit=1" || string(q.Body) != `{"date_from":"a","limit":2}` || q.Dropped != 4 {
		t.Errorf("got %+v, body %s", q, q.Body)
	}
}

func TestBuildMethods(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "get", "", "GET\x00"} {
		r := request(t, http.MethodGet, "", "")
		r.Method = method
		_, err := build(t, r, RequestLimits{})
		e := wantRefusal(t, err, http.StatusMethodNotAllowed, apierr.MethodNotAllowed)
		if e.Header.Get("Allow") != "GET, POST" {
			t.Errorf("Allow: %q", e.Header.Get("Allow"))
		}
	}
}

// unread fails the test when it is read.
type unread struct{ t testing.TB }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, io.EOF
}

func (unread) Close() error { return nil }

// Attack: SQL in a GET's body, which Tinybird might run over the pipe.
func TestBuildIgnoresTheBodyOfGet(t *testing.T) {
	t.Parallel()
	r := request(t, http.MethodGet, "a=1", "select * from _")
	r.Body = unread{t}
	q, err := build(t, r, RequestLimits{})
	if err != nil {
		t.Fatal(err)
	}
	if q.Body != nil {
		t.Errorf("body %s", q.Body)
	}
}

func TestBuildRefusesUpgrades(t *testing.T) {
	t.Parallel()
	for _, h := range []http.Header{
		{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}},
		{"Upgrade": {"h2c"}},
		{"Upgrade": {""}},
		{"Connection": {"keep-alive, uPgRaDe"}},
		{"Connection": {"close", "upgrade"}},
	} {
		r := request(t, http.MethodGet, "", "")
		r.Header = h
		_, err := build(t, r, RequestLimits{})
		wantRefusal(t, err, http.StatusBadRequest, apierr.BadRequest)
	}
	r := request(t, http.MethodGet, "", "")
	r.Header.Set("Upgrade-Insecure-Requests", "1")
	r.Header.Set("Connection", "keep-alive")
	if _, err := build(t, r, RequestLimits{}); err != nil {
		t.Error(err)
	}
}

func TestBuildBodyTypes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body  string
		types, encs []string
		code        apierr.Code // empty: accepted
	}{
		{"plain", `{"a":1}`, []string{"application/json"}, nil, ""},
		{"charset", `{"a":1}`, []string{"Application/JSON; Charset=\"UTF-8\""}, nil, ""},
		{"identity", `{"a":1}`, []string{"application/json"}, []string{"identity"}, ""},
		{"empty of any type", "", []string{"text/plain"}, []string{"gzip"}, ""},
		{"no type", `{"a":1}`, nil, nil, apierr.UnsupportedBody},
		// Attack: SQL, which Tinybird runs over the pipe.
		{"raw SQL", "select * from _", []string{"text/plain"}, nil, apierr.UnsupportedBody},
		{"raw SQL as JSON", "select * from _", []string{"application/json"}, nil, apierr.BadBody},
		{"JSON string with SQL", `"select * from _"`, []string{"application/json"}, nil, apierr.BadBody},
		{"form", "token=LEAK", []string{"application/x-www-form-urlencoded"}, nil, apierr.UnsupportedBody},
		{"other JSON", `{"a":1}`, []string{"application/problem+json"}, nil, apierr.UnsupportedBody},
		{"other charset", `{"a":1}`, []string{"application/json; charset=utf-16"}, nil, apierr.UnsupportedBody},
		{"other parameter", `{"a":1}`, []string{"application/json; boundary=x"}, nil, apierr.UnsupportedBody},
		{"broken type", `{"a":1}`, []string{"application/json; charset"}, nil, apierr.UnsupportedBody},
		{"list of types", `{"a":1}`, []string{"application/json, text/plain"}, nil, apierr.UnsupportedBody},
		// Attack: two types, of which we read one and Tinybird the other.
		{"two types", `{"a":1}`, []string{"application/json", "text/plain"}, nil, apierr.UnsupportedBody},
		// Attack: a body that is only seen for what it is after inflating.
		{"gzip", `{"a":1}`, []string{"application/json"}, []string{"gzip"}, apierr.UnsupportedBody},
		{"second encoding", `{"a":1}`, []string{"application/json"}, []string{"identity", "gzip"}, apierr.UnsupportedBody},
		{"list of encodings", `{"a":1}`, []string{"application/json"}, []string{"identity, gzip"}, apierr.UnsupportedBody},
		{"NDJSON", "{\"a\":1}\n{\"token\":1}", []string{"application/json"}, nil, apierr.BadBody},
	}
	for _, tt := range tests {
		for _, length := range []int64{int64(len(tt.body)), -1} { // known and chunked
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				r := request(t, http.MethodPost, "", tt.body)
				r.Header = http.Header{"Content-Type": tt.types, "Content-Encoding": tt.encs}
				r.ContentLength = length
				q, err := build(t, r, RequestLimits{})
				switch {
				case tt.code == apierr.UnsupportedBody:
					wantRefusal(t, err, http.StatusUnsupportedMediaType, tt.code)
				case tt.code != "":
					wantRefusal(t, err, http.StatusBadRequest, tt.code)
				case err != nil:
					t.Error(err)
				case string(q.Body) != tt.body || q.Method != http.MethodPost:
					t.Errorf("body %s", q.Body)
				}
			})
		}
	}
}

// P6: a body is read up to its limit, however its length is announced; a wrong type is not read at all.
func TestBuildLimits(t *testing.T) {
	t.Parallel()
	body := `{"a":"` + rep("x", 100) + `"}`
	exact, over := RequestLimits{MaxBody: int64(len(body))}, RequestLimits{MaxBody: int64(len(body)) - 1}
	for _, length := range []int64{int64(len(body)), -1} {
		r := request(t, http.MethodPost, "", body)
		r.ContentLength = length
		if q, err := build(t, r, exact); err != nil || string(q.Body) != body {
			t.Errorf("at the limit: %v", err)
		}
		r = request(t, http.MethodPost, "", body)
		r.ContentLength = length
		_, err := build(t, r, over)
		wantRefusal(t, err, http.StatusRequestEntityTooLarge, apierr.BodyTooLarge)
	}

	r := request(t, http.MethodPost, "", body)
	r.Body = unread{t}
	_, err := build(t, r, over)
	wantRefusal(t, err, http.StatusRequestEntityTooLarge, apierr.BodyTooLarge)
	r.Header.Set("Content-Type", "text/plain")
	_, err = build(t, r, exact)
	wantRefusal(t, err, http.StatusUnsupportedMediaType, apierr.UnsupportedBody)

	// The default, and a limit of the site's own that strikes first.
	r = request(t, http.MethodPost, "", `{"a":"`+rep("x", DefaultMaxBody)+`"}`)
	r.ContentLength = -1
	_, err = build(t, r, RequestLimits{})
	wantRefusal(t, err, http.StatusRequestEntityTooLarge, apierr.BodyTooLarge)
	r = request(t, http.MethodPost, "", body)
	r.Body = http.MaxBytesReader(nil, r.Body, 5)
	_, err = build(t, r, RequestLimits{})
	wantRefusal(t, err, http.StatusRequestEntityTooLarge, apierr.BodyTooLarge)

	r = request(t, http.MethodPost, "", body)
	cause := errors.New("gone")
	r.Body = io.NopCloser(iotest.ErrReader(cause))
	_, err = build(t, r, RequestLimits{})
	if e := wantRefusal(t, err, http.StatusBadRequest, apierr.BadBody); !errors.Is(e, cause) {
		t.Errorf("the cause is lost: %v", e)
	}
}

func TestBuildURLLimit(t *testing.T) {
	t.Parallel()
	lim := RequestLimits{MaxURL: len("/v0/pipes/top_pages.json?a=12345")}
	for query, ok := range map[string]bool{
		"a=12345": true, "a=123456": false, "token=" + rep("x", 30): false,
		"a=(1": true, "a=((": false, // three bytes each, once escaped
	} {
		_, err := build(t, request(t, http.MethodGet, query, ""), lim)
		if ok && err != nil {
			t.Errorf("%s: %v", query, err)
		}
		if !ok {
			wantRefusal(t, err, http.StatusRequestURITooLong, apierr.URLTooLong)
		}
	}
	_, err := build(t, request(t, http.MethodGet, "a="+rep("x", DefaultMaxURL), ""), RequestLimits{})
	wantRefusal(t, err, http.StatusRequestURITooLong, apierr.URLTooLong)
	_, err = build(t, request(t, http.MethodGet, "a=1;b=2", ""), RequestLimits{})
	wantRefusal(t, err, http.StatusBadRequest, apierr.BadQuery)
}

// Refusals are shown to the client; they hold nothing that was sent.
func TestBuildRefusalsQuoteNothing(t *testing.T) {
	t.Parallel()
	for _, r := range []*http.Request{
		request(t, http.MethodGet, "token=LEAK%zz", ""), request(t, http.MethodGet, "LEAK;=1", ""),
		request(t, http.MethodPost, "", `{"LEAK":1,"LEAK":2}`), request(t, http.MethodPost, "", `{"LEAK":`),
	} {
		_, err := build(t, r, RequestLimits{})
		e, ok := errors.AsType[*apierr.Error](err)
		if !ok {
			t.Fatalf("got %v", err)
		}
		if text := e.Message + e.Error(); strings.Contains(text, "LEAK") {
			t.Errorf("quoted: %s", text)
		}
		if !json.Valid(e.Body()) {
			t.Errorf("body %s", e.Body())
		}
	}
}
