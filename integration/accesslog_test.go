//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// accessLine is a line of the access log, as far as the plugin has put something on it.
type accessLine struct {
	Logger  string  `json:"logger"`
	Status  int     `json:"status"`
	User    *string `json:"clerk_user"`
	Org     *string `json:"clerk_org"`
	Pipe    string  `json:"tinybird_pipe"`
	Outcome string  `json:"tinybird_outcome"`
	Help    string  `json:"help"`
	Request struct {
		Headers http.Header `json:"headers"`
	} `json:"request"`
}

// accessLines are the last lines of each request, by its header X-Case.
func (p *process) accessLines(t *testing.T) map[string]accessLine {
	t.Helper()
	lines := make(map[string]accessLine)
	scanner := bufio.NewScanner(strings.NewReader(p.log.String()))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if !strings.Contains(scanner.Text(), `"logger":"http.log.access`) {
			continue
		}
		var line accessLine
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			continue // the end of it is still to come
		}
		lines[line.Request.Headers.Get("X-Case")] = line
	}
	return lines
}

// unknown are the outcomes of requests of which nobody knows who they are from.
var unknown = []string{
	"token_missing", "token_expired", "token_not_yet_valid", "token_invalid", "token_wrong_party", "token_wrong_issuer", "token_wrong_type",
	"session_pending", "bad_request", "method_not_allowed", "not_found", "preflight",
}

// TestAccessLogOfEveryOutcome: each line has the pipe and the outcome, whoever is known and the way to the documentation for what an operator
// may have to mend. No answer has that.
func TestAccessLogOfEveryOutcome(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{Issuer: devstack.IssuerOptions{AppOrigin: "https://app.example.com"}})
	faults := maps.Clone(faults)
	faults["quotes the token"] = devstack.Fault{Status: http.StatusBadRequest}
	faults["breaks off"] = devstack.Fault{Stop: devstack.DropInBody, Chunked: true}
	asked := make(chan struct{}, 1)
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		name := r.URL.Query().Get("fault")
		if name == "client leaves" {
			asked <- struct{}{}
			return &devstack.Fault{Stop: devstack.HangBeforeHeader}
		}
		if f, ok := faults[name]; ok {
			return &f
		}
		return nil
	})
	_, port, _ := strings.Cut(e.addr, ":")
	e.setenv("PORT", port)
	e.setenv("TINYBIRD_APPEND_TOKEN", e.stack.API.AppendToken())
	e.run(t, caddyfile("", "http://"+jsonHost+":{$PORT} {\n bind 127.0.0.1\n log\n tinybird {\n"+refusingBlock+`
		cors https://app.example.com
		token_endpoint /tinybird/token
		events analytics_events {
			append_token {env.TINYBIRD_APPEND_TOKEN}
			stamp organization_id {clerk.org.id}
		}
	}
}
`))
	cases := slices.Concat(sessionCases(), requestCases(), upstreamCases(), []refusalCase{
		{name: "ok", status: 200, code: "ok"},
		{name: "token", path: "/tinybird/token", status: 200, code: "ok"},
		{name: "token, refused", path: "/tinybird/token", header: http.Header{"Authorization": nil}, status: 401, code: "token_missing"},
		{name: "rows", method: http.MethodPost, path: "/v0/events", query: "name=analytics_events", body: `{"a":1}`, status: 202, code: "ok"},
		{name: "rows, refused", method: http.MethodPost, path: "/v0/events", query: "name=analytics_events", body: `[]`, status: 400, code: "bad_body"},
		{name: "preflight", method: http.MethodOptions, header: http.Header{"Authorization": nil, "Origin": {"https://app.example.com"}, "Access-Control-Request-Method": {"GET"}}, status: 204, code: "preflight"},
		{name: "preflight, rows", method: http.MethodOptions, path: "/v0/events", header: http.Header{"Authorization": nil, "Origin": {"https://app.example.com"}, "Access-Control-Request-Method": {"POST"}}, status: 204, code: "preflight"},
	})
	pipes := map[string]string{
		"ok": "live_events", "token": "_token", "token, refused": "_token", "rows": "_events", "rows, refused": "_events",
		"preflight": "live_events", "preflight, rows": "_events", "not_found, path": "_other", "not_found, unlisted pipe": "_other",
		"not_found, format": "live_events", "tenant_missing": "live_events", "not_allowed": "sales_by_day", "query_refused": "top_pages",
	}
	for i, c := range cases {
		c.name += " " + string(rune('A'+i%26)) + string(rune('a'+i/26)) // several have one name
		header := maps.Clone(c.header)
		if header == nil {
			header = make(http.Header)
		}
		header.Set("X-Case", c.name)
		cases[i].name, c.header = c.name, header
		got := c.ask(t, e, jsonHost)
		if got.StatusCode != c.status {
			t.Errorf("%s: status %d: %s", c.name, got.StatusCode, got.body)
		}
		if all := string(got.body); strings.Contains(all, "errors.md") {
			t.Errorf("%s: the answer leads to the operator's documentation: %s", c.name, all)
		}
	}

	broken := e.request(t, "ada", http.MethodGet, livePath+"?fault=breaks+off", "")
	broken.Host = jsonHost + ":" + port
	broken.Header.Set("X-Case", "aborted")
	resp, err := e.http.Do(broken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("half of an answer looks whole")
	}
	resp.Body.Close()
	ctx, leave := context.WithCancel(t.Context())
	left := e.request(t, "ada", http.MethodGet, livePath+"?fault=client+leaves", "").WithContext(ctx)
	left.Host = jsonHost + ":" + port
	left.Header.Set("X-Case", "client_closed")
	go func() { <-asked; leave() }()
	if resp, err := e.http.Do(left); err == nil {
		resp.Body.Close()
		t.Errorf("status %d for a client that left", resp.StatusCode)
	}
	cases = append(cases, refusalCase{name: "aborted", status: 200, code: "aborted"}, refusalCase{name: "client_closed", status: 499, code: "client_closed"})

	var lines map[string]accessLine
	eventually(t, "all requests are logged", func() bool { lines = e.accessLines(t); return len(lines) >= len(cases) })
	for _, c := range cases {
		line, ok := lines[c.name]
		code := c.code
		if c.method == http.MethodHead {
			code = "method_not_allowed"
		}
		if !ok || line.Outcome != code || line.Pipe == "" || line.Status != c.status {
			t.Errorf("%s: logged %+v, want %d %s", c.name, line, c.status, code)
		}
		for name, pipe := range pipes {
			if strings.TrimRight(c.name[:len(c.name)-2], " ") == name && line.Pipe != pipe {
				t.Errorf("%s: pipe %s, want %s", c.name, line.Pipe, pipe)
			}
		}
		if (line.User == nil) != (line.Org == nil) || line.User != nil && *line.User == "" {
			t.Errorf("%s: user %v, organization %v", c.name, line.User, line.Org)
		}
		if line.User == nil && !slices.Contains(unknown, code) {
			t.Errorf("%s: nobody knows who asked", c.name)
		}
		want := ""
		if c.status == 401 || c.status == 403 || c.status >= 500 {
			want = apierr.Code(code).Help()
		}
		if line.Help != want {
			t.Errorf("%s: help %q, want %q", c.name, line.Help, want)
		}
	}
}

