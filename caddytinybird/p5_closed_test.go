package caddytinybird

import (
	"net/http"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestP5FailsClosed: whatever goes wrong is answered with a JSON refusal of the documented status and code, and never
// with rows.
func TestP5FailsClosed(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	for name, tt := range map[string]struct {
		fault  devstack.Fault
		status int
		code   string
	}{
		"refuses the query":       {devstack.Fault{Status: 400, Body: []byte(`{"error":"[Error] SELECT secret_column"}`)}, 400, "query_refused"},
		"refuses the token, 401":  {devstack.Fault{Status: 401}, 403, "upstream_refused"},
		"refuses the token, 403":  {devstack.Fault{Status: 403}, 403, "upstream_refused"},
		"does not know the pipe":  {devstack.Fault{Status: 404}, 404, "not_found"},
		"times out":               {devstack.Fault{Status: 408}, 504, "upstream_timeout"},
		"is busy":                 {devstack.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}}, 429, "rate_limited"},
		"redirects":               {devstack.Fault{Status: 302, Header: http.Header{"Location": {"https://evil.example/"}}}, 502, "upstream_unreachable"},
		"fails":                   {devstack.Fault{Status: 500}, 502, "upstream_unreachable"},
		"is unavailable":          {devstack.Fault{Status: 503, Header: http.Header{"Retry-After": {"9"}}}, 503, "upstream_unreachable"},
		"fails in its own way":    {devstack.Fault{Status: 598}, 502, "upstream_unreachable"},
		"times out its own way":   {devstack.Fault{Status: 599}, 502, "upstream_unreachable"},
		"teapot":                  {devstack.Fault{Status: 418}, 400, "query_refused"},
		"drops the connection":    {devstack.Fault{Stop: devstack.DropBeforeHeader}, 502, "upstream_unreachable"},
		"proxy asks for a ticket": {devstack.Fault{Status: 407}, 400, "query_refused"},
	} {
		t.Run(name, func(t *testing.T) {
			stack.API.Fail(func(*http.Request) *devstack.Fault { return &tt.fault })
			got := e.get(t, "ada", "/v0/pipes/live_events.json")
			if got.StatusCode != tt.status || got.code(t) != tt.code {
				t.Errorf("status %d, %s; want %d %s", got.StatusCode, got.body, tt.status, tt.code)
			}
			if got.Header.Get("Cache-Control") != "private, no-store" || got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", got.Header)
			}
			for _, leak := range []string{"secret_column", "evil.example", devstack.AcmeID, devstack.GlobexID} {
				if strings.Contains(string(got.body), leak) || got.Header.Get("Location") != "" {
					t.Errorf("leaks %s: %s", leak, got.body)
				}
			}
			if want := tt.fault.Header.Get("Retry-After"); want != "" && got.Header.Get("Retry-After") != want {
				t.Errorf("Retry-After %q, want %q", got.Header.Get("Retry-After"), want)
			}
		})
	}
}

