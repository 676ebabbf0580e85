package caddytinybird

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/sharedlimit"
)

// statusText is what the admin endpoint would answer about a config.
func statusText(t *testing.T, ctx caddy.Context) string {
	t.Helper()
	text, err := json.MarshalIndent(statusOf(ctx), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestStatus: keys, caches, limits and the config in short.
func TestStatus(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	ctx := newContext(t, storageDir(t))
	h := testHandler(t, stack)
	h.RateLimit = &RateLimit{RPS: "{rps}"}
	h.Pipes = append(h.Pipes, Pipe{
		Names: []string{"bounded"}, Params: []string{"days"}, Formats: []string{"csv"}, RateLimit: &RateLimit{RPS: "7", Burst: 9},
		Require: []Requirement{{Kind: "role", Values: []string{"org:admin"}}},
	})
	h.TokenEndpoint, h.CORS = endpoint, []string{"https://app.example.com"}
	withEvents(t, stack)(h)
	h.RateLimit = &RateLimit{RPS: "50"}
	h.Limits = &Limits{Tokens: 123, Counters: 456_789}
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	before := statusOf(ctx)
	if len(before.Sites) != 1 || before.Sites[0].Tokens.HitRatio != nil || before.Clerk[0].Sessions.HitRatio != nil {
		t.Errorf("before the first request: %s", statusText(t, ctx))
	}
	e := serve(t, stack, h)
	token := e.bearer(t, "ada")
	for range 4 {
		r := e.request(t, "", http.MethodGet, "/v0/pipes/live_events.json", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		onlyTenant(t, e.do(t, r), "acme")
	}
	s := statusOf(ctx)
	site := s.Sites[0]
	if want := (cacheStatus{Size: 1, Max: 123, Hits: 3, Misses: 1, HitRatio: new(0.75)}); !reflect.DeepEqual(site.Tokens, want) {
		t.Errorf("tokens %+v", site.Tokens)
	}
	if want := (cacheStatus{Size: 1, Max: 10_000, Hits: 3, Misses: 1, HitRatio: new(0.75)}); !reflect.DeepEqual(s.Clerk[0].Sessions, want) {
		t.Errorf("sessions %+v", s.Clerk[0].Sessions)
	}
	if c := s.Clerk[0]; !slices.Equal(c.Issuers, []string{stack.IssuerURL}) {
		t.Errorf("clerk %+v", c)
	}
	if site.WorkspaceID != stack.API.WorkspaceID() || "http://"+site.Upstream != stack.APIURL || site.TokenEndpoint != endpoint || site.TokenTTLSeconds != 60 || len(site.CORS) != 1 {
		t.Errorf("site %+v", site)
	}
	if len(site.Events) == 0 || len(site.Events[0].Stamps) == 0 {
		t.Errorf("events %+v", site.Events)
	}
	i := slices.IndexFunc(site.Pipes, func(p pipeStatus) bool { return p.Name == "bounded" })
	if want := (pipeStatus{
		Name: "bounded", FixedParams: []string{"organization_id"}, Params: []string{"days"}, Formats: []string{"csv"},
		Require: []Requirement{{Kind: "role", Values: []string{"org:admin"}}}, RateLimit: &rateStatus{"7", 9, true},
	}); i < 0 || !reflect.DeepEqual(site.Pipes[i], want) {
		t.Errorf("pipes %+v", site.Pipes)
	}
	if i := slices.IndexFunc(site.Pipes, func(p pipeStatus) bool { return p.Name == "my_activity" }); i < 0 ||
		!slices.Equal(site.Pipes[i].FixedParams, []string{"organization_id", "user_id"}) || site.Pipes[i].Params != nil || *site.Pipes[i].RateLimit != (rateStatus{RPS: "50"}) {
		t.Errorf("pipes %+v", site.Pipes)
	}
	i = slices.IndexFunc(s.Limiters, func(l limiterStatus) bool { return l.WorkspaceID == site.WorkspaceID })
	if i < 0 || s.Limiters[i] != (limiterStatus{WorkspaceID: site.WorkspaceID, Counters: 1, MaxCounters: 456_789}) {
		t.Errorf("limiters %+v", s.Limiters)
	}
	i = slices.IndexFunc(s.KeySets, func(k keySetStatus) bool { return strings.HasPrefix(k.URL, stack.IssuerURL) })
	if i < 0 {
		t.Fatalf("key sets %+v", s.KeySets)
	}
	if k := s.KeySets[i]; !slices.Equal(k.KeyIDs, []string{stack.Issuer.KeyID()}) || k.Source != "network" || k.AgeSeconds == nil || *k.AgeSeconds > 60 ||
		k.LastAttempt == nil || k.NextAttempt == nil || !k.NextAttempt.After(*k.LastAttempt) || k.LastError != "" || k.Attempts == 0 {
		t.Errorf("key set %+v", k)
	}
}

// TestStatusOfKeysThatFail: the last error, how often it came, and that there are no keys.
func TestStatusOfKeysThatFail(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	stack.Issuer.SetDown(true)
	ctx := newContext(t, storageDir(t))
	if err := provision(t, ctx, testHandler(t, stack)); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		all := keySetStatuses(time.Now())
		i := slices.IndexFunc(all, func(k keySetStatus) bool { return strings.HasPrefix(k.URL, stack.IssuerURL) })
		if i >= 0 && all[i].Failures > 0 {
			if k := all[i]; k.LastError == "" || k.AgeSeconds != nil || len(k.KeyIDs) != 0 || k.KeyIDs == nil || k.Source != "" {
				t.Errorf("%+v", k)
			}
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%+v", all)
		}
	}
}

// TestStatusNamesThePlaces: each site with its hosts, however deep it stands in the routes, and the global option without any.
func TestStatusNamesThePlaces(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	block := "{\nsigning_key " + secretFile(t, stack.API.SigningKey()) + "\nworkspace_id " + stack.API.WorkspaceID() + "\nupstream " + stack.APIURL + "\nfixed_param organization_id {clerk.org.id}\n"
	clerk := "publishable_key " + stack.Issuer.PublishableKey() + "\nissuer " + stack.IssuerURL + "\n"
	adapted, _, err := adapt(t, "{\nadmin off\nauto_https off\nclerk {\n"+clerk+"}\nstorage file_system "+storageDir(t)+"\n}\n"+
		"&(shared) {\ntinybird "+block+"pipe in_a_named_route\n}\n}\n"+
		"http://a.example.com, http://b.example.com {\ntinybird "+block+"pipe first\n}\n}\n"+
		"http://c.example.com {\nhandle_path /deep/* {\nroute {\ntinybird "+block+"clerk {\n"+clerk+"}\npipe second\n}\n}\n}\ninvoke shared\n}\n"+
		"http://d.example.com {\nclerk_auth {\n"+clerk+"clock_skew 7s\n}\ntinybird "+block+"pipe third\n}\n}\n"+
		"http://e.example.com {\nclerk_auth\nrespond ok\n}\n"+
		":9999 {\nhandle_errors {\ntinybird "+block+"pipe fourth\n}\n}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	provisioning.Lock()
	ctx, err := caddy.ProvisionContext(&config)
	provisioning.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	modules := modulesOf(ctx.GetMetricsRegistry())
	for _, h := range modules.handlers {
		cleanUpModule(t, h)
	}
	t.Cleanup(func() {
		for _, c := range modules.clerks {
			c.cleanup()
		}
	})
	s := statusOf(ctx)
	hosts := make(map[string]string)
	for _, site := range s.Sites {
		hosts[site.Pipes[0].Name] = strings.Join(site.Hosts, " ")
		if site.Server == "" || site.Hosts == nil {
			t.Errorf("%s stands in %+v", site.Pipes[0].Name, site.place)
		}
	}
	want := map[string]string{
		"first": "a.example.com b.example.com", "second": "c.example.com", "third": "d.example.com", "fourth": "", "in_a_named_route": "",
	}
	for name, at := range want {
		if got, ok := hosts[name]; !ok || got != at {
			t.Errorf("%s stands at %q, want %q", name, got, at)
		}
	}
	var blocks []string
	for _, c := range s.Clerk {
		blocks = append(blocks, c.Module+" "+strings.Join(c.Hosts, " "))
	}
	slices.Sort(blocks)
	if want := []string{"clerk ", "http.handlers.clerk_auth d.example.com", "http.handlers.tinybird c.example.com"}; !slices.Equal(blocks, want) {
		t.Errorf("clerk blocks %q", blocks)
	}
}

// TestStatusIsThatOfOneConfig: while two configs are loaded each has its own, a rejected one leaves none, and the end of one leaves the
// other's. Asking meanwhile harms nobody.
func TestStatusIsThatOfOneConfig(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	running := newContext(t, storageDir(t))
	load := func(ctx caddy.Context, pipe string) *Handler {
		h := testHandler(t, stack)
		h.Pipes = []Pipe{{Names: []string{pipe}}}
		if err := provision(t, ctx, h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	old := load(running, "old_pipe")
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if s := statusOf(running); len(s.Sites) > 1 {
					t.Errorf("%d sites of another config", len(s.Sites)-1)
				}
			}
		}
	})
	next := newContext(t, storageDir(t))
	for range 20 {
		rejected := newContext(t, storageDir(t))
		h := testHandler(t, stack)
		h.UpstreamErrors = "neither"
		if err := provision(t, rejected, h); err == nil {
			t.Fatal("accepted")
		}
		if err := h.Cleanup(); err != nil {
			t.Fatal(err)
		}
		if s := statusOf(rejected); len(s.Sites)+len(s.Clerk) != 0 {
			t.Errorf("a rejected config has %+v", s)
		}
	}
	load(next, "new_pipe")
	if s := statusOf(running); len(s.Sites) != 1 || s.Sites[0].Pipes[0].Name != "old_pipe" {
		t.Errorf("the running config has %+v", s.Sites)
	}
	if err := old.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if err := old.Cleanup(); err != nil { // Caddy may do that
		t.Fatal(err)
	}
	close(stop)
	asking.Wait()
	if s := statusOf(running); len(s.Sites)+len(s.Clerk) != 0 {
		t.Errorf("a config that ended has %+v", s)
	}
	if s := statusOf(next); len(s.Sites) != 1 || s.Sites[0].Pipes[0].Name != "new_pipe" || len(s.Clerk) != 1 {
		t.Errorf("the new config has %+v", s.Sites)
	}
}

// TestP4StatusHoldsNoSecret: keys, tokens, and the values of fixed parameters, stamps and addresses, which can be secret, are not told.
func TestP4StatusHoldsNoSecret(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	const planted = "planted4NvHkqjTYyJmWzXcRbPdLfGsQa"
	ctx := newContext(t, storageDir(t))
	h := testHandler(t, stack)
	withEvents(t, stack)(h)
	h.Clerk.SecretKey = secretFile(t, "sk_test_"+planted)
	h.Clerk.JWKSURL = stack.IssuerURL + "/.well-known/jwks.json?key=" + planted
	h.FixedParams = append(h.FixedParams, FixedParam{Name: "shared_secret", Value: planted})
	h.Events[0].Stamp = append(h.Events[0].Stamp, FixedParam{Name: "stamped", Value: planted})
	h.Token = &Token{Name: planted + "{clerk.org.id}"}
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	e := serve(t, stack, h)
	secrets := []string{planted, stack.API.SigningKey(), "eyJ"}
	for _, user := range []string{"ada", "cleo"} {
		token := e.bearer(t, user)
		secrets = append(secrets, token)
		r := e.request(t, "", http.MethodGet, "/v0/pipes/live_events.json", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		e.do(t, r)
	}
	stack.Issuer.SetDown(true)
	for _, up := range stack.API.Requests() {
		secrets = append(secrets, up.Tokens...)
	}
	if len(secrets) < 7 {
		t.Fatal("nothing went up, so the test shows nothing")
	}
	text := statusText(t, ctx)
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the status: %s", secret, text)
		}
	}
	if !strings.Contains(text, "shared_secret") || !strings.Contains(text, "stamped") {
		t.Errorf("the names are not told: %s", text)
	}
}

