package caddytinybird

import (
	"math"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// withPipes lists pipes that no other test counts.
func withPipes(names ...string) func(*Handler) {
	return func(h *Handler) { h.Pipes = append(h.Pipes, Pipe{Names: names}) }
}

// linesWith are the lines of the metrics that hold the text.
func linesWith(metrics, text string) []string {
	var found []string
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// TestMetricsOfRemovedPipeEnd: a pipe that a reload takes off the list leaves the metrics, also when a request of the old config
// comes in after that, and a pipe that stays keeps its counts.
func TestMetricsOfRemovedPipeEnd(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	before := newEdge(t, stack, withPipes("stays_listed", "leaves_list"))
	for _, pipe := range []string{"stays_listed", "leaves_list"} {
		before.get(t, "ada", "/v0/pipes/"+pipe+".json")
	}
	ctx := newContext(t, storageDir(t))
	h := testHandler(t, stack)
	withPipes("stays_listed")(h)
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	if len(linesWith(gather(t, ctx), `pipe="leaves_list"`)) == 0 {
		t.Fatal("the pipe is not counted, so the test shows nothing")
	}
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	// What was not counted before, by a handler that is no more.
	before.get(t, "", "/v0/pipes/leaves_list.json")
	before.get(t, "ada", "/v0/pipes/leaves_list.json?token=x")
	text := gather(t, ctx)
	if found := linesWith(text, `pipe="leaves_list"`); len(found) != 0 {
		t.Errorf("still there: %s", found)
	}
	if !strings.Contains(text, `caddy_tinybird_requests_total{code="not_found",pipe="stays_listed"} 1`+"\n") {
		t.Errorf("the count of a pipe that stays is lost: %s", linesWith(text, "stays_listed"))
	}
	// Listed again, it begins anew.
	again := testHandler(t, stack)
	withPipes("leaves_list")(again)
	if err := provision(t, newContext(t, storageDir(t)), again); err != nil {
		t.Fatal(err)
	}
	if text := gather(t, ctx); !strings.Contains(text, `caddy_tinybird_requests_total{code="ok",pipe="leaves_list"} 0`+"\n") ||
		strings.Contains(text, `code="not_found",pipe="leaves_list"`) {
		t.Errorf("listed again: %s", linesWith(text, "leaves_list"))
	}
}

// TestMetricsOfRejectedConfigEnd: a config that is rejected after its pipes were counted leaves none of them.
func TestMetricsOfRejectedConfigEnd(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	kept := newContext(t, storageDir(t))
	h := testHandler(t, stack)
	if err := provision(t, kept, h); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		bad := testHandler(t, stack)
		withPipes("never_served")(bad)
		bad.UpstreamErrors = "neither"
		if err := provision(t, newContext(t, storageDir(t)), bad); err == nil {
			t.Fatal("accepted")
		}
		if err := bad.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	if found := linesWith(gather(t, kept), "never_served"); len(found) != 0 {
		t.Errorf("still there: %s", found)
	}
}

// TestMetricsOfAPipeNamedAsNone: a pipe can have the name that stands for what is no pipe, and takes that from nobody
// when it leaves.
func TestMetricsOfAPipeNamedAsNone(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	first := testHandler(t, stack)
	withPipes(otherPipe)(first)
	ctx := newContext(t, storageDir(t))
	if err := provision(t, ctx, first); err != nil {
		t.Fatal(err)
	}
	if err := first.Cleanup(); err != nil {
		t.Fatal(err)
	}
	e.get(t, "ada", "/v0/pipes/unlisted.json")
	if text := gather(t, ctx); !strings.Contains(text, `caddy_tinybird_requests_total{code="not_found",pipe="_other"}`) {
		t.Errorf("not counted: %s", linesWith(text, "_other"))
	}
}

// TestMetricsInEveryRegistry: two handlers of one config, and any number of configs, show the same counts.
func TestMetricsInEveryRegistry(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	contexts := []caddy.Context{newContext(t, storageDir(t)), newContext(t, storageDir(t)), newContext(t, storageDir(t))}
	var last *Handler
	for _, ctx := range contexts {
		for range 2 {
			last = testHandler(t, stack)
			withPipes("counted_once")(last)
			if err := provision(t, ctx, last); err != nil {
				t.Fatal(err)
			}
		}
	}
	serve(t, stack, last).get(t, "ada", "/v0/pipes/counted_once.json")
	for n, ctx := range contexts {
		text := gather(t, ctx)
		if want := `caddy_tinybird_requests_total{code="not_found",pipe="counted_once"} 1` + "\n"; strings.Count(text, want) != 1 {
			t.Errorf("registry %d: %s", n, linesWith(text, "counted_once"))
		}
	}
}

// TestMetricsOfARejectedConfig: Caddy shows the metrics of the config that it loaded last even if it was rejected, and then they are
// those of the one that runs.
func TestMetricsOfARejectedConfig(t *testing.T) {
	t.Parallel()
	newEdge(t, newStack(t, devstack.Options{}), nil)
	ctx := newContext(t, storageDir(t))
	if err := new(AdminAPI).Provision(ctx); err != nil {
		t.Fatal(err)
	}
	gather(t, ctx) // fails without our metrics
}

// TestMetricLabelsAreBounded: nothing that a client sends makes a new label.
func TestMetricLabelsAreBounded(t *testing.T) {
	t.Parallel()
	e := newEdge(t, newStack(t, devstack.Options{}), nil)
	ctx := newContext(t, storageDir(t))
	metrics.register(ctx)
	for n := range 50 {
		name := "made_up_" + strconv.Itoa(n)
		e.get(t, "ada", "/v0/pipes/"+name+".json")
		e.do(t, e.request(t, "ada", http.MethodPut, "/v0/pipes/live_events."+name, nil))
		e.do(t, e.request(t, "", "MADE_UP", "/"+name, nil))
	}
	text := gather(t, ctx)
	if found := linesWith(strings.ToLower(text), "made_up"); len(found) != 0 {
		t.Errorf("labels that a client makes: %s", found)
	}
}

// TestJWKSAge: the age of the keys is that of the issuer's last answer, also when they came from Caddy's storage, and infinite as
// long as there never was one.
func TestJWKSAge(t *testing.T) {
	t.Parallel()
	storage := storageDir(t)
	stack := newStack(t, devstack.Options{})
	url := stack.IssuerURL + "/.well-known/jwks.json"
	age := func(now time.Time) float64 {
		found, ok := keyAges(now)[url]
		if !ok {
			t.Fatalf("no age of %s", url)
		}
		return found
	}
	stack.Issuer.SetDown(true)
	h := testHandler(t, stack)
	if err := provision(t, newContext(t, storage), h); err != nil {
		t.Fatal(err)
	}
	if got := age(time.Now()); !math.IsInf(got, 1) {
		t.Errorf("age %v of keys that never were", got)
	}
	stack.Issuer.SetDown(false)
	e := serve(t, stack, h)
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	if got := age(time.Now()); got < 0 || got > 60 {
		t.Errorf("age %v of new keys", got)
	}
	if got := age(time.Now().Add(time.Hour)); got < 3600 || got > 3660 {
		t.Errorf("age %v after an hour", got)
	}
	awaitSaved(t, storage, stack.Issuer)
	if err := h.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if _, ok := keyAges(time.Now())[url]; ok {
		t.Error("the age of keys that no config uses")
	}
}

// TestOldestKeysCount: of two sets from one address, the older one tells.
func TestOldestKeysCount(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	onlyTenant(t, newEdge(t, stack, nil).get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	never := &keySet{url: stack.IssuerURL}
	never.Set = jwks.New(jwks.Options{URL: stack.IssuerURL + "/.well-known/jwks.json"})
	if _, _, err := keySets.LoadOrNew("another", func() (caddy.Destructor, error) { return never, nil }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keySets.Delete("another") })
	if age := keyAges(time.Now())[stack.IssuerURL+"/.well-known/jwks.json"]; !math.IsInf(age, 1) {
		t.Errorf("age %v", age)
	}
}

// TestSeriesAreMadeOnce: however many ask for a label at once, there is one series for it.
func TestSeriesAreMadeOnce(t *testing.T) {
	t.Parallel()
	made := make(map[string]int)
	s := newSeries(func(label string) *int { made[label]++; return new(int) }, "first")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for n := range 100 {
				s.of(strconv.Itoa(n % 10))
			}
		})
	}
	all.Wait()
	if len(made) != 11 {
		t.Errorf("%d labels", len(made))
	}
	for label, n := range made {
		if n != 1 {
			t.Errorf("%s was made %d times", label, n)
		}
	}
}

