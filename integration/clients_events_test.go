//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// stored are the rows that a data source took, each of which has to be stamped for the user.
func (c *clients) stored(t *testing.T, datasource, user string) (rows []map[string]any) {
	t.Helper()
	who, _ := devstack.UserByKey(user)
	for _, raw := range c.stack.API.Events(datasource) {
		var row map[string]any
		if err := json.Unmarshal(raw, &row); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		if row["organization_id"] != organization(t, user) || row["user_id"] != who.ID {
			t.Errorf("a row of %s was stored as %s", user, raw)
		}
		rows = append(rows, row)
	}
	return rows
}

// appendedOnly fails the test unless all that went up were rows with the append token.
func (c *clients) appendedOnly(t *testing.T, n int) {
	t.Helper()
	all := c.stack.API.Requests()
	if len(all) != n {
		t.Errorf("%d requests went up, want %d", len(all), n)
	}
	for _, up := range all {
		if up.Path != "/v0/events" || len(up.Tokens) != 1 || up.TokenFrom != "header" || up.Token != c.stack.API.AppendToken() {
			t.Errorf("%s with %d tokens, judged by the %s", up.Path, len(up.Tokens), up.TokenFrom)
		}
	}
	c.stack.API.Reset()
}

// TestServersSendRows: the SDK and zod-bird send rows for their visitors, who cannot send them for anybody else.
func TestServersSendRows(t *testing.T) {
	t.Parallel()
	for _, client := range []string{"sdk", "zod-bird"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			c := startClients(t)
			n := c.startNode(t)
			view := map[string]any{"path": "/checkout", "visits": 3, "organization_id": devstack.GlobexID, "user_id": "user_2other"}
			o := n.do(t, call{Client: client, Call: "record", Args: []any{c.token(t, "ada"), view}})
			if o.Error != nil || string(o.Value) != `{"successful_rows":1,"quarantined_rows":0}` {
				t.Fatalf("%s, %+v", o.Value, o.Error)
			}
			if rows := c.stored(t, "page_views", "ada"); len(rows) != 1 || rows[0]["path"] != "/checkout" || rows[0]["visits"] != 3.0 {
				t.Errorf("stored %v", rows)
			}
			c.appendedOnly(t, 1)
			for _, r := range clientRefusals() {
				if r.params == nil && r.fault == nil || r.status == http.StatusTooManyRequests || r.status >= 500 {
					c.refusesRows(t, n, client, r)
				}
			}
			long := map[string]any{"path": strings.Repeat("/", 1<<20), "visits": 1}
			o = n.do(t, call{Client: client, Call: "record", Args: []any{c.token(t, "ada"), long}})
			const sentence = "Row 1 is longer than 1048576 bytes. Send shorter rows."
			if o.Error == nil || !strings.HasSuffix(o.Error.Message, sentence) || len(o.Answers) != 1 || o.Answers[0].Status != http.StatusRequestEntityTooLarge {
				t.Errorf("a long row: %s, %+v", o.Value, o.Error)
			}
			// Those that the API refused are with it all the same: it says other things than it does.
			for _, row := range c.stored(t, "page_views", "ada")[1:] {
				if row["path"] != "/refused" {
					t.Errorf("stored %v", row)
				}
			}
		})
	}
}

// refusesRows sends rows that are refused. zod-bird then repeats what it repeats.
func (c *clients) refusesRows(t *testing.T, n *nodeClients, client string, r clientRefusal) {
	t.Helper()
	_, token := c.arrange(t, r, always)
	view := map[string]any{"path": "/refused", "visits": 1}
	retried := client == "zod-bird" && (r.status == http.StatusTooManyRequests || r.status >= 500)
	o := n.do(t, call{Client: client, Call: "record", Args: []any{token, view}, Hurry: retried})
	c.stack.API.Fail(nil)
	if o.Error == nil || len(o.Answers) == 0 || o.Answers[0].Status != r.status {
		t.Errorf("%s: %s, %d answers", r.name, o.Value, len(o.Answers))
		return
	}
	if retried {
		if len(o.Answers) != 10 {
			t.Errorf("%s: %d attempts", r.name, len(o.Answers))
		}
		return
	}
	text, introduced := strings.CutPrefix(o.Error.Message, "Unable to ingest to page_views: ")
	if len(o.Answers) != 1 || introduced != (client == "zod-bird") {
		t.Errorf("%s: %d attempts, and the developer reads %q", r.name, len(o.Answers), o.Error.Message)
	}
	if client == "zod-bird" && r.status == http.StatusForbidden {
		if text != "Unauthorized" {
			t.Errorf("%s: the developer reads %q", r.name, o.Error.Message)
		}
		return
	}
	if !isSentence(text) {
		t.Errorf("%s: the developer reads %q", r.name, o.Error.Message)
	}
}

