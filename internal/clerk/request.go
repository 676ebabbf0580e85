package clerk

import (
	"net/http"
	"net/url"
)

// state is what a request is, in the SDK's terms.
type state uint8

const (
	signedOut state = iota
	signedIn
	// handshake: the browser should be sent to Clerk to bring its cookies up to date. Where that cannot be
	// done the request is signed out for the same reason.
	handshake
)

// decision is what was found out about a request.
type decision struct {
	state    state
	reason   string // the SDK's, unless signed in
	token    string // the token that was judged, if any
	identity *Identity
	failure  *failure
	pending  *Identity // whose session is not finished, which is the failure then

	// What a Site adds.
	cookies  []string  // Set-Cookie fields
	location string    // where to send the browser, if not to a handshake
	replaced *Identity // whose valid session came to an end by this
	notice   error     // for the operator
}

func out(s state, f *failure) decision {
	return decision{state: s, reason: f.reason, failure: f}
}

// decide finds the token and judges it. A token in the header is the last word: a cookie is no fallback for a
// bad one. Then the first of the other sources that holds a token, or the traces of a session, decides.
func (v *Verifier) decide(r *visit) decision {
	if v.header {
		token, f := headerToken(r.Header)
		if f != nil {
			return out(signedOut, f)
		}
		if token != "" {
			return v.decideToken(r, token)
		}
	}
	last := out(signedOut, failNoToken)
	for _, s := range v.others {
		d, found := last, false
		switch s.Kind {
		case SourceCookie:
			d, found = v.decideCookies(r)
			last = d
		case SourceQuery:
			d, found = v.decideQuery(r, s.Name)
		case SourceHeader: // came first
		}
		if found {
			return d
		}
	}
	return last
}

// visit is a request whose cookies are read at most once.
type visit struct {
	*http.Request

	site *Site    // that can do something about a request that is not signed in; may be nil
	at   *url.URL // of the request as the browser sees it, if there is a site
	jars *jars

	unjudged *failure // that a handshake could not be judged, because Clerk or its keys are away
}

// asks reports whether the query has a parameter of that name, as the browser sent it.
func (r *visit) asks(name string) bool {
	u := r.at
	if u == nil {
		u = r.URL
	}
	return u.Query().Has(name)
}

func (v *Verifier) cookies(r *visit) *jars {
	if r.jars == nil {
		j := readCookies(r.Header, v.instance.CookieSuffix)
		r.jars = &j
	}
	return r.jars
}

func (v *Verifier) decideQuery(r *visit, name string) (d decision, found bool) {
	token, f := queryToken(r.URL.RawQuery, name)
	if f != nil {
		return out(signedOut, f), true
	}
	if token == "" {
		return decision{}, false
	}
	return v.decideToken(r, token), true
}

// decideToken judges a token that was sent by itself. The state of the browser plays no part.
func (v *Verifier) decideToken(r *visit, token string) decision {
	d := v.decideCandidate(r, v.candidate(token))
	d.token = token
	return d
}

// decideCookies judges the session of a browser. found is false if the cookies show no trace of one.
func (v *Verifier) decideCookies(r *visit) (d decision, found bool) {
	s := v.readSession(v.cookies(r))
	if r.site == nil {
		d = v.decideSession(r, &s)
	} else if d, found = r.site.decideSession(r, &s); found {
		return d, true
	}
	d.token = s.token
	return d, s.token != "" || s.clientUAT != 0
}

func (v *Verifier) decideSession(r *visit, s *session) decision {
	if v.instance.Development {
		j := v.cookies(r)
		switch {
		case r.asks(devBrowser):
			return out(handshake, failDevSync)
		case *j == jars{}:
			return out(handshake, failDevNobody)
		case j.chosen(s.suffixed)[cookieDevBrowser] == "":
			return out(handshake, failDevMissing)
		}
	}
	switch {
	case s.clientUAT == 0 && s.token == "":
		return out(signedOut, failNoToken)
	case s.clientUAT == 0:
		return out(handshake, failNoClientUAT)
	case s.token == "":
		return out(handshake, failNoSessionCookie)
	case s.candidate.fault != nil:
		return out(signedOut, s.candidate.fault)
	case s.candidate.parsed != nil && s.candidate.parsed.otherKind():
		return out(signedOut, failType)
	}
	// A sign-in or sign-out since the token was issued makes it a token of the past, even if it verifies.
	if iat, ok, _ := s.candidate.unverified().seconds("iat"); ok && iat < s.clientUAT {
		return out(handshake, failOldSession)
	}
	return v.decideCandidate(r, s.candidate)
}

// decideCandidate verifies the token. One that is only out of its time could be replaced by a handshake.
func (v *Verifier) decideCandidate(r *visit, c candidate) decision {
	id, f := v.judge(r.Context(), c)
	if f == nil {
		return decision{state: signedIn, identity: id}
	}
	d := out(signedOut, f)
	switch f.reason {
	case reasonPending:
		d.pending = id
	case reasonExpired:
		if d = v.refresh(r, c); d.state == signedIn {
			return d
		}
		d.state, d.reason = handshake, reasonSessionExpired+d.reason
	case reasonNotActive:
		d.state, d.reason = handshake, reasonSessionNBF
	case reasonIssuedLater:
		d.state, d.reason = handshake, reasonSessionIAT
	}
	return d
}

// refresh exchanges an expired token for a new one if there is somebody to ask. The reason is why it was not.
func (v *Verifier) refresh(r *visit, c candidate) decision {
	d := out(signedOut, failExpired)
	token := v.cookies(r).own[cookieRefresh]
	switch {
	case r.Method != http.MethodGet:
		d.reason = "non-eligible-non-get"
	case token == "":
		d.reason = "non-eligible-no-refresh-cookie"
	case r.site == nil || r.site.backend == nil:
		d.reason = "missing-api-client"
	case r.unjudged != nil: // it has waited for Clerk already
		d.reason = reasonUnexpected
	default:
		return r.site.refresh(r, c, token)
	}
	return d
}
