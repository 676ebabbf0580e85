//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// exportedMetrics are the plugin's metrics as the admin endpoint shows them: each with its type and its labels.
func exportedMetrics(t *testing.T, text string) map[string]string {
	t.Helper()
	types := make(map[string]string)
	labels := make(map[string][]string)
	sample := regexp.MustCompile(`^(caddy_(?:clerk|tinybird)_[a-z_]+)(?:\{([^}]*)\})? `)
	label := regexp.MustCompile(`([a-z_]+)="`)
	for line := range strings.Lines(text) {
		var name, kind string
		if n, _ := fmt.Sscanf(line, "# TYPE %s %s", &name, &kind); n == 2 && regexp.MustCompile(`^caddy_(clerk|tinybird)_`).MatchString(name) {
			types[name] = kind
		}
		found := sample.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		name = found[1]
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base := strings.TrimSuffix(name, suffix); types[base] == "histogram" {
				name = base
			}
		}
		for _, l := range label.FindAllStringSubmatch(found[2], -1) {
			if !slices.Contains(labels[name], l[1]) && l[1] != "le" {
				labels[name] = append(labels[name], l[1])
			}
		}
	}
	all := make(map[string]string)
	for name, kind := range types {
		slices.Sort(labels[name])
		all[name] = kind + " " + strings.Join(labels[name], " ")
	}
	return all
}

// describedMetrics are those of the documentation's table, and those of them that there are only with some option.
func describedMetrics(t *testing.T) (all map[string]string, only map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(module, "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	all, only = make(map[string]string), make(map[string]bool)
	row := regexp.MustCompile("(?m)^\\| `(caddy_(?:clerk|tinybird)_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\| (only )?")
	for _, cells := range row.FindAllStringSubmatch(string(text), -1) {
		labels := strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(cells[3]))
		slices.Sort(labels)
		all[cells[1]] = cells[2] + " " + strings.Join(labels, " ")
		only[cells[1]] = cells[4] != ""
	}
	return all, only
}

// TestMetricsAreThoseOfTheDocumentation: the binary exports, from its start, what the table says, with these types and labels, and
// nothing else.
func TestMetricsAreThoseOfTheDocumentation(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	for _, when := range []string{"at the start", "after requests"} {
		_, text := e.ask(t, http.MethodGet, "/metrics", "", "")
		exported := exportedMetrics(t, text)
		described, only := describedMetrics(t)
		if len(described) < 10 {
			t.Fatalf("only %d metrics are described", len(described))
		}
		for name, want := range described {
			if got, ok := exported[name]; got != want && (ok || !only[name]) {
				t.Errorf("%s: %s is %q, and described as %q", when, name, got, want)
			}
			delete(exported, name)
		}
		for name := range exported {
			t.Errorf("%s: %s is not described", when, name)
		}
		ownRows(t, "ada", e.get(t, "ada", livePath))
		e.get(t, "", livePath)
	}
}

// TestMetricsThroughReloads: counts survive reloads and rejected configs; a pipe that is taken off the list is gone from the
// metrics; two sites count the same pipe together.
func TestMetricsThroughReloads(t *testing.T) {
	t.Parallel()
	const reloads = 20
	config := func(pipe string) string {
		site := func(host string) string {
			return "http://" + host + " {\n tinybird {\n" + credentials + "fixed_param organization_id {clerk.org.id}\npipe live_events " + pipe + "\n}\n}\n"
		}
		return caddyfile("", site("{$EDGE}")+site("other.test:{$PORT}"))
	}
	e := newEdge(t, devstack.Options{})
	_, port, _ := strings.Cut(e.addr, ":")
	e.setenv("PORT", port)
	e.run(t, config("pipe_0"))
	for n := range reloads {
		ownRows(t, "ada", e.getNow(t, "ada", livePath))
		other := e.request(t, "ada", http.MethodGet, livePath, "")
		other.Host, other.Close = "other.test:"+port, true
		ownRows(t, "ada", e.do(t, other))
		e.getNow(t, "ada", "/v0/pipes/pipe_"+strconv.Itoa(n)+".json")
		if status, answer := e.load(t, config("pipe_"+strconv.Itoa(n+1))); status != http.StatusOK {
			t.Fatalf("status %d: %s", status, answer)
		}
		// Also while Caddy shows the metrics of a config that it did not take.
		if n%2 == 0 {
			if status, _ := e.load(t, config("live_events rejected_pipe")); status == http.StatusOK {
				t.Fatal("a pipe listed twice was accepted")
			}
			if status, _ := e.load(t, "{\n"+globalOptions+"\n}\nhttp://{$EDGE} {\n no_such_directive\n}\n"); status == http.StatusOK {
				t.Fatal("an unknown directive was accepted")
			}
		}
		want := fmt.Sprintf(`caddy_tinybird_requests_total{code="ok",pipe="live_events"} %d`+"\n", 2*(n+1))
		listed := fmt.Sprintf(`caddy_tinybird_requests_total{code="ok",pipe="pipe_%d"} 0`+"\n", n+1)
		var text string
		// The old config ends after the new one is there.
		eventually(t, "the old pipe's metrics are gone", func() bool {
			_, text = e.ask(t, http.MethodGet, "/metrics", "", "")
			return !strings.Contains(text, fmt.Sprintf(`pipe="pipe_%d"`, n))
		})
		if !strings.Contains(text, want) || !strings.Contains(text, listed) || strings.Contains(text, "rejected_pipe") {
			t.Fatalf("reload %d: no %s or %s in\n%s", n, want, listed, text)
		}
	}
}