// TestCountingAllocatesNothing: what is counted, and not traced, of a request that is answered costs no memory. It runs
// alone, because whatever runs beside it would count.
//
//nolint:paralleltest // see above
func TestCountingAllocatesNothing(t *testing.T) {
	h := testHandler(t, newStack(t, devstack.Options{}))
	if err := provision(t, newContext(t, storageDir(t)), h); err != nil {
		t.Fatal(err)
	}
	r := newRequest(t, "/v0/pipes/live_events.json")
	x := &exchange{visitor: new(visitor), pipe: "live_events"}
	x.outcome.UpstreamStatus, x.outcome.Duration = http.StatusOK, time.Millisecond
	if n := testing.AllocsPerRun(100, func() {
		x.follow(r)
		x.step(stepIdentify)
		x.minted(true)
		h.built(x, 1)
		metrics.verified("")
		counts := h.of(x.pipe)
		counts.requests.of("ok").Inc()
		counts.answered(x.outcome.UpstreamStatus, x.outcome.Duration)
		x.ended("ok")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func newRequest(t testing.TB, target string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://edge.test"+target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestStatusClass names what came back, and that nothing did.
func TestStatusClass(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{0: "none", 99: "none", 100: "1xx", 200: "2xx", 304: "3xx", 429: "4xx", 598: "5xx", 600: "none", -1: "none"} {
		if got := statusClass(status); got != want {
			t.Errorf("%d: %s", status, got)
		}
	}
}

// TestTinybirdAway is counted and timed although no answer came.
func TestTinybirdAway(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	ctx := newContext(t, storageDir(t))
	h := testHandler(t, stack)
	withPipes("never_answers")(h)
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Stop: devstack.DropBeforeHeader} })
	if got := serve(t, stack, h).get(t, "ada", "/v0/pipes/never_answers.json"); got.StatusCode != http.StatusBadGateway {
		t.Fatalf("status %d", got.StatusCode)
	}
	if text := gather(t, ctx); !strings.Contains(text, `caddy_tinybird_upstream_seconds_count{pipe="never_answers",status_class="none"} 1`+"\n") {
		t.Errorf("not timed: %s", linesWith(text, "never_answers"))
	}
}

// TestMetricsAreDescribed compares what can be registered with the table of the documentation: names and labels, both ways. What
// the binary exports of it, and as which type, is looked at by its own tests.
func TestMetricsAreDescribed(t *testing.T) {
	t.Parallel()
	descs := make(chan *prometheus.Desc, 100)
	for _, c := range metrics.all {
		c.Describe(descs)
	}
	close(descs)
	registered := make(map[string]string)
	shown := regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)
	for desc := range descs {
		parts := shown.FindStringSubmatch(desc.String())
		if parts == nil {
			t.Fatalf("a description of another form: %s", desc)
		}
		registered[parts[1]] = parts[2]
	}
	content, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(caddy_[a-z_]+)` \\| (?:counter|gauge|histogram) \\|([^|]*)\\|")
	for _, cells := range row.FindAllStringSubmatch(string(content), -1) {
		want := strings.Join(strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(cells[2])), ",")
		if got, ok := registered[cells[1]]; !ok || got != want {
			t.Errorf("%s is described with the labels %q, and has %q", cells[1], want, got)
		}
		delete(registered, cells[1])
	}
	for name := range registered {
		t.Errorf("%s is not described", name)
	}
}
