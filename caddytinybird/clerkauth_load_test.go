package caddytinybird

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

const (
	liveKey = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"                       // of clerk.example.com
	testKey = "pk_test_aGFwcHktb3R0ZXItNDIuY2xlcmsuYWNjb3VudHMuZGV2JA" // of happy-otter-42.clerk.accounts.dev
)

// inClerkAuth puts lines into a clerk_auth block. They start at line 3.
func inClerkAuth(lines string) string {
	return "example.com {\n\tclerk_auth " + liveKey + " {\n" + lines + "\n\t}\n}\n"
}

// TestClerkAuthCaddyfileErrors holds that a mistake in a Caddyfile is an error that names its line and the fix.
func TestClerkAuthCaddyfileErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ config, line, text string }{
		"unknown":                   {inClerkAuth("protect"), ":3", "unknown subdirective"},
		"unknown lists":             {inClerkAuth("protect"), ":3", "api_url, authorized_parties"},
		"unknown lists its own":     {inClerkAuth("protect"), ":3", "satellites, secret_key, token_from"},
		"two arguments":             {"example.com {\n\tclerk_auth " + liveKey + " x\n}", ":2", "at most one argument"},
		"key":                       {"example.com {\n\tclerk_auth pk_live_x\n}", ":2", "pk_live_"},
		"key twice":                 {inClerkAuth("publishable_key " + testKey), ":3", "second time"},
		"settings without a key":    {"example.com {\n\tclerk_auth {\n\t\tazp off\n\t}\n}", ":2", "no publishable key"},
		"clerk's own":               {inClerkAuth("clock_skew 2m"), ":3", "out of range"},
		"clerk's own, twice":        {inClerkAuth("azp off\nazp strict"), ":4", "second time (first in line 3)"},
		"clerk's own, exclusive":    {inClerkAuth("jwt_key {env.PEM}\njwks_url https://x.example/k"), ":2", "exclude each other"},
		"clerk's limits":            {inClerkAuth("limits {\n\ttoken_size x\n}"), ":4", "whole number"},
		"api_url":                   {inClerkAuth("api_url http://api.clerk.com"), ":3", "https"},
		"api_url query":             {inClerkAuth("api_url https://api.clerk.com?x=1"), ":3", "query"},
		"api_url none":              {inClerkAuth("api_url api.clerk.com"), ":3", "no URL"},
		"proxy_url":                 {inClerkAuth("proxy_url http://example.com/__clerk"), ":3", "https"},
		"proxy_url host":            {inClerkAuth("proxy_url //evil.example/"), ":3", "single slashes"},
		"proxy_url backslash":       {inClerkAuth(`proxy_url /\evil.example/`), ":3", "single slashes"},
		"proxy_url dots":            {inClerkAuth("proxy_url /../x"), ":3", "single slashes"},
		"proxy_url root":            {inClerkAuth("proxy_url /"), ":3", "single slashes"},
		"proxy_url query":           {inClerkAuth("proxy_url https://example.com/__clerk?a"), ":3", "query"},
		"require kind":              {inClerkAuth("require team a"), ":3", "organization, role"},
		"require nothing":           {inClerkAuth("require"), ":3", "at least one argument"},
		"require no value":          {inClerkAuth("require role"), ":3", "at least one"},
		"require placeholder":       {inClerkAuth("require organization {http.request.host}"), ":3", "placeholders"},
		"require block":             {inClerkAuth("require role a {\n}"), ":3", "block"},
		"on_unauthenticated":        {inClerkAuth("on_unauthenticated 403"), ":3", "redirect"},
		"on_unauthenticated none":   {inClerkAuth("on_unauthenticated"), ":3", "at least one"},
		"on_unauthenticated 401 x":  {inClerkAuth("on_unauthenticated 401 https://x.example"), ":3", "redirect"},
		"on_unauthenticated two":    {inClerkAuth("on_unauthenticated redirect https://x.example https://y.example"), ":3", "at most"},
		"on_unauthenticated twice":  {inClerkAuth("on_unauthenticated 401\non_unauthenticated redirect"), ":4", "second time"},
		"sign-in path":              {inClerkAuth("on_unauthenticated redirect /sign-in"), ":3", "full URL"},
		"sign-in http":              {inClerkAuth("on_unauthenticated redirect http://app.example.com/sign-in"), ":3", "https"},
		"sign-in other scheme":      {inClerkAuth("on_unauthenticated redirect javascript://app.example.com/"), ":3", "base URL"},
		"sign-in user":              {inClerkAuth("on_unauthenticated redirect https://a:b@app.example.com/"), ":3", "user"},
		"sign-in fragment":          {inClerkAuth("on_unauthenticated redirect https://app.example.com/#/sign-in"), ":3", "fragment"},
		"sign-in return":            {inClerkAuth("on_unauthenticated redirect https://app.example.com/?redirect_url=x"), ":3", "redirect_url"},
		"handshake":                 {inClerkAuth("handshake yes"), ":3", "on, off"},
		"handshake none":            {inClerkAuth("handshake"), ":3", "exactly one"},
		"forward_identity":          {inClerkAuth("forward_identity a b"), ":3", "at most"},
		"forward_identity hyphen":   {inClerkAuth("forward_identity X-User"), ":3", "hyphen"},
		"forward_identity all":      {inClerkAuth("forward_identity X-"), ":3", "too wide"},
		"forward_identity taken":    {inClerkAuth("forward_identity x-forwarded-"), ":3", "X-Forwarded-For"},
		"forward_identity wide":     {inClerkAuth("forward_identity -"), ":3", "prefix"},
		"forward_identity sign":     {inClerkAuth("forward_identity X_User-"), ":3", "letters"},
		"forward_identity value":    {inClerkAuth("forward_identity {http.request.host}-"), ":3", "letters"},
		"forward_identity block":    {inClerkAuth("forward_identity {\n}"), ":3", "block"},
		"optional":                  {inClerkAuth("optional yes"), ":3", "no argument"},
		"errors":                    {inClerkAuth("errors html"), ":3", "json, caddy"},
		"organization_sync":         {inClerkAuth("organization_sync team /x"), ":3", "organization or personal"},
		"organization_sync none":    {inClerkAuth("organization_sync organization"), ":3", "no pattern"},
		"organization_sync twice":   {inClerkAuth("organization_sync personal /a\norganization_sync personal /b"), ":4", "one line"},
		"organization_sync pattern": {inClerkAuth("organization_sync organization orgs/:slug"), ":3", "slash"},
		"satellite":                 {inClerkAuth("satellite https://satellite.example.com"), ":3", "domain"},
		"satellite name":            {inClerkAuth("satellite shop"), ":3", "localhost:3001"},
		"satellite word":            {inClerkAuth("satellite satellite.example.com autosync"), ":3", "auto_sync"},
		"satellite none":            {inClerkAuth("satellite"), ":3", "at least one"},
		"satellites":                {inClerkAuth("satellites satellite.example.com"), ":3", "origin"},
		"satellites slash":          {inClerkAuth("satellites https://satellite.example.com/"), ":3", "origin"},
		"both satellites":           {inClerkAuth("satellite a.example.com\nsatellites https://b.example.com"), ":2", "exclude each other"},
		"tinybird require":          {inTinybird("pipe x {\n\trequire organization acme\n\tunrestricted\n}"), ":4", "role"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := adapt(t, tt.config)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), "Caddyfile"+tt.line) {
				t.Errorf("the error does not name line %s: %v", tt.line, err)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("the error does not hold %q: %v", tt.text, err)
			}
		})
	}
}