// TestStatusOfTheRunningConfig: two sites and a clerk_auth, before, while and after a reload; nothing of a rejected config; no other method.
func TestStatusOfTheRunningConfig(t *testing.T) {
	t.Parallel()
	config := func(generation int) string {
		return caddyfile("", fmt.Sprintf(`
http://{$EDGE} {
	tinybird {
		%s
		fixed_param organization_id {clerk.org.id}
		fixed_param secret_code planted-value-of-a-fixed-parameter
		rate_limit 50 burst 70
		pipe live_events generation_%d
	}
}
http://site.test:{$PORT} {
	clerk_auth {
		publishable_key {env.CLERK_PUBLISHABLE_KEY}
		secret_key {env.CLERK_SECRET_KEY}
		issuer {env.ISSUER}
	}
	tinybird {
		%s
		pipe top_pages {
			unrestricted
		}
	}
}
`, credentials, generation, credentials))
	}
	e := newEdge(t, devstack.Options{})
	_, port, _ := strings.Cut(e.addr, ":")
	e.setenv("PORT", port)
	e.setenv("CLERK_SECRET_KEY", "sk_test_planted4NvHkqjTYyJmWzXcRbPdLfGsQa")
	e.run(t, config(0))
	ownRows(t, "ada", e.get(t, "ada", livePath))

	type status struct {
		KeySets []struct {
			URL  string   `json:"url"`
			Keys []string `json:"key_ids"`
		} `json:"key_sets"`
		Clerk []struct {
			Module string   `json:"module"`
			Hosts  []string `json:"hosts"`
		} `json:"clerk"`
		Sites []struct {
			Hosts []string `json:"hosts"`
			Pipes []struct {
				Name        string   `json:"name"`
				FixedParams []string `json:"fixed_params"`
				RateLimit   *struct {
					RPS   string `json:"rps"`
					Burst int    `json:"burst"`
				} `json:"rate_limit"`
			} `json:"pipes"`
		} `json:"sites"`
		Limiters []struct {
			Counters int `json:"counters"`
		} `json:"limiters"`
	}
	ask := func() (s status, text string) {
		code, text := e.ask(t, http.MethodGet, "/tinybird/status", "", "")
		if err := json.Unmarshal([]byte(text), &s); err != nil || code != http.StatusOK {
			t.Fatalf("status %d, %v: %s", code, err, text)
		}
		return s, text
	}
	check := func(generation int) {
		s, text := ask()
		want := "127.0.0.1 live_events site.test"
		if len(s.Sites) != 2 || len(s.Clerk) != 2 || len(s.KeySets) != 1 || len(s.KeySets[0].Keys) != 1 || len(s.Limiters) != 1 || s.Limiters[0].Counters != 1 {
			t.Fatalf("%s", text)
		}
		if got := s.Sites[0].Hosts[0] + " " + s.Sites[0].Pipes[1].Name + " " + s.Sites[1].Hosts[0]; got != want {
			t.Errorf("%q, want %q: %s", got, want, text)
		}
		first := s.Sites[0].Pipes[0]
		if first.Name != fmt.Sprintf("generation_%d", generation) || !slices.Equal(first.FixedParams, []string{"organization_id", "secret_code"}) ||
			first.RateLimit == nil || first.RateLimit.RPS != "50" || first.RateLimit.Burst != 70 {
			t.Errorf("generation %d: %s", generation, text)
		}
		var modules []string
		for _, c := range s.Clerk {
			modules = append(modules, c.Module+" "+strings.Join(c.Hosts, " "))
		}
		if !slices.Equal(modules, []string{"clerk ", "http.handlers.clerk_auth site.test"}) {
			t.Errorf("clerk %q", modules)
		}
		for _, secret := range []string{"planted", e.getenv("TINYBIRD_SIGNING_KEY"), "eyJ"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in the status: %s", secret, text)
			}
		}
	}
	check(0)
	client := &http.Client{Timeout: patience}
	for n := 1; n <= 5; n++ {
		if code, answer := e.load(t, strings.Replace(config(n), "pipe top_pages", "pipe no-name", 1)); code == http.StatusOK {
			t.Fatalf("accepted: %s", answer)
		}
		check(n - 1)
		// Whoever asks in the middle gets the old or the new one, whole.
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				resp, err := client.Get("http://" + e.admin + "/tinybird/status")
				if err != nil {
					return // the endpoint moves
				}
				defer resp.Body.Close()
				var s status
				if err := json.NewDecoder(resp.Body).Decode(&s); err == nil && len(s.Sites) != 2 {
					t.Errorf("%d sites in the middle of a reload", len(s.Sites))
				}
			})
		}
		if code, answer := e.load(t, config(n)); code != http.StatusOK {
			t.Fatalf("status %d: %s", code, answer)
		}
		asking.Wait()
		check(n)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		if code, text := e.ask(t, method, "/tinybird/status", "", ""); code != http.StatusMethodNotAllowed || !strings.Contains(text, "error") {
			t.Errorf("%s: status %d, %s", method, code, text)
		}
	}
}

