package clerk

import (
	"net/http"
	"net/url"
	"slices"
)

const (
	paramSynced      = "__clerk_synced"
	paramRedirectURL = "__clerk_redirect_url"
)

// synchronize is how a satellite learns from the primary who is signed in, and how the primary of a development
// instance answers. found is false if there is nothing to be done.
func (s *Site) synchronize(r *visit, c *session) (d decision, found bool) {
	if s.satellite != nil {
		return s.askPrimary(r, c)
	}
	if !s.v.instance.Development {
		return decision{}, false
	}
	return s.answerSatellite(r, c)
}

func (s *Site) askPrimary(r *visit, c *session) (d decision, found bool) {
	synced := queryValue(r.at.RawQuery, paramSynced)
	if r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Dest") != "document" || synced == "true" {
		return decision{}, false
	}
	stranger := c.token == "" && !c.marked
	switch {
	case synced == "false", stranger && s.satellite.AutoSync:
	case stranger:
		return out(signedOut, failNoToken), true
	default:
		return decision{}, false
	}
	d = out(handshake, failNoToken)
	d.reason = reasonSatellite
	if s.v.instance.Development {
		page, err := url.Parse(s.satellite.SignInURL)
		if err != nil || originOf(s.satellite.SignInURL) == origin(r.at) {
			return decision{}, false // it would ask itself
		}
		d.location = with(page, param{paramRedirectURL, origin(r.at) + r.at.RequestURI()})
	}
	return d, true
}

// answerSatellite sends a browser back to the satellite it came from, with its name. Only to those that are listed:
// the SDK sends it anywhere.
func (s *Site) answerSatellite(r *visit, c *session) (d decision, found bool) {
	to := queryValue(r.at.RawQuery, paramRedirectURL)
	if to == "" || !slices.Contains(s.satellites, originOf(to)) {
		return decision{}, false
	}
	page, err := url.Parse(to)
	if err != nil {
		return decision{}, false
	}
	d = out(handshake, failNoToken)
	d.reason = reasonPrimary
	var add []param
	if browser := s.devBrowser(r, c); browser != "" {
		add = append(add, param{devBrowser, browser})
	}
	d.location = with(page, append(add, param{paramSynced, "true"})...)
	return d, true
}

// with is the text of the URL with parameters added to its query.
func with(u *url.URL, add ...param) string {
	var q form
	for _, p := range append(parseForm(u.RawQuery), add...) {
		q.add(p.name, p.value)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return originOf(origin(u)) + path + "?" + q.text.String()
}
