package caddytinybird

import (
	"fmt"
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

// privateWriter keeps what one user is shown out of caches that serve others, and has browsers ask again before they show it
// after a sign-out. A site that knows nothing of Clerk says nothing of that, and a session in a cookie, unlike one
// in the Authorization header, does not stop a cache (RFC 9111, 3.5). What the site says itself stays, unless the answer
// brings the session along: a cache that stored that would sign others in.
type privateWriter struct {
	*caddyhttp.ResponseWriterWrapper

	session bool // the answer sets Clerk's cookies
	begun   bool
}

func newPrivateWriter(w http.ResponseWriter, o *clerk.Outcome) *privateWriter {
	return &privateWriter{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, session: len(o.Cookies) > 0}
}

// WriteHeader sends the header.
func (w *privateWriter) WriteHeader(status int) {
	if !w.begun && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.begun = true
		switch h := w.Header(); {
		case w.session:
			h.Set("Cache-Control", privateNoStore)
			dropCDNControls(h)
		case h["Cache-Control"] == nil:
			h.Set("Cache-Control", "private, no-cache")
		}
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
