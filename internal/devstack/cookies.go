package devstack

import (
	"crypto/sha1" //nolint:gosec // Clerk names its cookies by SHA-1; nothing is protected by it
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// How long cookies last, in seconds.
const (
	year   = 365 * 24 * 3600
	decade = 10 * year
)

// CookieSuffix is what Clerk appends to a cookie's name so that two instances can share a domain: the first eight
// characters of the base64url of the SHA-1 of the publishable key.
func CookieSuffix(publishableKey string) string {
	sum := sha1.Sum([]byte(publishableKey)) //nolint:gosec // see the import
	return base64.URLEncoding.EncodeToString(sum[:])[:8]
}

// CookieSuffix is the suffix of this instance's cookies, without the underscore.
func (i *Issuer) CookieSuffix() string { return CookieSuffix(i.PublishableKey()) }

// Cookies returns the cookies that a browser of the user has, as Clerk's page script and Frontend API set them:
// __session and __client_uat, plain and suffixed, and for a development instance __clerk_db_jwt. The options shape
// the session token in them.
func (i *Issuer) Cookies(userKey string, opts ...TokenOption) ([]*http.Cookie, error) {
	// One reading of the clock for both: a session token from before the sign-in is refused.
	opts = append([]TokenOption{IssuedAt(i.now())}, opts...)
	token, err := i.Token(userKey, opts...)
	if err != nil {
		return nil, err
	}
	var spec tokenSpec
	for _, o := range opts {
		o(&spec)
	}
	cs := i.sessionCookies(token, i.secure())
	return append(cs, i.clientCookies(spec.issued, newBrowserID(), i.secure())...), nil
}

func (i *Issuer) secure() bool { return strings.HasPrefix(i.AppOrigin(), "https://") }

// sessionCookies are host-only, readable by scripts, and outlive the token in them by far, as clerk-js sets them.
func (i *Issuer) sessionCookies(token string, secure bool) []*http.Cookie {
	return i.both(http.Cookie{
		Name: "__session", Value: token, Path: "/", MaxAge: year,
		SameSite: http.SameSiteLaxMode, Secure: secure,
	})
}

// clientCookies hold the second of the sign-in, and in development the browser's own id.
func (i *Issuer) clientCookies(signedIn time.Time, browserID string, secure bool) []*http.Cookie {
	mode := http.SameSiteStrictMode
	if i.live {
		mode = http.SameSiteLaxMode
	}
	cs := i.both(http.Cookie{
		Name: "__client_uat", Value: strconv.FormatInt(signedIn.Unix(), 10), Path: "/", MaxAge: decade,
		SameSite: mode, Secure: secure,
	})
	if i.live {
		return cs
	}
	return append(cs, i.both(http.Cookie{
		Name: browserCookie, Value: browserID, Path: "/", MaxAge: year,
		SameSite: http.SameSiteLaxMode, Secure: secure,
	})...)
}

// clearCookies sign a browser out: no session, and a sign-in time of zero.
func (i *Issuer) clearCookies(secure bool) []*http.Cookie {
	cs := i.sessionCookies("", secure)
	for _, c := range cs {
		c.MaxAge = -1
	}
	for _, c := range i.clientCookies(time.Unix(0, 0), "", secure) {
		if strings.HasPrefix(c.Name, "__client_uat") {
			cs = append(cs, c)
		}
	}
	return cs
}

func (i *Issuer) both(c http.Cookie) []*http.Cookie {
	suffixed := c
	suffixed.Name += "_" + i.CookieSuffix()
	return []*http.Cookie{&c, &suffixed}
}
