package caddytinybird

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jub0bs/cors"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// preflightSeconds is how long a browser may remember the answer to a preflight. It is short, so that an origin that is
// taken off the list is soon off it.
const preflightSeconds = 600

// exposed are the headers of answers that pages of other sites may read, next to those that every page may.
var exposed = []string{
	"Age", "Cache-Status", "ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate",
	"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
	"X-DB-Exception-Code", "X-DB-Exec-Time",
}

// corsPolicy lets pages of other sites call a handler.
type corsPolicy struct{ middleware *cors.Middleware }

// newCORSPolicy returns the policy for a list of exact origins; nil for none.
func newCORSPolicy(list []string) (*corsPolicy, error) {
	if len(list) == 0 {
		return nil, nil //nolint:nilnil // no policy is one: no other origin
	}
	for _, origin := range list {
		if err := checkCORS(origin); err != nil {
			return nil, err
		}
	}
	m, err := cors.NewMiddleware(corsConfig(list))
	if err != nil {
		return nil, fmt.Errorf("cors: %w", err)
	}
	return &corsPolicy{middleware: m}, nil
}

func corsConfig(origins []string) cors.Config {
	return cors.Config{
		Origins:      origins,
		Credentialed: true,
		// Which pipes and methods there are is for the handler to say, and it takes none of the headers on trust: a header
		// of some tracing library must not stop a page that is trusted with its user's cookies.
		Methods:         []string{http.MethodGet, http.MethodPost},
		RequestHeaders:  []string{"*"},
		MaxAgeInSeconds: preflightSeconds,
		ResponseHeaders: exposed,
		// checkCORS refuses plain http to the outside; this is for the pages of apps, such as capacitor://localhost.
		DangerouslyTolerateInsecureOrigins: true,
	}
}

// answers tells the browser what pages of other sites may do, and reports whether that was all it asked.
func (c *corsPolicy) answers(w http.ResponseWriter, r *http.Request) bool {
	if c == nil {
		return false
	}
	preflight := true
	if r.Method == http.MethodOptions {
		// The middleware says so of all other methods. Some caches keep answers to this one, against RFC 9110, 9.3.7.
		w.Header().Add("Vary", "Origin")
	}
	c.middleware.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { preflight = false })).ServeHTTP(w, r)
	return preflight
}

// checkCORS accepts an origin exactly as a browser sends it.
func checkCORS(origin string) error {
	switch {
	case strings.Contains(origin, "*"):
		return fmt.Errorf("cors %s: every site that matches could read its visitors' data with their cookies; list each origin, such as https://app.example.com", tinybird.Shown(origin))
	case origin == "null":
		return errors.New("cors null: any site can have the origin null, in a sandboxed frame; list the origin of the page, such as https://app.example.com")
	}
	notOne := fmt.Errorf("cors %s is no origin as a browser sends it; write scheme://host or scheme://host:port in lower case, "+
		"without a default port, a path or a slash at the end, such as https://app.example.com", tinybird.Shown(origin))
	if clerk.CheckOrigin(origin) != nil {
		return notOne
	}
	if strings.HasPrefix(origin, "http://") {
		if err := checkFetchURL("cors", origin); err != nil {
			return fmt.Errorf("cors %s: whoever is between its visitors and the site could read what they see; write https, "+
				"since http is for loopback and private addresses and names only", tinybird.Shown(origin))
		}
	}
	if _, err := cors.NewMiddleware(corsConfig([]string{origin})); err != nil {
		return notOne
	}
	return nil
}
