//go:build integration

package integration

import (
	"net/http"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// The sites of the refusals, told apart by their host: who writes the body, whose texts a client sees.
const (
	jsonHost  = "json.test"
	caddyHost = "caddy.test"
	passHost  = "pass.test"
)

// refusingBlock is what the sites have in common.
const refusingBlock = credentials + `
	clerk {
		publishable_key {env.CLERK_PUBLISHABLE_KEY}
		issuer {env.ISSUER}
		authorized_parties https://app.example.com
		azp if_present
	}
	transport http {
		response_header_timeout 1s
	}
	fixed_param organization_id {clerk.org.id}
	pipe top_pages live_events draft_report {
		formats json
	}
	pipe sales_by_day {
		require role org:owner
	}
	pipe org_metrics {
		rate_limit 1 burst 1
	}
`

func refusingSites() string {
	site := func(host, lines, errors string) string {
		return "http://" + host + ":{$PORT} {\n bind 127.0.0.1\n tinybird {\n" + refusingBlock + lines + "\n}\n" + errors + "\n}\n"
	}
	return site(jsonHost, "", "") +
		site(passHost, "upstream_errors pass", "") +
		site(caddyHost, "errors caddy", `handle_errors {
			respond "{err.status_code}|{http.tinybird.code}|{err.message}"
		}`)
}

// faults are what goes wrong upstream, by the value of the parameter `fault`, which the client of a test sends.
var faults = map[string]devstack.Fault{
	"redirect":    {Status: http.StatusFound, Header: http.Header{"Location": {"https://evil.example/"}}},
	"401":         {Status: http.StatusUnauthorized},
	"403":         {Status: http.StatusForbidden},
	"404":         {Status: http.StatusNotFound},
	"405":         {Status: http.StatusMethodNotAllowed},
	"408":         {Status: http.StatusRequestTimeout},
	"413":         {Status: http.StatusRequestEntityTooLarge},
	"414":         {Status: http.StatusRequestURITooLong},
	"422":         {Status: http.StatusUnprocessableEntity},
	"429":         {Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7"}, "X-Ratelimit-Limit": {"3"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"7"}}},
	"429 bare":    {Status: http.StatusTooManyRequests},
	"500":         {Status: http.StatusInternalServerError},
	"502":         {Status: http.StatusBadGateway},
	"503":         {Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"9"}}},
	"598":         {Status: 598},
	"599":         {Status: 599},
	"no answer":   {Stop: devstack.HangBeforeHeader},
	"broken":      {Stop: devstack.DropBeforeHeader},
	"quotes SQL":  {Status: http.StatusBadRequest, Body: []byte(`{"error":"DB error near SELECT quoted FROM events"}`)},
	"no envelope": {Status: http.StatusBadRequest, Body: []byte(`<html>quoted</html>`)},
}

