package caddytinybird

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

// privateWriter keeps what one user is shown out of caches that serve others, and has browsers ask again before they show it
// after a sign-out. A site that knows nothing of Clerk says nothing of that, and a session in a cookie, unlike one
// in the Authorization header, does not stop a cache (RFC 9111, 3.5). What the site says itself stays, unless the answer
// brings the session along: a cache that stored that would sign others in. So the session's cookies are set here, at
// the moment in which it is known what the answer says to caches.
type privateWriter struct {
	*caddyhttp.ResponseWriterWrapper

	cookies []string // Clerk's, for the answer
	begun   bool
}

func newPrivateWriter(w http.ResponseWriter, o *clerk.Outcome) *privateWriter {
	return &privateWriter{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, cookies: o.Cookies}
}

// serve has next answer. What ends in an error is answered past this writer, by the server's error routes or those of a
// subroute, which can make the answer one for everybody. It goes without the cookies: the exchange with Clerk that they come
// from is remembered, and the browser's next request brings them, or makes a handshake anew.
func (w *privateWriter) serve(r *http.Request, next caddyhttp.Handler) error {
	err := next.ServeHTTP(w, r)
	if err != nil {
		w.takeBack()
	}
	if !w.begun { // what Caddy sends then has this header: an empty answer, or that to the error
		w.keepPrivate()
	}
	return err
}

// takeBack removes the cookies again, for an answer that was begun and is not sent: a handler around this one may hold it back. Of
// an answer that is on its way it changes nothing.
func (w *privateWriter) takeBack() {
	header, taken := w.Header(), w.cookies
	kept := slices.DeleteFunc(header["Set-Cookie"], func(cookie string) bool { return slices.Contains(w.cookies, cookie) })
	if header["Set-Cookie"] = kept; len(kept) == 0 {
		delete(header, "Set-Cookie")
	}
	w.cookies = nil
	endHandshake(header, taken)
}

// endHandshake takes a handshake that has been read away from the browser, also with an answer that goes without the session's cookies:
// to read it again later would put back what the browser had before. There is nothing in it that could not be for everybody.
func endHandshake(header http.Header, cookies []string) {
	for _, cookie := range cookies {
		name, rest, _ := strings.Cut(cookie, "=")
		if value, _, _ := strings.Cut(rest, ";"); value == "" && strings.HasPrefix(name, "__clerk_handshake") {
			header.Add("Set-Cookie", cookie)
		}
	}
}

// keepPrivate says to caches whom the answer is for.
func (w *privateWriter) keepPrivate() {
	switch header := w.Header(); {
	case len(w.cookies) > 0:
		setCookies(header, w.cookies)
	case header["Cache-Control"] == nil:
		header.Set("Cache-Control", "private, no-cache")
	}
}

// WriteHeader sends the header.
func (w *privateWriter) WriteHeader(status int) {
	if !w.begun && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.begun = true
		w.keepPrivate()
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

// Write sends a part of the body.
func (w *privateWriter) Write(part []byte) (int, error) {
	w.begin()
	n, err := w.ResponseWriterWrapper.Write(part)
	if err != nil {
		return n, fmt.Errorf("answer: %w", err)
	}
	return n, nil
}

// ReadFrom sends the body, without copying it where that can be.
func (w *privateWriter) ReadFrom(r io.Reader) (int64, error) {
	w.begin()
	n, err := w.ResponseWriterWrapper.ReadFrom(r)
	if err != nil {
		return n, fmt.Errorf("answer: %w", err)
	}
	return n, nil
}

// FlushError sends what there is.
func (w *privateWriter) FlushError() error {
	w.begin()
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

func (w *privateWriter) begin() {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
}

// Interface guards.
var (
	_ http.ResponseWriter = (*privateWriter)(nil)
	_ io.ReaderFrom       = (*privateWriter)(nil)
)
