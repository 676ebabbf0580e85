package caddytinybird

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/caddyserver/caddy/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/sharedlimit"
)

// newStore starts a stand-in for Redis whose clock stands still.
func newStore(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.RunT(t)
	m.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	return m
}

// shared has a handler count in that store. Nothing here is about time, so a request may wait for as long as a busy machine takes.
func shared(m *miniredis.Miniredis, burst int) func(*Handler) {
	return func(h *Handler) {
		h.RateLimit = &RateLimit{RPS: "1", Burst: burst}
		h.RateLimitRedis = &SharedLimit{URL: "redis://" + m.Addr(), Timeout: caddy.Duration(maxStoreTimeout)}
	}
}

// elsewhere is another edge's limiter, in the terms of internal/sharedlimit.
func elsewhere(t *testing.T, m *miniredis.Miniredis, workspace string) *sharedlimit.Limiter {
	t.Helper()
	s, err := sharedlimit.Open(sharedlimit.Options{Redis: &redis.UniversalOptions{Addrs: []string{m.Addr()}}, Timeout: maxStoreTimeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return sharedlimit.NewLimiter(s, ratelimit.New(ratelimit.Options{}), workspace)
}

// TestSharedLimitCountsWithOtherEdges: what a tenant used up at another edge is used up here, for pipes, tokens and rows alike, each with
// its own count, and no other tenant notices.
func TestSharedLimitCountsWithOtherEdges(t *testing.T) {
	t.Parallel()
	stack, m := newStack(t, devstack.Options{}), newStore(t)
	e := newEdge(t, stack, func(h *Handler) {
		shared(m, 5)(h)
		h.TokenEndpoint = endpoint
	})
	other := elsewhere(t, m, stack.API.WorkspaceID())
	lim := ratelimit.Limit{RPS: 1, Burst: 5}
	for range 4 {
		if r, err := other.Allow(devstack.AcmeID, lim); err != nil || !r.Allowed {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	// A query that is refused after it was counted: the stand-in for Tinybird, which has limits of its own, is left out.
	got := e.get(t, "ada", "/v0/pipes/live_events.json?a=%zz")
	if got.code(t) != "bad_query" || got.Header.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("the fifth request: status %d, %v", got.StatusCode, got.Header)
	}
	for _, target := range []string{"/v0/pipes/live_events.json?a=%zz", endpoint} {
		got = e.get(t, "ada", target)
		if got.StatusCode != http.StatusTooManyRequests || got.code(t) != "rate_limited" || got.Header.Get("Retry-After") != "1" || got.Header.Get("X-RateLimit-Reset") != "5" {
			t.Errorf("%s: status %d, %v", target, got.StatusCode, got.Header)
		}
	}
	if r, err := other.Allow(devstack.AcmeID, lim); err != nil || r.Allowed {
		t.Errorf("the other edge admits a sixth request: %+v, %v", r, err)
	}
	if got := e.get(t, "cleo", "/v0/pipes/live_events.json?a=%zz"); got.Header.Get("X-RateLimit-Remaining") != "4" {
		t.Errorf("another tenant: status %d, %v", got.StatusCode, got.Header)
	}
	for _, key := range m.Keys() {
		if strings.Contains(key, "org_") || !strings.HasPrefix(key, "caddy-tinybird:") {
			t.Errorf("the key %q", key)
		}
	}
}

// TestSharedLimitStaysInTheToken: Tinybird is told the same rate as without a store.
func TestSharedLimitStaysInTheToken(t *testing.T) {
	t.Parallel()
	stack, m := newStack(t, devstack.Options{}), newStore(t)
	e := newEdge(t, stack, func(h *Handler) {
		shared(m, 5)(h)
		h.RateLimit.RPS = "7"
	})
	onlyTenant(t, e.get(t, "ada", "/v0/pipes/live_events.json"), "acme")
	ups := stack.API.Requests()
	limits, _ := ups[len(ups)-1].Claims["limits"].(map[string]any)
	if fmt.Sprint(limits["rps"]) != "7" {
		t.Errorf("the token's limits are %v", limits)
	}
}

// TestSharedLimitNeedsNoStoreToLoad: loading makes no connection, and without a store every request is answered under the edge's own limit.
func TestSharedLimitNeedsNoStoreToLoad(t *testing.T) {
	t.Parallel()
	stack, m := newStack(t, devstack.Options{}), newStore(t)
	e := newEdge(t, stack, shared(m, 3))
	if n := m.TotalConnectionCount(); n != 0 {
		t.Errorf("%d connections before the first request", n)
	}
	addr := m.Addr()
	m.Close()
	before := gatherValue(t, e.context, "caddy_tinybird_shared_limit_decisions_total", "edge")
	for n, want := range []int{http.StatusBadRequest, http.StatusBadRequest, http.StatusBadRequest, http.StatusTooManyRequests} {
		if got := e.get(t, "ada", "/v0/pipes/live_events.json?a=%zz"); got.StatusCode != want {
			t.Errorf("request %d without a store: status %d, want %d", n, got.StatusCode, want)
		}
	}
	if now := gatherValue(t, e.context, "caddy_tinybird_shared_limit_decisions_total", "edge"); now < before+4 {
		t.Errorf("%v decisions by the edge, then %v", before, now)
	}
	if up := gatherValue(t, e.context, "caddy_tinybird_shared_limit_up", addr); up != 0 {
		t.Errorf("the metric says that the store is up: %v", up)
	}
}

// TestSharedLimitSharesTheClient: handlers with one address share connections, a reload keeps them, rejected configs leave nothing
// behind, and with the last config they end.
func TestSharedLimitSharesTheClient(t *testing.T) {
	t.Parallel()
	stack, m := newStack(t, devstack.Options{}), newStore(t)
	ask := func(e *edge) {
		t.Helper()
		if got := e.get(t, "ada", "/v0/pipes/live_events.json?a=%zz"); got.code(t) != "bad_query" {
			t.Fatalf("status %d: %s", got.StatusCode, got.body)
		}
	}
	first, second := newEdge(t, stack, shared(m, 1000)), newEdge(t, stack, shared(m, 1000))
	other := newEdge(t, stack, func(h *Handler) {
		shared(m, 1000)(h)
		h.RateLimitRedis.Timeout = caddy.Duration(time.Second)
	})
	if first.store != second.store || first.store == other.store {
		t.Errorf("the clients are %p, %p and, with another time-out, %p", first.store, second.store, other.store)
	}
	ask(first)
	connections := m.TotalConnectionCount()
	ask(second)
	for range 5 {
		bad := testHandler(t, stack)
		shared(m, 1000)(bad)
		bad.TokenEndpoint = "no path"
		if err := provision(t, newContext(t, storageDir(t)), bad); err == nil {
			t.Fatal("a token endpoint without a slash was accepted")
		}
		if err := bad.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Cleanup(); err != nil {
		t.Fatal(err)
	}
	ask(second)
	if n := m.TotalConnectionCount(); n != connections {
		t.Errorf("%d connections were made after the first %d", n-connections, connections)
	}
	key := second.store
	if err := errors.Join(second.Cleanup(), other.Cleanup()); err != nil {
		t.Fatal(err)
	}
	if n, ok := sharedStores.References(key); ok {
		t.Errorf("the client is still used %d times", n)
	}
	ask(second) // a request that the old config had accepted
	deadline := time.After(30 * time.Second)
	for m.CurrentConnectionCount() != 0 {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%d connections are left", m.CurrentConnectionCount())
		}
	}
}

// TestSharedLimitTellsChangesOnce: one line on each change, by the newest config that is still there.
func TestSharedLimitTellsChangesOnce(t *testing.T) {
	t.Parallel()
	s := &sharedStore{host: "redis-1:6379"}
	leave, logs := [3]func(){}, [3]*observer.ObservedLogs{}
	for i := range leave {
		var core zapcore.Core
		core, logs[i] = observer.New(zapcore.DebugLevel)
		leave[i] = s.users.use(zap.New(core))
	}
	leave[2]()
	s.observe(sharedlimit.Event{Err: errors.New("no answer in time")})
	s.observe(sharedlimit.Event{Down: time.Minute})
	leave[0]()
	leave[1]()
	s.observe(sharedlimit.Event{Err: errors.New("no answer in time")})
	if n := len(logs[0].All()) + len(logs[2].All()); n != 0 {
		t.Errorf("%d lines in the logs of other configs", n)
	}
	lines := logs[1].All()
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3", len(lines))
	}
	for i, level := range []zapcore.Level{zapcore.WarnLevel, zapcore.InfoLevel, zapcore.WarnLevel} {
		if lines[i].Level != level || lines[i].ContextMap()["store"] != "redis-1:6379" {
			t.Errorf("line %d: %+v", i, lines[i])
		}
	}
}

// authority makes a certificate authority and a certificate of it for 127.0.0.1, as files, and returns the latter.
func authority(t *testing.T) (ca, certificate, key string, pair tls.Certificate) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sign := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = own
		}
		template.NotAfter = time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, own.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, own
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, rootKey := sign(root, root, nil)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	leafDER, leafKey := sign(leaf, root, rootKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", rootDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", keyDER),
		tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}
}

