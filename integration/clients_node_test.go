//go:build integration

package integration

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// clientRefusal is one way for a client to be refused, and what its user then reads.
type clientRefusal struct {
	name   string
	user   string // default: ada
	opts   []devstack.TokenOption
	params map[string]any
	fault  *devstack.Fault // of the API

	status   int
	code     string
	sentence string
}

// clientRefusals has every status that a question for a pipe can be answered with, one way or another. Those of a client that does
// something else than asking, 405 and 415, are only in reach of fetch.
func clientRefusals() []clientRefusal {
	fault := func(status int, header http.Header) *devstack.Fault {
		return &devstack.Fault{Status: status, Header: header}
	}
	return []clientRefusal{
		{
			name: "a bad parameter", params: map[string]any{"date_from": "nonsense"},
			status: 400, code: "query_refused", sentence: "The analytics service refused the query. Check the names and values of the parameters.",
		},
		{
			name: "an expired session", opts: with(devstack.Expired()),
			status: 401, code: "token_expired", sentence: "The session token has expired. Fetch a fresh one.",
		},
		{name: "no organization", user: "dana", status: 403, code: "tenant_missing", sentence: "Choose an organization"},
		{name: "no such pipe", fault: fault(404, nil), status: 404, code: "not_found", sentence: "There is no such endpoint here."},
		{name: "too large", fault: fault(413, nil), status: 413, code: "body_too_large", sentence: "too large"},
		{name: "too long", fault: fault(414, nil), status: 414, code: "url_too_long", sentence: "too long"},
		{
			name: "too many", fault: fault(429, http.Header{"Retry-After": {"1"}}),
			status: 429, code: "rate_limited", sentence: "Too many requests. Wait for as long as Retry-After says.",
		},
		{name: "upstream fails", fault: fault(500, nil), status: 502, code: "upstream_unreachable", sentence: "The analytics service cannot answer at the moment. Try again later."},
		{name: "upstream is away", fault: fault(503, nil), status: 503, code: "upstream_unreachable", sentence: "The analytics service cannot answer at the moment. Try again later."},
		{name: "upstream is slow", fault: fault(408, nil), status: 504, code: "upstream_timeout", sentence: "The query took too long. Ask for less, or try again later."},
	}
}

// arrange makes the API fail n times, if it is the API that refuses, and returns the parameters and the token for the question.
func (c *clients) arrange(t *testing.T, r clientRefusal, n int) (params map[string]any, token string) {
	t.Helper()
	c.stack.API.Fail(nil)
	if r.fault != nil {
		c.failing(n, *r.fault)
	}
	user := r.user
	if user == "" {
		user = "ada"
	}
	params = r.params
	if params == nil {
		params = map[string]any{}
	}
	return params, c.token(t, user, r.opts...)
}

const always = 1 << 20

// TestSDK: Tinybird's SDK for TypeScript on a server, which sends the session token of its visitor.
func TestSDK(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	n := c.startNode(t)

	for _, user := range []string{"ada", "cleo"} {
		c.answersNode(t, n, "sdk", user)
	}
	for _, r := range clientRefusals() {
		params, token := c.arrange(t, r, always)
		o := n.do(t, call{Client: "sdk", Call: "topPages", Args: []any{token, params}})
		if o.Error == nil {
			t.Errorf("%s: %s", r.name, o.Value)
			continue
		}
		var kinds []string
		switch {
		case r.status == 401 || r.status == 403:
			kinds = []string{"isAuthError"}
		case r.status == 404:
			kinds = []string{"isNotFoundError"}
		case r.status == 429:
			kinds = []string{"isRateLimitError"}
		case r.status >= 500:
			kinds = []string{"isServerError"}
		}
		if o.Error.Name != "TinybirdError" || o.Error.Status != r.status || o.Error.Code != r.code || !slices.Equal(o.Error.Kinds, kinds) {
			t.Errorf("%s: %+v, want status %d %s of the kind %v", r.name, o.Error, r.status, r.code, kinds)
		}
		if !isSentence(o.Error.Message) || !strings.Contains(o.Error.Message, r.sentence) {
			t.Errorf("%s: the developer reads %q, want %q", r.name, o.Error.Message, r.sentence)
		}
		if len(o.Answers) != 1 {
			t.Errorf("%s: asked %d times", r.name, len(o.Answers))
		}
	}
}

