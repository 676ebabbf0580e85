//go:build integration

package integration

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// limitedSite limits one pipe, and lets the other ones have what no test uses up.
const limitedSite = `
http://{$EDGE} {
	tinybird {
		` + credentials + `
		rate_limit 1000000
		rate_limit redis {env.REDIS_URL} {
			timeout %s
		}
		fixed_param organization_id {clerk.org.id}
		pipe live_events
		pipe top_pages {
			rate_limit %d burst %d
		}
	}
}
`

// twin is another edge in front of the same stand-ins.
func (e *edge) twin(t *testing.T) *edge {
	t.Helper()
	other := *e
	other.process, other.addr, other.home = nil, freeAddr(t), t.TempDir()
	other.env = append([]string(nil), e.env...)
	other.setenv("EDGE", other.addr)
	other.setenv("ADMIN", freeAddr(t))
	other.setenv("STORAGE", other.home+"/storage")
	return &other
}

// metric is the value of a metric with those labels, 0 if there is none.
func (p *process) metric(t *testing.T, name, labels string) float64 {
	t.Helper()
	_, text := p.ask(t, http.MethodGet, "/metrics", "", "")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name+"{"+labels+"}") + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		return 0
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// decisions are how many requests were decided by the store, and how many by the edge alone.
func (p *process) decisions(t *testing.T) (byStore, byEdge float64) {
	t.Helper()
	const name = "caddy_tinybird_shared_limit_decisions_total"
	return p.metric(t, name, `by="store"`), p.metric(t, name, `by="edge"`)
}

// hammer has clients ask an edge for a pipe, every few milliseconds, whatever the answer is, until halt is closed.
func hammer(t *testing.T, e *edge, halt chan struct{}, clients int, pipe string) *sync.WaitGroup {
	t.Helper()
	token := e.token(t, "ada")
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			var c *client
			defer func() { c.close() }()
			for {
				select {
				case <-halt:
					return
				case <-tick.C:
				}
				var err error
				if c == nil {
					c, err = dial(e.addr)
				}
				var got reply
				if err == nil {
					got, err = c.get(e.addr, "/v0/pipes/"+pipe+".json", token)
				}
				if err != nil || got.StatusCode != http.StatusOK && got.StatusCode != http.StatusTooManyRequests {
					t.Errorf("status %v, %v", got.Response, err)
					return
				}
			}
		})
	}
	return &all
}

// TestTwoEdgesOneLimit: a tenant that uses two edges at once gets, over both, what the limit allows, to within 1 %. What was admitted is
// counted where it arrives, at Tinybird's stand-in.
//
// It does not run beside other tests: on a machine that is busy the clients would not use up what they may have.
func TestTwoEdgesOneLimit(t *testing.T) { //nolint:paralleltest // see above
	const rate, burst, clients = 100, 200, 3
	store := startRedis(t)
	first := newEdge(t, devstack.Options{})
	first.setenv("REDIS_URL", "redis://"+store.addr)
	second := first.twin(t)
	edges := []*edge{first, second}
	var admitted atomic.Int64
	first.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		if strings.Contains(r.URL.Path, "top_pages") {
			admitted.Add(1)
		}
		return nil
	})
	for _, e := range edges {
		// A busy machine may take long to answer; what is looked at here is the sum.
		e.run(t, caddyfile("", fmt.Sprintf(limitedSite, "5s", rate, burst)))
		ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json")) // keys are loaded, and connections made
	}

	// The store decides about the first request and about the last one somewhere between the question and the answer.
	ask := func(e *edge) (status int, asked, answered time.Time) {
		asked = time.Now()
		status = e.get(t, "ada", "/v0/pipes/top_pages.json").StatusCode
		return status, asked, time.Now()
	}
	_, asked, answered := ask(first)
	halt := make(chan struct{})
	time.AfterFunc(8*time.Second, func() { close(halt) })
	hammering := []*sync.WaitGroup{hammer(t, first, halt, clients, "top_pages"), hammer(t, second, halt, clients, "top_pages")}
	for _, h := range hammering {
		h.Wait()
	}
	// The last request is the first one that an edge refuses after the load. So nothing is left, and all that was to be had is counted.
	var lastAsked, lastAnswered time.Time
	for before := int64(-1); before != admitted.Load(); {
		before = admitted.Load()
		_, lastAsked, lastAnswered = ask(second)
	}

	n := float64(admitted.Load())
	least := rate*lastAsked.Sub(answered).Seconds() + burst - 1
	most := rate*lastAnswered.Sub(asked).Seconds() + burst
	t.Logf("%v admitted, between %.1f and %.1f are right", n, least, most)
	if n < least || n > most {
		t.Errorf("%v admitted at two edges, want %.1f to %.1f", n, least, most)
	}
	if middle := (least + most) / 2; math.Abs(n-middle) > middle/100 {
		t.Errorf("%v admitted at two edges, want %.1f to within 1 %%", n, middle)
	}
	for _, e := range edges {
		byStore, byEdge := e.decisions(t)
		if byStore < 100 || byEdge != 0 {
			t.Errorf("%v decisions by the store and %v by the edge alone, so the test shows nothing\n%s", byStore, byEdge, e.log.tail())
		}
	}
	if keys := counters(t, store.client(t, redis.Options{})); len(keys) == 0 || len(keys) > 2 {
		t.Errorf("the keys %q", keys)
	}
}

