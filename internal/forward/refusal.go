package forward

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

const (
	// maxRetryAfter is the longest wait, in seconds, that is handed on.
	maxRetryAfter = 24 * 60 * 60
	// maxLogged is how many characters of Tinybird's error text are kept for the operator.
	maxLogged = 512
)

// unanswered is the error for a request to which Tinybird gave no usable answer, and of which nothing was
// written: the reason may be the client's, too.
func (x *exchange) unanswered(cause error) error {
	if err := x.gone(); err != nil {
		return err
	}
	return noAnswer(isTimeout(cause)).Wrap(withoutSecrets(cause, x.token))
}

func noAnswer(late bool) *apierr.Error {
	if late {
		return apierr.New(http.StatusGatewayTimeout, apierr.UpstreamTimeout,
			"The analytics service took too long to answer. Ask for less, or try again later.")
	}
	return unreachable(http.StatusBadGateway)
}

// TimedOut reports whether an error of Forward is that nothing came in time. Tinybird's own bound on queries is another one.
func TimedOut(err error) bool { return isTimeout(err) }

// isTimeout tells a service that is slow from one that is not there.
func isTimeout(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return false
	}
	if errors.Is(err, errHeaderTimeout) || errors.Is(err, errIdleTimeout) {
		return true
	}
	t, ok := errors.AsType[net.Error](err) // context.DeadlineExceeded is one, too
	return ok && t.Timeout()
}

// refusal turns an answer that is not handed on into one of our own. h is the header of the response to come.
func (x *exchange) refusal(h http.Header, resp *http.Response) *apierr.Error {
	e := translate(resp.StatusCode, x.words)
	text := ""
	if resp.StatusCode >= http.StatusBadRequest {
		text = x.errorText(resp)
	}
	if x.passErrors && text != "" && showable(resp.StatusCode) {
		e.Message = text
	}
	switch e.Code {
	case apierr.RateLimited:
		setLimits(e, h, resp.Header)
	case apierr.UpstreamUnreachable:
		if s, ok := wait(resp.Header.Get("Retry-After")); ok && e.Status == http.StatusServiceUnavailable {
			e = e.With("Retry-After", strconv.Itoa(s))
		}
	default:
	}
	cause := fmt.Errorf("tinybird answered %d", resp.StatusCode)
	if text != "" {
		cause = fmt.Errorf("%w: %.*q", cause, maxLogged, text)
	}
	return e.Wrap(cause)
}

// words are what differs between sentences about a query and about rows.
type words struct {
	late, tooLarge, refused string
}

var queryWords = words{
	late:     "The query took too long. Ask for less, or try again later.",
	tooLarge: "The body is too large. Send fewer or shorter parameters.",
	refused:  "The analytics service refused the query. Check the names and values of the parameters.",
}

// translate returns the refusal for one of Tinybird's statuses. Its 401 and 403 are about our own credential
// and nothing that the client could mend.
func translate(status int, say words) *apierr.Error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return apierr.New(http.StatusForbidden, apierr.UpstreamRefused,
			"The analytics service does not allow this request. Only the operator of this site can change that.")
	case status == http.StatusNotFound:
		return apierr.NoEndpoint()
	case status == http.StatusRequestTimeout:
		return apierr.New(http.StatusGatewayTimeout, apierr.UpstreamTimeout, say.late)
	case status == http.StatusRequestEntityTooLarge:
		return apierr.New(http.StatusRequestEntityTooLarge, apierr.BodyTooLarge, say.tooLarge)
	case status == http.StatusRequestURITooLong:
		return apierr.New(http.StatusRequestURITooLong, apierr.URLTooLong,
			"The URL is too long. Send the parameters as a JSON object with POST.")
	case status == http.StatusTooManyRequests:
		return apierr.New(http.StatusTooManyRequests, apierr.RateLimited,
			"Too many requests. Wait for as long as Retry-After says.")
	case status == http.StatusServiceUnavailable:
		return unreachable(status)
	case status >= 400 && status <= 499:
		return apierr.New(http.StatusBadRequest, apierr.QueryRefused, say.refused)
	default:
		return unreachable(http.StatusBadGateway)
	}
}

func unreachable(status int) *apierr.Error {
	return apierr.New(status, apierr.UpstreamUnreachable,
		"The analytics service cannot answer at the moment. Try again later.")
}

// showable tells whether the text that comes with a status may be shown to the client at all: one about our
// credential never is.
func showable(status int) bool {
	return status != http.StatusUnauthorized && status != http.StatusForbidden
}

// setLimits says how long to wait after Tinybird's own limit refused the request. h is what the edge has
// already said about its limit. It is Tinybird that refused, so what it says takes the place of that: a client that read how
// much is left at the edge would come back at once. The wait is the longer one. That of the edge's rate is not in h for a
// request that was let through, and needs not be: a rate is at least one request a second.
func setLimits(e *apierr.Error, h, upstream http.Header) {
	for name := range h {
		if isRateLimit(name) {
			delete(h, name)
		}
	}
	if e.Header == nil {
		e.Header = make(http.Header)
	}
	for name, v := range upstream {
		if isRateLimit(name) {
			e.Header[name] = slices.Clone(v) // upstream's are shared by all who wait for an answer
		}
	}
	s := 1
	if n, ok := wait(upstream.Get("Retry-After")); ok {
		s = max(s, n)
	} else if n, ok := wait(upstream.Get("X-Ratelimit-Reset")); ok {
		s = max(s, n)
	}
	if n, ok := wait(h.Get("Retry-After")); ok {
		s = max(s, n)
	}
	e.Header.Set("Retry-After", strconv.Itoa(s))
}

// wait reads a Retry-After field: seconds or a date (RFC 9110, section 10.2.3). What makes no sense is not ok.
func wait(v string) (seconds int, ok bool) {
	v = strings.TrimSpace(v)
	if n, err := strconv.Atoi(v); err == nil {
		return min(n, maxRetryAfter), n >= 0
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	d := min(time.Until(at), maxRetryAfter*time.Second)
	return max(0, int((d+time.Second-1)/time.Second)), true
}
