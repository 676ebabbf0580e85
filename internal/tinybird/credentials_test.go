package tinybird

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// P1: a session token that the site accepts in a query parameter of its own naming stays at the edge, in any
// spelling of that name, in the query and in the body; `params` cannot list it.
func TestP1SessionTokenParamNeverGoesUp(t *testing.T) {
	t.Parallel()
	for _, params := range [][]string{nil, {"a"}} {
		c := tenantConfig()
		c.Credentials = []string{"session_jwt"}
		c.Pipes[0].Params = params
		p := newPolicy(t, c)
		c.Credentials[0] = "other" // the policy keeps its own copy
		g, err := p.Authorize("top_pages", "json", acme())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range spellings("session_jwt") {
			q, err := Build(nil, request(t, http.MethodGet, "a=1&"+name+"=LEAK", ""), g, RequestLimits{})
			if err != nil {
				// A name with a control character is refused as a whole.
				wantRefusal(t, err, http.StatusBadRequest, apierr.BadQuery)
				continue
			}
			if q.RawQuery != "a=1" || q.Dropped != 1 {
				t.Errorf("%s goes up as %s", name, q.RawQuery)
			}
		}
		for _, name := range []string{"session_jwt", "SESSION_JWT", `\u0073ession_jwt`, `\u017fession_jwt`} {
			q, err := Build(nil, request(t, http.MethodPost, "", `{"a":1,"`+name+`":"LEAK"}`), g, RequestLimits{})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if bytes.Contains(q.Body, []byte("LEAK")) || !strings.Contains(string(q.Body), `"a":1`) {
				t.Errorf("%s goes up as %s", name, q.Body)
			}
		}
	}
}

// P1: a parameter cannot be let through that is where the session token is read.
func TestP1SessionTokenParamCannotBeListed(t *testing.T) {
	t.Parallel()
	c := tenantConfig()
	c.Credentials = []string{"session_jwt"}
	c.Pipes[0].Params = []string{"a", "Session_JWT"}
	if _, err := NewPolicy(c); err == nil || !strings.Contains(err.Error(), "token_from") {
		t.Errorf("error %v", err)
	}
}
