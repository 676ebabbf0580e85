package devstack

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

func newTestAPI(o APIOptions) (*API, *clock) {
	c := newClock()
	o.Now = c.Now
	return NewAPI(o), c
}

func TestTokensAreJudgedAsTinybirdDoes(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	with := func(change func(c map[string]any)) string {
		c := claimsFor("top_pages", acme())
		change(c)
		return mustSign(t, a.SigningKey(), c)
	}
	scopes := func(list ...map[string]any) func(map[string]any) {
		return func(c map[string]any) {
			var all []any
			for _, s := range list {
				all = append(all, s)
			}
			c["scopes"] = all
		}
	}
	one := map[string]any{"type": "PIPES:READ", "resource": "top_pages", "fixed_params": acme()}
	good := with(func(map[string]any) {})
	parts := strings.Split(good, ".")
	tests := []struct {
		name, token, pipe string
		want              int
		text              string
	}{
		{"good", good, "top_pages", 200, ""},
		{"by the pipe's id", with(scopes(map[string]any{"type": "PIPES:READ", "resource": "t_top0pages", "fixed_params": acme()})), "top_pages", 200, ""},
		{"no alg in the header", resign(t, a, `{"typ":"JWT"}`, parts[1]), "top_pages", 200, ""},
		{"a header that is no object", resign(t, a, `"HS256"`, parts[1]), "top_pages", 403, "Invalid header"},
		{"no header", resign(t, a, "", parts[1]), "top_pages", 403, "Invalid header"},
		{"limits as text", with(func(c map[string]any) { c["limits"] = map[string]any{"rps": "5"} }), "top_pages", 403, `Invalid "limits"`},
		{"limits without rps", with(func(c map[string]any) { c["limits"] = map[string]any{"RPS": 5} }), "top_pages", 403, `Invalid "limits"`},
		{"limits that are a number", with(func(c map[string]any) { c["limits"] = 5 }), "top_pages", 403, `Invalid "limits"`},
		{"no limit", with(func(c map[string]any) { c["limits"] = map[string]any{"rps": 0} }), "top_pages", 200, ""},
		{"another spelling of the signature", good[:len(good)-1] + respell(good[len(good)-1]), "top_pages", 403, "invalid authentication token"},
		{"garbage", "notreal", "top_pages", 403, `invalid authentication token. Invalid token b'notreal': `},
		{"no token", "", "top_pages", 403, "invalid authentication token"},
		{"another key", mustSign(t, NewSigningKey(WorkspaceID), claimsFor("top_pages", acme())), "top_pages", 403, "Signature verification failed"},
		{"unsigned", parts[0] + "." + parts[1] + ".", "top_pages", 403, "Signature verification failed"},
		{"expired this second", with(func(c map[string]any) { c["exp"] = start.Unix() }), "top_pages", 403, "Signature has expired"},
		{"no exp", with(func(c map[string]any) { delete(c, "exp") }), "top_pages", 403, `missing the "exp"`},
		{"exp as text", with(func(c map[string]any) { c["exp"] = "99999999999" }), "top_pages", 403, `missing the "exp"`},
		{"another workspace", with(func(c map[string]any) { c["workspace_id"] = "x" }), "top_pages", 403, "Workspace not found"},
		{"no name", with(func(c map[string]any) { delete(c, "name") }), "top_pages", 403, `missing the "name"`},
		{"no scopes", with(func(c map[string]any) { delete(c, "scopes") }), "top_pages", 403, `missing the "scopes"`},
		{"another pipe", good, "sales_by_day", 403, "doesn't have the right scope"},
		{"a pipe that is not there, out of scope", good, "nothing", 403, "doesn't have the right scope"},
		{"a pipe that is not there", mustSign(t, a.SigningKey(), claimsFor("nothing", acme())), "nothing", 404, "The pipe 'nothing' does not exist"},
		{"a pipe without an endpoint", mustSign(t, a.SigningKey(), claimsFor("draft_report", acme())), "draft_report", 404, "The pipe 'draft_report' does not have an endpoint yet"},
		{"the article's wrong scope type", with(scopes(map[string]any{"type": "PIPE:READ", "resource": "top_pages"})), "top_pages", 403, "right scope"},
		{"two scopes for one pipe", with(scopes(one, one)), "top_pages", 403, "right scope"},
		{"a null tenant", mustSign(t, a.SigningKey(), claimsFor("top_pages", map[string]any{"organization_id": nil})), "top_pages", 400, "Check the parameters organization_id."},
		{"no tenant", mustSign(t, a.SigningKey(), claimsFor("top_pages", nil)), "top_pages", 400, "Check the parameters organization_id."},
		{"an array", mustSign(t, a.SigningKey(), claimsFor("top_pages", map[string]any{"organization_id": []any{"a"}})), "top_pages", 400, "fixed parameter"},
		{"two required", mustSign(t, a.SigningKey(), claimsFor("my_activity", nil)), "my_activity", 400, "Check the parameters organization_id and user_id."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var headers []string
			if tt.token != "" {
				headers = []string{"Authorization", "Bearer " + tt.token}
			}
			w := do(a, http.MethodGet, "/v0/pipes/"+tt.pipe+".json", "", headers...)
			d := decode(t, w.Body)
			if w.Code != tt.want || !strings.Contains(d.Error, tt.text) {
				t.Fatalf("%d %q, want %d %q", w.Code, d.Error, tt.want, tt.text)
			}
			if w.Code != 200 && !strings.HasPrefix(d.Documentation, "https://docs.tinybird.co/") {
				t.Errorf("documentation %q", d.Documentation)
			}
			// The real service repeats the token: that is what an edge must hide.
			if w.Code == 403 && tt.token != "" && !strings.Contains(d.Error, tt.token) {
				t.Errorf("the token is not in %q", d.Error)
			}
		})
	}
}

