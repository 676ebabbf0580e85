package caddytinybird

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

// paramReturn is where a sign-in page of Clerk's finds the address to return to.
const paramReturn = "redirect_url"

// Clerk's sign-in page sends back at once whom it knows. Whoever is refused here all the same, such as a session for another
// application, would go back and forth without end; so a cookie counts the times in a row.
const (
	signInCookie = "__clerk_sign_in_count"
	maxSignIns   = 3
)

// handshakeParams are what Clerk adds to URLs for one request. They would be stale when the browser returns.
var handshakeParams = []string{
	"__clerk_db_jwt", "__dev_session", "__clerk_handshake", "__clerk_handshake_nonce", "__clerk_help", "__clerk_synced",
}

// sessionParams are those of Clerk's in URLs that are credentials.
var sessionParams = []string{"__session", "__clerk_db_jwt", "__dev_session", "__clerk_handshake", "__clerk_handshake_nonce"}

// sendsToSignIn reports whether a request is one that signing in may help, by a browser that can do it and return.
func (h *ClerkAuth) sendsToSignIn(r *http.Request, o *clerk.Outcome, at *url.URL) bool {
	return h.redirect != nil && at.Host != "" && o.Refusal.Status == http.StatusUnauthorized && clerk.IsDocument(r)
}

// sendToSignIn redirects a browser to the sign-in page, which returns it to where it is.
func (h *ClerkAuth) sendToSignIn(w http.ResponseWriter, r *http.Request, o *clerk.Outcome, at *url.URL) error {
	count := signInCount(r.Header)
	if count >= maxSignIns {
		return h.turnAway(w, r, o, inCircles(o.Refusal))
	}
	authenticated(r, authRedirected)
	explain(w.Header(), o)
	setCookies(w.Header(), o.Cookies)
	w.Header().Add("Set-Cookie", signInCookie+"="+strconv.Itoa(count+1)+"; Path=/; SameSite=Lax; HttpOnly; Max-Age=10")
	redirectTo(w, http.StatusFound, h.signInURL(o.Refusal.Code, at))
	return nil
}

// signInURL is the sign-in page, or the page on which a pending session is finished, for a browser that is to return to at.
func (h *ClerkAuth) signInURL(code apierr.Code, at *url.URL) string {
	back := *at
	back.RawQuery = withoutParams(at.RawQuery, handshakeParams, h.private)
	page := *h.redirect
	if code == apierr.SessionPending {
		page = *page.JoinPath("tasks")
	}
	if page.RawQuery != "" {
		page.RawQuery += "&"
	}
	page.RawQuery += paramReturn + "=" + url.QueryEscape(back.String())
	return page.String()
}

// withoutParams removes parameters from a query and leaves the others as they were written.
func withoutParams(query string, lists ...[]string) string {
	if query == "" {
		return ""
	}
	pairs := strings.Split(query, "&")
	pairs = slices.DeleteFunc(pairs, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		return slices.ContainsFunc(lists, func(list []string) bool { return slices.Contains(list, name) })
	})
	return strings.Join(pairs, "&")
}

// withoutSecrets is a URL for a log: without what Clerk is told about the browser's session, and without the query parameters that
// may hold a session token on the site itself, also where the browser is to return to or comes from.
func withoutSecrets(location string, private []string) string {
	base, query, ok := strings.Cut(location, "?")
	if !ok {
		return location
	}
	pairs := strings.Split(withoutParams(query, sessionParams, private), "&")
	for i, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		if name != paramReturn && name != "__clerk_redirect_url" {
			continue
		}
		back, err := url.QueryUnescape(value)
		path, asked, _ := strings.Cut(back, "?")
		if kept := withoutParams(asked, sessionParams, private); err == nil && kept != asked {
			pairs[i] = name + "=" + url.QueryEscape(path+"?"+kept)
		}
	}
	return base + "?" + strings.Join(pairs, "&")
}

// signInCount is how often this browser has been sent to sign in within the last seconds. What is no number counts as
// too often, and of several cookies the highest.
func signInCount(header http.Header) int {
	highest := 0
	for _, line := range header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(pair, "=")
			if strings.TrimSpace(name) != signInCookie {
				continue
			}
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 8)
			if err != nil {
				n = maxSignIns
			}
			highest = max(highest, int(n))
		}
	}
	return highest
}

// inCircles is the refusal of a browser that came back from signing in and is refused still.
func inCircles(cause *clerk.Error) *apierr.Error {
	refusal := *refusalOf(cause)
	refusal.Message = "You were sent to sign in several times in a row, and came back each time without a session that is accepted here. " +
		"Sign out and in again, or ask whoever runs this service. The last reason was: " + refusal.Message
	return &refusal
}
