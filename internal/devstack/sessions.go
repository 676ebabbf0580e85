package devstack

import (
	"crypto/rand"
	"net/http"
	"slices"
	"time"
)

// maxSessions bounds the signed-in browsers that the issuer remembers; the oldest are forgotten first. The same
// goes for development browsers and for payloads of handshakes.
const maxSessions = 1000

// clientCookie is the issuer's own, in Clerk's case on the Frontend API's host: it is what a fresh token is given
// for when the last one has expired. No script can read it.
const clientCookie = "__client"

// browserCookie names a browser in development, where a site and its Frontend API share no domain. It is a query
// parameter as well.
const browserCookie = "__clerk_db_jwt"

// devSession is one sign-in.
type devSession struct {
	id       string // the tokens' sid
	userKey  string
	signedIn time.Time
	refresh  string // what the site's __refresh cookie holds
	personal bool   // no organization is active, though the user may be in one
}

// user is who signed in, with this session's id and its active organization.
func (s devSession) user() User {
	// Only users that exist are ever signed in.
	u, _ := UserByKey(s.userKey)
	u.SessionID = s.id
	if s.personal {
		u.Organization = nil
	}
	return u
}

func newBrowserID() string { return "dvb_2" + rand.Text() }

// begin signs somebody in and returns the handle that the browser shows from now on. It ends the session that the
// browser had before, as an instance does that allows one session at a time.
func (i *Issuer) begin(r *http.Request, browserID, userKey string) (string, devSession) {
	if before, _, ok := i.session(r, browserID); ok {
		i.end(before)
	}
	s := devSession{
		id: "sess_2" + rand.Text(), userKey: userKey, refresh: "rt_2" + rand.Text(),
		// Clerk dates the sign-in by the second, and so does the first token.
		signedIn: i.now().Truncate(time.Second),
	}
	return i.remember(s), s
}

func (i *Issuer) remember(s devSession) string {
	handle := rand.Text()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.order = keep(i.sessions, i.order, handle, s)
	return handle
}

// session returns who is signed in: by the development browser of that id, or else by r's cookie.
func (i *Issuer) session(r *http.Request, browserID string) (handle string, s devSession, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if handle = i.browsers[browserID]; handle != "" {
		if s, ok = i.sessions[handle]; ok {
			return handle, s, true
		}
	}
	c, err := r.Cookie(clientCookie)
	if err != nil {
		return "", devSession{}, false
	}
	if s, ok = i.sessions[c.Value]; !ok {
		return "", devSession{}, false
	}
	return c.Value, s, true
}

// sessionByID returns the session with that sid, if it has not ended.
func (i *Issuer) sessionByID(sid string) (devSession, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, s := range i.sessions {
		if s.id == sid {
			return s, true
		}
	}
	return devSession{}, false
}

// activate makes the user's organization of that id or slug the session's active one, or none for "". Anything
// else changes nothing.
func (i *Issuer) activate(handle string, s devSession, organization string) devSession {
	u, _ := UserByKey(s.userKey)
	switch o := u.Organization; {
	case organization == "":
		s.personal = true
	case o != nil && (organization == o.ID || organization == o.Slug):
		s.personal = false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.sessions[handle]; ok { // it may have ended meanwhile
		i.sessions[handle] = s
	}
	return s
}

func (i *Issuer) end(handle string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.order = forget(i.sessions, i.order, handle)
}

// EndSessions ends all sessions, as somebody can in Clerk's dashboard: no browser hears of it, handshakes answer
// "signed out" and refreshes are refused.
func (i *Issuer) EndSessions() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.sessions)
	i.order = nil
}

// browser returns the id of a development browser, a new one unless id is known, and lets it share the session of
// handle, unless that is "".
func (i *Issuer) browser(id, handle string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	before, ok := i.browsers[id]
	if !ok {
		id = newBrowserID()
	}
	if handle == "" {
		handle = before
	}
	i.known = keep(i.browsers, i.known, id, handle)
	return id
}

// keep puts a value into a map that forgets the oldest keys first, and returns the new order.
func keep[V any](in map[string]V, order []string, key string, v V) []string {
	if _, ok := in[key]; !ok {
		if len(order) >= maxSessions {
			delete(in, order[0])
			order = order[1:]
		}
		order = append(order, key)
	}
	in[key] = v
	return order
}

func forget[V any](in map[string]V, order []string, key string) []string {
	delete(in, key)
	return slices.DeleteFunc(order, func(k string) bool { return k == key })
}
