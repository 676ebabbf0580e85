package clerk

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// The reasons the SDK gives, by its own names (TokenVerificationErrorReason, then AuthErrorReason).
const (
	reasonTokenInvalid     = "token-invalid"
	reasonAlgorithm        = "token-invalid-algorithm"
	reasonParties          = "token-invalid-authorized-parties"
	reasonIssuer           = "token-invalid-issuer"
	reasonSignature        = "token-invalid-signature"
	reasonVerification     = "token-verification-failed"
	reasonExpired          = "token-expired"
	reasonNotActive        = "token-not-active-yet"
	reasonIssuedLater      = "token-iat-in-the-future"
	reasonKidMismatch      = "jwk-kid-mismatch"
	reasonKeysFailedToLoad = "jwk-remote-failed-to-load"

	reasonTypeMismatch    = "token-type-mismatch"
	reasonDevSync         = "dev-browser-sync"
	reasonDevMissing      = "dev-browser-missing"
	reasonNoSession       = "session-token-and-uat-missing"
	reasonNoClientUAT     = "session-token-but-no-client-uat"
	reasonNoToken         = "client-uat-but-no-session-token"
	reasonBeforeClientUAT = "session-token-iat-before-client-uat"
	reasonSessionNBF      = "session-token-nbf"
	reasonSessionIAT      = "session-token-iat-in-the-future"
	reasonSessionExpired  = "session-token-expired-refresh-" // and why it was not refreshed
	reasonTokenMissing    = "session-token-missing"
	reasonCrossOrigin     = "primary-domain-cross-origin-sync"
	reasonSatellite       = "satellite-needs-syncing"
	reasonPrimary         = "primary-responds-to-syncing"
	reasonOrganization    = "active-organization-mismatch"
	reasonUnexpected      = "unexpected-error"

	// reasonPending is ours: the SDK calls such a request signed-in and then shows the application nobody.
	reasonPending = "session-pending"
)

type apiError = apierr.Error

// Error is a refusal: what the client is told, and why in the SDK's words.
type Error struct {
	*apiError

	// Reason is the SDK's name for the refusal, such as "token-expired" or "jwk-kid-mismatch".
	Reason string
	// Presented says that there was a credential to judge. It is false if the request is merely signed out.
	Presented bool
}

var _ error = (*Error)(nil)

// Unwrap returns the [*apierr.Error], whose own cause follows.
func (e *Error) Unwrap() error { return e.apiError }

// failure is a refusal inside this package. It is shared by all requests that wait for one verification,
// so nothing changes it once it is made.
type failure struct {
	status  int
	code    apierr.Code
	reason  string
	message string // ASCII without quotes and backslashes: it is an error_description, too
	cause   error  // for the operator's log; may be nil
	left    bool   // the client did not wait for an answer
}

func (f *failure) Error() string { return string(f.code) + " (" + f.reason + ")" }

// interrupted is what becomes of a verification whose caller stopped waiting for the keys. Its cause is that of
// the context, so that the caller can tell. A client that left says nothing about the keys.
func interrupted(ctx context.Context) *failure {
	err, cause := ctx.Err(), context.Cause(ctx)
	if !errors.Is(cause, err) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	f := failNoKeys.because(err)
	f.left = errors.Is(cause, context.Canceled)
	return f
}

// because returns f with a cause.
func (f *failure) because(cause error) *failure {
	g := *f
	g.cause = cause
	return &g
}

// refusal is f as its callers see it, under a reason that may say more than f's own.
func (f *failure) refusal(reason string) *Error {
	e := apierr.New(f.status, f.code, f.message).Wrap(f.cause)
	presented := f.code != apierr.TokenMissing
	switch {
	case f.status == http.StatusUnauthorized && presented:
		e = e.With("WWW-Authenticate", `Bearer error="invalid_token", error_description="`+f.message+`"`) // RFC 6750, 3
	case f.status == http.StatusUnauthorized:
		e = e.With("WWW-Authenticate", "Bearer")
	case f.status == http.StatusServiceUnavailable:
		e = e.With("Retry-After", "5")
	}
	return &Error{apiError: e, Reason: reason, Presented: presented}
}

func unauthorized(code apierr.Code, reason, message string) *failure {
	return &failure{status: http.StatusUnauthorized, code: code, reason: reason, message: message}
}

func badRequest(code apierr.Code, message string) *failure {
	return &failure{status: http.StatusBadRequest, code: code, reason: reasonTokenInvalid, message: message}
}