// TestEventsInCaddysLog: both events reach Caddy's events app in the name of the module that they come from, and hold no secret. A flood of
// refusals is one event.
func TestEventsInCaddysLog(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.run(t, caddyfile("\tdebug\n", "http://{$EDGE} {\n tinybird {\n"+credentials+"clerk {\npublishable_key {env.CLERK_PUBLISHABLE_KEY}\nissuer {env.ISSUER}\njwks_refresh 1s\n}\n"+
		"fixed_param organization_id {clerk.org.id}\nrate_limit 1 burst 1\npipe live_events\n}\n}\n"))
	for range 30 {
		e.get(t, "ada", livePath)
	}
	e.stack.Issuer.SetDown(true)
	events := func(name string) []string {
		var found []string
		for line := range strings.Lines(e.log.String()) {
			if strings.Contains(line, `"msg":"event"`) && strings.Contains(line, `"name":"`+name+`"`) {
				found = append(found, line)
			}
		}
		return found
	}
	eventually(t, "both events are emitted", func() bool {
		return len(events("clerk_jwks_refresh_failed")) > 0 && len(events("tinybird_rate_limited")) > 0
	})
	for name, members := range map[string][]string{
		"clerk_jwks_refresh_failed": {`"url":"` + e.stack.IssuerURL + `/.well-known/jwks.json"`, `"failures":1`, `"keys":1`},
		"tinybird_rate_limited":     {`"tenant":"` + devstack.AcmeID + `"`, `"pipe":"live_events"`, `"rps":1`},
	} {
		found := events(name)
		if len(found) != 1 {
			t.Errorf("%d events %s", len(found), name)
		}
		for _, member := range append(members, `"origin":"http.handlers.tinybird"`) {
			if !strings.Contains(found[0], member) {
				t.Errorf("no %s in %s", member, found[0])
			}
		}
		for _, secret := range []string{"eyJ", e.getenv("TINYBIRD_SIGNING_KEY")} {
			if strings.Contains(found[0], secret) {
				t.Errorf("%s: %s", name, found[0])
			}
		}
	}
}

// TestTracesOfTheBinary: a Caddy that exports traces tells the steps of a request and how it ended, and passes its span on.
func TestTracesOfTheBinary(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	e.setenv("OTEL_TRACES_EXPORTER", "console")
	e.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	e.run(t, caddyfile("", strings.Replace(plainSite, " tinybird {", " tracing {\n span analytics\n}\n tinybird {", 1)))
	ownRows(t, "ada", e.get(t, "ada", livePath))
	e.get(t, "", livePath)
	eventually(t, "the spans are exported", func() bool { return strings.Count(e.log.String(), `"tinybird.outcome"`) >= 2 })
	parent := strings.Split(e.stack.API.Requests()[0].Header.Get("Traceparent"), "-")
	log := e.log.String()
	if len(parent) != 4 || !strings.Contains(log, parent[1]) || !strings.Contains(log, parent[2]) {
		t.Errorf("the parent upstream is %q", parent)
	}
	for _, want := range []string{"tinybird.identify", "tinybird.forward", "tinybird.upstream_seconds", "token_missing"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in the traces", want)
		}
	}
	if strings.Contains(log, "eyJ") {
		t.Error("a token is in the traces")
	}
}