const (
	lostLine = "the shared rate limit's store is lost"
	backLine = "the shared rate limit's store is back"
)

// TestRedisStopsAndStartsUnderLoad: while clients keep asking, Redis is killed and started, and then it hangs and goes on. No request
// fails for it, the edge's own limit holds all the time, each change is one line, and the metrics say it.
func TestRedisStopsAndStartsUnderLoad(t *testing.T) {
	t.Parallel()
	const rate, burst, clients = 20, 40, 4
	store := startRedis(t)
	e := newEdge(t, devstack.Options{})
	e.setenv("REDIS_URL", "redis://"+store.addr)
	var admitted atomic.Int64
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		if strings.Contains(r.URL.Path, "top_pages") {
			admitted.Add(1)
		}
		return nil
	})
	e.run(t, caddyfile("", fmt.Sprintf(limitedSite, "1s", rate, burst)))
	ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json"))

	began := time.Now()
	halt := make(chan struct{})
	hammering := hammer(t, e, halt, clients, "top_pages")
	l := startLoad(t, e, clients)
	goesOn := func(what string, counted func() float64) {
		t.Helper()
		answered, decided := l.answered.Load(), counted()
		eventually(t, "the load goes on "+what, func() bool { return l.answered.Load() > answered+100 && counted() > decided+100 })
	}
	byStore := func() float64 { n, _ := e.decisions(t); return n }
	byEdge := func() float64 { _, n := e.decisions(t); return n }
	lines := func(lost, back int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d times lost and %d times back in the log", lost, back), func() bool {
			log := e.log.String()
			return strings.Count(log, lostLine) == lost && strings.Count(log, backLine) == back
		})
	}
	up := func(want float64) {
		t.Helper()
		eventually(t, fmt.Sprintf("the metric says %v", want), func() bool {
			return e.metric(t, "caddy_tinybird_shared_limit_up", fmt.Sprintf("store=%q", store.addr)) == want
		})
	}

	goesOn("with Redis", byStore)
	up(1)
	for round, outage := range []struct {
		what       string
		begin, end func()
	}{
		{"while Redis is dead", func() { store.stop(t) }, func() { store.start(t) }},
		{"while Redis hangs", func() { store.freeze(t) }, func() { store.thaw(t) }},
	} {
		outage.begin()
		lines(round+1, round)
		up(0)
		goesOn(outage.what, byEdge)
		outage.end()
		lines(round+1, round+1)
		up(1)
		goesOn("after "+outage.what, byStore)
	}
	close(halt)
	hammering.Wait()
	l.end()
	passed := time.Since(began).Seconds()

	for _, failure := range l.failures {
		t.Errorf("failed: %s", failure)
	}
	if len(l.unanswered) > 0 {
		t.Errorf("%d requests were not answered", len(l.unanswered))
	}
	if n, most := float64(admitted.Load()), rate*passed+burst; n > most || n < most/2 {
		t.Errorf("%v admitted in %.1f s, the limit is %.1f", n, passed, most)
	}
	lines(2, 2)
	for line := range strings.Lines(e.log.String()) {
		if !strings.HasPrefix(line, "{") || strings.Contains(line, `"level":"error"`) {
			t.Errorf("the log has the line %s", line)
		}
	}
	t.Logf("%d requests were answered, of which none failed; %d of the limited ones were admitted in %.1f s", l.answered.Load(), admitted.Load(), passed)
}