// Requests.
var (
	failNoToken = unauthorized(apierr.TokenMissing, reasonNoSession,
		"No session was found. Sign in, or send a Clerk session token as Authorization: Bearer and the token.")
	failNoSessionCookie = unauthorized(apierr.TokenMissing, reasonNoToken,
		"The cookies say that someone is signed in, but the session cookie is missing. Load a page of the application, or send a session token in the Authorization header.")
	failNoClientUAT = unauthorized(apierr.TokenMissing, reasonNoClientUAT,
		"There is a session cookie without its companion __client_uat, so it does not count as a session. Sign in again, or send a session token in the Authorization header.")
	failDevMissing = unauthorized(apierr.TokenMissing, reasonDevMissing,
		"This is a Clerk development instance and the cookie __clerk_db_jwt is missing, so session cookies do not count. Load a page of the application, or send a session token in the Authorization header.")
	// For those who never came near Clerk the next step is to sign in.
	failDevNobody = unauthorized(apierr.TokenMissing, reasonDevMissing, failNoToken.message)
	failDevSync   = unauthorized(apierr.TokenMissing, reasonDevSync,
		"This is a Clerk development instance and the request carries __clerk_db_jwt, which has to be exchanged for cookies first. Load a page of the application, or send a session token in the Authorization header.")
	failOldSession = unauthorized(apierr.TokenExpired, reasonBeforeClientUAT,
		"A newer session exists. Fetch a fresh session token.")
	failTwoHeaders  = badRequest(apierr.BadRequest, "There is more than one Authorization header. Send one.")
	failTwoInQuery  = badRequest(apierr.BadRequest, "The session token is in the query more than once. Send it once.")
	failBrokenQuery = badRequest(apierr.BadQuery, "The query is malformed. Separate parameters by & and percent-encode their values.")
)

// Tokens.
var (
	failMalformed = unauthorized(apierr.TokenInvalid, reasonTokenInvalid,
		"The session token is malformed. Fetch a fresh one.")
	failTooLarge = unauthorized(apierr.TokenInvalid, reasonTokenInvalid,
		"The session token is too large.")
	failHeader = unauthorized(apierr.TokenInvalid, reasonTokenInvalid,
		"The header of the session token is not that of a Clerk session token.")
	failAlgorithm = unauthorized(apierr.TokenInvalid, reasonAlgorithm,
		"The session token is not signed with RS256.")
	failKid = unauthorized(apierr.TokenInvalid, reasonKidMismatch,
		"The session token is signed with a key that its issuer does not publish.")
	failSignature = unauthorized(apierr.TokenInvalid, reasonSignature,
		"The signature of the session token is wrong.")
	failKey = unauthorized(apierr.TokenInvalid, reasonVerification,
		"The signature of the session token cannot be verified.")
	failSubject = unauthorized(apierr.TokenInvalid, reasonVerification,
		"The session token names no user.")
	failAudience = unauthorized(apierr.TokenInvalid, reasonVerification,
		"The session token is meant for another audience.")
	failDates = unauthorized(apierr.TokenInvalid, reasonVerification,
		"The session token has no expiry, or a date that is none.")
	failLifetime = unauthorized(apierr.TokenInvalid, reasonVerification,
		"The session token is valid for longer than is accepted here.")
	failStatus = unauthorized(apierr.TokenInvalid, reasonVerification,
		"The session is not active.")
	failActor = unauthorized(apierr.TokenInvalid, reasonVerification,
		"Impersonated sessions are not accepted here.")
	failParty = unauthorized(apierr.TokenWrongParty, reasonParties,
		"The session token was obtained at another address than this site accepts.")
	failIssuer = unauthorized(apierr.TokenWrongIssuer, reasonIssuer,
		"The session token was issued by another Clerk instance.")
	failExpired = unauthorized(apierr.TokenExpired, reasonExpired,
		"The session token has expired. Fetch a fresh one.")
	failNotBefore = unauthorized(apierr.TokenNotYetValid, reasonNotActive,
		"The session token is not valid yet. Check the clocks.")
	failIssuedAt = unauthorized(apierr.TokenNotYetValid, reasonIssuedLater,
		"The session token was issued in the future. Check the clocks.")
	failType = unauthorized(apierr.TokenWrongType, reasonTypeMismatch,
		"This is not a session token. JWT templates, machine tokens, OAuth tokens and API keys are not accepted here.")
	failOpaque = unauthorized(apierr.TokenWrongType, reasonTokenInvalid, failType.message)
	failPend   = unauthorized(apierr.SessionPending, reasonPending,
		"The session is pending. Finish signing in: a task such as choosing an organization is left.")
	failNoKeys = &failure{
		status: http.StatusServiceUnavailable, code: apierr.KeysUnavailable, reason: reasonKeysFailedToLoad,
		message: "The keys that session tokens are verified with are not available yet. Try again.",
	}
	failAway = &failure{
		status: http.StatusServiceUnavailable, code: apierr.ClerkUnavailable, reason: reasonUnexpected,
		message: "Clerk, which keeps the session, cannot be reached. Try again.",
	}
	failInternal = &failure{
		status: http.StatusInternalServerError, code: apierr.Internal, reason: reasonUnexpected,
		message: "The session token could not be verified because of an internal error.",
	}
)

// isOfTime reports whether the token is only out of its time.
func (f *failure) isOfTime() bool {
	return f.reason == reasonExpired || f.reason == reasonNotActive || f.reason == reasonIssuedLater
}

// asFailure is err as a failure; every error of a verification is one.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return failInternal.because(err)
}
