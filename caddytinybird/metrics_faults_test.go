package caddytinybird

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestTinybirdsOwnLimitIsCounted apart from the edge's: the answers have the same code, and only these two numbers tell who refused.
func TestTinybirdsOwnLimitIsCounted(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	ctx := newContext(t, storageDir(t))
	h := testHandler(t, stack)
	withPipes("often_refused")(h)
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	e := serve(t, stack, h)
	count := func(metric string) string {
		return metric + `{pipe="often_refused"} `
	}
	if text := gather(t, ctx); !strings.Contains(text, count("caddy_tinybird_upstream_rate_limited_total")+"0\n") {
		t.Errorf("it does not begin at zero: %s", linesWith(text, "often_refused"))
	}
	for _, status := range []int{http.StatusTooManyRequests, http.StatusForbidden, http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Status: status} })
		e.get(t, "ada", "/v0/pipes/often_refused.json")
	}
	text := gather(t, ctx)
	for _, want := range []string{
		count("caddy_tinybird_upstream_rate_limited_total") + "2\n",
		count("caddy_tinybird_rate_limited_total") + "0\n",
		`caddy_tinybird_requests_total{code="rate_limited",pipe="often_refused"} 2` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, linesWith(text, "often_refused"))
		}
	}
	if err := h.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if found := linesWith(gather(t, ctx), "often_refused"); len(found) != 0 {
		t.Errorf("still there: %s", found)
	}
}

// valueOf is the value of a metric, with its labels as it is written.
func valueOf(t *testing.T, ctx caddy.Context, metric string) float64 {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(metric) + ` (\S+)$`).FindStringSubmatch(gather(t, ctx))
	if found == nil {
		t.Fatalf("no %s", metric)
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestFailingStorageIsCounted: keys that cannot be saved cost no request, but the next restart during an outage. The test runs alone,
// because those beside it count there too.
//
//nolint:paralleltest // see above
func TestFailingStorageIsCounted(t *testing.T) {
	const metric = "caddy_clerk_jwks_storage_failures_total"
	stack := newStack(t, devstack.Options{})
	storage := storageDir(t)
	// No directory can be made where a file is, whoever tries.
	if err := os.WriteFile(filepath.Join(storage, "clerk"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := newContext(t, storage)
	h := testHandler(t, stack)
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	before := valueOf(t, ctx, metric)
	onlyTenant(t, serve(t, stack, h).get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	await(t, "a failed save is counted", func() bool { return valueOf(t, ctx, metric) > before })
}

// TestCachesAreMeasured: what is remembered is counted, and what it is at most, of blocks that share it only once.
//
//nolint:paralleltest // other tests' sessions count too
func TestCachesAreMeasured(t *testing.T) {
	stack := newStack(t, devstack.Options{})
	ctx := newContext(t, storageDir(t))
	of := func(metric, cache string) float64 {
		return valueOf(t, ctx, fmt.Sprintf("caddy_tinybird_%s{cache=%q}", metric, cache))
	}
	idle := make(map[string]float64)
	for cache, pool := range map[string]*caddy.UsagePool{"sessions": verifiers, "tokens": minters} {
		_, capacity := remembered(pool)
		idle[cache] = float64(capacity)
	}
	var e *edge
	for range 2 {
		h := testHandler(t, stack)
		if err := provision(t, ctx, h); err != nil {
			t.Fatal(err)
		}
		e = serve(t, stack, h)
	}
	before := map[string]float64{"sessions": of("cache_entries", "sessions"), "tokens": of("cache_entries", "tokens")}
	for _, user := range []string{"ada", "cleo"} {
		e.get(t, user, "/v0/pipes/live_events.json")
	}
	for cache, size := range before {
		if got := of("cache_capacity", cache) - idle[cache]; got != 10_000 {
			t.Errorf("%v %s fit", got, cache)
		}
		await(t, "two "+cache+" are remembered", func() bool { return of("cache_entries", cache)-size == 2 })
	}
}