// respell is a character whose first bits are the same: the last one of a signature has more bits than the signature.
func respell(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)+1])
}

// resign signs a payload under a header of its own, without the library.
func resign(t *testing.T, a *API, header, payload string) string {
	t.Helper()
	h := base64.RawURLEncoding.EncodeToString([]byte(header))
	mac := hmac.New(sha256.New, []byte(a.SigningKey()))
	mac.Write([]byte(h + "." + payload))
	return h + "." + payload + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestFixedParametersWin(t *testing.T) {
	t.Parallel()
	for _, bodyWins := range []bool{false, true} {
		a, _ := newTestAPI(APIOptions{BodyBeatsFixed: bodyWins})
		auth := bearer(t, a, "live_events", acme())
		tests := []struct {
			name, method, query, body, contentType string
			leaks                                  bool
		}{
			{"query", "GET", "?organization_id=" + GlobexID, "", "", false},
			{"query twice", "GET", "?organization_id=" + GlobexID + "&organization_id=" + InitechID, "", "", false},
			{"JSON", "POST", "", `{"organization_id":"` + GlobexID + `"}`, jsonType, bodyWins},
			{"form", "POST", "", "organization_id=" + GlobexID, "application/x-www-form-urlencoded", bodyWins},
		}
		for _, tt := range tests {
			h := append([]string{"Content-Type", tt.contentType}, auth...)
			d := decode(t, do(a, tt.method, "/v0/pipes/live_events.json"+tt.query, tt.body, h...).Body)
			if d.Rows == 0 {
				t.Fatalf("%s: no rows: %s", tt.name, d.Error)
			}
			path, ok := d.Data[0]["path"].(string)
			if !ok || strings.HasPrefix(path, "/acme/") == tt.leaks {
				t.Errorf("%s: a row of %s", tt.name, path)
			}
		}
	}
}

func TestTokenPlaces(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	ours := mustSign(t, a.SigningKey(), claimsFor("live_events", acme()))
	theirs := mustSign(t, a.SigningKey(), claimsFor("live_events", map[string]any{"organization_id": GlobexID}))
	tests := []struct{ name, query, body, from string }{
		{"header", "", "", "header"},
		{"query over header", "?token=" + theirs, "", "query"},
		{"escaped", "?%74oken=" + theirs, "", "query"},
		{"JSON over query", "?token=x", `{"token":"` + theirs + `"}`, "body"},
		{"form over query", "?token=x", "token=" + theirs, "body"},
	}
	for _, tt := range tests {
		method := http.MethodGet
		if tt.body != "" {
			method = http.MethodPost
		}
		a.Reset()
		d := decode(t, do(a, method, "/v0/pipes/live_events.json"+tt.query, tt.body, "Authorization", "Bearer "+ours).Body)
		rec := a.Requests()
		if len(rec) != 1 || rec[0].TokenFrom != tt.from || len(rec[0].Tokens) != 1+strings.Count(tt.query+tt.body, "oken") {
			t.Errorf("%s: recorded %+v", tt.name, rec)
			continue
		}
		path, ok := d.Data[0]["path"].(string)
		if !ok || strings.HasPrefix(path, "/acme/") != (tt.from == "header") {
			t.Errorf("%s: a row of %s", tt.name, path)
		}
	}
}

// What an edge must block is answered here, with everybody's rows.
func TestSQLAnswersForAllTenants(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	auth := bearer(t, a, "top_pages", acme())
	tests := []struct{ method, target, body string }{
		{"GET", "/v0/pipes/top_pages.json?q=select+count()+from+_", ""},
		{"POST", "/v0/pipes/top_pages.json", "select count() from _"},
		{"POST", "/v0/pipes/top_pages.json", "-- mine\n( /* all */ select\ncount() from _)"},
		{"POST", "/v0/pipes/top_pages.json", "SELECT\tcount() from _"},
		{"POST", "/v0/pipes/top_pages.json", "from _ select count()"},
		{"POST", "/v0/pipes/top_pages.json", `{"q":"select count() from _"}`},
		{"POST", "/v0/pipes/top_pages.json", "q=select+count()+from+_"},
		{"GET", "/v0/sql?q=select+count()+from+top_pages+format+json", ""},
	}
	for _, tt := range tests {
		w := do(a, tt.method, tt.target, tt.body, auth...)
		d := decode(t, w.Body)
		if w.Code != 200 || d.Rows != 1 || d.Data[0]["count()"] != float64(len(a.Rows())) {
			t.Errorf("%s %s: %d %+v", tt.target, tt.body, w.Code, d)
		}
	}
	if w := do(a, "GET", "/v0/sql?q=select+1", "", auth...); !strings.Contains(w.Body.String(), GlobexID) ||
		w.Header().Get("Content-Type") != "text/tab-separated-values; charset=UTF-8" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	if w := do(a, "GET", "/v0/sql?q=drop+table+x", "", auth...); w.Code != 400 {
		t.Errorf("status %d", w.Code)
	}
}

func TestOtherAnswers(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	auth := bearer(t, a, "top_pages", acme())
	tests := []struct {
		name, method, target, body string
		want                       int
		text                       string
	}{
		{"method", "PUT", "/v0/pipes/top_pages.json", "", 405, "Method Not Allowed"},
		{"HEAD", "HEAD", "/v0/pipes/top_pages.json", "", 405, ""},
		{"preflight", "OPTIONS", "/v0/pipes/top_pages.json", "", 204, ""},
		{"format", "GET", "/v0/pipes/top_pages.xml", "", 404, "does not exist"},
		{"list of pipes", "GET", "/v0/pipes", "", 403, "JWTs only read endpoints"},
		{"tokens", "GET", "/v0/tokens", "", 403, "JWTs only read endpoints"},
		{"nodes", "GET", "/v0/pipes/top_pages/nodes.json", "", 403, "JWTs only read endpoints"},
		{"elsewhere", "GET", "/", "", 404, "Not found"},
		{"regions", "GET", "/v0/regions", "", 200, ""},
		{"bad number", "GET", "/v0/pipes/top_pages.json?limit=many", "", 400, "Error validating 'many' to type Int32"},
		{"bad date", "GET", "/v0/pipes/top_pages.json?date_from=now", "", 400, "SELECT organization_id"},
		{"bad JSON", "POST", "/v0/pipes/top_pages.json", "{", 400, "not a JSON object"},
		{"long URL", "GET", "/v0/pipes/top_pages.json?x=" + strings.Repeat("x", 17<<10), "", 414, "too long"},
		{"large body", "POST", "/v0/pipes/top_pages.json", strings.Repeat("x", maxBody+1), 413, "too large"},
		{"reserved but answered", "GET", "/v0/pipes/top_pages.json?__tb__deployment=staging&from=ts-sdk", "", 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := do(a, tt.method, tt.target, tt.body, auth...)
			if w.Code != tt.want || !strings.Contains(w.Body.String(), tt.text) {
				t.Errorf("%d %.200s", w.Code, w.Body)
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Error("Tinybird answers any origin")
			}
			if tt.want == 405 && w.Header().Get("Allow") != "GET, POST" {
				t.Error("no Allow")
			}
		})
	}
}

