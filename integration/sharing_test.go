//go:build integration

package integration

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// sharingSite shares answers, behind what changes answers on their way out: one directive in place, one as a whole.
const sharingSite = `
http://{$EDGE} {
	log
	encode {
		minimum_length 1
	}
	header >Content-Type "^(.*)$" "seen $1"
	tinybird {
		` + credentials + `
		fixed_param organization_id {clerk.org.id}
		pipe live_events {
			cache 1h
		}
		pipe my_activity {
			fixed_param user_id {clerk.user.id}
			cache 1h
		}
	}
}
`

// TestSharedAnswers: hundreds who ask at once, some of whom leave, cost one query for each tenant, and everybody has their own rows, as
// whole as if they were alone. After a reload the queries are made anew.
func TestSharedAnswers(t *testing.T) {
	t.Parallel()
	e := startEdge(t, sharingSite)
	for round := range 2 {
		stampede(t, e)
		asked := make(map[string]int)
		for _, up := range e.stack.API.Requests() {
			name, _ := up.Claims["name"].(string)
			asked[name]++
		}
		if asked[devstack.AcmeID] != 1 || asked[devstack.GlobexID] != 1 || len(asked) != 2 {
			t.Errorf("round %d: asked for %v", round, asked)
		}
		own := make(map[string]string)
		for _, user := range []string{"ada", "ben", "cleo", "ada", "ben", "cleo"} {
			got := e.get(t, user, "/v0/pipes/my_activity.csv")
			ownRows(t, user, got)
			if hit := got.Header.Get("Age") != ""; hit != (own[user] != "") {
				t.Errorf("%s: Cache-Status %q", user, got.Header.Get("Cache-Status"))
			}
			own[user] = string(got.body)
		}
		if own["ada"] == own["ben"] {
			t.Error("two users of one organization share an answer")
		}
		e.stack.API.Reset()
		// A config that is the same would not be loaded.
		if status, answer := e.load(t, caddyfile("", strings.Replace(sharingSite, "1h", strconv.Itoa(round+2)+"h", 1))); status != http.StatusOK {
			t.Fatalf("status %d: %s", status, answer)
		}
	}
	log := e.log.String()
	for _, want := range []string{`"tinybird_cache":"miss"`, `"tinybird_cache":"hit"`} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in the log", want)
		}
	}
	if strings.Contains(log, "panic") || strings.Contains(log, "DATA RACE") {
		t.Error(e.log.tail())
	}
}

// stampede has many ask at once while Tinybird is slow. Some leave, but not those who came first: with nobody else there they would
// take the query along.
func stampede(t *testing.T, e *edge) {
	t.Helper()
	users := []string{"ada", "cleo", "ben"}
	var sent, wg sync.WaitGroup
	entered := make(chan struct{}, 300)
	e.stack.API.Fail(func(*http.Request) *devstack.Fault {
		entered <- struct{}{}
		sent.Wait()
		return nil
	})
	start := func(n int) {
		sent.Add(1)
		r := e.request(t, users[n%3], http.MethodGet, "/v0/pipes/live_events.json", "")
		// All take gzip, and Tinybird's answer is not packed: what they get is packed behind the plugin, for each.
		r.Header.Set("Accept-Encoding", "gzip")
		ctx, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			defer leave()
			if n > 2 && n%10 == 0 {
				go leave()
			}
			if n > 1 {
				sent.Done()
			}
			got, err := unpacked(e.http.Do(r.WithContext(ctx)))
			switch {
			case ctx.Err() != nil: // it left
			case err != nil:
				t.Error(err)
			default:
				if kind := got.Header.Get("Content-Type"); kind != "seen application/json; charset=UTF-8" {
					t.Errorf("Content-Type %q", kind)
				}
				ownRows(t, users[n%3], got)
			}
		})
	}
	for n := range 2 {
		start(n)
		<-entered
	}
	for n := 2; n < cap(entered); n++ {
		start(n)
	}
	sent.Done()
	sent.Done()
	wg.Wait()
	e.stack.API.Fail(nil)
}

// unpacked is an answer with its body, which comes with gzip.
func unpacked(resp *http.Response, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(resp.Body); err != nil {
			return reply{}, err
		}
	}
	text, err := io.ReadAll(body)
	return reply{resp, text}, err
}