// TestP5TokensFailClosed: whatever is wrong with a session token is a 401 with its code, and nothing goes up.
func TestP5TokensFailClosed(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{Issuer: devstack.IssuerOptions{AppOrigin: "https://app.example.com"}})
	e := newEdge(t, stack, func(h *Handler) { h.Clerk.AuthorizedParties = []string{"https://app.example.com"} })
	for name, tt := range map[string]struct {
		opts []devstack.TokenOption
		code string
	}{
		"expired":        {[]devstack.TokenOption{devstack.Expired()}, "token_expired"},
		"other key":      {[]devstack.TokenOption{devstack.ForeignKey()}, "token_invalid"},
		"alg none":       {[]devstack.TokenOption{devstack.AlgNone()}, "token_invalid"},
		"alg HS256":      {[]devstack.TokenOption{devstack.AlgHS256()}, "token_invalid"},
		"unknown kid":    {[]devstack.TokenOption{devstack.KID("ins_2unknown")}, "token_invalid"},
		"unknown crit":   {[]devstack.TokenOption{devstack.Header("crit", []string{"exp"})}, "token_invalid"},
		"no exp":         {[]devstack.TokenOption{devstack.NoClaim("exp")}, "token_invalid"},
		"exp as text":    {[]devstack.TokenOption{devstack.Claim("exp", "99999999999")}, "token_invalid"},
		"no sub":         {[]devstack.TokenOption{devstack.NoClaim("sub")}, "token_invalid"},
		"impersonated":   {[]devstack.TokenOption{devstack.Impersonated("user_2support")}, "token_invalid"},
		"pending":        {[]devstack.TokenOption{devstack.Pending()}, "session_pending"},
		"template":       {[]devstack.TokenOption{devstack.Template()}, "token_wrong_type"},
		"machine":        {[]devstack.TokenOption{devstack.M2M()}, "token_wrong_type"},
		"OAuth":          {[]devstack.TokenOption{devstack.OAuth()}, "token_wrong_type"},
		"other party":    {[]devstack.TokenOption{devstack.AZP("https://evil.example")}, "token_wrong_party"},
		"no party":       {[]devstack.TokenOption{devstack.NoAZP()}, "token_wrong_party"},
		"other issuer":   {[]devstack.TokenOption{devstack.Claim("iss", "https://clerk.elsewhere.example")}, "token_wrong_issuer"},
		"lives too long": {[]devstack.TokenOption{devstack.Lifetime(48 * 3600e9)}, "token_invalid"},
		"not yet":        {[]devstack.TokenOption{devstack.Claim("nbf", 99999999999)}, "token_not_yet_valid"},
	} {
		t.Run(name, func(t *testing.T) {
			got := e.do(t, withToken(t, e, "/v0/pipes/live_events.json", tt.opts...))
			if got.StatusCode != http.StatusUnauthorized || got.code(t) != tt.code {
				t.Errorf("status %d, %s; want %s", got.StatusCode, got.body, tt.code)
			}
			if challenge := got.Header.Get("WWW-Authenticate"); !strings.HasPrefix(challenge, "Bearer") || !strings.Contains(challenge, `error="invalid_token"`) {
				t.Errorf("WWW-Authenticate %q", challenge)
			}
		})
	}
	if up := stack.API.Requests(); len(up) != 0 {
		t.Errorf("%d requests went up", len(up))
	}
	got := e.get(t, "", "/v0/pipes/live_events.json")
	if got.StatusCode != http.StatusUnauthorized || got.code(t) != "token_missing" || got.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("no token: status %d, %s, %q", got.StatusCode, got.body, got.Header.Get("WWW-Authenticate"))
	}
}

// TestP5RatesFailClosed: a rate that a placeholder does not yield refuses the request, and never means unlimited.
func TestP5RatesFailClosed(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	for _, rate := range []string{"{nowhere}", "{http.vars.rps}", "{env.CADDY_TINYBIRD_UNSET}"} {
		e := newEdge(t, stack, func(h *Handler) { h.RateLimit = &RateLimit{RPS: rate} })
		got := e.get(t, "ada", "/v0/pipes/live_events.json")
		if got.StatusCode != http.StatusForbidden || got.code(t) != "not_allowed" {
			t.Errorf("%s: status %d, %s", rate, got.StatusCode, got.body)
		}
		for _, configure := range []func(*Handler){
			func(h *Handler) { h.Concurrency = rate },
			func(h *Handler) { h.Pipes[0].Concurrency = rate },
		} {
			got := newEdge(t, stack, configure).get(t, "ada", "/v0/pipes/live_events.json")
			if got.StatusCode != http.StatusForbidden || got.code(t) != "not_allowed" {
				t.Errorf("concurrency %s: status %d, %s", rate, got.StatusCode, got.body)
			}
		}
	}
	if up := stack.API.Requests(); len(up) != 0 {
		t.Errorf("%d requests went up", len(up))
	}
}

