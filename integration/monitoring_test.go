//go:build integration

package integration

import (
	"encoding/json"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// troubledSite has a pipe for each way in which Tinybird can fail, and a site behind clerk_auth.
const troubledSite = `
http://{$EDGE} {
	handle /site/* {
		clerk_auth {env.CLERK_PUBLISHABLE_KEY} {
			issuer {env.ISSUER}
			on_unauthenticated redirect https://accounts.example.com/sign-in
		}
		respond ok
	}
	handle {
		tinybird {
			` + credentials + `
			clerk {env.CLERK_PUBLISHABLE_KEY} {
				issuer {env.ISSUER}
				authorized_parties https://app.example.com
			}
			transport http {
				response_header_timeout 5200ms
			}
			rate_limit 100000
			rate_limit redis {env.REDIS_URL}
			fixed_param organization_id {clerk.org.id}
			pipe live_events {
				cache 1s
				params limit
			}
			pipe top_pages sales_by_day org_metrics my_activity
			pipe draft_report {
				rate_limit 1 burst 1
			}
			pipe renamed_meanwhile
			events analytics_events {
				append_token {env.TINYBIRD_APPEND_TOKEN}
				stamp organization_id {clerk.org.id}
			}
		}
	}
}
`

// lostSite cannot reach Clerk, and has a tinybird that nothing tells whose sessions are accepted. It shows its metrics itself.
const lostSite = `
{
` + globalOptions + `
}
http://{$EDGE} {
	handle /site/* {
		clerk_auth {env.CLERK_PUBLISHABLE_KEY} {
			issuer {env.ISSUER}
		}
		respond ok
	}
	handle /metrics {
		metrics
	}
	handle {
		tinybird {
			` + credentials + `
			pipe live_events {
				unrestricted
			}
		}
	}
}
`

// notStaged are the alerts that no trouble of TestAlertsInTrouble sets off, because it takes more than a test should: a browser's journey
// with two users, and thousands of tenants. That their metrics are there, and count, is tested elsewhere.
var notStaged = []string{"SessionsReplaced", "TooManyTenantsForTheCounters"}

// alertNames are those of the rules.
func alertNames(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(rulesFile())
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			names = append(names, r.Alert)
		}
	}
	if len(names) < 10 {
		t.Fatalf("only %d alerts", len(names))
	}
	return names
}

// trouble is four edges in all the troubles that there are alerts for.
type trouble struct {
	edge  *edge // has everything but lost Clerk
	lost  *edge // never had keys
	aged  *edge // has keys of four hours ago
	other *edge // is of another Clerk instance than the sessions

	redis  *redisServer
	tokens map[string]string
}

// newTrouble prepares the edges, and starts none.
func newTrouble(t *testing.T) *trouble {
	t.Helper()
	e := newEdge(t, devstack.Options{})
	e.stack.Issuer.SetAppOrigin("https://app.example.com")
	e.setenv("TINYBIRD_APPEND_TOKEN", e.stack.API.AppendToken())
	tr := &trouble{edge: e, lost: e.twin(t), aged: e.twin(t), other: newEdge(t, devstack.Options{}), tokens: make(map[string]string)}
	tr.lost.setenv("ISSUER", "http://"+freeAddr(t))
	return tr
}

// begin starts the edges, one after the other, and does to each what goes wrong with it.
func (tr *trouble) begin(t *testing.T) {
	t.Helper()
	e, issuer := tr.edge, tr.edge.stack.Issuer
	tr.redis = startRedis(t)
	e.setenv("REDIS_URL", "redis://"+tr.redis.addr)
	e.run(t, "{\n"+globalOptions+"\n}\n"+troubledSite)
	tr.lost.run(t, lostSite)
	tr.other.run(t, caddyfile("", plainSite))
	ownRows(t, "ada", e.get(t, "ada", livePath))

	// Keys of four hours ago, as another edge had saved them.
	kept := filepath.Join(e.getenv("STORAGE"), "clerk")
	saved := func() []string { found, _ := filepath.Glob(filepath.Join(kept, "jwks", "*.json")); return found }
	eventually(t, "the keys are saved", func() bool { return len(saved()) == 1 })
	age(t, saved()[0], filepath.Join(tr.aged.getenv("STORAGE"), "clerk", "jwks"))

	// The storage takes nothing any more, and there are new keys to save.
	if err := os.Rename(kept, kept+".away"); err != nil {
		t.Fatal(err)
	}
	write(t, kept, "")
	tr.rotate(t)
	ownRows(t, "ada", e.get(t, "ada", livePath))

	// What sessions can have wrong, signed with the key that the edge has, and last with one that it cannot get.
	for name, opts := range map[string][]devstack.TokenOption{
		"ok":                  nil,
		"token_wrong_issuer":  {devstack.Claim("iss", "https://clerk.other.example.com")},
		"token_wrong_party":   {devstack.AZP("https://new.example.com")},
		"token_not_yet_valid": {devstack.IssuedAt(time.Now().Add(time.Hour))},
		"token_expired":       {devstack.Expired()},
	} {
		if name != "token_expired" {
			opts = append(opts, devstack.Lifetime(10*time.Minute))
		}
		tr.tokens[name] = e.token(t, "ada", opts...)
	}
	issuer.SetDown(true)
	tr.rotate(t)
	tr.tokens["token_invalid"] = e.token(t, "ada")
	tr.aged.setenv("REDIS_URL", e.getenv("REDIS_URL"))
	tr.aged.run(t, "{\n"+globalOptions+"\n}\n"+troubledSite)
	e.stack.API.Fail(tr.fault)
}