// TestClerkAuthLoadErrors: what only shows when the config loads, or in JSON that no parser has looked at, is refused with the fix.
func TestClerkAuthLoadErrors(t *testing.T) {
	t.Parallel()
	on, off := true, false
	for name, tt := range map[string]struct {
		change func(*ClerkAuth)
		text   string
	}{
		"nothing": {func(h *ClerkAuth) { h.PublishableKey = "" }, "global option `clerk`"},
		"handshake without a key": {func(h *ClerkAuth) {
			h.PublishableKey, h.Issuers, h.Handshake = "", []string{"https://clerk.example.com"}, &on
		}, "publishable_key"},
		"redirect to nowhere": {func(h *ClerkAuth) {
			h.PublishableKey, h.Issuers, h.OnUnauthenticated = "", []string{"https://clerk.example.com"}, "redirect"
		}, "on_unauthenticated redirect https://"},
		"no portal": {func(h *ClerkAuth) {
			h.PublishableKey, h.OnUnauthenticated = "pk_live_YXV0aC5leGFtcGxlLmNvbSQ", "redirect"
		}, "on_unauthenticated redirect https://"},
		"on_unauthenticated":                    {func(h *ClerkAuth) { h.OnUnauthenticated = "403" }, "redirect or 401"},
		"sign-in variable":                      {func(h *ClerkAuth) { h.SignInURL = "{env.CADDY_TINYBIRD_UNSET}" }, "set the variable"},
		"sign-in of the client's":               {func(h *ClerkAuth) { h.SignInURL = "https://{http.request.host}/sign-in" }, "sign-in page"},
		"sign-in http":                          {func(h *ClerkAuth) { h.SignInURL = "http://app.example.com" }, "https"},
		"errors":                                {func(h *ClerkAuth) { h.Errors = "html" }, "json, caddy"},
		"require":                               {func(h *ClerkAuth) { h.Require = []Requirement{{Kind: "team", Values: []string{"a"}}} }, "organization, role"},
		"forward_identity":                      {func(h *ClerkAuth) { h.ForwardIdentity = "Cookie" }, "hyphen"},
		"satellite, no handshake":               {func(h *ClerkAuth) { h.Satellite, h.Handshake = &Satellite{Domain: "s.example.com"}, &off }, "handshake off"},
		"satellite on localhost, in production": {func(h *ClerkAuth) { h.Satellite = &Satellite{Domain: "localhost:3001"} }, "satellite.example.com"},
		"satellite, no key": {func(h *ClerkAuth) {
			h.PublishableKey, h.Issuers, h.Satellite = "", []string{"https://clerk.example.com"}, &Satellite{Domain: "s.example.com"}
		}, "publishable_key"},
		"satellite, no page":   {func(h *ClerkAuth) { h.PublishableKey, h.Satellite = testKey, &Satellite{Domain: "s.example.com"} }, "on_unauthenticated redirect <url>"},
		"satellite, no domain": {func(h *ClerkAuth) { h.Satellite = new(Satellite) }, "satellite.example.com"},
		"satellites, live":     {func(h *ClerkAuth) { h.Satellites = []string{"https://s.example.com"} }, "development"},
		"satellites, off": {func(h *ClerkAuth) {
			h.PublishableKey, h.Satellites, h.Handshake = testKey, []string{"https://s.example.com"}, &off
		}, "handshake off"},
		"sync, no handshake": {func(h *ClerkAuth) {
			h.OrganizationSync, h.Handshake = &OrganizationSync{Organizations: []string{"/o/:id"}}, &off
		}, "handshake off"},
		"proxy path, no issuer": {func(h *ClerkAuth) { h.ProxyURL = "/__clerk" }, "issuer https://app.example.com/__clerk"},
		"proxy_url":             {func(h *ClerkAuth) { h.ProxyURL = "//evil.example" }, "proxy_url"},
		"api_url":               {func(h *ClerkAuth) { h.APIURL = "http://api.clerk.com" }, "api_url"},
		"jwks_url":              {func(h *ClerkAuth) { h.JWKSURL = "http://clerk.example.com" }, "jwks_url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &ClerkAuth{ClerkProvider: ClerkProvider{Clerk: Clerk{PublishableKey: liveKey}}}
			tt.change(h)
			err := h.Provision(newContext(t, storageDir(t)))
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v; want an error with %q", err, tt.text)
			}
			if err := h.Cleanup(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClerkAddresses: where Clerk is, and who issues its tokens, follows from the settings as Clerk documents it.
func TestClerkAddresses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		settings  Clerk
		satellite string
		issuers   []string
		api       string
	}{
		"key":                      {Clerk{PublishableKey: liveKey}, "", []string{"https://clerk.example.com"}, ""},
		"issuer":                   {Clerk{PublishableKey: liveKey, Issuers: []string{"https://clerk.example.com"}}, "", []string{"https://clerk.example.com"}, ""},
		"proxy":                    {Clerk{PublishableKey: liveKey, ProxyURL: "https://app.example.com/__clerk/"}, "", []string{"https://app.example.com/__clerk"}, "https://app.example.com/__clerk"},
		"proxy and issuer":         {Clerk{PublishableKey: liveKey, ProxyURL: "https://app.example.com/__clerk", Issuers: []string{"https://clerk.example.com"}}, "", []string{"https://clerk.example.com"}, "https://app.example.com/__clerk"},
		"proxy path":               {Clerk{PublishableKey: liveKey, ProxyURL: "/__clerk/", Issuers: []string{"https://app.example.com/__clerk"}}, "", []string{"https://app.example.com/__clerk"}, "/__clerk"},
		"satellite":                {Clerk{PublishableKey: liveKey}, "s.example.org", []string{"https://clerk.s.example.org", "https://clerk.example.com"}, ""},
		"satellite, development":   {Clerk{PublishableKey: testKey}, "s.example.org", []string{"https://happy-otter-42.clerk.accounts.dev"}, ""},
		"another host's issuer":    {Clerk{PublishableKey: liveKey, Issuers: []string{"http://127.0.0.1:4000"}}, "", []string{"http://127.0.0.1:4000"}, ""},
		"an instance on this host": {Clerk{PublishableKey: "pk_test_MTI3LjAuMC4xOjQwMDAk", Issuers: []string{"http://127.0.0.1:4000"}}, "", []string{"http://127.0.0.1:4000"}, "http://127.0.0.1:4000"},
	} {
		tt.settings.satellite = tt.satellite
		if err := tt.settings.provision(newContext(t, storageDir(t))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Equal(tt.settings.issuers, tt.issuers) || tt.settings.frontendAPI() != tt.api {
			t.Errorf("%s: issuers %q, Frontend API %q", name, tt.settings.issuers, tt.settings.frontendAPI())
		}
		if err := tt.settings.cleanup(); err != nil {
			t.Error(err)
		}
	}
}

// TestGlobalClerk: without a key of its own clerk_auth has the verifier of the global option, and a satellite its settings.
func TestGlobalClerk(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	const global = "global clerk {pk} {\nglobal issuer {issuer}\nglobal authorized_parties https://app.example.com\nglobal }\n"
	s := newSite(t, stack, global+"clerk_auth\nrespond ok")
	if got := s.ask(t, "/", s.as(t, "ada")); string(got.body) != "ok" {
		t.Errorf("status %d, %s", got.StatusCode, got.body)
	}
	if got := s.ask(t, "/", s.as(t, "ada", devstack.AZP("https://evil.example"))); got.code(t) != "token_wrong_party" {
		t.Errorf("status %d, %s", got.StatusCode, got.body)
	}
	satellite := newSite(t, stack, global+"clerk_auth {\n\tsatellite s.example.org\n}\nrespond ok")
	if got := satellite.ask(t, "/", s.as(t, "ada", devstack.AZP("https://evil.example"))); got.code(t) != "token_wrong_party" {
		t.Errorf("satellite: status %d, %s", got.StatusCode, got.body)
	}
	if got := satellite.ask(t, "/", s.as(t, "ada")); string(got.body) != "ok" {
		t.Errorf("satellite: status %d, %s", got.StatusCode, got.body)
	}
	if _, err := tryNewSite(t, stack, "clerk_auth\nrespond ok"); err == nil || !strings.Contains(err.Error(), "clerk_auth pk_...") {
		t.Errorf("no key anywhere: %v", err)
	}
}

// TestP7ClerkAuthNeedsNoNetwork: clerk_auth loads while nothing of Clerk can be reached, many times, and gives back what it took.
func TestP7ClerkAuthNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	stack.Issuer.SetDown(true)
	running := newSite(t, stack, auth+"respond ok")
	for range 20 {
		h := new(ClerkAuth)
		if err := unmarshal(h, strings.NewReplacer("{pk}", stack.Issuer.PublishableKey(), "{issuer}", stack.IssuerURL).Replace(auth)); err != nil {
			t.Fatal(err)
		}
		h.SecretKey = secretFile(t, "sk_live_0123456789012345678901234567890123456789")
		h.OrganizationSync = &OrganizationSync{Organizations: []string{"/orgs/:slug"}}
		if err := h.Provision(newContext(t, storageDir(t))); err != nil {
			t.Fatal(err)
		}
		for range 2 { // Caddy may clean up what failed, and then everything
			if err := h.Cleanup(); err != nil {
				t.Fatal(err)
			}
		}
	}
	stack.Issuer.SetDown(false)
	if references, ok := keySets.References(stack.IssuerURL + "/.well-known/jwks.json refresh=0s misses=0"); !ok || references != 1 {
		t.Errorf("%d references to the keys, want the one of the running config", references)
	}
	_ = running
}

// TestSiteLoadsEnd: what modules learn of each other is forgotten with their config, and is not that of another one.
func TestSiteLoadsEnd(t *testing.T) {
	t.Parallel()
	ctx, end := caddy.NewContext(caddy.Context{Context: context.Background()})
	other, endOther := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer endOther()
	siteOf(ctx).guarded = true
	if !siteOf(ctx).mayBeGuarded(ctx) || siteOf(other).mayBeGuarded(other) {
		t.Error("configs are mixed up")
	}
	ended := make(chan struct{})
	context.AfterFunc(ctx.Context, func() { close(ended) })
	end()
	<-ended
	// It is forgotten in a goroutine of its own.
	for known := true; known; {
		siteLoads.Lock()
		_, known = siteLoads.of[ctx.Context]
		siteLoads.Unlock()
	}
}

// TestP4ClerkAuthHidesKeys: a key in a wrong place is refused without being shown, while adapting and while loading.
func TestP4ClerkAuthHidesKeys(t *testing.T) {
	t.Parallel()
	const key = "sk_live_plantedplantedplantedplanted"
	for _, line := range []string{
		"secret_key {" + key + "}", "secret_key {env." + key + "}", "api_url " + key, "proxy_url " + key, "require " + key + " x",
		"require role {" + key + "}", "require organization {" + key + "}", "on_unauthenticated " + key, "on_unauthenticated redirect " + key,
		"on_unauthenticated redirect https://" + key + "@x.example/", "on_unauthenticated redirect https://x.example/#" + key, "handshake " + key,
		"forward_identity " + key, "optional " + key, "errors " + key, "organization_sync " + key + " /x", "organization_sync personal " + key,
		"satellite " + key, "satellite s.example.com " + key, "satellites " + key, key, "publishable_key " + key,
	} {
		_, _, err := adapt(t, inClerkAuth(line))
		if err == nil {
			t.Errorf("accepted: %s", line)
		} else if strings.Contains(err.Error(), "planted") {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	if _, _, err := adapt(t, "example.com {\n\tclerk_auth "+key+"\n}"); err == nil || strings.Contains(err.Error(), "planted") {
		t.Errorf("%v", err)
	}
	for name, change := range map[string]func(h *ClerkAuth, text string){
		"secret_key": func(h *ClerkAuth, text string) { h.SecretKey = text },
		"api_url":    func(h *ClerkAuth, text string) { h.APIURL = text },
		"api_url path": func(h *ClerkAuth, text string) {
			h.APIURL, h.SecretKey = "https://x.example/"+text+"/;", secretFile(t, key)
		},
		"proxy_url":          func(h *ClerkAuth, text string) { h.ProxyURL = text },
		"proxy_url path":     func(h *ClerkAuth, text string) { h.ProxyURL = "/" + text },
		"sign-in page":       func(h *ClerkAuth, text string) { h.SignInURL = "https://x.example/#" + text },
		"sign-in host":       func(h *ClerkAuth, text string) { h.SignInURL = text },
		"on_unauthenticated": func(h *ClerkAuth, text string) { h.OnUnauthenticated = text },
		"forward_identity":   func(h *ClerkAuth, text string) { h.ForwardIdentity = text },
		"requirement":        func(h *ClerkAuth, text string) { h.Require = []Requirement{{Kind: text, Values: []string{text}}} },
		"organization": func(h *ClerkAuth, text string) {
			h.Require = []Requirement{{Kind: "organization", Values: []string{text + " "}}}
		},
		"errors":     func(h *ClerkAuth, text string) { h.Errors = text },
		"satellite":  func(h *ClerkAuth, text string) { h.Satellite = &Satellite{Domain: text} },
		"satellites": func(h *ClerkAuth, text string) { h.Satellites = []string{text} },
		"pattern": func(h *ClerkAuth, text string) {
			h.OrganizationSync = &OrganizationSync{Organizations: []string{"/(" + text}}
		},
	} {
		for _, text := range []string{key, "{" + key + "}", "{env." + key + "}", "{file." + key + "}"} {
			h := &ClerkAuth{ClerkProvider: ClerkProvider{Clerk: Clerk{PublishableKey: liveKey}}}
			change(h, text)
			if err := h.Provision(newContext(t, storageDir(t))); err != nil && strings.Contains(err.Error(), "planted") {
				t.Errorf("%s shows the key: %v", name, err)
			}
			if err := h.Cleanup(); err != nil {
				t.Error(err)
			}
		}
	}
	h := provisioned(t, newLiveStack(t), strings.Replace(auth, "issuer", "secret_key "+secretFile(t, key)+"\nissuer", 1))
	text, err := json.Marshal(h)
	if err != nil || strings.Contains(string(text), "planted") {
		t.Errorf("the config shows the key: %s, %v", text, err)
	}
}
