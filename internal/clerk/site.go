package clerk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
)

// The states of a request, in the SDK's words.
const (
	SignedIn  = "signed-in"
	SignedOut = "signed-out"
	Handshake = "handshake"
)

// Backend is Clerk's Backend API, as far as it is needed. Its errors are of type [*bapi.Error].
type Backend interface {
	// HandshakePayload returns the Set-Cookie fields that a nonce stands for.
	HandshakePayload(ctx context.Context, nonce string) ([]string, error)
	// RefreshSession exchanges an expired session token and a refresh token for Set-Cookie fields with new ones.
	RefreshSession(ctx context.Context, r bapi.Refresh) ([]string, error)
}

// Satellite says that a site is a satellite: people sign in on another one, the primary.
type Satellite struct {
	// Domain of the satellite, such as satellite.example.com. In production its Frontend API is clerk.<domain>, which
	// is Config.Domain as well.
	Domain string
	// SignInURL on the primary. Required for a development instance.
	SignInURL string
	// AutoSync sends every visitor without cookies to the primary once, to see whether they are signed in there.
	AutoSync bool
}

// SiteConfig says what a [Site] may do about a request that is not signed in.
type SiteConfig struct {
	// FrontendAPI is the base URL of the instance's Frontend API, such as https://clerk.example.com, or a path on the
	// site itself that is a proxy to it. Empty: https:// and the host in the publishable key.
	FrontendAPI string
	// Handshake lets browsers be sent to the Frontend API, and takes what they bring back.
	Handshake bool
	// Backend redeems the nonces of large handshakes and refreshes sessions. It needs the secret key. May be nil.
	Backend Backend
	// ClientIP is the address of the browser, of which Clerk is told when it refreshes a session. Nil: RemoteAddr.
	ClientIP func(*http.Request) string
	// Satellite is set if the site is one.
	Satellite *Satellite
	// Satellites are the origins of the satellites that a primary of a development instance sends people back to.
	Satellites []string
	// Organizations and PersonalAccounts are patterns of paths, such as /orgs/:slug/(.*), that belong to one
	// organization or to the personal account. A session in another one is sent to switch.
	Organizations, PersonalAccounts []string
}

// Site decides about the requests to one site, as the SDK's authenticateRequest does. It is safe for concurrent use.
type Site struct {
	v          *Verifier
	api        string // base URL, or a path
	handshake  bool
	backend    Backend
	clientIP   func(*http.Request) string
	satellite  *Satellite
	satellites []string
	orgs       *pathMatcher
	personal   *pathMatcher
	issuer     *issuer // of handshakes
	exchanges  *exchanges
}

// NewSite returns a site whose tokens v judges. An error names what is wrong and what to write instead.
func NewSite(v *Verifier, c SiteConfig) (*Site, error) {
	s := &Site{
		v: v, handshake: c.Handshake, backend: c.Backend, clientIP: c.ClientIP,
		satellite: c.Satellite, satellites: slices.Clone(c.Satellites),
	}
	if s.clientIP == nil {
		s.clientIP = remoteIP
	}
	if c.Handshake && v.instance.FrontendAPI == "" {
		return nil, errors.New("handshake on needs the publishable_key: it tells where Clerk is")
	}
	if err := c.checkSatellite(v.instance); err != nil {
		return nil, err
	}
	s.api = strings.TrimRight(c.FrontendAPI, "/")
	if s.api == "" {
		s.api = "https://" + v.instance.FrontendAPI
	}
	var err error
	for _, p := range c.Organizations {
		if err := checkOrganizationPattern(p); err != nil {
			return nil, err
		}
	}
	if s.orgs, err = newPathMatcher(c.Organizations); err != nil {
		return nil, err
	}
	if s.personal, err = newPathMatcher(c.PersonalAccounts); err != nil {
		return nil, err
	}
	s.issuer = v.issuers[0]
	for _, i := range v.issuers {
		if issuerHost(i.url) == v.instance.FrontendAPI {
			s.issuer = i
		}
	}
	s.exchanges, err = newExchanges(v.now)
	return s, err
}

func (c *SiteConfig) checkSatellite(i Instance) error {
	for _, o := range c.Satellites {
		if originOf(o) != o {
			return fmt.Errorf("satellites %q: want an origin in lower case and without a slash at its end, such as https://satellite.example.com", o)
		}
	}
	switch {
	case c.Satellite == nil:
		return nil
	case c.Satellite.Domain == "" && c.FrontendAPI == "":
		return errors.New("satellite: want its domain, or a proxy_url")
	case i.Development && c.Satellite.SignInURL == "":
		return errors.New("satellite: a development instance needs the address of the sign-in page on the primary")
	case c.Satellite.SignInURL != "" && originOf(c.Satellite.SignInURL) == "":
		return fmt.Errorf("satellite: %q is no address of a sign-in page; want one such as https://app.example.com/sign-in", c.Satellite.SignInURL)
	}
	return nil
}