// TestZodBird: zod-bird on a server, which sends the session token of its visitor. It asks up to ten times when it is told to
// wait or that something is broken, so denials must not look like that.
func TestZodBird(t *testing.T) {
	t.Parallel()
	c := startClients(t)
	n := c.startNode(t)

	for _, user := range []string{"ada", "cleo"} {
		c.answersNode(t, n, "zod-bird", user)
	}
	for _, r := range clientRefusals() {
		if r.status == 429 || r.status >= 500 {
			c.zodBirdRetries(t, n, r)
			continue
		}
		params, token := c.arrange(t, r, always)
		o := n.do(t, call{Client: "zod-bird", Call: "topPages", Args: []any{token, params}})
		if o.Error == nil || len(o.Answers) != 1 || o.Answers[0].Status != r.status {
			t.Errorf("%s: %s, %d answers", r.name, o.Value, len(o.Answers))
			continue
		}
		if r.status == 403 {
			// It reads no body of a 403.
			if o.Error.Message != "Unauthorized" {
				t.Errorf("%s: the developer reads %q", r.name, o.Error.Message)
			}
			continue
		}
		if !isSentence(o.Error.Message) || !strings.Contains(o.Error.Message, r.sentence) {
			t.Errorf("%s: the developer reads %q, want %q", r.name, o.Error.Message, r.sentence)
		}
	}
}

// zodBirdRetries fails once, after which zod-bird has its rows, and then for good.
func (c *clients) zodBirdRetries(t *testing.T, n *nodeClients, r clientRefusal) {
	t.Helper()
	params, token := c.arrange(t, r, 1)
	o := n.do(t, call{Client: "zod-bird", Call: "topPages", Args: []any{token, params}})
	if o.Error != nil || len(o.Answers) != 2 || o.Answers[0].Status != r.status || o.Answers[1].Status != 200 {
		t.Errorf("%s, once: %+v, %d answers", r.name, o.Error, len(o.Answers))
	}
	params, token = c.arrange(t, r, always)
	o = n.do(t, call{Client: "zod-bird", Call: "topPages", Args: []any{token, params}, Hurry: true})
	if len(o.Answers) != 10 || len(o.Delays) != 10 || o.Delays[0] != 1000 || o.Delays[9] != 1000+81*50 {
		t.Errorf("%s, for good: %d answers, waiting %v", r.name, len(o.Answers), o.Delays)
	}
	// Then it has nothing to show, and complains about that: no answer can change it.
	if o.Error == nil || !strings.Contains(o.Error.Message, "expected object, received undefined") {
		t.Errorf("%s, for good: %+v", r.name, o.Error)
	}
}

// answersNode asks for some rows, which are those of the user's organization, with parameters that went up as they are.
func (c *clients) answersNode(t *testing.T, n *nodeClients, client, user string) {
	t.Helper()
	c.stack.API.Reset()
	o := n.do(t, call{Client: client, Call: "topPages", Args: []any{c.token(t, user), map[string]any{"limit": 3}}})
	var rows []map[string]any
	if o.Error != nil || json.Unmarshal(o.Value, &rows) != nil || len(rows) != 3 {
		t.Fatalf("%s for %s: %s, %+v", client, user, o.Value, o.Error)
	}
	c.ownText(t, user, string(o.Value))
	up := c.stack.API.Requests()
	if len(up) != 1 {
		t.Fatalf("%d requests for one question", len(up))
	}
	wellFormed(t, c.edge, up[0], user, "top_pages")
}

// ownText fails the test unless a text names pages of the user's organization and of no other.
func (c *clients) ownText(t *testing.T, user, text string) {
	t.Helper()
	own := organization(t, user)
	for org, prefix := range tenants {
		if has := strings.Contains(text, prefix); has != (org == own) {
			t.Errorf("%s of %s reads %s: %v\n%s", user, own, prefix, has, text)
		}
	}
}

// isSentence tells what people read from codes, JSON and dumps.
func isSentence(s string) bool {
	return s != "" && s[0] >= 'A' && s[0] <= 'Z' && strings.HasSuffix(s, ".") && !strings.ContainsAny(s, "{}<>\"\\\n_")
}