// TestSharedLimitOverTLS: the store's certificate is verified, and one of our own is shown.
func TestSharedLimitOverTLS(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	ca, certificate, key, pair := authority(t)
	_, foreignCertificate, foreignKey, _ := authority(t)
	roots := x509.NewCertPool()
	if text, err := os.ReadFile(ca); err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	m, err := miniredis.RunTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	for name, c := range map[string]struct {
		settings SharedLimit
		counted  bool
	}{
		"trusted":             {SharedLimit{CA: []string{ca}, ClientCertificate: certificate, ClientKey: key}, true},
		"authority not known": {SharedLimit{ClientCertificate: certificate, ClientKey: key}, false},
		"no certificate":      {SharedLimit{CA: []string{ca}}, false},
		"another certificate": {SharedLimit{CA: []string{ca}, ClientCertificate: foreignCertificate, ClientKey: foreignKey}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m.FlushAll()
			e := newEdge(t, stack, func(h *Handler) {
				h.RateLimit = &RateLimit{RPS: "100"}
				h.RateLimitRedis = &c.settings
				h.RateLimitRedis.URL, h.RateLimitRedis.Timeout = "rediss://"+m.Addr(), caddy.Duration(maxStoreTimeout)
			})
			if got := e.get(t, "ada", "/v0/pipes/live_events.json?a=%zz"); got.code(t) != "bad_query" {
				t.Errorf("status %d: %s", got.StatusCode, got.body)
			}
			if n := len(m.Keys()); (n > 0) != c.counted {
				t.Errorf("%d keys in the store", n)
			}
		})
	}
}

