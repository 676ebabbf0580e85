package devstack

import (
	"net/http"
	"net/url"
	"strconv"
)

// The cookies, or in development the parameters, that a handshake's outcome travels in.
const (
	tokenCarrier = "__clerk_handshake"
	nonceCarrier = "__clerk_handshake_nonce"
)

// site is where cookies are set for.
type site struct {
	origin string
	domain string // that the site shares with the Frontend API; "": cookies of the host alone
	secure bool
}

// siteAt is the site that a URL leads to, as seen from a Frontend API of that host.
func (i *Issuer) siteAt(u *url.URL, frontendHost string) site {
	s := site{origin: originOf(u), secure: u.Scheme == "https"}
	if i.live { // in development there is nothing that both could see
		s.domain = sharedDomain(hostname(frontendHost), u.Hostname())
	}
	return s
}

func (s site) cookie(name, value string, maxAge int) http.Cookie {
	return http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: maxAge, SameSite: http.SameSiteLaxMode, Secure: s.secure,
	}
}

func (s site) shared(name, value string, maxAge int) http.Cookie {
	c := s.cookie(name, value, maxAge)
	c.Domain = s.domain
	return c
}

// visit is what a site is told about a browser.
type visit struct {
	site    site
	session *devSession // nil: nobody is signed in
	browser string      // __clerk_db_jwt, in development
	azp     string      // "": no azp in the token

	// Which of their two names the cookies get. Clerk's parameter suffixed_cookies asks for the second. No document
	// says that the first is left out then; both together weigh more, so both are set.
	plain, suffixed bool
}

// directives are the Set-Cookie fields of a handshake.
func (i *Issuer) directives(v visit) ([]string, error) {
	var cs []*http.Cookie
	if v.site.domain != "" {
		// One that was set for the host alone would be sent as well, and perhaps first.
		alone := v.site.cookie("__client_uat", "", -1)
		cs = append(cs, &alone)
	}
	for _, name := range []string{tokenCarrier, nonceCarrier} {
		c := v.site.shared(name, "", -1)
		cs = append(cs, &c)
	}
	own, err := i.siteCookies(v)
	if err != nil {
		return nil, err
	}
	cs = append(cs, own...)
	refresh := v.site.cookie("__refresh_"+i.CookieSuffix(), "", -1)
	refresh.HttpOnly = true
	if v.session != nil {
		refresh.Value, refresh.MaxAge = v.session.refresh, year
	}
	cs = append(cs, &refresh)
	if v.browser != "" {
		cs = append(cs, i.both(v.site.cookie(browserCookie, v.browser, year))...)
	}
	return fields(cs), nil
}

// siteCookies are what a site reads: when the browser signed in, and a session token. Signing out clears both
// names of each, whichever were asked for: a session cookie left behind would bring the next handshake.
func (i *Issuer) siteCookies(v visit) ([]*http.Cookie, error) {
	if v.session == nil {
		return append(i.both(v.site.shared("__client_uat", "0", decade)), i.both(v.site.cookie("__session", "", -1))...), nil
	}
	token, err := i.tokenFor(v.session.user(), AZP(v.azp))
	if err != nil {
		return nil, err
	}
	cs := i.named(v, v.site.shared("__client_uat", v.session.second(), decade))
	return append(cs, i.named(v, v.site.cookie("__session", token, year))...), nil
}

func (i *Issuer) named(v visit, c http.Cookie) []*http.Cookie {
	cs := i.both(c)
	switch {
	case !v.suffixed:
		return cs[:1]
	case !v.plain:
		return cs[1:]
	}
	return cs
}

// second is what __client_uat holds.
func (s devSession) second() string { return strconv.FormatInt(s.signedIn.Unix(), 10) }

func fields(cs []*http.Cookie) []string {
	list := make([]string, len(cs))
	for n, c := range cs {
		list[n] = c.String()
	}
	return list
}
