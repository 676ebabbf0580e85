package devstack

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

const (
	// maxPayload is the payload, in bytes, up to which a handshake travels as a token.
	maxPayload = 2 << 10
	// maxCookie is the name and the value of the largest cookie that browsers keep.
	maxCookie = 4 << 10
	// handshakeTime is how long the outcome of a handshake waits for the site.
	handshakeTime = time.Minute
)

// payload is the outcome of a handshake that a nonce stands for.
type payload struct {
	directives []string
	until      time.Time
}

func (i *Issuer) serveHandshake(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.counts.handshakes++
	fail := i.failFrontend
	i.mu.Unlock()
	i.spoiled(w, r, fail, i.handshake)
}

// handshake tells a site, through the browser, who is signed in on the issuer's own host.
func (i *Issuer) handshake(r *http.Request) answer {
	q := r.URL.Query()
	raw := q.Get("redirect_url")
	back, ok := i.target(raw)
	if !ok {
		return refuseTarget(raw)
	}
	v := visit{site: i.siteAt(back, r.Host), plain: true, suffixed: q.Get("suffixed_cookies") == "true"}
	handle, s, ok := i.session(r, q.Get(browserCookie))
	if ok {
		if q.Has("organization_id") {
			s = i.activate(handle, s, q.Get("organization_id"))
		}
		v.session = &s
	}
	if !i.live {
		v.browser = i.browser(q.Get(browserCookie), handle)
	}
	if !i.omitAZP {
		v.azp = v.site.origin
	}
	name, value, err := i.pack(v, q.Get("format") == "nonce")
	if err != nil {
		return clerkError(http.StatusInternalServerError, "internal_clerk_error", "The handshake could not be signed.")
	}
	return i.bringBack(r, back, v.site, name, value)
}

// pack returns what the browser carries to the site. In production that is a cookie, and with session tokens under
// both names a large one: without a nonce to stand for it, only the name that was asked for is left in it.
func (i *Issuer) pack(v visit, nonce bool) (name, value string, err error) {
	list, err := i.directives(v)
	if err != nil {
		return "", "", err
	}
	claims := map[string]any{"handshake": list}
	size, err := json.Marshal(claims)
	if err != nil {
		return "", "", fmt.Errorf("encode a handshake: %w", err)
	}
	if nonce && len(size) > maxPayload {
		return nonceCarrier, i.lodge(list), nil
	}
	i.mu.Lock()
	key, kid := i.key, i.kid
	i.mu.Unlock()
	header := map[string]any{"alg": "RS256", "typ": "JWT", "kid": kid, "cat": categorySession}
	token, err := sign("", key, header, claims)
	if err != nil {
		return "", "", err
	}
	if i.live && v.plain && v.suffixed && len(tokenCarrier)+len(token) > maxCookie {
		v.plain = false
		return i.pack(v, false)
	}
	return tokenCarrier, token, nil
}

// bringBack sends the browser to the site: in production with a cookie of the domain they share, in development
// with a parameter.
func (i *Issuer) bringBack(r *http.Request, back *url.URL, to site, name, value string) answer {
	if !i.live {
		return redirectTo(http.StatusTemporaryRedirect, withQuery(back, name, value).String())
	}
	to.secure = overTLS(r)
	other := tokenCarrier
	if name == tokenCarrier {
		other = nonceCarrier
	}
	// One that an earlier handshake left would compete with this one.
	stale, fresh := to.shared(other, "", -1), to.shared(name, value, int(handshakeTime.Seconds()))
	stale.HttpOnly, fresh.HttpOnly = true, true
	return redirectTo(http.StatusTemporaryRedirect, back.String(), &stale, &fresh)
}

// lodge keeps a payload for the Backend API and returns the nonce that stands for it.
func (i *Issuer) lodge(directives []string) string {
	nonce := "hsn_2" + rand.Text()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.nonces = keep(i.payloads, i.nonces, nonce, payload{directives, i.now().Add(handshakeTime)})
	return nonce
}

// redeem gives out what a nonce stands for, once.
func (i *Issuer) redeem(nonce string) ([]string, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p, ok := i.payloads[nonce]
	if !ok {
		return nil, false
	}
	i.nonces = forget(i.payloads, i.nonces, nonce)
	if i.now().After(p.until) {
		return nil, false
	}
	i.counts.redeemed++
	return p.directives, true
}
