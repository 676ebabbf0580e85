package caddytinybird

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/jub0bs/cors"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// corsMaxAge is how long a browser may remember what a preflight said, in seconds. Chromium remembers no longer than this.
const corsMaxAge = 2 * 60 * 60

// corsExposed are the headers of an answer that a page of another site may read, besides those that it always may.
var corsExposed = []string{
	"ETag", "Retry-After", "WWW-Authenticate",
	"RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
	"X-DB-Exception-Code", "X-DB-Statistics",
}

// corsPolicy lets pages of other sites call a handler. A nil one says nothing, and browsers then refuse.
type corsPolicy struct{ *cors.Middleware }

// newCORSPolicy makes the policy for exactly these origins.
func newCORSPolicy(origins []string) (*corsPolicy, error) {
	if len(origins) == 0 {
		return nil, nil //nolint:nilnil // no other origin may call, which is the default
	}
	for i, origin := range origins {
		if err := checkCORSOrigin(origin); err != nil {
			return nil, err
		}
		if slices.Contains(origins[:i], origin) {
			return nil, fmt.Errorf("cors lists %s twice; keep one of them", origin)
		}
	}
	m, err := cors.NewMiddleware(cors.Config{
		Origins:      origins,
		Credentialed: true, // Clerk's cookie
		Methods:      []string{http.MethodGet, http.MethodPost},
		// Whatever a page's libraries add, such as headers for tracing: nothing goes up that forwarding does not name.
		RequestHeaders:  []string{"*", "Authorization"},
		ResponseHeaders: corsExposed,
		MaxAgeInSeconds: corsMaxAge,
		// checkCORSOrigin lets plain http through only where nobody on the internet can be in between.
		DangerouslyTolerateInsecureOrigins: true,
	})
	if err != nil {
		return nil, fmt.Errorf("cors: %w", err)
	}
	return &corsPolicy{m}, nil
}

// answers tells the browser what pages of other sites may do, and reports whether that was all it asked (a preflight). What
// it puts on the response stays there whatever the answer becomes, a refusal too.
func (c *corsPolicy) answers(w http.ResponseWriter, r *http.Request) bool {
	if c == nil {
		return false
	}
	if r.Method == http.MethodOptions {
		w.Header().Add("Vary", "Origin")
	}
	asked := true
	c.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = false })).ServeHTTP(w, r)
	return asked
}

// checkCORSOrigin accepts one exact origin, as browsers send it.
func checkCORSOrigin(origin string) error {
	switch {
	case origin == "*" || strings.Contains(origin, "*"):
		return errors.New("cors takes exact origins: with a wildcard every site that matches could read the data of whoever visits it; list them")
	case origin == "null":
		return errors.New("cors null would allow every page in a sandbox or a file; list the origins of your pages")
	case clerk.CheckOrigin(origin) != nil:
		return fmt.Errorf("cors %s is no origin; write it as the browser sends it, in lower case and without a slash at the end, such as https://app.example.com", tinybird.Shown(origin))
	}
	if base, err := tinybird.ParseUpstream(origin); err != nil || base.String() != origin {
		return fmt.Errorf("cors %s is not usable; write https://, or http:// for this machine or a private network, and a host with at most a port", tinybird.Shown(origin))
	}
	return nil
}
