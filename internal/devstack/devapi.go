package devstack

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// signedIn is the answer of sign-in and of token.
type signedIn struct {
	User  User          `json:"user"`
	Org   *Organization `json:"org"`
	Token string        `json:"token"`
}

func (i *Issuer) devRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /dev/sign-in", i.devSignIn)
	mux.HandleFunc("POST /dev/sign-out", i.devSignOut)
	mux.HandleFunc("GET /dev/token", i.devToken)
	mux.HandleFunc("GET /dev/users", i.devUsers)
	mux.HandleFunc("POST /dev/rotate", i.devRotate)
	return mux
}

func (i *Issuer) devSignIn(w http.ResponseWriter, r *http.Request) {
	var in struct {
		User string `json:"user"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	u, ok := UserByKey(in.User)
	if !ok {
		writeJSON(w, http.StatusNotFound, map[string]string{"error": "There is no user of that name; GET dev/users lists them."})
		return
	}
	handle, s := i.begin(r, "", u.Key)
	azp := i.party(r)
	secure := strings.HasPrefix(azp, "https://")
	http.SetCookie(w, &http.Cookie{
		Name: clientCookie, Value: handle, Path: "/", MaxAge: year,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: secure,
	})
	for _, c := range i.clientCookies(s.signedIn, i.browser("", handle), secure) {
		http.SetCookie(w, c)
	}
	i.answerToken(w, s, azp, secure)
}

func (i *Issuer) devToken(w http.ResponseWriter, r *http.Request) {
	_, s, ok := i.session(r, "")
	if !ok {
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "Nobody is signed in; POST dev/sign-in first."})
		return
	}
	azp := i.party(r)
	i.answerToken(w, s, azp, strings.HasPrefix(azp, "https://"))
}

func (i *Issuer) answerToken(w http.ResponseWriter, s devSession, azp string, secure bool) {
	u := s.user()
	token, err := i.tokenFor(u, AZP(azp))
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"error": "The token could not be signed."})
		return
	}
	for _, c := range i.sessionCookies(token, secure) {
		http.SetCookie(w, c)
	}
	writeJSON(w, http.StatusOK, signedIn{User: u, Org: u.Organization, Token: token})
}

func (i *Issuer) devSignOut(w http.ResponseWriter, r *http.Request) {
	if handle, _, ok := i.session(r, ""); ok {
		i.end(handle)
	}
	for _, c := range i.clearCookies(false) {
		http.SetCookie(w, c)
	}
	http.SetCookie(w, &http.Cookie{Name: clientCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	writeJSON(w, http.StatusOK, map[string]bool{"signed_out": true})
}

func (i *Issuer) devUsers(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string][]User{"users": Users()})
}

func (i *Issuer) devRotate(w http.ResponseWriter, r *http.Request) {
	var in struct {
		KeepKid bool `json:"keep_kid"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	if err := i.Rotate(in.KeepKid); err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"error": "The key could not be made."})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"kid": i.KeyID()})
}

// party is the azp of a token asked for by r: Clerk takes the Origin of the request. A GET of the same origin has
// none, so the app's origin stands in, and without one the origin that r was sent to.
func (i *Issuer) party(r *http.Request) string {
	if o := r.Header.Get("Origin"); o != "" {
		return o
	}
	if app := i.AppOrigin(); app != "" {
		return app
	}
	if overTLS(r) {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func overTLS(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}

// readJSON reads one small JSON object; an empty body counts as {}.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "The body is not the JSON object that this endpoint takes."})
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, `{"error":"The answer could not be encoded."}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
