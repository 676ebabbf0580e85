package caddytinybird

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig" // the global option events

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

func init() {
	caddy.RegisterModule(execHandler{})
}

// execHandler stands in for the plugin `exec` of events, which runs a program. It keeps what the program would be given.
type execHandler struct {
	Command string   `json:"command"`
	Args    []string `json:"args"`
}

// heard is what handlers got, by the event's name and the value by which a test knows its own.
var heard = struct {
	sync.Mutex

	events []heardEvent
}{}

type heardEvent struct {
	name string
	data map[string]any
	args []string
}

func (execHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.exec", New: func() caddy.Module { return new(execHandler) }}
}

func (h *execHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&h.Command) {
		h.Args = d.RemainingArgs()
	}
	return nil
}

func (h *execHandler) Handle(ctx context.Context, e caddy.Event) error {
	repl := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	got := heardEvent{name: e.Name(), data: e.Data}
	for _, arg := range append([]string{h.Command}, h.Args...) {
		got.args = append(got.args, repl.ReplaceAll(arg, ""))
	}
	heard.Lock()
	defer heard.Unlock()
	heard.events = append(heard.events, got)
	return nil
}

// heardWith returns the events of a name of which a value is the text, once there are n.
func heardWith(t *testing.T, name, member, text string, n int) []heardEvent {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		var found []heardEvent
		heard.Lock()
		for _, e := range heard.events {
			if e.name == name && fmt.Sprint(e.data[member]) == text {
				found = append(found, e)
			}
		}
		heard.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d events %s of %s, want %d", len(found), name, text, n)
		}
	}
}

// documented is the block of a page of the documentation that holds the text.
func documented(t *testing.T, page, text string) string {
	t.Helper()
	content, err := os.ReadFile("../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(content), "```")
	for n := 1; n < len(blocks); n += 2 {
		if block, ok := strings.CutPrefix(blocks[n], "caddyfile\n"); ok && strings.Contains(block, text) {
			return block
		}
	}
	t.Fatalf("no block of %s holds %q", page, text)
	return ""
}

// eventsContext is a context with the events app of the documentation. start is what Caddy does when the config runs.
func eventsContext(t *testing.T) (ctx caddy.Context, start func()) {
	t.Helper()
	adapted, _, err := adapt(t, "{\n"+documented(t, "monitoring.md", "on clerk_jwks_refresh_failed")+"\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	config := new(caddy.Config)
	if err := json.Unmarshal(adapted, config); err != nil {
		t.Fatal(err)
	}
	config.StorageRaw = []byte(fmt.Sprintf(`{"module":"file_system","root":%q}`, t.TempDir()))
	provisioning.Lock()
	defer provisioning.Unlock()
	if ctx, err = caddy.ProvisionContext(config); err != nil {
		t.Fatal(err)
	}
	module, err := ctx.App("events")
	if err != nil {
		t.Fatal(err)
	}
	app := module.(*caddyevents.App)
	return ctx, func() {
		if err := app.Start(); err != nil {
			t.Fatal(err)
		}
		app.Emit(ctx, "started", nil)
	}
}

// limitedEdge is a started edge that lets a request pass, and then none for an hour.
func limitedEdge(t *testing.T, stack *devstack.Stack) *edge {
	t.Helper()
	ctx, start := eventsContext(t)
	h := testHandler(t, stack)
	h.RateLimit = &RateLimit{RPS: "1", Burst: 1}
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	start()
	return serve(t, stack, h)
}

// TestRateLimitedEvent: the handler that the documentation binds learns of a tenant at its limit, with what the documentation says of
// the event, and a flood of refusals is one event a minute.
func TestRateLimitedEvent(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := limitedEdge(t, stack)
	refuse := func(user string, times int) {
		for n := 0; n < times; {
			if got := e.get(t, user, "/v0/pipes/top_pages.json"); got.StatusCode == http.StatusTooManyRequests {
				n++
			}
		}
	}
	refuse("ada", 20)
	first := heardWith(t, eventRateLimited, "workspace_id", stack.API.WorkspaceID(), 1)
	refuse("cleo", 1)
	events := heardWith(t, eventRateLimited, "workspace_id", stack.API.WorkspaceID(), 2)
	if len(first) != 1 || len(events) != 2 {
		t.Fatalf("%d, then %d events", len(first), len(events))
	}
	want := map[string]any{
		"tenant": devstack.AcmeID, "pipe": "top_pages", "workspace_id": stack.API.WorkspaceID(), "rps": 1, "burst": 1,
		"retry_after_seconds": 1, "suppressed": 0,
	}
	if got := events[0]; fmt.Sprint(got.data) != fmt.Sprint(want) {
		t.Errorf("%+v", got)
	}
	if args := events[0].args; args[len(args)-2] != devstack.AcmeID || args[len(args)-1] != "top_pages" {
		t.Errorf("the program is given %q", args)
	}
	if got := events[1].data; got["tenant"] != devstack.GlobexID || got["suppressed"] != 19 {
		t.Errorf("%v", got)
	}
	described(t, events[0])
}

// described fails the test unless the documentation has a row for each value of the event, and for no other.
func described(t *testing.T, e heardEvent) {
	t.Helper()
	content, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(content), "\n### "+e.name+"\n")
	if !ok {
		t.Fatalf("monitoring.md has no section %s", e.name)
	}
	section, _, _ = strings.Cut(section, "\n##")
	rows := 0
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| `event.data.") {
			rows++
		}
	}
	for name := range e.data {
		if !strings.Contains(section, "\n| `event.data."+name+"` |") {
			t.Errorf("monitoring.md says nothing of %s in %s", name, e.name)
		}
	}
	if rows != len(e.data) {
		t.Errorf("monitoring.md has %d rows for the %d values of %s", rows, len(e.data), e.name)
	}
}

