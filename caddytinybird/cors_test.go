package caddytinybird

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

const ownSite = "https://app.example.com"

func withCORS(h *Handler) {
	h.CORS = []string{ownSite, "http://localhost:3000", "capacitor://localhost"}
}

// foreign are origins that look like a listed one, and origins that any site can have.
var foreign = map[string]string{
	"another site":           "https://evil.example",
	"null":                   "null",
	"a subdomain":            "https://www.app.example.com",
	"a longer name":          "https://app.example.com.evil.example",
	"a name before":          "https://evil-app.example.com",
	"upper case":             "https://APP.example.com",
	"upper case scheme":      "HTTPS://app.example.com",
	"a port":                 "https://app.example.com:8443",
	"the default port":       "https://app.example.com:443",
	"another listed's port":  "http://localhost:3001",
	"no port":                "http://localhost",
	"a slash":                "https://app.example.com/",
	"a trailing dot":         "https://app.example.com.",
	"http":                   "http://app.example.com",
	"another scheme":         "ionic://localhost",
	"a star":                 "*",
	"a user":                 "https://app.example.com@evil.example",
	"two origins":            ownSite + " https://evil.example",
	"two, with a comma":      ownSite + ", https://evil.example",
	"empty":                  "",
	"spaces":                 " ",
	"a fullwidth full stop":  "https://app\uff0eexample.com",
	"very long":              "https://" + strings.Repeat("a", 4096) + ".example",
	"a listed one in a path": "https://evil.example/" + ownSite,
}

// corsHeaders are the Access-Control headers of an answer.
func corsHeaders(h http.Header) []string {
	var found []string
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			found = append(found, name)
		}
	}
	return found
}

func (e *edge) preflight(t *testing.T, origin, target, method, headers string) reply {
	t.Helper()
	r := e.request(t, "", http.MethodOptions, target, nil)
	r.Header.Set("Origin", origin)
	r.Header.Set("Access-Control-Request-Method", method)
	if headers != "" {
		r.Header.Set("Access-Control-Request-Headers", headers)
	}
	return e.do(t, r)
}

// TestCORSForeignOriginReadsNothing: a page on an origin that is not listed, however much it looks like one that is, gets no
// permission, neither with the preflight nor with the answer.
func TestCORSForeignOriginReadsNothing(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withCORS)
	for name, origin := range foreign {
		t.Run(name, func(t *testing.T) {
			got := e.preflight(t, origin, "/v0/pipes/live_events.json", http.MethodGet, "authorization")
			if found := corsHeaders(got.Header); len(found) != 0 || got.StatusCode/100 == 2 {
				t.Errorf("preflight: status %d, %v", got.StatusCode, found)
			}
			r := e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", nil)
			r.Header["Origin"] = []string{origin}
			got = e.do(t, r)
			if found := corsHeaders(got.Header); len(found) != 0 {
				t.Errorf("answer: %v", found)
			}
			if !slices.Contains(got.Header.Values("Vary"), "Origin") {
				t.Errorf("Vary %q", got.Header.Values("Vary"))
			}
		})
	}
}

// TestCORSListedOriginReads: a listed origin is named exactly, may send credentials, and reads the headers that a client
// needs. What Tinybird says about CORS, a star, never comes down beside it.
func TestCORSListedOriginReads(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) {
		withCORS(h)
		h.RateLimit = &RateLimit{RPS: "50"}
	})
	for _, origin := range e.CORS {
		r := e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", nil)
		r.Header.Set("Origin", origin)
		got := e.do(t, r)
		onlyTenant(t, got, "acme")
		if values := got.Header.Values("Access-Control-Allow-Origin"); len(values) != 1 || values[0] != origin {
			t.Errorf("allowed %q", values)
		}
		if got.Header.Get("Access-Control-Allow-Credentials") != "true" || !slices.Contains(got.Header.Values("Vary"), "Origin") {
			t.Errorf("headers %v", got.Header)
		}
		shown := strings.ToLower(got.Header.Get("Access-Control-Expose-Headers"))
		for name := range got.Header {
			name = strings.ToLower(name)
			if strings.Contains(name, "ratelimit") && !strings.Contains(","+shown+",", ","+name+",") {
				t.Errorf("%s is not exposed", name)
			}
		}
		if !strings.Contains(shown, "retry-after") {
			t.Errorf("exposed: %q", shown)
		}
	}
}

// TestCORSPreflight: preflights are answered here, for every path and without a session, and nothing goes up.
func TestCORSPreflight(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, withCORS)
	for _, path := range []string{"/v0/pipes/live_events.json", "/v0/pipes/unlisted.json", "/v0/events", "/", "/anything"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			got := e.preflight(t, ownSite, path, method, "authorization,content-type,traceparent")
			if got.StatusCode != http.StatusNoContent || got.Header.Get("Access-Control-Allow-Origin") != ownSite ||
				got.Header.Get("Access-Control-Allow-Credentials") != "true" || got.Header.Get("Access-Control-Max-Age") != "600" {
				t.Errorf("%s %s: status %d, %v", method, path, got.StatusCode, got.Header)
			}
			if allowed := got.Header.Get("Access-Control-Allow-Headers"); !strings.Contains(allowed, "authorization") || strings.Contains(allowed, "*") {
				t.Errorf("allowed headers %q", allowed)
			}
		}
	}
	if got := e.preflight(t, ownSite, "/v0/pipes/live_events.json", http.MethodDelete, ""); got.StatusCode/100 == 2 {
		t.Errorf("DELETE: status %d", got.StatusCode)
	}
	if up := stack.API.Requests(); len(up) != 0 {
		t.Errorf("%d requests went up", len(up))
	}
	// OPTIONS that is no preflight is a method like any other.
	r := e.request(t, "ada", http.MethodOptions, "/v0/pipes/live_events.json", nil)
	r.Header.Set("Origin", ownSite)
	if got := e.do(t, r); got.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("OPTIONS: status %d", got.StatusCode)
	}
}