// TestSharedLimitConfigErrors: what cannot work is refused when the config loads, and no error shows the address, the password in it,
// or what a variable holds.
func TestSharedLimitConfigErrors(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	ca, certificate, key, _ := authority(t)
	inFile := secretFile(t, "hunter2 in a file")
	for name, c := range map[string]struct {
		settings SharedLimit
		text     string
	}{
		"no address":            {SharedLimit{}, "redis://host:6379"},
		"another scheme":        {SharedLimit{URL: "http://:hunter2@redis"}, "redis://host:6379"},
		"not encoded":           {SharedLimit{URL: "redis://:hun#hunter2@redis"}, "percent-encoded"},
		"not encoded, as port":  {SharedLimit{URL: "redis://:hunter2/1@redis"}, "percent-encoded"},
		"no URL in a file":      {SharedLimit{URL: inFile}, "redis://host:6379"},
		"no host in a file":     {SharedLimit{URL: "redis://" + inFile}, "needs a host"},
		"unset":                 {SharedLimit{URL: "redis://:{env.HUNTER2_NOT_SET}@redis"}, "missing or empty"},
		"the client's":          {SharedLimit{URL: "redis://:{query.hunter2}@redis"}, "{env.NAME}"},
		"an option":             {SharedLimit{URL: "redis://redis?hunter2=1"}, "cluster=true"},
		"time-out too long":     {SharedLimit{URL: "redis://redis", Timeout: caddy.Duration(time.Minute)}, "from 1ms to 5s"},
		"time-out negative":     {SharedLimit{URL: "redis://redis", Timeout: -1}, "from 1ms to 5s"},
		"ca without TLS":        {SharedLimit{URL: "redis://redis", CA: []string{ca}}, "rediss://"},
		"ca is not there":       {SharedLimit{URL: "rediss://redis", CA: []string{ca + ".gone"}}, "no such file"},
		"ca is none":            {SharedLimit{URL: "rediss://redis", CA: []string{key}}, "no certificate in PEM"},
		"certificate alone":     {SharedLimit{URL: "rediss://redis", ClientCertificate: certificate}, "and its key"},
		"key of another":        {SharedLimit{URL: "rediss://redis", ClientCertificate: ca, ClientKey: key}, "do not hold a certificate and its key"},
		"certificate is no PEM": {SharedLimit{URL: "rediss://redis", ClientCertificate: key, ClientKey: key}, "do not hold a certificate and its key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testHandler(t, stack)
			h.RateLimit, h.RateLimitRedis = &RateLimit{RPS: "1"}, &c.settings
			err := provision(t, newContext(t, storageDir(t)), h)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "rate_limit redis") {
				t.Errorf("the error does not hold %q: %v", c.text, err)
			}
			if strings.Contains(strings.ToLower(err.Error()), "hunter2") {
				t.Errorf("the error shows the address: %v", err)
			}
		})
	}
	h := testHandler(t, stack)
	h.RateLimitRedis = &SharedLimit{URL: "redis://redis"}
	if err := provision(t, newContext(t, storageDir(t)), h); !errors.Is(err, errNothingShared) {
		t.Errorf("without a rate: %v", err)
	}
}

// gatherValue is the sum of a metric's values with that label value.
func gatherValue(t *testing.T, ctx caddy.Context, name, label string) float64 {
	t.Helper()
	sum, found := 0.0, false
	for line := range strings.Lines(gather(t, ctx)) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, strconv.Quote(label)) {
			value, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:len(line)-1], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum, found = sum+value, true
		}
	}
	if !found {
		t.Fatalf("no %s of %s", name, label)
	}
	return sum
}