// TestStatusOfStores: a store is up until it is lost; then the status says since when and why, and the words hold nothing of what is secret
// in the address, even if the server repeats it.
func TestStatusOfStores(t *testing.T) {
	t.Parallel()
	stack, m := newStack(t, devstack.Options{}), newStore(t)
	const planted = "planted4NvHkqjTYyJmWzXcRbPdLfGsQa"
	m.RequireUserAuth(planted, planted)
	e := newEdge(t, stack, func(h *Handler) {
		shared(m, 1000)(h)
		h.RateLimitRedis.URL = "redis://" + planted + ":" + planted + "@" + m.Addr() + "/0"
	})
	of := func() sharedLimitStatus {
		t.Helper()
		text := statusText(t, e.context)
		if strings.Contains(text, planted) {
			t.Errorf("a secret is in the status: %s", text)
		}
		var s status
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(s.SharedLimits, func(l sharedLimitStatus) bool { return l.Host == m.Addr() })
		if i < 0 {
			t.Fatalf("no store in %s", text)
		}
		return s.SharedLimits[i]
	}
	if s := of(); s != (sharedLimitStatus{Host: m.Addr(), Up: true}) {
		t.Errorf("before the first request: %+v", s)
	}
	began := time.Now().Add(-time.Second)
	for text, want := range map[string]string{
		"NOPERM User " + planted + " has no permissions to run the 'evalsha' command": "NOPERM",
		"ERR unknown command, with args beginning with: " + planted:                   "command",
		planted: "error",
	} {
		e.store.observe(sharedlimit.Event{Err: serverError(text)})
		if s := of(); s.Up || s.AwaySince == nil || s.AwaySince.Before(began) || s.AwaySince.After(time.Now()) || !strings.Contains(s.LastError, want) {
			t.Errorf("%s: %+v", want, s)
		}
	}
	e.store.observe(sharedlimit.Event{Down: time.Minute})
	if s := of(); s != (sharedLimitStatus{Host: m.Addr(), Up: true}) {
		t.Errorf("after it came back: %+v", s)
	}
}

