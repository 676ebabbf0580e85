// Package apierr is the one shape in which a request is refused: an HTTP status, a code that programs
// compare, and a sentence that people read.
//
// The body is {"error": "<sentence>", "code": "<code>"}, for rows that were sent with members that count them. Tinybird's own clients read the member "error",
// so a refusal by the edge looks to them like one by Tinybird.
package apierr

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
)

// Code names the reason of a refusal. Codes are part of the product's interface: a client may compare them.
type Code string

// The codes, grouped by the status they come with.
const (
	// 400
	BadQuery     Code = "bad_query"
	BadBody      Code = "bad_body"
	BadRequest   Code = "bad_request"
	QueryRefused Code = "query_refused"

	// 401
	TokenMissing     Code = "token_missing"
	TokenExpired     Code = "token_expired"
	TokenNotYetValid Code = "token_not_yet_valid"
	TokenInvalid     Code = "token_invalid"
	TokenWrongParty  Code = "token_wrong_party"
	TokenWrongIssuer Code = "token_wrong_issuer"
	TokenWrongType   Code = "token_wrong_type"
	SessionPending   Code = "session_pending"

	// 403
	TenantMissing   Code = "tenant_missing"
	NotAllowed      Code = "not_allowed"
	UpstreamRefused Code = "upstream_refused"

	// 404
	NotFound Code = "not_found"

	// 409
	EventsIncomplete Code = "events_incomplete"

	// 425
	TooEarly Code = "too_early"

	// 405, 413, 414, 415
	MethodNotAllowed Code = "method_not_allowed"
	BodyTooLarge     Code = "body_too_large"
	URLTooLong       Code = "url_too_long"
	UnsupportedBody  Code = "unsupported_body"

	// 429
	RateLimited Code = "rate_limited"

	// 500, 502, 503, 504
	Internal            Code = "internal"
	UpstreamUnreachable Code = "upstream_unreachable"
	KeysUnavailable     Code = "keys_unavailable"
	ClerkUnavailable    Code = "clerk_unavailable"
	UpstreamTimeout     Code = "upstream_timeout"
)

// Error is a refusal on its way to the client. Message is shown to the client and never holds a secret or a
// value the client did not send; Err is the cause for the operator's log and is never shown.
type Error struct {
	Status  int
	Code    Code
	Message string
	Header  http.Header // further response headers, such as Allow or Retry-After; may be nil
	Rows    *Rows       // for a request that sends rows, what became of them; else nil
	Err     error
}

// Rows is what became of the rows of a request that was refused, so that none is lost without a word.
type Rows struct {
	Row         int `json:"row,omitempty"`          // the one at fault, or the first that was not taken; the first row is 1
	Successful  int `json:"successful_rows"`        // taken before
	Quarantined int `json:"quarantined_rows"`       // taken before, and put aside by Tinybird
	Unknown     int `json:"unknown_rows,omitempty"` // from Row on: sent, and nobody knows whether they were taken
}

// New returns a refusal with the given status, code and sentence.
func New(status int, code Code, message string) *Error {
	return &Error{Status: status, Code: code, Message: message}
}

// NoEndpoint is the one answer for all that is not served: an unknown path, an unlisted pipe, a format that is
// not allowed, a pipe that Tinybird does not have. A client must not learn which it was.
func NoEndpoint() *Error {
	return New(http.StatusNotFound, NotFound, "There is no such endpoint here.")
}

// Wrap returns e with cause as the reason for the operator's log.
func (e *Error) Wrap(cause error) *Error {
	e.Err = cause
	return e
}

// With returns e with a response header added.
func (e *Error) With(name, value string) *Error {
	if e.Header == nil {
		e.Header = make(http.Header)
	}
	e.Header.Set(name, value)
	return e
}

// Error is the text for logs: the code and, where known, the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Code) + ": " + e.Message
	}
	return string(e.Code) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// SetHeaders puts the headers of the refusal on h: its own, and Cache-Control, whatever is said there, because a refusal is as
// private as an answer.
func (e *Error) SetHeaders(h http.Header) {
	maps.Copy(h, e.Header)
	h.Set("Cache-Control", "private, no-store")
}

type sentence struct {
	Error string `json:"error"`
	Code  Code   `json:"code"`
}

// Body returns the JSON body of the refusal, with a newline at its end.
func (e *Error) Body() []byte {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // it is read by people, too
	// Strings and numbers always encode.
	_ = enc.Encode(struct {
		sentence
		*Rows
	}{sentence{e.Message, e.Code}, e.Rows})
	return body.Bytes()
}

// Write answers the request with the refusal.
func (e *Error) Write(w http.ResponseWriter) error {
	body := e.Body()
	h := w.Header()
	e.SetHeaders(h)
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	_, err := w.Write(body)
	return err
}
