//go:build integration

package integration

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/floods"
	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/storm"
)

// everythingLogged has Caddy write all that it can: debug lines, the access log with the filter of the documentation for tokens in URLs, and
// each span of a trace.
func everythingLogged(t *testing.T) (options string, env []string) {
	t.Helper()
	const more = "replace token REDACTED\n replace access REDACTED\n replace __clerk_handshake REDACTED\n replace __clerk_db_jwt REDACTED"
	filter := strings.Replace(docsSnippet(t, "logs.md", "format filter"), "replace token REDACTED", more, 1)
	return "\tdebug\n" + filter, []string{"OTEL_TRACES_EXPORTER=console", "OTEL_BSP_SCHEDULE_DELAY=10"}
}

// searchAll looks for what was planted in all that came out: the log, what the program saw, and the files that the process left.
func searchAll(t *testing.T, v *vault, log *output, home string, proofs ...string) {
	t.Helper()
	text := log.String()
	for _, proof := range proofs {
		if !strings.Contains(text, proof) {
			t.Errorf("no %s in the log, so the search shows nothing", proof)
		}
	}
	v.search(t, "the log", text)
	v.searchSeen(t)
	searchFiles(t, v, filepath.Join(home, "edge"))
	if len(v.planted) < 500 || len(v.seen) == 0 {
		t.Errorf("%d secrets planted and %d places searched, so the test shows nothing", len(v.planted), len(v.seen))
	}
	t.Logf("%d secrets, %d MiB of log", len(v.planted), len(text)>>20)
}

// TestStorm is twenty seconds of `make storm`: tenants ask in every way while configs are loaded, keys are rotated, and Clerk, Tinybird and
// Redis fail in turn. No answer is another tenant's, none is wrong, none is lost but those that a fault explains, what grows stops growing,
// and no secret is in what came out at debug level.
//
// It does not run beside other tests: it takes the machine for itself, and they would take its time.
func TestStorm(t *testing.T) { //nolint:paralleltest // see above
	v, log, home := new(vault), new(output), t.TempDir()
	options, env := everythingLogged(t)
	report, err := storm.Run(t.Context(), storm.Options{
		Binary: caddyBinary, Home: home, Duration: 20 * time.Second, Seed: 1, Rate: 150, Tenants: 50, Sessions: 400, Clients: 12, Timeout: 5 * time.Second,
		Config: options, Env: env, Log: log, Plant: v.add, Saw: v.saw,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.tail())
	}
	t.Log(report)
	for _, wrong := range report.Wrong {
		t.Error(wrong)
	}
	all := report.Total()
	if all.Right < 500 || all.Explained > all.Right || report.Reloads < 3 || report.Rejected < 1 || len(report.Disturbed) < 15 {
		t.Errorf("too little to show anything: %+v, %d reloads, %d disturbances", all, report.Reloads, len(report.Disturbed))
	}
	searchAll(t, v, log, home, `"level":"debug"`, "http.log.access", "tinybird.identify", "REDACTED", `"tinybird_outcome":"ok"`, "shared rate limit's store is lost")
}

// TestFloods is a short `make floods`. Times are for that; what must hold on any machine is that good traffic is served, that what is refused is
// refused, that Clerk is asked for its keys no more often than every ten seconds, and that memory does not grow with what was refused.
//
// It does not run beside other tests, like TestStorm.
func TestFloods(t *testing.T) { //nolint:paralleltest // see above
	v, log, home := new(vault), new(output), t.TempDir()
	options, env := everythingLogged(t)
	report, err := floods.Run(t.Context(), floods.Options{
		Binary: caddyBinary, Home: home, Rounds: 1, Phase: 500 * time.Millisecond, Good: 50, Rate: 200, Slow: 100, Tenants: 300,
		Config: options, Site: "log\n\ttracing", Env: env, Log: log, Plant: v.add, Saw: v.saw,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.tail())
	}
	t.Log(report)
	if report.Answered() < 200 {
		t.Errorf("%d answers are too few to show anything", report.Answered())
	}
	if report.Fetches > report.FetchesAllowed() {
		t.Errorf("Clerk's keys were fetched %d times, at most %d were expected", report.Fetches, report.FetchesAllowed())
	}
	if grown := report.HeapAfter - report.HeapBefore; grown > 8<<20 {
		t.Errorf("%d bytes more on the heap after what was refused", grown)
	}
	// A session and a minted token of about 3.6 KB, and a counter.
	if grown := report.Tenants.HeapAfter - report.Tenants.HeapBefore; report.Tenants.Count < 300 || grown > 16<<20 {
		t.Errorf("%d tenants were served, with %d bytes more on the heap", report.Tenants.Count, grown)
	}
	searchAll(t, v, log, home, `"level":"debug"`, "http.log.access", "tinybird.identify", "REDACTED")
}