// Close ends the site's background work. The site stays usable for requests that are still running.
func (s *Site) Close() { s.exchanges.close() }

// Outcome is what was decided about a request.
type Outcome struct {
	// Status is SignedIn, SignedOut or Handshake, and Reason the SDK's name for why it is not SignedIn.
	Status, Reason string
	// Identity is there exactly if somebody is signed in, and Refusal exactly if not.
	Identity *Identity
	Refusal  *Error
	// Valid is whose session is valid and goes through a handshake all the same, because it could be outdated or of another
	// organization than the URL. Whoever does not send browsers anywhere can let it pass.
	Valid *Identity
	// Location is where the browser has to be sent to, with 307 and no-store, whatever the status is. Empty: nowhere.
	Location string
	// Cookies are Set-Cookie fields for the answer.
	Cookies []string
	// Replaced is another user whose valid session came to an end by what Clerk sent along with this request. Whoever
	// can set cookies for the domain can cause that, so it is worth a line in the log.
	Replaced *Identity
	// Notice is what an operator should know, such as a handshake that could not be read. It quotes no token.
	Notice error
}

// Authenticate decides about a request. at is its URL as the browser sees it, see [PublicURL].
func (s *Site) Authenticate(r *http.Request, at *url.URL) *Outcome {
	q := &visit{Request: r, site: s, at: at}
	d := s.v.decide(q)
	o := &Outcome{
		Status: SignedOut, Reason: d.reason, Identity: d.identity,
		Location: d.location, Cookies: d.cookies, Replaced: d.replaced, Notice: d.notice,
	}
	if d.state == handshake {
		s.shake(q, &d, o)
	}
	if d.pending != nil && o.Status != Handshake {
		d.reason, o.Reason = reasonPending, reasonPending
	}
	if o.Status != Handshake && d.identity != nil {
		o.Status, o.Reason = SignedIn, ""
		s.v.observe("")
		return o
	}
	if d.identity != nil { // whose session is valid, and goes through a handshake all the same
		s.v.observe("")
		o.Identity, o.Valid, d.failure = nil, d.identity, failOldSession
	} else {
		s.v.report(d.failure)
	}
	o.Refusal = d.failure.refusal(d.reason)
	return o
}

// shake turns a decision for a handshake into a redirect, where that is possible.
func (s *Site) shake(r *visit, d *decision, o *Outcome) {
	count := redirectCount(r.Header)
	o.Location = ""
	if !s.handshake || !IsDocument(r.Request) || r.at.Host == "" || count >= maxRedirects {
		return
	}
	to := d.location
	if to == "" {
		to = s.handshakeURL(r, d)
	}
	if len(to) > maxLocation {
		return
	}
	o.Status, o.Location = Handshake, to
	o.Cookies = append(o.Cookies, redirectCountCookie(count+1))
}

// decideSession judges the session of a browser. found is false if the answer is in its cookies alone, and they
// show no trace of a session.
func (s *Site) decideSession(r *visit, c *session) (d decision, found bool) {
	d, found = s.resolve(r, c)
	if found {
		return d, true
	}
	notice := d.notice
	if r.unjudged != nil { // it has waited already, and what is at hand has to do
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		r.Request = r.WithContext(ctx)
	}
	if d, found = s.synchronize(r, c); !found {
		d = s.v.decideSession(r, c)
	}
	d.notice = errors.Join(notice, d.notice)
	switch {
	case d.state == signedIn:
		s.reconsider(r, &d, d.identity)
	case r.unjudged != nil:
		d = out(signedOut, r.unjudged)
		d.notice = notice
		return d, true
	case d.pending != nil:
		s.reconsider(r, &d, d.pending)
	}
	return d, found
}

// reconsider sends a browser that is signed in, or whose session is pending, through a handshake, if the site's idea of
// the session could be outdated, or of another organization than its URL is. Where that cannot be done it stays as it is.
func (s *Site) reconsider(r *visit, d *decision, id *Identity) {
	if !s.handshake || len(d.cookies) > 0 { // it has just been refreshed
		return
	}
	switch {
	case s.crossOrigin(r):
		d.state, d.reason = handshake, reasonCrossOrigin
	case s.target(r.at).differs(id):
		d.state, d.reason = handshake, reasonOrganization
	}
}

// crossOrigin reports whether the browser comes from another site, where it may have signed in or out meanwhile.
func (s *Site) crossOrigin(r *visit) bool {
	referrer := r.Header.Get("Referer")
	if s.satellite != nil || r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Dest") != "document" ||
		referrer == "" || redirectCount(r.Header) > 0 {
		return false
	}
	from := originOf(referrer)
	return from != "" && from != origin(r.at) && !s.v.instance.knownReferrer(referrer)
}