// TestP5ConfigsFailClosed: a JSON config, which no Caddyfile parser has looked at, is refused when it would not do what it says.
func TestP5ConfigsFailClosed(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	for name, configure := range map[string]func(*Handler){
		"no pipes":             func(h *Handler) { h.Pipes = nil },
		"client's rate":        func(h *Handler) { h.RateLimit = &RateLimit{RPS: "{http.request.header.X-Rate}"} },
		"client's rate, regex": func(h *Handler) { h.RateLimit = &RateLimit{RPS: "{http.regexp.rate.1}"} },
		"client's rate, pipe":  func(h *Handler) { h.Pipes[0].RateLimit = &RateLimit{RPS: "{http.request.uri.query.rps}"} },
		"client's bound":       func(h *Handler) { h.Concurrency = "{http.request.header.X-Many}" },
		"client's bound, pipe": func(h *Handler) { h.Pipes[0].Concurrency = "{http.request.uri.query.many}" },
		"a bound of nothing":   func(h *Handler) { h.Concurrency = "0" },
		"a bound of words":     func(h *Handler) { h.Pipes[0].Concurrency = "many" },
		"client's value":       func(h *Handler) { h.FixedParams[0].Value = "{http.request.uri.query.org}" },
		"client's token name":  func(h *Handler) { h.Token = &Token{Name: "{http.request.header.X-Name}"} },
		"no fixed parameter":   func(h *Handler) { h.FixedParams = nil },
		"fixed twice": func(h *Handler) {
			h.FixedParams = append(h.FixedParams, FixedParam{Name: "ORGANIZATION_ID", Value: "x"})
		},
		"reserved":              func(h *Handler) { h.FixedParams = []FixedParam{{Name: "token", Value: "x"}} },
		"any origin":            func(h *Handler) { h.CORS = []string{"*"} },
		"origin null":           func(h *Handler) { h.CORS = []string{"null"} },
		"negative ttl":          func(h *Handler) { h.Token = &Token{TTL: -1} },
		"endless ttl":           func(h *Handler) { h.Token = &Token{TTL: 1 << 62} },
		"negative limit":        func(h *Handler) { h.Limits = &Limits{Tokens: -1} },
		"negative clerk limit":  func(h *Handler) { h.Clerk.Limits = &ClerkLimits{BadKids: -1} },
		"no token source":       func(h *Handler) { h.Clerk.TokenFrom = []TokenSource{} },
		"errors for nobody":     func(h *Handler) { h.Errors = "html" },
		"upstream errors, some": func(h *Handler) { h.UpstreamErrors = "some" },
		"public http":           func(h *Handler) { h.Upstream = "http://api.tinybird.co" },
		"other transport":       func(h *Handler) { h.TransportRaw = []byte(`{"protocol":"fastcgi"}`) },
		"endless transport":     func(h *Handler) { h.TransportRaw = []byte(`{"protocol":"http","read_timeout":0}`) },
		"HTTP/3 to Tinybird":    func(h *Handler) { h.TransportRaw = []byte(`{"protocol":"http","versions":["1.1","3"]}`) },
		"proxy protocol":        func(h *Handler) { h.TransportRaw = []byte(`{"protocol":"http","proxy_protocol":"v1"}`) },
		"TLS to http":           func(h *Handler) { h.TransportRaw = []byte(`{"protocol":"http","tls":{}}`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testHandler(t, stack)
			configure(h)
			if err := provision(t, newContext(t, storageDir(t)), h); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// TestP5ErrorsByCaddy: with `errors caddy` the site's error routes write the body, with the status, the headers and the client's
// sentence, and nothing of the cause.
func TestP5ErrorsByCaddy(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, func(h *Handler) { h.Errors = "caddy" })
	got := e.do(t, withToken(t, e, "/v0/pipes/live_events.json", devstack.Expired()))
	err := <-e.fell
	if !strings.Contains(err.Error(), "HTTP 401") {
		t.Errorf("error %v", err)
	}
	if got.Header.Get("WWW-Authenticate") == "" || got.Header.Get("Cache-Control") != "private, no-store" || len(got.body) != 0 {
		t.Errorf("headers %v, body %q", got.Header, got.body)
	}
}