func (tr *trouble) rotate(t *testing.T) {
	t.Helper()
	if err := tr.edge.stack.Issuer.Rotate(false); err != nil {
		t.Fatal(err)
	}
}

// age copies saved keys into a directory, with another time at which Clerk answered with them.
func age(t *testing.T, from, into string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	doc["fetched"] = time.Now().Add(-4 * time.Hour)
	if text, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(into, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(into, filepath.Base(from)), string(text))
}

// fault is how Tinybird fails, by pipe.
func (*trouble) fault(r *http.Request) *devstack.Fault {
	return map[string]*devstack.Fault{
		"/v0/pipes/top_pages.json":    {Status: http.StatusForbidden},
		"/v0/pipes/sales_by_day.json": {Stop: devstack.DropBeforeHeader},
		"/v0/pipes/org_metrics.json":  {Status: http.StatusTooManyRequests},
		"/v0/pipes/my_activity.json":  {Stop: devstack.HangBeforeHeader},
	}[r.URL.Path]
}

// visits are requests of one kind.
type visits struct {
	e           *edge
	n           int
	path, token string
	header      http.Header
	body        string
}

// round sends some requests into each trouble.
func (tr *trouble) round(t *testing.T) {
	t.Helper()
	signedOut := http.Header{"Accept": {"text/html"}, "Sec-Fetch-Dest": {"document"}, "Cookie": {"__client_uat=0; __clerk_db_jwt=dvb_2test"}}
	all := []visits{
		{tr.edge, 15, livePath + "?limit=3&unknown=1", "ok", nil, ""},
		{tr.edge, 15, "/v0/pipes/top_pages.json", "ok", nil, ""},
		{tr.edge, 40, "/v0/pipes/sales_by_day.json", "ok", nil, ""},
		{tr.edge, 20, "/v0/pipes/org_metrics.json", "ok", nil, ""},
		{tr.edge, 20, "/v0/pipes/draft_report.json", "ok", nil, ""},
		{tr.edge, 12, "/v0/pipes/my_activity.json", "ok", nil, ""},
		{tr.edge, 15, "/v0/pipes/renamed_meanwhile.json", "ok", nil, ""},
		{tr.edge, 5, "/v0/events?name=analytics_events", "ok", nil, `{"n":1}`},
		{tr.edge, 60, livePath, "token_wrong_issuer", nil, ""},
		{tr.edge, 60, livePath, "token_wrong_party", nil, ""},
		{tr.edge, 60, livePath, "token_not_yet_valid", nil, ""},
		{tr.edge, 60, livePath, "token_invalid", nil, ""},
		{tr.edge, 500, livePath, "token_expired", nil, ""},
		{tr.edge, 40, "/site/", "", signedOut, ""},
		{tr.lost, 5, livePath, "ok", nil, ""},
		{tr.other, 15, livePath, "ok", nil, ""},
		{tr.lost, 15, "/site/", "ok", nil, ""},
	}
	var wait sync.WaitGroup
	for _, v := range all {
		// Those that take long must not hold up each other.
		at := make(chan struct{}, 20)
		for range v.n {
			at <- struct{}{}
			wait.Go(func() {
				tr.visit(t, v)
				<-at
			})
		}
	}
	wait.Wait()
}

func (tr *trouble) visit(t *testing.T, v visits) {
	t.Helper()
	method := http.MethodGet
	if v.body != "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+v.e.addr+v.path, strings.NewReader(v.body))
	if err != nil {
		t.Error(err)
		return
	}
	maps.Copy(r.Header, v.header)
	if token := tr.tokens[v.token]; token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := v.e.http.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
}

