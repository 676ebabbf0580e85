package forward

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// passed are the fields of Tinybird's header that come down, in canonical form, next to those that begin with
// X-Db- and the rate limit's. Content-Length comes from what the transport made of it.
var passed = [...]string{
	"Content-Type",
	"Content-Encoding",
	"Etag",
	"Last-Modified",
	"Retry-After",
}

const pieceSize = 32 << 10

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// servable tells whether an answer with this status is handed on as it is.
func servable(status int) bool {
	return status >= 200 && status <= 299 || status == http.StatusNotModified
}

// hasBody tells whether an answer with this status may have a body (RFC 9110, section 6.4.1).
func hasBody(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// answer hands resp on to the client, piece by piece.
func (x *exchange) answer(w http.ResponseWriter, resp *http.Response) error {
	buf := pieces.Get().(*[pieceSize]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer pieces.Put(buf)

	// The first piece is awaited before anything is written, so that an answer which fails until then can
	// still be turned into an error that says so.
	n, err := readPiece(resp.Body, buf[:])
	if err != nil && !ended(err) {
		return x.unanswered(err)
	}
	setHeader(w.Header(), resp)
	w.WriteHeader(resp.StatusCode)

	out := sink{w: w}
	if resp.ContentLength < 0 {
		// Nobody knows when more will come: each piece goes on its way at once.
		out.flush = http.NewResponseController(w).Flush
	}
	for {
		if n > 0 {
			if werr := out.write(buf[:n]); werr != nil {
				return x.aborted(werr)
			}
		}
		if ended(err) {
			return nil
		}
		if err != nil {
			return x.aborted(err)
		}
		n, err = readPiece(resp.Body, buf[:])
	}
}

// readPiece reads what there is: some bytes, an error, or both.
func readPiece(r io.Reader, buf []byte) (int, error) {
	for {
		n, err := r.Read(buf)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// ended tells whether a body ended as it should. An error that only wraps io.EOF is a connection that was lost.
func ended(err error) bool {
	return err == io.EOF //nolint:errorlint // see above
}

// sink is the client's side of an answer.
type sink struct {
	w     io.Writer
	flush func() error // nil if the server may take its time
}

func (s *sink) write(p []byte) error {
	if _, err := s.w.Write(p); err != nil {
		return fmt.Errorf("to the client: %w", err)
	}
	if s.flush == nil {
		return nil
	}
	err := s.flush()
	if errors.Is(err, http.ErrNotSupported) {
		s.flush = nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("to the client: %w", err)
	}
	return nil
}

// aborted is the error for an answer of which a part was written.
func (x *exchange) aborted(cause error) error {
	if err := x.gone(); err != nil {
		return fmt.Errorf("%w: %w", ErrAborted, err)
	}
	return fmt.Errorf("%w: %w", ErrAborted, withoutSecrets(cause, x.token))
}

// setHeader puts the header of the answer on h.
func setHeader(h http.Header, resp *http.Response) {
	for _, name := range passed {
		if v := resp.Header[name]; len(v) > 0 {
			h[name] = v[:1:1]
		}
	}
	own := &[...]string{"private, no-store", "nosniff", ""} // not shared: other handlers may write over them
	h["Cache-Control"] = own[0:1:1]
	h["X-Content-Type-Options"] = own[1:2:2]
	if resp.ContentLength >= 0 && hasBody(resp.StatusCode) {
		own[2] = strconv.FormatInt(resp.ContentLength, 10)
		h["Content-Length"] = own[2:3:3]
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // keeps net/http from guessing one
	}
	passReports(h, resp.Header)
}

// passReports hands on what Tinybird says about its database, and about its limit unless the edge has a limit of its own.
func passReports(h, upstream http.Header) {
	own := hasRateLimit(h)
	for name, v := range upstream {
		if strings.HasPrefix(name, "X-Db-") || !own && isRateLimit(name) {
			h[name] = v
		}
	}
}

// isRateLimit tells whether a field, in canonical form, is about the rate limit: X-RateLimit-* as Tinybird sends
// them, or the RateLimit fields of the IETF's draft.
func isRateLimit(name string) bool {
	return strings.HasPrefix(name, "X-Ratelimit-") || name == "Ratelimit" || strings.HasPrefix(name, "Ratelimit-")
}

func hasRateLimit(h http.Header) bool {
	for name := range h {
		if isRateLimit(name) {
			return true
		}
	}
	return false
}
