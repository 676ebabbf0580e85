package caddytinybird

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// TestCachesSurviveReload: after a reload with the same settings no session is verified and no token is signed anew.
func TestCachesSurviveReload(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	key := secretFile(t, stack.API.SigningKey())
	sign := func(h *Handler) { h.SigningKey = key }
	before := newEdge(t, stack, sign)
	token := before.bearer(t, "ada")
	onlyTenant(t, before.show(t, token, "/v0/pipes/live_events.json"), "acme")
	after := newEdge(t, stack, func(h *Handler) {
		sign(h)
		h.Pipes = h.Pipes[:1] // what is not about signing or verifying plays no part
	})
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if after.minter != before.minter || after.verifier != before.verifier {
		t.Fatal("a reload begins with empty caches")
	}
	onlyTenant(t, after.show(t, token, "/v0/pipes/live_events.json"), "acme")
	up := stack.API.Requests()
	if up[0].Tokens[0] != up[1].Tokens[0] {
		t.Error("the token was minted anew")
	}
}

// Attack: a token that was minted, or a session that was verified, under an old config is used for what the new one forbids.
func TestCachesDoNotOutliveThePolicy(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	key := secretFile(t, stack.API.SigningKey())
	before := newEdge(t, stack, func(h *Handler) { h.SigningKey = key })
	token := before.bearer(t, "ada")
	onlyTenant(t, before.show(t, token, "/v0/pipes/live_events.json"), "acme")
	for name, tt := range map[string]struct {
		configure func(*Handler)
		status    int
	}{
		"the pipe is not listed":    {func(h *Handler) { h.Pipes = h.Pipes[1:] }, 404},
		"the pipe requires a role":  {func(h *Handler) { h.Pipes[0].Require = []Requirement{{Kind: "role", Values: []string{"org:nobody"}}} }, 403},
		"a value that is not there": {func(h *Handler) { h.FixedParams[0].Value = "{clerk.claims.nowhere}" }, 403},
		"another issuer": {func(h *Handler) {
			h.Clerk.Issuers, h.Clerk.JWKSURL = []string{"https://clerk.other.example"}, stack.IssuerURL+"/.well-known/jwks.json"
		}, 401},
		"other parties":               {func(h *Handler) { h.Clerk.AuthorizedParties = []string{"https://other.example"} }, 401},
		"shorter lives":               {func(h *Handler) { h.Clerk.MaxLifetime = caddy.Duration(time.Second) }, 401},
		"the token is read elsewhere": {func(h *Handler) { h.Clerk.TokenFrom = []TokenSource{{Source: "cookie"}} }, 401},
	} {
		e := newEdge(t, stack, func(h *Handler) {
			h.SigningKey = key
			tt.configure(h)
		})
		if got := e.show(t, token, "/v0/pipes/live_events.json"); got.StatusCode != tt.status {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	e := newEdge(t, stack, func(h *Handler) {
		h.SigningKey = key
		h.FixedParams[0].Value = devstack.GlobexID
	})
	onlyTenant(t, e.show(t, token, "/v0/pipes/live_events.json"), "globex")
}

// TestVerifiersAreSharedOnlyByTheSameSettings: whatever setting of Clerk differs, the sessions that were verified are not known. A new
// setting is in this test by itself.
func TestVerifiersAreSharedOnlyByTheSameSettings(t *testing.T) {
	t.Parallel()
	fingerprint := func(c *Clerk) string {
		text, err := c.fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	same := fingerprint(&Clerk{PublishableKey: "pk"})
	if fingerprint(&Clerk{PublishableKey: "pk"}) != same {
		t.Fatal("the same settings have two fingerprints")
	}
	settings := reflect.TypeFor[Clerk]()
	seen := map[string]string{same: "nothing"}
	for i := range settings.NumField() {
		field := settings.Field(i)
		if !field.IsExported() {
			continue
		}
		c := &Clerk{PublishableKey: "pk"}
		fill(t, reflect.ValueOf(c).Elem().Field(i))
		text := fingerprint(c)
		if other, ok := seen[text]; ok {
			t.Errorf("%s makes no difference to %s", field.Name, other)
		}
		seen[text] = field.Name
	}
	// An empty list of places for the token is a mistake, and none is the default.
	if fingerprint(&Clerk{PublishableKey: "pk", TokenFrom: []TokenSource{}}) == same {
		t.Error("an empty token_from passes where the default is in use")
	}
	// And what placeholders resolve to, which may change under the same config.
	for name, c := range map[string]*Clerk{
		"publishable key": {clerkState: clerkState{publishableKey: "x"}},
		"satellite":       {clerkState: clerkState{satellite: "x"}},
		"issuers":         {clerkState: clerkState{issuers: []string{"x"}}},
		"address of keys": {clerkState: clerkState{jwksURL: "x"}},
		"key sets":        {clerkState: clerkState{acquired: []string{"x"}}},
	} {
		c.PublishableKey = "pk"
		text := fingerprint(c)
		if other, ok := seen[text]; ok {
			t.Errorf("the resolved %s makes no difference to %s", name, other)
		}
		seen[text] = name
	}
}

// fill gives a field another value than its zero one.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Struct:
		fill(t, v.Field(0))
	default:
		t.Fatalf("a setting of kind %v: say here what else it can be", v.Kind())
	}
}

// TestMintersAreSharedOnlyByTheSameOptions: whatever decides what a token says besides the request, another one signs.
func TestMintersAreSharedOnlyByTheSameOptions(t *testing.T) {
	t.Parallel()
	base := tinybird.MinterOptions{Key: []byte("0123456789abcdef0123456789abcdef"), WorkspaceID: newUUID(), TTL: time.Minute, MaxTokens: 10}
	change := []func(*tinybird.MinterOptions){
		func(*tinybird.MinterOptions) {},
		func(o *tinybird.MinterOptions) { o.Key = []byte("fedcba9876543210fedcba9876543210") },
		func(o *tinybird.MinterOptions) { o.WorkspaceID = newUUID() },
		func(o *tinybird.MinterOptions) { o.TTL = time.Hour },
		func(o *tinybird.MinterOptions) { o.MaxTokens = 11 },
	}
	seen := map[*pooledMinter]int{}
	for i, c := range change {
		o := base
		c(&o)
		for range 2 {
			h := new(Handler)
			if err := h.acquireMinter(o); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := h.Cleanup(); err != nil {
					t.Error(err)
				}
			})
			if other, ok := seen[h.minter]; ok && other != i {
				t.Errorf("options %d and %d share a minter", other, i)
			}
			seen[h.minter] = i
		}
	}
	if len(seen) != len(change) {
		t.Errorf("%d minters for %d sets of options", len(seen), len(change))
	}
}

// TestSharedEndsWithItsLastUser: what configs share is there as long as one of them is, and a rejected config takes nothing away.
func TestSharedEndsWithItsLastUser(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	key := secretFile(t, stack.API.SigningKey())
	sign := func(h *Handler) { h.SigningKey = key }
	e := newEdge(t, stack, sign)
	for range 3 {
		bad := testHandler(t, stack)
		sign(bad)
		bad.TransportRaw = []byte(`{"protocol":"http","proxy_protocol":"v1"}`)
		if err := provision(t, newContext(t, storageDir(t)), bad); err == nil {
			t.Fatal("proxy_protocol was accepted")
		}
		if err := bad.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	next := newEdge(t, stack, sign)
	if next.minter != e.minter || next.verifier != e.verifier || next.limiter != e.limiter {
		t.Error("a rejected config took what the running one uses")
	}
	for _, h := range []*edge{e, next} {
		if err := h.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	last := newEdge(t, stack, sign)
	if last.minter == e.minter || last.verifier == e.verifier || last.limiter == e.limiter {
		t.Error("something is kept that nobody uses")
	}
	if got := last.get(t, "ada", "/v0/pipes/live_events.json"); got.StatusCode != http.StatusOK {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}
