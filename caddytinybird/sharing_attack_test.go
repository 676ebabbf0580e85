package caddytinybird

import (
	"net/http"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

func TestAttackSharedAcrossTenants(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t, func(h *Handler) { h.Token = &Token{Name: "everybody"} })
	own := make(map[string]string)
	for _, query := range []string{"", "?organization_id=" + devstack.AcmeID, "?organization_id=" + devstack.GlobexID + "&user_id=user_x"} {
		for _, user := range []string{"ada", "ben", "cleo", "cleo", "ben", "ada"} {
			slug := map[string]string{"ada": "acme", "ben": "acme", "cleo": "globex"}[user]
			onlyTenant(t, e.get(t, user, liveEvents+query), slug)
			mine := e.get(t, user, "/v0/pipes/my_activity.json"+query)
			onlyTenant(t, mine, slug)
			if own[user] == "" {
				own[user] = string(mine.body)
			}
			for other, body := range own {
				if (string(mine.body) == body) != (user == other) {
					t.Fatalf("%s reads the rows of %s, or not always the same", user, other)
				}
			}
		}
	}
	// Two organizations for the one pipe, which has a user_id of the client's as well, and three users for the other.
	e.asked(t, 2+2+3)
}

func TestAttackSharedPastTheChecks(t *testing.T) {
	t.Parallel()
	e := sharingEdge(t, func(h *Handler) {
		h.RateLimit = &RateLimit{RPS: "1", Burst: 4}
		h.Pipes[0].Require = []Requirement{{Kind: "role", Values: []string{"org:admin"}}}
	})
	onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
	for name, c := range map[string]struct {
		r      *http.Request
		status int
	}{
		"no session":       {e.request(t, "", http.MethodGet, liveEvents, nil), http.StatusUnauthorized},
		"expired":          {withToken(t, e, liveEvents, devstack.Expired()), http.StatusUnauthorized},
		"no role":          {e.request(t, "ben", http.MethodGet, liveEvents, nil), http.StatusForbidden},
		"no organization":  {withToken(t, e, liveEvents, devstack.NoOrganization()), http.StatusForbidden},
		"no such format":   {e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.xml", nil), http.StatusNotFound},
		"a bad query":      {e.request(t, "ada", http.MethodGet, liveEvents+"?a;b", nil), http.StatusBadRequest},
		"another method":   {e.request(t, "ada", http.MethodPut, liveEvents, nil), http.StatusMethodNotAllowed},
		"an upgrade":       {upgrade(e.request(t, "ada", http.MethodGet, liveEvents, nil)), http.StatusBadRequest},
		"a raw body (SQL)": {plain(e.request(t, "ada", http.MethodPost, liveEvents, []byte("SELECT 1"))), http.StatusUnsupportedMediaType},
	} {
		if got := e.do(t, c.r); got.StatusCode != c.status || got.Header.Get("Cache-Status") != "" {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	limited := 0
	for range 8 {
		got := e.get(t, "ada", liveEvents)
		if got.StatusCode == http.StatusTooManyRequests {
			limited++
		} else if got.Header.Get("X-RateLimit-Limit") == "" || got.Header.Get("RateLimit") == "" {
			t.Errorf("an answer without the edge's own limit: %v", got.Header)
		}
	}
	if limited < 4 {
		t.Errorf("%d of 8 requests over the rate were refused: an answer that is kept costs nothing", limited)
	}
	e.asked(t, 1)
}

func upgrade(r *http.Request) *http.Request {
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	return r
}

func plain(r *http.Request) *http.Request {
	r.Header.Set("Content-Type", "text/plain")
	return r
}