// TestAlertsInTrouble has four edges in every trouble that there is an alert for, and a Prometheus that watches them: each alert is
// set off by what the binary exports, and every query of the dashboard and of the documentation has an answer.
func TestAlertsInTrouble(t *testing.T) {
	t.Parallel()
	tr := newTrouble(t)
	p := startPrometheus(t, tr.edge.getenv("ADMIN"), tr.lost.addr, tr.aged.getenv("ADMIN"), tr.other.getenv("ADMIN"))
	seen := make(map[string]bool)
	look := func() (missing []string) {
		for _, r := range p.rules(t) {
			if r.Health == "err" {
				t.Fatalf("%s: %s", r.Name, r.LastError)
			}
			seen[r.Name] = seen[r.Name] || r.State != "inactive"
			for _, a := range r.Alerts {
				for name, text := range a.Annotations {
					if strings.Contains(text, "<no value>") || strings.Contains(text, "<error") {
						t.Fatalf("%s, %s: %s", r.Name, name, text)
					}
				}
			}
		}
		for _, name := range alertNames(t) {
			if !seen[name] && !slices.Contains(notStaged, name) {
				missing = append(missing, name)
			}
		}
		return missing
	}
	eventually(t, "it is noticed that there is no edge", func() bool { look(); return seen["CaddyTinybirdMetricsMissing"] })
	tr.begin(t)
	tr.round(t)
	tr.redis.stop(t)
	deadline := time.Now().Add(patience)
	missing := look()
	for ; len(missing) != 0 && time.Now().Before(deadline); missing = look() {
		tr.round(t)
	}
	if len(missing) != 0 {
		t.Errorf("not set off: %s", missing)
	}
	for _, r := range p.rules(t) {
		measured(t, p, r.Name, r.Query)
	}
	for title, queries := range panelQueries(t) {
		for _, q := range queries {
			answered(t, p, title, q.Expr, q.LegendFormat)
		}
	}
	page, err := os.ReadFile(filepath.Join(module, "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		answered(t, p, "monitoring.md", q[1], "")
	}
}

// panelQuery is a query of the dashboard.
type panelQuery struct{ Expr, LegendFormat string }

// panelQueries are the queries of the dashboard by the titles of the panels.
func panelQueries(t *testing.T) map[string][]panelQuery {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(module, "ops", "grafana", "caddy-tinybird.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []panelQuery
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]panelQuery)
	for _, panel := range dashboard.Panels {
		all[panel.Title] = append(all[panel.Title], panel.Targets...)
	}
	// What Grafana asks to fill the menus is no PromQL, but a metric and a label.
	menu := regexp.MustCompile(`^label_values\((.+), ([a-z_]+)\)$`)
	for _, v := range dashboard.Templating.List {
		if parts := menu.FindStringSubmatch(v.Definition); parts != nil {
			all["menu "+v.Name] = []panelQuery{{"count by (" + parts[2] + ") (" + parts[1] + ")", "{{" + parts[2] + "}}"}}
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d panels", len(all))
	}
	return all
}

// answered fails the test unless a query has an answer with a number in it, and the labels that its legend names.
func answered(t *testing.T, p *prom, title, expr, legend string) {
	t.Helper()
	expr = strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*", "$pipe", ".*").Replace(expr)
	measured(t, p, title, expr)
	numbers := 0
	for _, s := range p.query(t, expr) {
		if !math.IsNaN(s.number(t)) {
			numbers++
		}
		for _, label := range regexp.MustCompile(`\{\{([a-z_]+)\}\}`).FindAllStringSubmatch(legend, -1) {
			if s.Metric[label[1]] == "" {
				t.Errorf("%s: the answer has no label %s for the legend: %s", title, label[1], expr)
			}
		}
	}
	if numbers == 0 {
		t.Errorf("%s: no answer to %s", title, expr)
	}
}

// measured fails the test unless every metric of an expression is one that Prometheus has seen, with the labels that are asked for.
func measured(t *testing.T, p *prom, title, expr string) {
	t.Helper()
	metrics := regexp.MustCompile(`\b(?:caddy|process|go)_[a-z_]+\b`).FindAllString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(expr, ""), -1)
	if len(metrics) == 0 {
		t.Errorf("%s: a query of nothing: %s", title, expr)
	}
	var known []string
	for _, metric := range metrics {
		labels := p.labels(t, metric)
		if len(labels) == 0 {
			t.Errorf("%s: nothing exports %s: %s", title, metric, expr)
		}
		known = append(known, labels...)
	}
	var used []string
	for _, m := range regexp.MustCompile(`([a-z_]+) *(?:=~|!~|!=|=) *"`).FindAllStringSubmatch(expr, -1) {
		used = append(used, m[1])
	}
	for _, m := range regexp.MustCompile(`(?:by|on|without|ignoring) *\(([a-z_, ]+)\)`).FindAllStringSubmatch(expr, -1) {
		used = append(used, strings.Split(strings.ReplaceAll(m[1], " ", ""), ",")...)
	}
	for _, label := range used {
		if !slices.Contains(known, label) {
			t.Errorf("%s: no metric of it has the label %s: %s", title, label, expr)
		}
	}
}
