package caddytinybird

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/share"
)

// cached gives all pipes of the test config a cache.
func cached(h *Handler) {
	for i := range h.Pipes {
		h.Pipes[i].Cache = caddy.Duration(time.Hour)
	}
}

// sharingEdge serves the test config with a cache for all pipes.
func sharingEdge(t testing.TB, configure ...func(*Handler)) *edge {
	t.Helper()
	return newEdge(t, newStack(t, devstack.Options{}), func(h *Handler) {
		cached(h)
		for _, c := range configure {
			c(h)
		}
	})
}

// asked fails unless Tinybird was asked n times since the last look.
func (e *edge) asked(t testing.TB, n int) []devstack.Recorded {
	t.Helper()
	up := e.stack.API.Requests()
	e.stack.API.Reset()
	if len(up) != n {
		t.Errorf("Tinybird was asked %d times, want %d", len(up), n)
	}
	return up
}

// cacheStatus fails unless the answer says what the cache did with it.
func (r reply) cacheStatus(t testing.TB, parts ...string) {
	t.Helper()
	got := strings.Split(r.Header.Get("Cache-Status"), "; ")
	for _, part := range append(parts, "caddy-tinybird") {
		found := false
		for _, g := range got {
			found = found || g == part
		}
		if !found {
			t.Errorf("Cache-Status %q has no %q", got, part)
		}
	}
}

const liveEvents = "/v0/pipes/live_events.json"

// TestShareWithinTheTenant: members of an organization share an answer, whatever their session tokens; another organization asks
// for itself.
func TestShareWithinTheTenant(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t)
	first := e.get(t, "ada", liveEvents)
	onlyTenant(t, first, "acme")
	first.cacheStatus(t, "fwd=miss", "fwd-status=200", "stored")
	e.asked(t, 1)
	for _, user := range []string{"ben", "ada"} {
		hit := e.get(t, user, liveEvents)
		onlyTenant(t, hit, "acme")
		hit.cacheStatus(t, "hit")
		if !bytes.Equal(hit.body, first.body) || hit.Header.Get("Age") != "0" || hit.Header.Get("Cache-Control") != "private, no-store" || hit.Header.Get("Content-Type") != first.Header.Get("Content-Type") {
			t.Errorf("%v\n%s", hit.Header, hit.body)
		}
	}
	e.asked(t, 0)
	other := e.get(t, "cleo", liveEvents)
	onlyTenant(t, other, "globex")
	other.cacheStatus(t, "fwd=miss")
	e.asked(t, 1)
}

// Attack: a user asks for what another tenant, or another user of the same organization, has just asked for, and names that one's
// values. Every pair of user and pipe has an answer of its own rows.
// TestShareUnrestrictedWithinTheTenant: rows that all may see are shared within a tenant only.
func TestShareUnrestrictedWithinTheTenant(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t, func(h *Handler) {
		h.Pipes = append(h.Pipes, Pipe{Names: []string{"countries"}, Unrestricted: true, Cache: caddy.Duration(time.Hour)})
	})
	e.stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Status: http.StatusOK, Body: []byte("[]")} })
	for i, user := range []string{"ada", "cleo", "ben"} {
		if got := e.get(t, user, "/v0/pipes/countries.json"); (got.Header.Get("Age") != "") != (i == 2) {
			t.Errorf("%s: %s", user, got.Header.Get("Cache-Status"))
		}
	}
	e.asked(t, 2)
}