// serveFaults makes the API answer as the parameter `fault` says.
func serveFaults(e *edge) {
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		name := r.URL.Query().Get("fault")
		if name == "quotes the token" {
			return &devstack.Fault{
				Status: http.StatusBadRequest,
				Body:   []byte(`{"error":"bad token ` + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") + `"}`),
			}
		}
		if f, ok := faults[name]; ok {
			return &f
		}
		return nil
	})
}

// refusalCase is one way to be refused. Without a method it is GET, without a path that of live_events, without a
// user that of ada, whose token opts change.
type refusalCase struct {
	name    string
	method  string
	path    string
	query   string
	body    string
	user    string
	opts    []devstack.TokenOption
	header  http.Header // set over the others; nil removes
	tries   int         // how often it is asked at most, until the status is right; 0 is once
	status  int
	code    string
	headers map[string]string // regular expressions for the answer's headers
}

const (
	noToken  = `^Bearer$`
	badToken = `^Bearer error="invalid_token", error_description="[^"]+"$`
)

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func with(opts ...devstack.TokenOption) []devstack.TokenOption { return opts }

// sessionCases are those that end with the session.
func sessionCases() []refusalCase {
	invalid := func(name string, opts ...devstack.TokenOption) refusalCase {
		return refusalCase{name: "token_invalid, " + name, opts: opts, status: 401, code: "token_invalid", headers: map[string]string{"Www-Authenticate": badToken}}
	}
	refused := func(code string, opts ...devstack.TokenOption) refusalCase {
		return refusalCase{name: code, opts: opts, status: 401, code: code, headers: map[string]string{"Www-Authenticate": badToken}}
	}
	missing := map[string]string{"Www-Authenticate": noToken}
	return []refusalCase{
		{name: "token_missing", header: http.Header{"Authorization": nil}, status: 401, code: "token_missing", headers: missing},
		{name: "token_missing, another scheme", header: http.Header{"Authorization": {"Basic YTpi"}}, status: 401, code: "token_missing", headers: missing},
		{name: "token_missing, cookie alone", header: http.Header{"Authorization": nil, "Cookie": {"__session=x"}}, status: 401, code: "token_missing", headers: missing},
		refused("token_expired", devstack.Expired()),
		refused("token_not_yet_valid", devstack.IssuedAt(time.Now().Add(time.Hour))),
		refused("token_wrong_party", devstack.AZP("https://evil.example")),
		refused("token_wrong_issuer", devstack.Claim("iss", "https://clerk.evil.example")),
		refused("token_wrong_type", devstack.Template()),
		refused("token_wrong_type", devstack.M2M()),
		refused("token_wrong_type", devstack.OAuth()),
		refused("session_pending", devstack.Pending()),
		invalid("another key", devstack.ForeignKey()),
		invalid("unknown kid", devstack.KID("ins_2other")),
		invalid("alg none", devstack.AlgNone()),
		invalid("alg HS256", devstack.AlgHS256()),
		invalid("impersonated", devstack.Impersonated("user_2eve")),
		invalid("no sub", devstack.NoClaim("sub")),
		invalid("no exp", devstack.NoClaim("exp")),
		invalid("lives too long", devstack.Lifetime(48*time.Hour)),
		invalid("crit", devstack.Header("crit", []string{"x"})),
		{name: "token_invalid, no JWT", header: bearer("abc"), status: 401, code: "token_invalid", headers: map[string]string{"Www-Authenticate": badToken}},
		{name: "token_invalid, too long", header: bearer(strings.Repeat("a", 9000)), status: 401, code: "token_invalid", headers: map[string]string{"Www-Authenticate": badToken}},
		{name: "bad_request, two headers", header: http.Header{"Authorization": {"Bearer a", "Bearer b"}}, status: 400, code: "bad_request"},
		{name: "tenant_missing", user: "dana", status: 403, code: "tenant_missing"},
		{name: "tenant_missing, empty claim", opts: with(devstack.Claim("o", map[string]any{"id": ""})), status: 403, code: "tenant_missing"},
		{name: "not_allowed", path: "/v0/pipes/sales_by_day.json", status: 403, code: "not_allowed"},
	}
}

// requestCases are those that end with the request itself.
func requestCases() []refusalCase {
	allow := map[string]string{"Allow": `^GET, POST$`}
	limits := map[string]string{
		"Retry-After": `^1$`, "Ratelimit": `^"default";r=0;t=1$`, "Ratelimit-Policy": `^"default";q=1;w=1$`,
		"X-Ratelimit-Limit": `^1$`, "X-Ratelimit-Remaining": `^0$`, "X-Ratelimit-Reset": `^1$`,
	}
	return []refusalCase{
		{name: "not_found, path", path: "/v0/other", status: 404, code: "not_found"},
		{name: "not_found, root", path: "/", status: 404, code: "not_found"},
		{name: "not_found, sql", path: "/v0/sql", query: "q=SELECT+1", status: 404, code: "not_found"},
		{name: "not_found, unlisted pipe", path: "/v0/pipes/my_activity.json", status: 404, code: "not_found"},
		{name: "not_found, by id", path: "/v0/pipes/t_live0events.json", status: 404, code: "not_found"},
		{name: "not_found, format", path: "/v0/pipes/live_events.csv", status: 404, code: "not_found"},
		{name: "not_found, escaped", path: "/v0/pipes%2Flive_events.json", status: 404, code: "not_found"},
		{name: "method_not_allowed, HEAD", method: http.MethodHead, status: 405, headers: allow},
		{name: "method_not_allowed, PUT", method: http.MethodPut, status: 405, code: "method_not_allowed", headers: allow},
		{name: "method_not_allowed, OPTIONS", method: http.MethodOptions, status: 405, code: "method_not_allowed", headers: allow},
		{name: "method_not_allowed, DELETE", method: http.MethodDelete, status: 405, code: "method_not_allowed", headers: allow},
		{name: "bad_query, semicolon", query: "a=1;b=2", status: 400, code: "bad_query"},
		{name: "bad_query, escape", query: "a=%zz", status: 400, code: "bad_query"},
		{name: "bad_query, UTF-8", query: "a=%ff", status: 400, code: "bad_query"},
		{name: "bad_body, list", method: http.MethodPost, body: `[]`, status: 400, code: "bad_body"},
		{name: "bad_body, broken", method: http.MethodPost, body: `{"a":`, status: 400, code: "bad_body"},
		{name: "bad_body, named twice", method: http.MethodPost, body: `{"a":1,"\u0061":2}`, status: 400, code: "bad_body"},
		{name: "bad_body, two values", method: http.MethodPost, body: `{} {}`, status: 400, code: "bad_body"},
		{name: "bad_request, upgrade", header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, status: 400, code: "bad_request"},
		{name: "body_too_large", method: http.MethodPost, body: `{"a":"` + strings.Repeat("a", 1<<20) + `"}`, status: 413, code: "body_too_large"},
		{name: "url_too_long", query: "a=" + strings.Repeat("a", 9000), status: 414, code: "url_too_long"},
		{name: "unsupported_body, SQL", method: http.MethodPost, body: "SELECT 1", header: http.Header{"Content-Type": {"text/plain"}}, status: 415, code: "unsupported_body"},
		{name: "unsupported_body, form", method: http.MethodPost, body: "a=1", header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, status: 415, code: "unsupported_body"},
		{name: "unsupported_body, no type", method: http.MethodPost, body: "{}", header: http.Header{"Content-Type": nil}, status: 415, code: "unsupported_body"},
		{name: "unsupported_body, gzip", method: http.MethodPost, body: "{}", header: http.Header{"Content-Encoding": {"gzip"}}, status: 415, code: "unsupported_body"},
		{name: "rate_limited", path: "/v0/pipes/org_metrics.json", tries: 50, status: 429, code: "rate_limited", headers: limits},
	}
}

// upstreamCases are those that Tinybird causes.
func upstreamCases() []refusalCase {
	fault := func(fault string, status int, code string) refusalCase {
		return refusalCase{name: code + ", upstream " + fault, query: "fault=" + fault, status: status, code: code}
	}
	limited := fault("429", 429, "rate_limited")
	limited.headers = map[string]string{"Retry-After": `^7$`, "X-Ratelimit-Limit": `^3$`, "X-Ratelimit-Remaining": `^0$`, "X-Ratelimit-Reset": `^7$`}
	bare := fault("429 bare", 429, "rate_limited")
	bare.headers = map[string]string{"Retry-After": `^[1-9][0-9]*$`}
	away := fault("503", 503, "upstream_unreachable")
	away.headers = map[string]string{"Retry-After": `^9$`}
	return []refusalCase{
		{name: "query_refused", path: "/v0/pipes/top_pages.json", query: "date_from=nonsense", status: 400, code: "query_refused"},
		{name: "not_found, unpublished", path: "/v0/pipes/draft_report.json", status: 404, code: "not_found"},
		limited, bare, away,
		fault("405", 400, "query_refused"), fault("422", 400, "query_refused"), fault("quotes SQL", 400, "query_refused"),
		fault("no envelope", 400, "query_refused"), fault("quotes the token", 400, "query_refused"),
		fault("401", 403, "upstream_refused"), fault("403", 403, "upstream_refused"),
		fault("404", 404, "not_found"), fault("413", 413, "body_too_large"), fault("414", 414, "url_too_long"),
		fault("redirect", 502, "upstream_unreachable"), fault("500", 502, "upstream_unreachable"), fault("502", 502, "upstream_unreachable"),
		fault("598", 502, "upstream_unreachable"), fault("599", 502, "upstream_unreachable"), fault("broken", 502, "upstream_unreachable"),
		fault("408", 504, "upstream_timeout"), fault("no answer", 504, "upstream_timeout"),
	}
}
