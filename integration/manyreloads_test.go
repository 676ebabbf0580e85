//go:build integration

package integration

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestThousandReloads: a thousand reloads, with configs that are rejected in between, while clients keep asking and one request is under
// way all the time. Nothing that Caddy had accepted is lost, no counter, no request under way; what was verified is not
// verified anew; goroutines and memory are in the end what they were near the beginning.
func TestThousandReloads(t *testing.T) {
	t.Parallel()
	const reloads, warm, clients = 1000, 100, 2
	e := newEdge(t, devstack.Options{})
	var mu sync.Mutex
	asked := make(map[string]int)
	entered, letGo := make(chan struct{}), make(chan struct{})
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		if r.URL.Query().Has("hold") {
			close(entered)
			select {
			case <-letGo:
			case <-r.Context().Done():
			}
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.Query().Get("attempt")]++
		return nil
	})
	config := func(n int) string {
		return strings.NewReplacer(
			"\tpipe live_events\n", "\tpipe live_events\n\t\tpipe sales_by_day {\n\t\t\tconcurrency 1\n\t\t}\n",
			"keepalive 1s\n", "keepalive 1s\n\t\t\tresponse_header_timeout 30m\n",
		).Replace(generation(n))
	}
	e.run(t, config(0))
	goroutines := e.goroutines(t)
	begin := time.Now()
	used := 0
	count := func() (left int) {
		got := e.getNow(t, "cleo", "/v0/pipes/top_pages.json?a=%zz") // refused after it was counted, so that Tinybird is left out
		left, err := strconv.Atoi(got.Header.Get("X-Ratelimit-Remaining"))
		if err != nil {
			t.Fatalf("status %d, %v", got.StatusCode, got.Header)
		}
		used++
		return left
	}
	for range 900 {
		count()
	}
	token := e.token(t, "ada", devstack.Lifetime(time.Hour))
	under := make(chan int, 1)
	go func() {
		c, err := dial(e.addr)
		if err != nil {
			under <- 0
			return
		}
		defer c.close()
		got, err := c.wait(e.addr, "/v0/pipes/sales_by_day.json?hold=1", token)
		if err != nil {
			under <- 0
			return
		}
		under <- got.StatusCode
	}()
	<-entered

	l := startLoad(t, e, clients)
	bad := rejected(e)
	var heap int
	for n := 1; n <= reloads; n++ {
		if n%5 == 0 {
			if status, answer := e.load(t, bad[n/5%len(bad)]); status == http.StatusOK {
				t.Errorf("a config that should be rejected was accepted: %s", answer)
			}
		}
		if status, answer := e.load(t, config(n)); status != http.StatusOK {
			t.Fatalf("reload %d: status %d: %s", n, status, answer)
		}
		if n%50 == 0 {
			got := e.getNow(t, "ada", "/v0/pipes/sales_by_day.json")
			if got.StatusCode != http.StatusTooManyRequests || got.Header.Get("X-Generation") != strconv.Itoa(n) {
				t.Errorf("reload %d: the request under way is forgotten: %d, generation %s", n, got.StatusCode, got.Header.Get("X-Generation"))
			}
		}
		if n == warm {
			heap = e.heap(t)
		}
	}
	grown := e.heap(t) - heap
	l.end()
	if grown > (reloads-warm)*16<<10 {
		t.Errorf("%d bytes more after %d reloads", grown, reloads-warm)
	}
	close(letGo)
	if status := <-under; status != http.StatusOK {
		t.Errorf("the request under way was answered with %d", status)
	}
	left, passed := count(), int(time.Since(begin).Seconds())+1
	if most := max(1000-used, 0) + passed; left > most && passed < 900 {
		t.Errorf("%d of 1000 left after %d requests, at most %d were expected: the count was lost", left, used, most)
	}
	t.Logf("%d reloads in %v, %d bytes more on the heap", reloads, time.Since(begin).Round(time.Second), grown)
	report(t, e, l, asked, &mu)
	e.wantGoroutines(t, goroutines)
}

var heapAlloc = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)

// heap is how many bytes the garbage collector leaves the process.
func (p *process) heap(t *testing.T) int {
	t.Helper()
	return p.profiled(t, "heap?gc=1&debug=1", heapAlloc)
}