// TestRefreshFailedEvent: the handler that the documentation binds learns that Clerk's keys cannot be fetched, and what is still there.
func TestRefreshFailedEvent(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	url := stack.IssuerURL + "/.well-known/jwks.json"
	ctx, start := eventsContext(t)
	h := testHandler(t, stack)
	h.Clerk.JWKSRefresh = caddy.Duration(time.Second)
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	start()
	onlyTenant(t, serve(t, stack, h).get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	stack.Issuer.SetDown(true)
	got := heardWith(t, eventRefreshFailed, "url", url, 1)[0]
	if got.data["keys"] != 1 || got.data["failures"].(int) < 1 || got.data["suppressed"] != 0 {
		t.Errorf("%+v", got)
	}
	if age := got.data["age_seconds"].(float64); age < 0 || age > 60 {
		t.Errorf("age %v", age)
	}
	if text, _ := got.data["error"].(string); text == "" || got.args[len(got.args)-1] != text {
		t.Errorf("the program is given %q", got.args)
	}
	described(t, got)
}

// TestNoEventOutsideARunningConfig: a config that has not started, was rejected or has ended emits nothing, also while its
// requests go on.
func TestNoEventOutsideARunningConfig(t *testing.T) {
	t.Parallel()
	ctx, start := eventsContext(t)
	cancelled, cancel := context.WithCancel(ctx.Context)
	ctx.Context = cancelled
	n, err := newNotifier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Some plugins bind their handlers while the config loads.
	if err := n.app.On(eventRateLimited, stuckHandler{}); err != nil {
		t.Fatal(err)
	}
	if n.wants(eventRateLimited) {
		t.Error("before the start")
	}
	start()
	if !n.wants(eventRateLimited) || !n.wants(eventRefreshFailed) {
		t.Error("a running config wants no events")
	}
	if n.wants("some_other_event") {
		t.Error("an event that nobody is bound to")
	}
	cancel()
	if n.wants(eventRateLimited) {
		t.Error("after the end")
	}
	if (*notifier)(nil).wants(eventRateLimited) {
		t.Error("no notifier wants an event")
	}
}

// TestRefreshFailedEventGoesToTheRunningConfig: while a new config loads, the events go to the old one.
func TestRefreshFailedEventGoesToTheRunningConfig(t *testing.T) {
	t.Parallel()
	ctx, start := eventsContext(t)
	running, err := newNotifier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	start()
	loading, _ := eventsContext(t)
	newest, err := newNotifier(loading)
	if err != nil {
		t.Fatal(err)
	}
	s := new(keySet)
	for _, n := range []*notifier{nil, running, newest} {
		s.users.use(keySetUser{notifier: n})
	}
	if s.notifier() != running {
		t.Error("not that of the running config")
	}
}

// stuckHandler handles nothing until it is let go.
type stuckHandler struct{ letGo chan struct{} }

func (h stuckHandler) Handle(context.Context, caddy.Event) error {
	<-h.letGo
	return nil
}

// TestAttackFloodOfEvents: however many tenants are refused, and however long a handler takes, there are only so many events and so
// many goroutines, and no request waits for them.
func TestAttackFloodOfEvents(t *testing.T) {
	t.Parallel()
	ctx := newContext(t, storageDir(t))
	n, err := newNotifier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stuck := stuckHandler{make(chan struct{})}
	if err := n.app.On(eventRateLimited, stuck); err != nil {
		t.Fatal(err)
	}
	if err := n.app.Start(); err != nil {
		t.Fatal(err)
	}
	n.app.Emit(ctx, "started", nil)
	emitted := 0
	for range 1000 {
		if n.emit(eventRateLimited, nil) {
			emitted++
		}
	}
	if emitted != maxHandling {
		t.Errorf("%d at once", emitted)
	}
	close(stuck.letGo)

	var th throttle
	now := time.Now()
	admitted := 0
	for tenant := range 100_000 {
		if _, ok := th.admit(strconv.Itoa(tenant), now.Add(time.Duration(tenant)*time.Microsecond)); ok {
			admitted++
		}
	}
	if admitted != throttleKeys || len(th.seen) > throttleKeys {
		t.Errorf("%d events for 100000 tenants, %d remembered", admitted, len(th.seen))
	}
}

// TestThrottle: one event a minute for each key, and the next one tells of those that were not.
func TestThrottle(t *testing.T) {
	t.Parallel()
	var th throttle
	begin := time.Now()
	for n, step := range []struct {
		at         time.Duration
		key        string
		ok         bool
		suppressed int
	}{
		{0, "a", true, 0},
		{time.Second, "a", false, 0},
		{2 * time.Second, "b", true, 1},
		{3 * time.Second, "b", false, 0},
		{59 * time.Second, "a", false, 0},
		{time.Minute, "a", true, 2},
		{time.Minute, "b", true, 0},
		{-time.Hour, "a", true, 0}, // a clock that was set back
	} {
		suppressed, ok := th.admit(step.key, begin.Add(step.at))
		if ok != step.ok || suppressed != step.suppressed {
			t.Errorf("step %d: %d, %v", n, suppressed, ok)
		}
	}
	th.missed(3)
	if suppressed, _ := th.admit("c", begin.Add(-time.Hour)); suppressed != 4 {
		t.Errorf("%d suppressed after one that was missed", suppressed)
	}
}