// Attack: a user who is no longer allowed, or no longer signed in, or over the rate, asks for an answer that is kept.
// TestShareByQuestion: what clients add that does not matter makes no other question, and what matters does.
func TestShareByQuestion(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t)
	get := func(query string) *http.Request {
		return e.request(t, "ada", http.MethodGet, liveEvents+"?"+query, nil)
	}
	post := func(query, body string) *http.Request {
		return e.request(t, "ada", http.MethodPost, liveEvents+"?"+query, []byte(body))
	}
	with := func(r *http.Request, name, value string) *http.Request {
		r.Header.Set(name, value)
		return r
	}
	for name, c := range map[string]struct {
		requests []*http.Request
		asked    int
	}{
		"order":                   {[]*http.Request{get("a=1&b=2"), get("b=2&a=1")}, 1},
		"duplicates in order":     {[]*http.Request{get("c=1&c=2"), get("c=1&c=2"), get("c=2&c=1"), get("c=1")}, 3},
		"a token in the query":    {[]*http.Request{get("d=1"), get("d=1&token=abc"), get("token=" + e.stack.API.SigningKey() + "&d=1")}, 1},
		"GET and POST":            {[]*http.Request{get("e=1"), post("e=1", ""), post("", `{"e":1}`), post("", `{"e":"1"}`)}, 4},
		"order of members":        {[]*http.Request{post("", `{"f":1,"g":2}`), post("", `{"g":2,"f":1}`)}, 1},
		"formats":                 {[]*http.Request{get("h=1"), e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.csv?h=1", nil)}, 2},
		"pipes":                   {[]*http.Request{get("i=1"), e.request(t, "ada", http.MethodGet, "/v0/pipes/top_pages.json?i=1", nil)}, 2},
		"browsers":                {[]*http.Request{with(get("j=1"), "User-Agent", "one"), with(get("j=1"), "User-Agent", "two"), with(get("j=1"), "Accept", "text/html")}, 1},
		"encodings":               {[]*http.Request{with(get("k=1"), "Accept-Encoding", "gzip, br"), with(get("k=1"), "Accept-Encoding", "zstd, gzip"), with(get("k=1"), "Accept-Encoding", "br")}, 2},
		"no encoding at all":      {[]*http.Request{with(get("l=1"), "Accept-Encoding", "br, *;q=0"), with(get("l=1"), "Accept-Encoding", "br, *;q=0")}, 2},
		"a client wants it fresh": {[]*http.Request{get("m=1"), with(with(get("m=1"), "Cache-Control", "no-cache"), "Pragma", "no-cache")}, 1},
		"a large body":            {[]*http.Request{post("", `{"n":"`+strings.Repeat("a", maxSharedBody)+`"}`), post("", `{"n":"`+strings.Repeat("a", maxSharedBody)+`"}`)}, 2},
		"a POST with conditions":  {[]*http.Request{with(post("o=1", ""), "If-None-Match", "*"), with(post("o=1", ""), "If-None-Match", "*")}, 2},
	} {
		for _, r := range c.requests {
			got := e.do(t, r)
			if got.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
			}
		}
		if up := e.stack.API.Requests(); len(up) != c.asked {
			t.Errorf("%s: Tinybird was asked %d times, want %d", name, len(up), c.asked)
		}
		e.stack.API.Reset()
	}
}

// TestSharedRequestIsNobodysOwn: what goes up for all has a fixed header, no conditions, and one credential.
func TestSharedRequestIsNobodysOwn(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t)
	r := e.request(t, "ada", http.MethodGet, liveEvents, nil)
	for name, value := range map[string]string{
		"User-Agent": "curl/8", "Accept": "text/html;q=0.3", "Accept-Encoding": "br, gzip;q=0.5", "If-None-Match": `"x"`, "If-Modified-Since": "Mon, 02 Jan 2006 15:04:05 GMT",
		"Cookie": "a=b", "Accept-Language": "de", "Range": "bytes=0-1", "X-Forwarded-For": "10.0.0.1", "Cache-Control": "no-cache", "Traceparent": "00-1-2-01",
	} {
		r.Header.Set(name, value)
	}
	onlyTenant(t, e.do(t, r), "acme")
	up := e.asked(t, 1)[0]
	if len(up.Tokens) != 1 || up.TokenFrom != "header" {
		t.Errorf("%d credentials", len(up.Tokens))
	}
	want := map[string]string{"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "caddy-tinybird", "Traceparent": "00-1-2-01"}
	for name, v := range up.Header {
		if name != "Authorization" && (len(v) != 1 || v[0] != want[name]) {
			t.Errorf("%s: %q went up", name, v)
		}
	}
	if len(up.Header) != len(want)+1 {
		t.Errorf("%v went up", up.Header)
	}
}