// TestCORSOnRefusals: without the headers a page sees a "network error" instead of the reason, so they are on every refusal,
// also on those that the site's handle_errors writes.
func TestCORSOnRefusals(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	for _, who := range []string{errorsJSON, errorsCaddy} {
		e := newEdge(t, stack, func(h *Handler) {
			withCORS(h)
			h.Errors = who
			h.Pipes = append(h.Pipes, Pipe{Names: []string{"slow"}, RateLimit: &RateLimit{RPS: "1"}})
		})
		for name, tt := range map[string]struct {
			user, target string
			fault        int
			status       int
		}{
			"nobody":           {target: "/v0/pipes/live_events.json", status: 401},
			"no tenant":        {user: "dana", target: "/v0/pipes/live_events.json", status: 403},
			"unlisted":         {user: "ada", target: "/v0/pipes/unlisted.json", status: 404},
			"unknown path":     {user: "ada", target: "/", status: 404},
			"too many":         {user: "ada", target: "/v0/pipes/slow.json", status: 429},
			"bad query":        {user: "ada", target: "/v0/pipes/live_events.json?a=%zz", status: 400},
			"Tinybird is busy": {user: "ada", target: "/v0/pipes/live_events.json", fault: 429, status: 429},
			"Tinybird fails":   {user: "ada", target: "/v0/pipes/live_events.json", fault: 500, status: 502},
			"Tinybird is away": {user: "ada", target: "/v0/pipes/live_events.json", fault: 503, status: 503},
		} {
			t.Run(who+", "+name, func(t *testing.T) {
				stack.API.Fail(func(*http.Request) *devstack.Fault {
					if tt.fault == 0 {
						return nil
					}
					return &devstack.Fault{Status: tt.fault, Header: http.Header{"Access-Control-Allow-Origin": {"*"}}}
				})
				defer stack.API.Fail(nil)
				if name == "too many" {
					e.get(t, tt.user, tt.target)
				}
				w := e.through(t, tt.user, tt.target)
				if w.Code != tt.status {
					t.Fatalf("status %d, %s", w.Code, w.Body)
				}
				if values := w.Result().Header.Values("Access-Control-Allow-Origin"); len(values) != 1 || values[0] != ownSite {
					t.Errorf("allowed %q", values)
				}
				if w.Header().Get("Access-Control-Allow-Credentials") != "true" || !slices.Contains(w.Header().Values("Vary"), "Origin") {
					t.Errorf("headers %v", w.Header())
				}
			})
		}
	}
}

// through sends a request of a page on ownSite through the handler, and writes an error as Caddy's error routes would.
func (e *edge) through(t *testing.T, user, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := e.request(t, user, http.MethodGet, target, nil)
	r.Header.Set("Origin", ownSite)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
	err := e.ServeHTTP(w, r, nil)
	if err != nil {
		he, ok := err.(caddyhttp.HandlerError) //nolint:errorlint // it is what Caddy looks for
		if !ok {
			t.Fatal(err)
		}
		w.WriteHeader(he.StatusCode)
	}
	return w
}

// TestCORSIsOffByDefault: without the option nothing is allowed, and a preflight is a method that is not served.
func TestCORSIsOffByDefault(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	got := e.preflight(t, ownSite, "/v0/pipes/live_events.json", http.MethodGet, "authorization")
	if got.StatusCode != http.StatusMethodNotAllowed || len(corsHeaders(got.Header)) != 0 {
		t.Errorf("status %d, %v", got.StatusCode, got.Header)
	}
	r := e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", nil)
	r.Header.Set("Origin", ownSite)
	if got := e.do(t, r); len(corsHeaders(got.Header)) != 0 {
		t.Errorf("%v", got.Header)
	}
}

// TestCORSOriginsAreExact: what is no exact origin is refused when the config loads, with the reason.
func TestCORSOriginsAreExact(t *testing.T) {
	t.Parallel()
	for origin, text := range map[string]string{
		"*":                              "list each origin",
		"https://*.example.com":          "list each origin",
		"https://app.example.com:*":      "list each origin",
		"null":                           "sandboxed",
		"":                               "no origin",
		"app.example.com":                "no origin",
		"https://app.example.com/":       "no origin",
		"https://app.example.com/path":   "no origin",
		"https://APP.example.com":        "no origin",
		"https://app.example.com:443":    "no origin",
		"https://app.example.com:0":      "no origin",
		"https://app.example.com:":       "no origin",
		"https://user@app.example.com":   "no origin",
		"https://app.example.com?x":      "no origin",
		"https://":                       "no origin",
		"file:///srv":                    "no origin",
		"http://app.example.com":         "write https",
		"{env.APP_ORIGIN}":               "no origin",
		"sk_live_plantedplantedplanted0": "not shown",
	} {
		err := checkCORS(origin)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", origin, err)
		}
		h := new(Handler)
		h.CORS = []string{ownSite, origin}
		if _, err := newCORSPolicy(h.CORS); err == nil {
			t.Errorf("%s: accepted in a list", origin)
		}
	}
	for _, origin := range []string{
		ownSite, "https://app.example.com:8443", "http://localhost:3000", "http://127.0.0.1:3000", "http://10.1.2.3", "http://app.internal",
		"http://[::1]:3000", "capacitor://localhost", "tauri://localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
	} {
		if err := checkCORS(origin); err != nil {
			t.Errorf("%s: %v", origin, err)
		}
	}
}
