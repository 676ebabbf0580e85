package bapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

// Error is a refusal by Clerk, or a failure to reach it. Its text and what it wraps hold no key, token or nonce.
type Error struct {
	// Status of the answer; 0 if there was none. 400 with Err stands for a nonce or a session id that was not even
	// sent, because it cannot be one.
	Status int
	// Code of the first error in the answer, such as "refresh_token_invalid"; CodeHidden if it repeats what was sent; empty if the answer
	// is none of Clerk's.
	Code string
	Err  error // why there was no answer, or none that can be read
}

// CodeHidden stands for a code of Clerk's that repeats what was sent, and so is not shown. Whoever chose that cannot have Clerk's answer
// taken for no answer of Clerk's.
const CodeHidden = "hidden"

// Error says what happened, for an operator.
func (e *Error) Error() string {
	text := "Clerk's Backend API"
	if e.Status != 0 {
		text += ": status " + strconv.Itoa(e.Status)
	}
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

var (
	errNonce     = errors.New("not asked, since that is no nonce")
	errRefresh   = errors.New("not asked, since no refresh token is as long")
	errSessionID = errors.New("not asked, since the session id has to be 1 to 64 letters, digits and underscores")
	errRequest   = errors.New("the request could not be made")
	errTurn      = errors.New("too many calls are waiting for it already")
	errRedirect  = errors.New("it redirects, which is not followed with the secret key")
	errHuge      = fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	errNoJSON    = errors.New("the answer is no JSON object")
	errShape     = errors.New("the answer has another form than documented")
	errNoHTTP    = errors.New("the connection broke, or no HTTP came over it")
)

func notAsked(code string, err error) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Err: err}
}

// ended puts the reason why a call was given up in front of what that looked like, which is often only "context
// deadline exceeded".
func (c *Client) ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	reason := ctx.Err()
	if errors.Is(context.Cause(ctx), c.late) {
		reason = fmt.Errorf("%w: %w", c.late, reason)
	}
	if errors.Is(err, ctx.Err()) {
		return reason
	}
	return fmt.Errorf("%w: %w", reason, err)
}

// known returns the part of a transport's error that says nothing of the request and the answer. Others do: net/url
// quotes the URL, and net/http the line that it took for a status line.
func known(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return e
	}
	for _, plain := range []error{
		context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, io.EOF, http.ErrSchemeMismatch,
	} {
		if errors.Is(err, plain) {
			return plain
		}
	}
	return errNoHTTP
}
