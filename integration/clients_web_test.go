//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// signIn gives the browser Clerk's cookies at a host.
func (c *clients) signIn(t *testing.T, b *browser, host, user string, opts ...devstack.TokenOption) {
	t.Helper()
	cookies, err := c.stack.Issuer.Cookies(user, append(with(devstack.IssuedAt(time.Now())), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	var set []instruction
	for _, k := range cookies {
		mode := "Lax"
		if k.SameSite == http.SameSiteStrictMode {
			mode = "Strict"
		}
		set = append(set, instruction{"name": k.Name, "value": k.Value, "domain": host, "path": "/", "sameSite": mode})
	}
	b.do(t, instruction{"do": "setCookies", "cookies": set}, nil)
}

// givesToken is the page's Clerk, as far as the examples use it: the session has a token for whoever asks.
func (c *clients) givesToken(t *testing.T, b *browser, token string) {
	t.Helper()
	b.do(t, instruction{"do": "preload", "script": fmt.Sprintf("window.Clerk = { session: { getToken: async () => %q } }", token)}, nil)
}

// page is the address of the page with a dashboard.
func page(origin, show string, params map[string]any) string {
	text, _ := json.Marshal(params)
	return origin + "/?" + url.Values{"show": {show}, "params": {string(text)}}.Encode()
}

// holdsNothing fails the test if anything that the browser got or keeps is a token of Tinybird's.
func holdsNothing(t *testing.T, b *browser, title string) {
	t.Helper()
	if minted := b.minted(t); len(minted) > 0 {
		t.Errorf("%s: the browser holds a Tinybird token: %s", title, minted)
	}
}

// minted are the tokens of Tinybird's in all that the browser got and keeps: answers, console, cookies, storage, document.
func (b *browser) minted(t *testing.T) []string {
	t.Helper()
	var all json.RawMessage
	b.do(t, instruction{"do": "holds"}, &all)
	if !strings.Contains(string(all), "/v0/pipes/") && !strings.Contains(string(all), "/tinybird/token") {
		t.Errorf("the browser asked for nothing, so this shows nothing")
	}
	return tinybirdTokens(string(all))
}

// await waits for a text in an element, and returns all of the element's.
func (b *browser) await(t *testing.T, selector, pattern string) string {
	t.Helper()
	var answer struct {
		Text string `json:"text"`
	}
	b.do(t, instruction{"do": "await", "selector": selector, "pattern": pattern}, &answer)
	return answer.Text
}

// screenshot writes a picture of the whole page into SCREENSHOTS, if that directory is named, for people to look at.
func (b *browser) screenshot(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	for _, width := range []int{1280, 390} {
		b.resize(t, width, 844)
		b.do(t, instruction{"do": "screenshot", "path": filepath.Join(dir, name+"-"+strconv.Itoa(width)+".png")}, nil)
	}
	b.resize(t, 1280, 720)
}

// showsDashboard waits for the two charts of an example, in which are the user's rows: a table of n pages, and a picture with something on it.
func (c *clients) showsDashboard(t *testing.T, b *browser, user string, n int) {
	t.Helper()
	c.ownText(t, user, b.await(t, "#root", "Pages[^]*"+tenants[organization(t, user)]))
	var shown struct {
		Rows   int `json:"rows"`
		Colors int `json:"colors"`
	}
	b.evaluate(t, `(async () => {
		for (let i = 0; !document.querySelector("canvas"); i++) await new Promise(requestAnimationFrame);
		await new Promise(requestAnimationFrame);
		const canvas = document.querySelector("canvas");
		const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
		return {
			rows: document.querySelectorAll("#root tbody tr").length,
			colors: new Set(new Uint32Array(data.buffer)).size,
		};
	})()`, &shown)
	if shown.Rows != n || shown.Colors < 3 {
		t.Errorf("the dashboard of %s has %d rows and %d colors", user, shown.Rows, shown.Colors)
	}
}

// upstream checks all that went up since the last call: questions in the name of the user.
func (c *clients) upstream(t *testing.T, user string) (all []devstack.Recorded) {
	t.Helper()
	all = c.stack.API.Requests()
	c.stack.API.Reset()
	if len(all) == 0 {
		t.Error("nothing went up")
	}
	for _, up := range all {
		pipe := strings.TrimSuffix(strings.TrimPrefix(up.Path, "/v0/pipes/"), ".json")
		wellFormed(t, c.edge, up, user, pipe)
	}
	return all
}

// neighbour is the pages' origin that has the cookies of shopHost, and is another origin all the same.
func (c *clients) neighbour() string { return "http://" + shopHost + ":" + c.pagesPort }

// way is one of the ways in which a page says who asks.
type way struct {
	name, show, origin string

	cookie bool // the browser has Clerk's cookies for the host of the pages
	token  bool // the page has a Clerk that gives it session tokens
}

func (c *clients) chartWays() []way {
	return []way{
		{name: "cookie, same origin", show: "charts", origin: c.origin(shopHost), cookie: true},
		{name: "cookie, same origin, sentences", show: "chart-error", origin: c.origin(shopHost), cookie: true},
		{name: "cookie, another port", show: "charts-cookie-cors", origin: c.neighbour(), cookie: true},
		{name: "bearer, another site", show: "charts-bearer", origin: c.origin(pagesOnly), token: true},
		{name: "token in the URL, another site", show: "charts-token", origin: c.origin(pagesOnly), token: true},
	}
}

// visit opens a new browser's page for a user, who has what the way needs.
func (c *clients) visit(t *testing.T, b *browser, w way, user string, params map[string]any, opts ...devstack.TokenOption) {
	t.Helper()
	b.begin(t, instruction{})
	if w.cookie {
		c.signIn(t, b, shopHost, user, opts...)
	}
	if w.token {
		c.givesToken(t, b, c.token(t, user, opts...))
	}
	b.open(t, page(w.origin, w.show, params))
}

// TestCharts: Tinybird's charts in a page, with each of the ways in which they can say who asks.
func TestCharts(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	for _, w := range c.chartWays() {
		for _, user := range []string{"cleo", "ada"} {
			c.visit(t, b, w, user, map[string]any{"limit": 5})
			c.showsDashboard(t, b, user, 5)
			for _, up := range c.upstream(t, user) {
				if q := up.RawQuery; !strings.Contains(q, "limit=5") || strings.Contains(q, "token") {
					t.Errorf("%s: the query %s went up", w.name, q)
				}
			}
			if _, messages := b.seen(t); len(messages) > 0 {
				t.Errorf("%s: the console says %v", w.name, messages)
			}
			holdsNothing(t, b, w.name)
		}
	}
	b.screenshot(t, "charts")
}

// TestChartsLongParameters: above 2048 characters of URL the charts send every other parameter in a body, and leave the rest in
// the query. Whichever way a parameter goes, it counts, and the tenant's cannot be set.
func TestChartsLongParameters(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	day := time.Now().UTC().AddDate(0, 0, -7).Format(time.DateOnly)
	inBody, inQuery := map[string]int{}, map[string]int{}
	for _, w := range c.chartWays() {
		if w.show == "charts-bearer" || w.show == "charts-cookie-cors" {
			continue // with a fetch of their own
		}
		// JSON has its members in the order of their names, so the first of them moves the others by one place.
		for _, first := range []string{"", "a"} {
			params := map[string]any{"date_from": day, "limit": 2, "organization_id": devstack.GlobexID, "user_id": "user_2other", "zz": strings.Repeat("z", 2100)}
			if first != "" {
				params[first] = 1
			}
			c.visit(t, b, w, "ada", params)
			c.showsDashboard(t, b, "ada", 2)
			for _, up := range c.upstream(t, "ada") {
				if up.Method != http.MethodPost || strings.Contains(up.RawQuery+string(up.Body), devstack.GlobexID) {
					t.Fatalf("%s: %s with %s and %s went up", w.name, up.Method, up.RawQuery, up.Body)
				}
				var body map[string]any
				if err := json.Unmarshal(up.Body, &body); err != nil {
					t.Fatal(err)
				}
				query, err := url.ParseQuery(up.RawQuery)
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"date_from", "limit"} {
					switch _, has := body[name]; {
					case has != query.Has(name):
					default:
						t.Errorf("%s: %s went up in the body: %v, in the query: %v", w.name, name, has, query.Has(name))
					}
					if query.Has(name) {
						inQuery[name]++
					} else {
						inBody[name]++
					}
				}
			}
			holdsNothing(t, b, w.name)
		}
	}
	for _, name := range []string{"date_from", "limit"} {
		if inBody[name] == 0 || inQuery[name] == 0 {
			t.Errorf("%s was %d times in a body and %d times in a query, so this shows half", name, inBody[name], inQuery[name])
		}
	}
}

// TestChartsSayWhatIsWrong: whatever the edge refuses with, there is a sentence about it where the chart would be.
func TestChartsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	for _, w := range c.chartWays() {
		for _, r := range clientRefusals() {
			params, _ := c.arrange(t, r, always)
			user := r.user
			if user == "" {
				user = "ada"
			}
			c.visit(t, b, w, user, params, r.opts...)
			text := b.await(t, "#root", r.sentence+`[^]*`+r.sentence)
			lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
			if len(lines) != 2 {
				t.Errorf("%s, %s: two charts say %q", w.name, r.name, text)
			}
			for _, line := range lines {
				if w.show == "charts" || w.show == "charts-token" {
					// The charts' own text is the whole body.
					var body struct{ Error, Code string }
					if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "Error: ")), &body); err != nil || body.Code != r.code {
						t.Errorf("%s, %s: the chart says %q", w.name, r.name, line)
					}
					line = body.Error
				}
				if !isSentence(line) {
					t.Errorf("%s, %s: the chart says %q", w.name, r.name, line)
				}
			}
			holdsNothing(t, b, w.name)
		}
		b.screenshot(t, "error-"+w.show)
	}
}
