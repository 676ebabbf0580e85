package clerk

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const (
	// maxRedirects in a row are made, so that a browser whose session cannot be mended does not go round for ever.
	maxRedirects = 3
	// countCookie holds how many there were. It is forgotten in two seconds.
	countCookie = "__clerk_redirect_count"

	// maxLocation is the longest address a browser is sent to.
	maxLocation = 32 << 10

	apiVersion = "2026-05-12" // of the Frontend API, the SDK's
)

// redirectCount says how often the browser was sent to Clerk just now. Of several cookies the largest counts, and what
// is no number, or one that would take long to count up, counts as enough: whoever can set a cookie for the domain could
// keep a browser going round otherwise.
func redirectCount(h http.Header) int {
	count, seen := 0, false
	eachCookie(h, func(name, value string) {
		if name != countCookie || value == "" {
			return
		}
		n, err := strconv.Atoi(decodeCookie(value))
		if err != nil || n < -maxRedirects {
			n = maxRedirects
		}
		if !seen || n > count {
			count, seen = n, true
		}
	})
	return count
}

func redirectCountCookie(n int) string {
	return countCookie + "=" + strconv.Itoa(n) + "; SameSite=Lax; HttpOnly; Max-Age=2"
}

// handshakeURL is where a browser is sent to have its cookies brought up to date. All of it is built from what was
// parsed; the host is that of the configuration.
func (s *Site) handshakeURL(r *visit, d *decision) string {
	c := s.v.readSession(s.v.cookies(r))
	token := c.token
	if token == "" {
		token = d.token
	}
	drop := []string{devBrowser, "__dev_session"}
	if s.v.instance.Development { // or one that cannot be read would be read again
		drop = append(drop, handshakeToken, handshakeNonce)
	}
	var q form
	q.add("redirect_url", without(r.at, drop...))
	q.add("__clerk_api_version", apiVersion)
	q.add("suffixed_cookies", strconv.FormatBool(c.suffixed))
	q.add("__clerk_hs_reason", d.reason)
	if s.backend != nil { // who cannot redeem a nonce asks for all of it at once
		q.add("format", "nonce")
	}
	if token != "" && len(token) <= s.v.maxToken {
		q.add("__session", token)
	}
	if browser := s.devBrowser(r, &c); browser != "" {
		q.add(devBrowser, browser)
	}
	if t := s.target(r.at); t.wanted {
		q.add("organization_id", t.organization)
	}
	return s.frontendAPI(r.at) + "/v1/client/handshake?" + q.text.String()
}

func (s *Site) frontendAPI(at *url.URL) string {
	if strings.HasPrefix(s.api, "/") {
		return origin(at) + s.api
	}
	return s.api
}

// devBrowser names the browser of a development instance, whose Frontend API is on another site and gets no cookie.
func (s *Site) devBrowser(r *visit, c *session) string {
	if !s.v.instance.Development {
		return ""
	}
	if browser := queryValue(r.at.RawQuery, devBrowser); browser != "" {
		return browser
	}
	return s.v.cookies(r).chosen(c.suffixed)[cookieDevBrowser]
}

// target is the organization that a URL belongs to.
type target struct {
	wanted       bool   // it belongs to one, or to the personal account
	organization string // id or slug; empty: the personal account
	slug         bool
}

func (s *Site) target(at *url.URL) target {
	if params, ok := s.orgs.match(at.EscapedPath()); ok {
		if id := params["id"]; id != "" {
			return target{wanted: true, organization: id}
		}
		if slug := params["slug"]; slug != "" {
			return target{wanted: true, organization: slug, slug: true}
		}
	}
	_, ok := s.personal.match(at.EscapedPath())
	return target{wanted: ok}
}

// differs reports whether the session is in another organization.
func (t target) differs(id *Identity) bool {
	switch {
	case !t.wanted:
		return false
	case t.slug:
		return t.organization != id.OrgSlug
	default:
		return t.organization != id.OrgID
	}
}
