package devstack

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// AddSiteOrigin lets redirect_url lead to a further origin, such as http://127.0.0.1:8081, for a site whose port is
// known later than the issuer's.
func (i *Issuer) AddSiteOrigin(origin string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.origins = append(i.origins, origin)
}

// siteOrigins are the origins that a redirect_url may lead to, in the form of originOf.
func (i *Issuer) siteOrigins() []string {
	i.mu.Lock()
	all := append([]string{i.app}, i.origins...)
	i.mu.Unlock()
	var list []string
	for _, o := range all {
		if u, ok := parseHTTP(o); ok {
			list = append(list, originOf(u))
		}
	}
	return list
}

// target reads a redirect_url. Where it may lead is the one thing that keeps the issuer from being an open
// redirect, with a session in its URL.
func (i *Issuer) target(raw string) (*url.URL, bool) {
	u, ok := parseHTTP(raw)
	if !ok || !slices.Contains(i.siteOrigins(), originOf(u)) {
		return nil, false
	}
	return u, true
}

func (i *Issuer) knownHost(host string) bool {
	for _, o := range append(i.siteOrigins(), i.URL()) {
		if u, ok := parseHTTP(o); ok && strings.EqualFold(u.Hostname(), host) {
			return true
		}
	}
	return false
}

func refuseTarget(raw string) answer {
	if raw == "" {
		return clerkError(http.StatusBadRequest, "form_param_missing", "redirect_url must be included.")
	}
	return clerkError(http.StatusBadRequest, "redirect_url_mismatch", "redirect_url must be an absolute URL of a site of this instance.")
}

// parseHTTP reads an absolute http or https URL in which nothing stands before the host.
func parseHTTP(raw string) (*url.URL, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.User != nil || u.Hostname() == "" || !isASCII(u.Host) || u.Scheme != "http" && u.Scheme != "https" {
		return nil, false
	}
	return u, true
}

// originOf writes a URL's origin as browsers do: in lower case and without the scheme's own port.
func originOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return u.Scheme + "://" + strings.TrimSuffix(host, ":")
}

// sharedDomain is the Domain of cookies that the Frontend API and a site share: the last two labels of both their
// names. It is "" for one name alone, because the cookies of a host are those of all its ports, and for names that
// can share nothing, such as addresses.
func sharedDomain(a, b string) string {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if a == b || lastTwoLabels(a) != lastTwoLabels(b) {
		return ""
	}
	return lastTwoLabels(a)
}

func lastTwoLabels(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	labels := strings.Split(host, ".")
	if len(labels) < 2 || slices.Contains(labels, "") {
		return ""
	}
	return strings.Join(labels[len(labels)-2:], ".")
}

// withQuery returns u with one parameter set and the others as they are written.
func withQuery(u *url.URL, name, value string) *url.URL {
	var kept []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if k, err := url.QueryUnescape(key); pair != "" && (err != nil || k != name) {
			kept = append(kept, pair)
		}
	}
	out := *u
	out.RawQuery = strings.Join(append(kept, url.QueryEscape(name)+"="+url.QueryEscape(value)), "&")
	return &out
}