// TestShareStampede: a whole organization's dashboards ask at once, over real connections.
func TestShareStampede(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t)
	const n = 100
	var arrived sync.WaitGroup
	arrived.Add(n)
	e.stack.API.Fail(func(*http.Request) *devstack.Fault {
		arrived.Wait() // Tinybird is slow
		return nil
	})
	var wg sync.WaitGroup
	var bodies sync.Map
	for i := range n {
		r := e.request(t, []string{"ada", "ben"}[i%2], http.MethodGet, liveEvents, nil)
		wg.Go(func() {
			arrived.Done()
			got := e.do(t, r)
			onlyTenant(t, got, "acme")
			bodies.Store(string(got.body), true)
		})
	}
	wg.Wait()
	different := 0
	bodies.Range(func(_, _ any) bool { different++; return true })
	if different != 1 {
		t.Errorf("%d different answers", different)
	}
	e.asked(t, 1)
}

// TestShareNoFailure: what Tinybird refuses, or breaks off, is answered as without a cache, and asked for again.
// TestShareConditions: who has the answer is told so, and Tinybird is not asked for that.
func TestShareConditions(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t)
	e.stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Header: http.Header{"Etag": {`"v1"`}}} })
	onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
	for tag, status := range map[string]int{`"v1"`: http.StatusNotModified, `W/"v1"`: http.StatusNotModified, `"v0"`: http.StatusOK} {
		r := e.request(t, "ben", http.MethodGet, liveEvents, nil)
		r.Header.Set("If-None-Match", tag)
		got := e.do(t, r)
		if got.StatusCode != status || got.Header.Get("ETag") != `"v1"` || (len(got.body) > 0) != (status == http.StatusOK) {
			t.Errorf("%s: %d %v %s", tag, got.StatusCode, got.Header, got.body)
		}
	}
	e.asked(t, 1)
}

// TestShareEncodings: a packed body goes, as it came, only to those who take it.
func TestShareEncodings(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(`{"data":[]}`))
	_ = z.Close()
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		if r.Header.Get("Accept-Encoding") == "gzip" {
			return &devstack.Fault{Header: http.Header{"Content-Encoding": {"gzip"}}, Body: packed.Bytes()}
		}
		return &devstack.Fault{Body: []byte(`{"data":[]}`)}
	})
	for _, accept := range []string{"gzip", "identity", "gzip, br", "br", "identity"} {
		r := e.request(t, "ada", http.MethodGet, liveEvents, nil)
		r.Header.Set("Accept-Encoding", accept)
		got := e.do(t, r)
		want := packed.String()
		if !strings.Contains(accept, "gzip") {
			want = `{"data":[]}`
		}
		if string(got.body) != want || (got.Header.Get("Content-Encoding") == "gzip") != (want == packed.String()) {
			t.Errorf("%s: %v %q", accept, got.Header, got.body)
		}
	}
	e.asked(t, 2)
}

// TestShareNoLargeAnswer: an answer over the bound reaches everybody whole, and is not kept.
// TestShareRefresh: a stale answer is served at once and refreshed with a token of whoever met it; a failure is in the log.
// TestShareReload: a new config begins with nothing, whatever it changes, and requests of the old one are still answered.
// TestShareTemplateTokens: what a template's token fixes beyond the config keeps its answers apart.
func TestShareTemplateTokens(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t, acceptTemplates)
	for _, country := range []string{"DE", "FR", "DE", "FR"} {
		token := templateToken(t, e.stack, claims{"scopes": []any{templateScope("live_events", claims{"organization_id": devstack.AcmeID, "country": country})}})
		onlyTenant(t, e.show(t, token, liveEvents+"?token="+url.QueryEscape(token)), "acme")
	}
	for _, up := range e.asked(t, 2) {
		if up.Claims["scopes"] == nil {
			t.Errorf("%v", up.Claims)
		}
	}
	onlyTenant(t, e.show(t, templateToken(t, e.stack, claims{"scopes": []any{templateScope("live_events", claims{"organization_id": devstack.GlobexID})}}), liveEvents), "globex")
}

