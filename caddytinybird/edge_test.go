package caddytinybird

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// provisioning is serialized because Caddy sets process-wide defaults while it makes a context.
var provisioning sync.Mutex

// edge is a provisioned handler in front of stand-ins for Clerk and Tinybird, behind a real HTTP server.
type edge struct {
	*Handler

	stack   *devstack.Stack
	context caddy.Context
	url     string
	client  *http.Client
	fell    chan error // what the handler returned for Caddy's error routes
}

// newStack starts the stand-ins.
func newStack(t testing.TB, o devstack.Options) *devstack.Stack {
	t.Helper()
	if o.API.WorkspaceID == "" {
		// Handlers of one workspace count together, and tests must not.
		o.API.WorkspaceID = newUUID()
	}
	stack, err := devstack.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Close(); err != nil {
			t.Error(err)
		}
	})
	return stack
}

func newUUID() string {
	hex := fmt.Sprintf("%x", rand.Text())
	return hex[:8] + "-" + hex[8:12] + "-4" + hex[13:16] + "-8" + hex[17:20] + "-" + hex[20:32]
}

// newContext makes a Caddy context whose storage is a directory of the test.
func newContext(t testing.TB, storage string) caddy.Context {
	t.Helper()
	provisioning.Lock()
	defer provisioning.Unlock()
	raw := fmt.Sprintf(`{"module":"file_system","root":%q}`, storage)
	ctx, err := caddy.ProvisionContext(&caddy.Config{StorageRaw: []byte(raw)})
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

// storageDir is a directory for Caddy's storage. Tests of one issuer share its key set, which may still save into it when the test ends: that
// t.TempDir would take for a failure.
func storageDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "storage-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// awaitSaved waits until the storage holds the issuer's current key; keys are saved in the background.
func awaitSaved(t testing.TB, storage string, issuer *devstack.Issuer) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		saved, err := filepath.Glob(filepath.Join(storage, "clerk", "jwks", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range saved {
			if doc, err := os.ReadFile(name); err == nil && bytes.Contains(doc, []byte(issuer.KeyID())) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the keys were not saved")
		}
	}
}

// secretFile writes a secret to a file and returns its placeholder.
func secretFile(t testing.TB, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return "{file." + path + "}"
}

// testHandler is the config that the tests start from: pipes for an organization, a user and a team.
func testHandler(t testing.TB, stack *devstack.Stack) *Handler {
	t.Helper()
	org := FixedParam{Name: "organization_id", Value: "{clerk.org.id}"}
	return &Handler{
		Clerk: &Clerk{
			PublishableKey: stack.Issuer.PublishableKey(),
			Issuers:        []string{stack.IssuerURL},
		},
		SigningKey:  secretFile(t, stack.API.SigningKey()),
		WorkspaceID: stack.API.WorkspaceID(),
		Upstream:    stack.APIURL,
		FixedParams: []FixedParam{org},
		Pipes: []Pipe{
			{Names: []string{"top_pages", "sales_by_day", "live_events", "leaky_report", "draft_report", "org_metrics"}},
			{Names: []string{"my_activity"}, FixedParams: []FixedParam{{Name: "user_id", Value: "{clerk.user.id}"}}},
			{Names: []string{"team_activity"}, FixedParams: []FixedParam{{Name: "team_id", Value: "{clerk.claims.team_id}"}}},
		},
	}
}

// provision provisions the handler as Caddy does, cleaning up as Caddy does.
func provision(t testing.TB, ctx caddy.Context, h *Handler) error {
	t.Helper()
	t.Cleanup(func() {
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	if err := h.Provision(ctx); err != nil {
		return err
	}
	return h.Validate()
}

// newEdge provisions the test config, changed by configure, and serves it.
func newEdge(t testing.TB, stack *devstack.Stack, configure func(*Handler)) *edge {
	t.Helper()
	return newEdgeIn(t, stack, storageDir(t), configure)
}

// newEdgeIn is newEdge with a storage of the test's choice.
func newEdgeIn(t testing.TB, stack *devstack.Stack, storage string, configure func(*Handler)) *edge {
	t.Helper()
	h := testHandler(t, stack)
	if configure != nil {
		configure(h)
	}
	ctx := newContext(t, storage)
	if err := provision(t, ctx, h); err != nil {
		t.Fatal(err)
	}
	e := serve(t, stack, h)
	e.context = ctx
	return e
}

// serve puts the handler behind a server that prepares requests as Caddy does.
func serve(t testing.TB, stack *devstack.Stack, h *Handler) *edge {
	t.Helper()
	e := &edge{Handler: h, stack: stack, fell: make(chan error, 16)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
		if err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			t.Error("the next handler was called")
			return nil
		})); err != nil {
			e.fell <- err
		}
	}))
	t.Cleanup(srv.Close)
	e.url, e.client = srv.URL, srv.Client()
	return e
}

// bearer returns a session token of a user.
func (e *edge) bearer(t testing.TB, user string, opts ...devstack.TokenOption) string {
	t.Helper()
	token, err := e.stack.Issuer.Token(user, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// reply is an answer with its body read.
type reply struct {
	*http.Response

	body []byte
}

// code returns the code of a refusal.
func (r reply) code(t testing.TB) string {
	t.Helper()
	var refusal struct {
		Error string `json:"error"`
		Code  string `json:"code"`
	}
	if err := json.Unmarshal(r.body, &refusal); err != nil {
		t.Fatalf("status %d, not a JSON refusal: %q", r.StatusCode, r.body)
	}
	if refusal.Error == "" {
		t.Errorf("status %d, refusal without a sentence: %q", r.StatusCode, r.body)
	}
	return refusal.Code
}

// rows returns the rows of a JSON answer.
func (r reply) rows(t testing.TB) []map[string]any {
	t.Helper()
	var answer struct {
		Data []map[string]any `json:"data"`
	}
	if err := json.Unmarshal(r.body, &answer); err != nil {
		t.Fatalf("status %d, not a JSON answer: %q", r.StatusCode, r.body)
	}
	return answer.Data
}

func (e *edge) do(t testing.TB, r *http.Request) reply {
	t.Helper()
	resp, err := e.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, body}
}

// request makes a request of a user; an empty user sends no token.
func (e *edge) request(t testing.TB, user, method, target string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, e.url+target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if user != "" {
		r.Header.Set("Authorization", "Bearer "+e.bearer(t, user))
	}
	return r
}

func (e *edge) get(t testing.TB, user, target string) reply {
	t.Helper()
	return e.do(t, e.request(t, user, http.MethodGet, target, nil))
}

// onlyTenant fails the test when a row belongs to another organization than the one of the slug. The paths of the stand-in's
// events start with the slug of their organization.
func onlyTenant(t testing.TB, r reply, slug string) {
	t.Helper()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", r.StatusCode, r.body)
	}
	rows := r.rows(t)
	if len(rows) == 0 {
		t.Fatal("no rows, so the test shows nothing")
	}
	for _, row := range rows {
		if path, _ := row["path"].(string); !strings.HasPrefix(path, "/"+slug+"/") {
			t.Fatalf("a row of %v came back to a user of %s", row["path"], slug)
		}
	}
}

// mentions reports whether any part of the recorded request holds the text, in any letter case.
func mentions(r devstack.Recorded, text string) bool {
	all := r.Path + "?" + r.RawQuery + "\n" + string(r.Body)
	for name, values := range r.Header {
		all += "\n" + name + ": " + strings.Join(values, ",")
	}
	return strings.Contains(strings.ToLower(all), strings.ToLower(text))
}