// TestHelpInTheErrorLog: what an operator can mend is logged as an error with the way to the documentation, and at debug level all
// else is, also what clerk_auth refuses.
func TestHelpInTheErrorLog(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	serveFaults(e)
	_, port, _ := strings.Cut(e.addr, ":")
	e.setenv("PORT", port)
	e.run(t, caddyfile("\tdebug\n", plainSite+"http://guarded.test:{$PORT} {\n log\n clerk_auth\n respond ok\n}\n"))
	e.get(t, "ada", livePath+"?fault=403")
	e.get(t, "", livePath)
	guarded := e.request(t, "", http.MethodGet, "/", "")
	guarded.Host = "guarded.test:" + port
	e.do(t, guarded)
	for _, want := range [][]string{
		{`"level":"error"`, `"msg":"request not answered"`, `"code":"upstream_refused"`, `"help":"` + apierr.UpstreamRefused.Help() + `"`},
		{`"level":"debug"`, `"msg":"request not answered"`, `"code":"token_missing"`, `"help":"` + apierr.TokenMissing.Help() + `"`},
		{`"level":"debug"`, `"msg":"request turned away"`, `"code":"token_missing"`, `"help":"` + apierr.TokenMissing.Help() + `"`},
		{`"logger":"http.log.access"`, `"status":401`, `"help":"` + apierr.TokenMissing.Help() + `"`},
	} {
		eventually(t, strings.Join(want, ", "), func() bool {
			for line := range strings.Lines(e.log.String()) {
				if !slices.ContainsFunc(want, func(part string) bool { return !strings.Contains(line, part) }) {
					return true
				}
			}
			return false
		})
	}
}
