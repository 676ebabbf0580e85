package devstack

import (
	"crypto/rand"
	"net/http"
	"strings"
	"time"
)

// counts are what the issuer tells tests about its two APIs.
type counts struct{ handshakes, refreshes, redeemed int }

// frontendRoutes are the Frontend API and the account portal, which share a host here.
func (i *Issuer) frontendRoutes(mux *http.ServeMux) {
	mux.Handle("GET /v1/client/handshake", i.nearOnly(i.serveHandshake))
	mux.Handle("POST /v1/client/sessions/{sid}/remove", i.nearOnly(i.answering(i.removeSession)))
	mux.Handle("GET /sign-in", i.nearOnly(i.answering(i.signInPage)))
	mux.Handle("POST /sign-in", i.nearOnly(i.answering(i.signIn)))
	mux.Handle("GET /user", i.nearOnly(i.answering(i.userPage)))
	// Browsers ask for it, and complain in the console if there is none.
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
}

// nearOnly lets through what is sent to a name of this machine, or to a name that the options know, by a client on
// this machine. Unlike devOnly it takes what other sites send: a handshake begins with a redirect from one.
func (i *Issuer) nearOnly(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostname(r.Host); !isLoopback(host) && !i.knownHost(host) || forwardedFromAfar(r) {
			deliver(w, r, clerkError(http.StatusForbidden, "host_invalid", "Only clients on this machine are answered, under a loopback name."), nil, i.closed)
			return
		}
		next(w, r)
	})
}

func (i *Issuer) answering(work func(*http.Request) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { deliver(w, r, work(r), nil, i.closed) }
}

// spoiled answers with what work makes, as fail wants it; fail may be nil. A failure by status takes the place of
// the work: in an outage no session is refreshed and no nonce used up.
func (i *Issuer) spoiled(w http.ResponseWriter, r *http.Request, fail func(*http.Request) *Fault, work func(*http.Request) answer) {
	var f *Fault
	if fail != nil {
		f = fail(r)
	}
	if f != nil && f.Status >= http.StatusBadRequest {
		deliver(w, r, clerkError(f.Status, "internal_clerk_error", "There was an internal error on our servers."), f, i.closed)
		return
	}
	deliver(w, r, work(r), f, i.closed)
}

// SetSessionLifetime changes how long session tokens live that are signed from now on; 0 is Clerk's 60 seconds.
func (i *Issuer) SetSessionLifetime(d time.Duration) {
	if d <= 0 {
		d = SessionLifetime
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lifetime = d
}

// FailFrontend asks f about every handshake; nil ends that. f returns nil for an answer as it should be.
func (i *Issuer) FailFrontend(f func(*http.Request) *Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failFrontend = f
}

// FailBackend asks f about every request to the Backend API; nil ends that. f returns nil for an answer as it
// should be.
func (i *Issuer) FailBackend(f func(*http.Request) *Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failBackend = f
}

// Handshakes counts the requests for a handshake, the failed ones included.
func (i *Issuer) Handshakes() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.counts.handshakes
}

// Refreshes counts the requests to refresh a session, the failed ones included.
func (i *Issuer) Refreshes() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.counts.refreshes
}

// NoncesRedeemed counts the payloads of handshakes that the Backend API gave out.
func (i *Issuer) NoncesRedeemed() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.counts.redeemed
}

// clerkError is an answer with Clerk's error body.
func clerkError(status int, code, message string) answer {
	return jsonAnswer(status, map[string]any{
		"errors":         []map[string]string{{"message": message, "long_message": message, "code": code}},
		"clerk_trace_id": strings.ToLower(rand.Text()),
	})
}

func jsonAnswer(status int, v any) answer {
	body, err := marshal(v)
	if err != nil {
		return answer{status: http.StatusInternalServerError, header: http.Header{}}
	}
	return answer{status: status, body: body, header: http.Header{
		"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
	}}
}

// redirectTo is a redirect with cookies, which must not be stored: Chrome keeps a 307 otherwise.
func redirectTo(status int, location string, cookies ...*http.Cookie) answer {
	h := http.Header{"Location": {location}, "Cache-Control": {"no-store"}}
	for _, c := range cookies {
		h.Add("Set-Cookie", c.String())
	}
	return answer{status: status, header: h}
}