func TestLengthRequired(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.APIURL+"/v0/pipes/top_pages.json", struct{ *strings.Reader }{strings.NewReader("{}")})
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusLengthRequired {
		t.Errorf("status %d", res.StatusCode)
	}
}

// The signing key is a token by itself: an edge that sends it up gives everything away.
func TestSigningKeyReadsEverything(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	d := decode(t, do(a, http.MethodGet, "/v0/pipes/live_events.json?organization_id="+GlobexID, "", "Authorization", "Bearer "+a.SigningKey()).Body)
	if d.Rows == 0 {
		t.Errorf("no rows: %s", d.Error)
	}
}

func TestSigningKeyShape(t *testing.T) {
	t.Parallel()
	parts := strings.Split(NewSigningKey("w"), ".")
	if len(parts) != 3 || parts[0] != "p" || len(parts[2]) < 32 {
		t.Fatalf("parts %v", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ U, ID, Host string }
	if err := json.Unmarshal(raw, &body); err != nil || body.U != "w" || body.Host != "local" || body.ID == "" {
		t.Errorf("%+v, %v", body, err)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	a, c := newTestAPI(APIOptions{})
	ask := func(name string, rps any) (int, http.Header) {
		claims := claimsFor("top_pages", acme())
		claims["name"], claims["limits"] = name, map[string]any{"rps": rps}
		claims["exp"] = start.Add(time.Hour).Unix()
		w := do(a, http.MethodGet, "/v0/pipes/top_pages.json", "", "Authorization", "Bearer "+mustSign(t, a.SigningKey(), claims))
		return w.Code, w.Header()
	}
	for n := range 3 {
		code, h := ask("acme", 3)
		if code != 200 || h.Get("X-RateLimit-Limit") != "3" || h.Get("X-RateLimit-Remaining") != string(rune('2'-n)) || h.Get("X-RateLimit-Reset") != "1" {
			t.Errorf("request %d: %d %v", n, code, h)
		}
	}
	code, h := ask("acme", 3)
	if code != 429 || h.Get("Retry-After") != "1" || h.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("fourth: %d %v", code, h)
	}
	if code, _ := ask("globex", 3); code != 200 {
		t.Errorf("another name: %d", code)
	}
	c.Advance(334 * time.Millisecond)
	if code, _ := ask("acme", 3); code != 200 {
		t.Errorf("a third of a second later: %d", code)
	}
	if code, _ := ask("acme", 3); code != 429 {
		t.Errorf("and once more: %d", code)
	}
	for range 20 { // 0 and less are no limit at Tinybird
		if code, h := ask("acme", 0); code != 200 || h.Get("X-RateLimit-Limit") != "" {
			t.Fatalf("rps 0: %d", code)
		}
	}
}

func TestRecorderIsBounded(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	for range maxRecorded + 5 {
		do(a, http.MethodGet, "/x", "")
	}
	if n := len(a.Requests()); n != maxRecorded {
		t.Errorf("%d requests", n)
	}
}

func TestRecordedAsSent(t *testing.T) {
	t.Parallel()
	a, _ := newTestAPI(APIOptions{})
	auth := bearer(t, a, "top_pages", acme())
	do(a, http.MethodPost, "/v0/pipes/top%5fpages.json?a=%20b", `{"limit":1}`, append(auth, "X-Odd", "1")...)
	r := a.Requests()[0]
	if r.Method != "POST" || r.Path != "/v0/pipes/top%5fpages.json" || r.RawQuery != "a=%20b" || string(r.Body) != `{"limit":1}` ||
		r.Header.Get("X-Odd") != "1" || r.Claims["name"] != AcmeID || r.Host != "example.com" {
		t.Errorf("%+v", r)
	}
}

// Whatever is presented, nobody without the key gets rows.
func FuzzToken(f *testing.F) {
	a, _ := newTestAPI(APIOptions{})
	good := mustSign(f, NewSigningKey(WorkspaceID), claimsFor("top_pages", acme()))
	f.Add("")
	f.Add("notreal")
	f.Add("..")
	f.Add(good)
	f.Add("eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".")
	f.Fuzz(func(t *testing.T, token string) {
		if strings.ContainsAny(token, "\r\n") {
			return
		}
		w := do(a, http.MethodGet, "/v0/pipes/top_pages.json", "", "Authorization", "Bearer "+token)
		if w.Code != http.StatusForbidden {
			t.Errorf("status %d for %q", w.Code, token)
		}
	})
}

// Whatever is asked, short of SQL, a token fixed to Acme reads no one else's rows.
func FuzzInput(f *testing.F) {
	a, _ := newTestAPI(APIOptions{})
	auth := bearer(f, a, "live_events", acme())
	f.Add("organization_id="+GlobexID, "", jsonType)
	f.Add("a=%zz&organization_id=x;", `{"organization_id":["`+GlobexID+`"]}`, jsonType)
	f.Add("", "organization_id="+GlobexID+"&limit=-1", "text/plain")
	f.Add("", `{"limit":null,"organization_id":{"a":1}}`, "application/json; charset=utf-16")
	f.Fuzz(func(t *testing.T, query, body, contentType string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/v0/pipes/live_events.json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", contentType)
		r.Header.Set(auth[0], auth[1])
		in, bad := readInput(nil, r)
		if bad != nil || in.sql != "" {
			return
		}
		who, bad := a.authenticate(in)
		got := a.answer(in, who, bad)
		if got.status >= 500 || strings.Contains(string(got.body), "/globex/") {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
}