// TestShareIsOffByDefault: without a cache nothing is kept, and nothing is said of one.
func TestShareIsOffByDefault(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t, func(h *Handler) {
		for i := range h.Pipes {
			h.Pipes[i].Cache = 0
		}
		h.Pipes[1].Cache = caddy.Duration(time.Hour)
	})
	for range 2 {
		if got := e.get(t, "ada", liveEvents); got.Header.Get("Cache-Status") != "" || got.Header.Get("Age") != "" {
			t.Errorf("%v", got.Header)
		}
	}
	e.asked(t, 2)
	if newEdge(t, e.stack, nil).sharing != nil {
		t.Error("there is a cache that no pipe asks for")
	}
}

// TestShareMetrics: each request for a pipe with a cache is counted once, and Tinybird's time only where it was asked.
func TestShareMetrics(t *testing.T) {
	t.Parallel()
	const pipe, target = "draft_report", "/v0/pipes/draft_report.json"
	e := sharingEdge(t)
	e.stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Status: http.StatusOK, Body: []byte("{}")} })
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.cache, metrics.upstream)
	// count is how often something was counted with the labels of the pipe.
	count := func(name, label, value string) (n float64) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				labels := make(map[string]string)
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				if family.GetName() == name && labels["pipe"] == pipe && labels[label] == value {
					n += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
		return n
	}
	observed := func() float64 { return count("caddy_tinybird_upstream_seconds", "status_class", "2xx") }
	before := observed()
	for range 3 {
		e.get(t, "ada", target)
	}
	r := e.request(t, "ada", http.MethodPost, target, []byte("{}"))
	r.Header.Set("If-None-Match", "*")
	e.do(t, r)
	for result, want := range map[string]float64{"miss": 1, "hit": 2, "bypass": 1, "stale": 0, "collapsed": 0} {
		if n := count("caddy_tinybird_cache_total", "result", result); n != want {
			t.Errorf("%s: %v, want %v", result, n, want)
		}
	}
	if n := observed() - before; n != 2 {
		t.Errorf("Tinybird's time was taken %v times for 2 requests", n)
	}
}

func TestShareSettings(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	for name, c := range map[string]struct {
		change func(*Handler)
		text   string
	}{
		"negative":           {func(h *Handler) { h.Pipes[0].Cache = -1 }, "cache -1ns is too short"},
		"too short":          {func(h *Handler) { h.Pipes[0].Cache = caddy.Duration(time.Millisecond) }, "at least 1s"},
		"too long":           {func(h *Handler) { h.Pipes[0].Cache = caddy.Duration(25 * time.Hour) }, "at most 24h"},
		"negative entries":   {func(h *Handler) { h.Limits = &Limits{CacheEntries: -1} }, "positive"},
		"entry over size":    {func(h *Handler) { h.Limits = &Limits{CacheSize: 1000, CacheEntrySize: 1001} }, "cache_entry_size"},
		"entry over default": {func(h *Handler) { h.Limits = &Limits{CacheEntrySize: share.DefaultSize + 1} }, "cache_entry_size"},
		"size":               {func(h *Handler) { h.Limits = &Limits{CacheSize: 1 << 40} }, "too large"},
	} {
		h := testHandler(t, stack)
		cached(h)
		c.change(h)
		if err := provision(t, newContext(t, storageDir(t)), h); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestShareStatus: an operator sees what is kept, and how often that was of use.
func TestShareStatus(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	ctx := newContext(t, storageDir(t))
	h := testHandler(t, stack)
	h.Pipes[1].Cache = caddy.Duration(time.Minute)
	h.Limits = &Limits{CacheEntries: 7, CacheSize: 1 << 20}
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	e := serve(t, stack, h)
	for range 4 {
		onlyTenant(t, e.get(t, "ada", "/v0/pipes/my_activity.json"), "acme")
		onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
	}
	site := statusOf(ctx).Sites[0]
	a := site.Answers
	if a == nil || a.Size != 1 || a.Max != 7 || a.Hits != 3 || a.Misses != 1 || *a.HitRatio != 0.75 || a.Bytes == 0 || a.MaxBytes != 2<<20 {
		t.Errorf("%+v", a)
	}
	for _, p := range site.Pipes {
		if want := map[string]float64{"my_activity": 60}[p.Name]; p.CacheSeconds != want {
			t.Errorf("%s: %v", p.Name, p.CacheSeconds)
		}
	}
}
