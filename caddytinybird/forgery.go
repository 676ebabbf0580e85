package caddytinybird

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// newForgeryCheck returns what tells requests of the handler's own pages and of those on a list of origins from those of all
// others, by what browsers say of it.
func newForgeryCheck(origins []string) (*http.CrossOriginProtection, error) {
	check := http.NewCrossOriginProtection()
	for _, origin := range origins {
		if err := check.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("cors: %w", err)
		}
	}
	return check, nil
}

// checkForgery refuses to write for a page of another origin that has nothing to show but its visitor's cookies, which browsers send
// along. A token that is shown otherwise is one that the page has. The error is an *apierr.Error: 403.
func (h *Handler) checkForgery(r *http.Request) error {
	// Only Bearer: the credentials of other schemes are sent by browsers on their own, too.
	if len(r.Header["Cookie"]) == 0 || strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		return nil
	}
	if err := h.forgery.Check(r); err != nil {
		return apierr.New(http.StatusForbidden, apierr.NotAllowed,
			"Pages of another origin cannot send rows with the visitor's cookies here. Whoever runs this service can list the page's origin.").
			Wrap(fmt.Errorf("%w; list the page's origin in cors if it is yours", err))
	}
	return nil
}

// mayBeReplayed reports whether the request came before TLS was set up (0-RTT, which HTTP/3 has), here or at a proxy that says so. Who
// has seen such a request can send it again as it is, and its rows would be stored twice. Clients repeat it on their own after
// 425 (RFC 8470, sections 5.1 and 5.2). Where the header is there twice or says something else, it counts as if it said 1.
func mayBeReplayed(r *http.Request) bool {
	return r.TLS != nil && !r.TLS.HandshakeComplete || len(r.Header["Early-Data"]) > 0
}
