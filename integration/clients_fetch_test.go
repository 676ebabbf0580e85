//go:build integration

package integration

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// said is what became of an example that a page called.
type said struct {
	Value json.RawMessage `json:"value"`
	Error string          `json:"error"`
}

// calls has the page call one of its examples.
func (b *browser) calls(t *testing.T, name string, params map[string]any) (s said) {
	t.Helper()
	text, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	b.evaluate(t, "examples."+name+"("+string(text)+").then((value) => ({ value }), (error) => ({ error: error.message }))", &s)
	return s
}

// callWays are the examples that are functions, each where it is meant to be called.
func (c *clients) callWays() []way {
	return []way{
		{name: "fetch, bearer, another site", show: "fetch", origin: c.origin(pagesOnly), token: true},
		{name: "SDK, bearer, another site", show: "sdkBearer", origin: c.origin(pagesOnly), token: true},
		{name: "SDK, cookie, same origin", show: "sdkCookie", origin: c.origin(shopHost), cookie: true},
		{name: "zod-bird, bearer, another site", show: "zodBird", origin: c.origin(pagesOnly), token: true},
	}
}

// TestCallsInAPage: what a page does without charts: fetch, the SDK and zod-bird, whose users read a sentence when they are refused.
func TestCallsInAPage(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	for _, w := range c.callWays() {
		c.stack.API.Fail(nil)
		for _, user := range []string{"ada", "cleo"} {
			c.visit(t, b, w, user, nil)
			s := b.calls(t, w.show, map[string]any{"limit": 3})
			var rows []map[string]any
			if err := json.Unmarshal(s.Value, &rows); err != nil || len(rows) != 3 {
				t.Fatalf("%s for %s: %s %s", w.name, user, s.Value, s.Error)
			}
			c.ownText(t, user, string(s.Value))
			c.upstream(t, user)
			if _, messages := b.seen(t); len(messages) > 0 {
				t.Errorf("%s: the console says %v", w.name, messages)
			}
			holdsNothing(t, b, w.name)
		}
		for _, r := range clientRefusals() {
			if w.show == "zodBird" && (r.status == http.StatusTooManyRequests || r.status >= 500) {
				continue // it tries for half a minute; TestZodBird has these
			}
			c.isRefused(t, b, w, r)
		}
	}
}

// isRefused calls an example that is refused, and reads what its user reads.
func (c *clients) isRefused(t *testing.T, b *browser, w way, r clientRefusal) {
	t.Helper()
	params, _ := c.arrange(t, r, always)
	user := r.user
	if user == "" {
		user = "ada"
	}
	c.visit(t, b, w, user, nil, r.opts...)
	s := b.calls(t, w.show, params)
	switch {
	case w.show == "zodBird" && r.status == http.StatusForbidden:
		if s.Error != "Unauthorized" {
			t.Errorf("%s, %s: the user reads %q", w.name, r.name, s.Error)
		}
	case !isSentence(s.Error) || !strings.Contains(s.Error, r.sentence):
		t.Errorf("%s, %s: the user reads %q (%s), want %q", w.name, r.name, s.Error, s.Value, r.sentence)
	}
	responses, _ := b.seen(t)
	for _, seen := range responses {
		if seen.Method != http.MethodOptions && strings.Contains(seen.URL, "/v0/pipes/") && seen.Status != r.status {
			t.Errorf("%s, %s: status %d, want %d", w.name, r.name, seen.Status, r.status)
		}
	}
	unread := 0
	if w.show == "zodBird" {
		unread = http.StatusForbidden
	}
	if minted := b.minted(t, unread); len(minted) > 0 {
		t.Errorf("%s, %s: the browser holds a Tinybird token: %s", w.name, r.name, minted)
	}
}

// TestPlainPage: a page without any build, under the origin of the pipes.
func TestPlainPage(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	for _, user := range []string{"cleo", "ada"} {
		b.begin(t, instruction{})
		c.signIn(t, b, shopHost, user)
		b.open(t, c.origin(shopHost)+"/fetch.html?limit=5")
		c.ownText(t, user, b.await(t, "#pages", tenants[organization(t, user)]))
		c.upstream(t, user)
		holdsNothing(t, b, "plain page")
	}
	b.looks(t, "plain")

	for _, r := range clientRefusals() {
		params, _ := c.arrange(t, r, always)
		query := url.Values{}
		for name, value := range params {
			query.Set(name, value.(string))
		}
		user := r.user
		if user == "" {
			user = "ada"
		}
		b.begin(t, instruction{})
		c.signIn(t, b, shopHost, user, r.opts...)
		b.open(t, c.origin(shopHost)+"/fetch.html?"+query.Encode())
		if text := b.await(t, "#error", r.sentence); !isSentence(text) {
			t.Errorf("%s: the page says %q", r.name, text)
		}
		holdsNothing(t, b, r.name)
	}
	b.looks(t, "plain-error")

	b.begin(t, instruction{})
	b.open(t, c.origin(shopHost)+"/fetch.html")
	if text := b.await(t, "#error", "."); text != "No session was found. Sign in, or send a Clerk session token as Authorization: Bearer and the token." {
		t.Errorf("without a session the page says %q", text)
	}
	b.begin(t, instruction{})
	b.open(t, c.origin(unsetHost)+"/fetch.html")
	if text := b.await(t, "#error", "."); text != "Something is not set up here. Ask whoever runs this service." {
		t.Errorf("without a clerk_auth the page says %q", text)
	}
}

