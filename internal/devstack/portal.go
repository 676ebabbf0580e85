package devstack

import (
	"net/http"
	"net/url"
)

// The account portal: who is signed in on this host, and the ways in and out. Paths are relative, so that it works
// below a path of a proxy too.

// maxForm is the largest form that is read.
const maxForm = 16 << 10

// signInPage asks who to be. A browser that is signed in already goes straight back, as from Clerk's portal.
func (i *Issuer) signInPage(r *http.Request) answer {
	q := r.URL.Query()
	back, refusal := i.back(q.Get("redirect_url"))
	if refusal != nil {
		return *refusal
	}
	if handle, _, ok := i.session(r, q.Get(browserCookie)); ok {
		return i.sendBack(back, q.Get(browserCookie), handle, "user")
	}
	return i.page(signInTemplate, map[string]any{
		"Users": Users(), "Back": q.Get("redirect_url"), "BrowserName": browserCookie, "Browser": q.Get(browserCookie),
	})
}

func (i *Issuer) signIn(r *http.Request) answer {
	r.Body = http.MaxBytesReader(nil, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return clerkError(http.StatusBadRequest, "request_body_invalid", "The body is not the form of this page.")
	}
	back, refusal := i.back(r.Form.Get("redirect_url"))
	if refusal != nil {
		return *refusal
	}
	u, ok := UserByKey(r.Form.Get("user"))
	if !ok {
		return clerkError(http.StatusUnprocessableEntity, "form_identifier_not_found", "Couldn't find your account.")
	}
	handle, s := i.begin(r, r.Form.Get(browserCookie), u.Key)
	a := i.sendBack(back, r.Form.Get(browserCookie), handle, "user")
	return i.mark(a, r, back, handle, s.second())
}

// userPage tells who is signed in and offers to sign out.
func (i *Issuer) userPage(r *http.Request) answer {
	q := r.URL.Query()
	if _, refusal := i.back(q.Get("redirect_url")); refusal != nil {
		return *refusal
	}
	_, s, ok := i.session(r, q.Get(browserCookie))
	if !ok {
		return redirectTo(http.StatusSeeOther, "sign-in")
	}
	out := url.Values{}
	for _, name := range []string{"redirect_url", browserCookie} {
		if q.Get(name) != "" {
			out.Set(name, q.Get(name))
		}
	}
	return i.page(userTemplate, map[string]any{
		"User": s.user(), "SignOut": "v1/client/sessions/" + s.id + "/remove?" + out.Encode(),
	})
}

// removeSession is the Frontend API's sign-out. Signing out twice is signing out.
func (i *Issuer) removeSession(r *http.Request) answer {
	q := r.URL.Query()
	back, refusal := i.back(q.Get("redirect_url"))
	if refusal != nil {
		return *refusal
	}
	handle, s, ok := i.session(r, q.Get(browserCookie))
	if ok && s.id != r.PathValue("sid") {
		return clerkError(http.StatusNotFound, "resource_not_found", "This browser has no session of that id.")
	}
	i.end(handle)
	a := i.sendBack(back, q.Get(browserCookie), "", "../../../../sign-in")
	return i.mark(a, r, back, "", "0")
}

// back reads an optional redirect_url: nil and nil without one.
func (i *Issuer) back(raw string) (*url.URL, *answer) {
	if raw == "" {
		return nil, nil
	}
	u, ok := i.target(raw)
	if !ok {
		a := refuseTarget(raw)
		return nil, &a
	}
	return u, nil
}

// sendBack leads to the site that somebody came from, in development with the browser's id, which a site on another
// domain has no other way to know. Without one it leads to a page of the portal.
func (i *Issuer) sendBack(back *url.URL, browserID, handle, page string) answer {
	if !i.live {
		browserID = i.browser(browserID, handle)
		if back != nil {
			back = withQuery(back, browserCookie, browserID)
		}
	}
	if back == nil {
		return redirectTo(http.StatusSeeOther, page)
	}
	return redirectTo(http.StatusSeeOther, back.String())
}

// mark adds the cookies of a sign-in or, without a handle, of a sign-out: the browser's own on this host, and in
// production the time on the domain that the site shares.
func (i *Issuer) mark(a answer, r *http.Request, back *url.URL, handle, second string) answer {
	here := site{secure: overTLS(r)}
	own := here.cookie(clientCookie, handle, year)
	own.HttpOnly = true
	if handle == "" {
		own.MaxAge = -1
	}
	cs := []*http.Cookie{&own}
	if i.live {
		if back == nil {
			back, _ = parseHTTP(i.AppOrigin())
		}
		if back != nil {
			here.domain = i.siteAt(back, r.Host).domain
		}
		cs = append(cs, i.both(here.shared("__client_uat", second, decade))...)
	}
	for _, f := range fields(cs) {
		a.header.Add("Set-Cookie", f)
	}
	return a
}