// serverError is an error that a Redis answers with.
type serverError string

func (e serverError) Error() string { return string(e) }

// RedisError implements redis.Error.
func (serverError) RedisError() {}

// TestStatusMethods: only GET is answered, and an error has Caddy's own form.
func TestStatusMethods(t *testing.T) {
	t.Parallel()
	routes := new(AdminAPI).Routes()
	if len(routes) != 1 || routes[0].Pattern != "/tinybird/status" {
		t.Fatalf("routes %+v", routes)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions} {
		w := httptest.NewRecorder()
		err := routes[0].Handler.ServeHTTP(w, httptest.NewRequest(method, "/tinybird/status", http.NoBody))
		if refused := (caddy.APIError{}); !errors.As(err, &refused) || refused.HTTPStatus != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET" || w.Body.Len() != 0 {
			t.Errorf("%s: %v, %v", method, err, w.Header())
		}
	}
	w := httptest.NewRecorder()
	if err := routes[0].Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/tinybird/status", http.NoBody)); err != nil {
		t.Fatal(err)
	}
	var s status
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%v: %v", err, w.Header())
	}
	if len(s.Sites) != 0 { // no config runs in this process
		t.Errorf("sites of a config that does not run: %+v", s.Sites)
	}
}

// TestStatusIsDescribed compares the names of the answer with those of the documentation's tables, both ways.
func TestStatusIsDescribed(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(content), "\n## The status\n")
	section, _, _ = strings.Cut(section, "\n## ")
	described := make(map[string]bool)
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.HasPrefix(cells[1], " `") {
			for n, name := range strings.Split(cells[1], "`") {
				if n%2 == 1 {
					described[name] = true
				}
			}
		}
	}
	names := make(map[string]bool)
	namesOf(reflect.TypeFor[status](), "", names)
	for name := range names {
		if !described[name] {
			t.Errorf("monitoring.md does not describe %s", name)
		}
		delete(described, name)
	}
	for name := range described {
		t.Errorf("monitoring.md describes %s, which the status does not have", name)
	}
	if len(names) < 30 {
		t.Errorf("only %d names", len(names))
	}
}

// namesOf lists the members of a type as paths, such as key_sets[].url.
func namesOf(t reflect.Type, path string, names map[string]bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		namesOf(t.Elem(), path+"[]", names)
	case t.Kind() == reflect.Struct && t != reflect.TypeFor[time.Time]():
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				continue // embedded
			}
			sub := strings.TrimPrefix(path+"."+name, ".")
			inner := f.Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() != reflect.Struct || inner == reflect.TypeFor[time.Time]() {
				names[sub] = true
			}
			namesOf(f.Type, sub, names)
		}
	}
}