// TestFetchOtherStatuses: a script of the page can send what the client libraries do not.
func TestFetchOtherStatuses(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	c.signIn(t, b, shopHost, "ada")
	b.open(t, c.origin(shopHost)+"/?show=none")
	const pipe = "/v0/pipes/top_pages.json"
	for name, r := range map[string]struct {
		url    string
		init   instruction
		status int
		code   string
	}{
		"a malformed query":  {url: pipe + "?a=%zz", status: 400, code: "bad_query"},
		"a broken body":      {url: pipe, init: instruction{"method": "POST", "headers": instruction{"Content-Type": "application/json"}, "body": `{"a":`}, status: 400, code: "bad_body"},
		"another method":     {url: pipe, init: instruction{"method": "PUT"}, status: 405, code: "method_not_allowed"},
		"a long URL":         {url: pipe + "?a=" + strings.Repeat("a", 9000), status: 414, code: "url_too_long"},
		"SQL":                {url: pipe, init: instruction{"method": "POST", "body": "SELECT 1"}, status: 415, code: "unsupported_body"},
		"a large body":       {url: pipe, init: instruction{"method": "POST", "headers": instruction{"Content-Type": "application/json"}, "body": `{"a":"` + strings.Repeat("a", 1<<20) + `"}`}, status: 413, code: "body_too_large"},
		"the SQL API":        {url: "/v0/sql?q=SELECT+1", status: 404, code: "not_found"},
		"a pipe that is not": {url: "/v0/pipes/leaky_report.json", status: 404, code: "not_found"},
	} {
		var f fetched
		b.do(t, instruction{"do": "fetch", "url": r.url, "init": r.init}, &f)
		code, sentence := reply{&http.Response{StatusCode: f.Status}, []byte(f.Body)}.refusal(t)
		if f.Status != r.status || code != r.code || !isSentence(strings.ReplaceAll(sentence, "Content-Type: application/json", "")) {
			t.Errorf("%s: %d %s %q", name, f.Status, code, sentence)
		}
	}
	if up := c.stack.API.Requests(); len(up) > 0 {
		t.Errorf("%d of these went up", len(up))
	}
	holdsNothing(t, b, "fetch")
}

// TestOtherSites: a page of a listed site may read refusals and how long to wait; one of another site reads nothing, and its browser
// does not even ask for it.
func TestOtherSites(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	w := way{name: "another site", show: "fetch", origin: c.origin(pagesOnly), token: true}
	tooMany := clientRefusals()[6]
	c.arrange(t, tooMany, always)
	c.visit(t, b, w, "ada", nil)
	var f fetched
	b.do(t, instruction{"do": "fetch", "url": c.origin(apiHost) + "/v0/pipes/top_pages.json", "init": instruction{
		"headers": instruction{"Authorization": "Bearer " + c.token(t, "ada"), "X-Request-Id": "1"},
	}}, &f)
	if f.Status != tooMany.status || f.Header["retry-after"] != "1" {
		t.Errorf("a page of a listed site reads %d and %v", f.Status, f.Header)
	}

	c.stack.API.Fail(nil)
	c.stack.API.Reset()
	w.origin = c.origin(strangers)
	c.visit(t, b, w, "ada", nil)
	if s := b.calls(t, "fetch", map[string]any{"limit": 3}); s.Error != "Failed to fetch" {
		t.Errorf("a page of another site reads %s %q", s.Value, s.Error)
	}
	if _, messages := b.seen(t); !strings.Contains(strings.Join(messages, " "), "has been blocked by CORS policy") {
		t.Errorf("the developer of another site reads %v", messages)
	}
	if up := c.stack.API.Requests(); len(up) > 0 {
		t.Errorf("%d questions of another site went up", len(up))
	}
}

// TestPageWithItsOwnToken: a page that asks at the token endpoint gets a Tinybird token, which is what the other tests look for in vain,
// and reads its own rows with it.
func TestPageWithItsOwnToken(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	w := way{name: "token endpoint", show: "none", origin: c.origin(shopHost), cookie: true}
	for _, user := range []string{"ada", "cleo"} {
		c.visit(t, b, w, user, nil)
		s := b.calls(t, "askTinybird", nil)
		if s.Error != "" {
			t.Fatalf("%s: %s", user, s.Error)
		}
		c.ownText(t, user, string(s.Value))
		if minted := b.minted(t, 0); len(minted) == 0 {
			t.Error("the token that the page asked for is not found, so no other would be either")
		}
	}
	for name, r := range map[string]struct{ user, sentence string }{
		"nobody":          {"", "No session was found. Sign in, or send a Clerk session token as Authorization: Bearer and the token."},
		"no organization": {"dana", "Choose an organization"},
	} {
		b.begin(t, instruction{})
		if r.user != "" {
			c.signIn(t, b, shopHost, r.user)
		}
		b.open(t, page(w.origin, w.show, nil))
		if s := b.calls(t, "askTinybird", nil); !isSentence(s.Error) || !strings.Contains(s.Error, r.sentence) {
			t.Errorf("%s: the user reads %q", name, s.Error)
		}
		holdsNothing(t, b, name)
	}
}