// TestZodBirdSendsManyRows: what was taken of a large body is not sent again by zod-bird itself, and its error says where to go on.
func TestZodBirdSendsManyRows(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	n := c.startNode(t)
	const rows = 30
	var views []map[string]any
	for i := range rows {
		views = append(views, map[string]any{"path": fmt.Sprintf("/%d/%s", i, strings.Repeat("a", 60_000)), "visits": i})
	}
	o := n.do(t, call{Client: "zod-bird", Call: "record", Args: []any{c.token(t, "ada"), views}})
	if o.Error != nil || string(o.Value) != fmt.Sprintf(`{"successful_rows":%d,"quarantined_rows":0}`, rows) {
		t.Fatalf("%s, %+v", o.Value, o.Error)
	}
	if n := len(c.stored(t, "page_views", "ada")); n != rows {
		t.Errorf("%d rows are stored, want %d", n, rows)
	}

	for status, sentence := range map[int]string{
		http.StatusTooManyRequests:    "Not all rows were taken. Send those from row ",
		http.StatusServiceUnavailable: "Not all rows are known to have been taken. ",
	} {
		var asked atomic.Int64
		c.stack.API.Fail(func(*http.Request) *devstack.Fault {
			if asked.Add(1) == 2 {
				return &devstack.Fault{Status: status}
			}
			return nil
		})
		o = n.do(t, call{Client: "zod-bird", Call: "record", Args: []any{c.token(t, "ada"), views}})
		if o.Error == nil || len(o.Answers) != 1 || o.Answers[0].Status != http.StatusConflict {
			t.Fatalf("%d: %s, %d answers", status, o.Value, len(o.Answers))
		}
		if text, ok := strings.CutPrefix(o.Error.Message, "Unable to ingest to page_views: "); !ok || !isSentence(text) || !strings.HasPrefix(text, sentence) {
			t.Errorf("%d: the developer reads %q", status, o.Error.Message)
		}
	}
}

// TestTracker: flock.js in a page, by both of its paths. Its rows are its visitor's.
func TestTracker(t *testing.T) {
	t.Parallel()
	for file, datasource := range map[string]string{"tracker.html": "page_views", "tracker-proxy.html": "analytics_events"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			c := startClients(t)
			b := startBrowser(t)
			c.signIn(t, b, shopHost, "ada")
			b.open(t, c.origin(shopHost)+"/"+file)
			eventually(t, "the visit is stored", func() bool { return len(c.stack.API.Events(datasource)) == 1 })
			b.do(t, instruction{"do": "press", "selector": "button"}, nil)
			eventually(t, "the click is stored", func() bool { return len(c.stack.API.Events(datasource)) == 2 })

			rows := c.stored(t, datasource, "ada")
			for i, want := range []struct{ action, payload string }{{"page_hit", `"pathname":"/` + file + `"`}, {"add_to_cart", `"sku":"A-1"`}} {
				payload, _ := rows[i]["payload"].(string)
				if rows[i]["action"] != want.action || !strings.Contains(payload, want.payload) || rows[i]["session_id"] == "" {
					t.Errorf("stored %v, want %v", rows[i], want)
				}
			}
			if rows[0]["session_id"] != rows[1]["session_id"] {
				t.Error("the rows are of two visits")
			}
			c.appendedOnly(t, 2)
			b.isRead(t, http.StatusAccepted)
			holdsNothing(t, b, file)

			// Nobody's rows are not taken, and the page does not mind.
			b.begin(t, instruction{})
			b.open(t, c.origin(shopHost)+"/"+file)
			b.isRead(t, http.StatusUnauthorized)
			b.do(t, instruction{"do": "press", "selector": "button"}, nil)
			b.isRead(t, http.StatusUnauthorized)
			if n := len(c.stack.API.Events(datasource)); n != 2 {
				t.Errorf("%d rows are stored", n)
			}
		})
	}
}

// isRead waits until the browser got an answer about rows, all of which have to have the status.
func (b *browser) isRead(t *testing.T, status int) {
	t.Helper()
	eventually(t, "there is an answer about rows", func() bool {
		found := false
		responses, _ := b.seen(t)
		for _, r := range responses {
			if r.Method == http.MethodPost {
				found = true
				if r.Status != status {
					t.Errorf("%s was answered %d, want %d", r.URL, r.Status, status)
				}
			}
		}
		return found
	})
}

// TestTrackerOfAnotherOrigin: the tracker sends no cookies to another origin, so what it sends there needs a session token in the URL,
// which is its attribute data-token.
func TestTrackerOfAnotherOrigin(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	b := startBrowser(t)
	c.signIn(t, b, shopHost, "ada")
	b.open(t, c.neighbour()+"/tracker.html")
	b.isRead(t, http.StatusUnauthorized)

	b.begin(t, instruction{})
	b.open(t, c.origin(pagesOnly)+"/?show=none")
	b.evaluate(t, fmt.Sprintf(`(() => {
		const script = document.createElement("script");
		Object.entries({ src: "/flock.js", "data-host": %q, "data-datasource": "page_views", "data-token": %q })
			.forEach(([name, value]) => script.setAttribute(name, value));
		document.body.append(script);
	})()`, c.origin(apiHost), c.token(t, "cleo")), nil)
	eventually(t, "the visit is stored", func() bool { return len(c.stack.API.Events("page_views")) == 1 })
	c.stored(t, "page_views", "cleo")
	c.appendedOnly(t, 1)
	holdsNothing(t, b, "tracker of another origin")
}
