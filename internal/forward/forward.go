// Package forward asks Tinybird one question and copies its answer back.
//
// The request that goes up is built from parsed parts, and the answer that comes down is built from a list of
// headers and a body. Nothing is carried over that is not named here, so there is no hop-by-hop header,
// forwarded-for header, cookie or second credential to remember to remove.
package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/wire"
)

// DefaultTimeout is the default of both timeouts. A query runs for up to 30 s at Tinybird.
const DefaultTimeout = 35 * time.Second

// ErrAborted says that the answer broke off after a part of it had been sent. The caller must break the
// connection to the client (panic with http.ErrAbortHandler): to end the response regularly would make a part
// of an answer look like the whole.
var ErrAborted = errors.New("the answer broke off")

// The reasons for which this package gives up on Tinybird.
var (
	errHeaderTimeout = errors.New("no answer within the time limit")
	errIdleTimeout   = errors.New("no more of the answer within the time limit")
	errTarget        = errors.New("the path or the query is not encoded")
	errUnframed      = errors.New("the answer has neither a length nor chunks, so it could be cut off unseen")
)

// Options configure a Forwarder.
type Options struct {
	// Base is Tinybird's API: scheme, host and an optional path to put before every request's. Required.
	Base *url.URL
	// Transport makes the round trip. Required. It must not follow redirects; no http.Transport does.
	Transport http.RoundTripper
	// Direct asks instead of Transport what it can ask: queries of a usual size. It keeps time limits of its own. Optional.
	Direct *wire.Client
	// HeaderTimeout bounds the time from the start until the answer's headers are there, connecting
	// included; 0 means DefaultTimeout.
	HeaderTimeout time.Duration
	// IdleTimeout bounds the time between two pieces of the answer's body. Time in which the client is slow
	// to take one does not count. 0 means DefaultTimeout.
	IdleTimeout time.Duration
	// PassErrors shows Tinybird's own error texts to the client, except for those about the credential and
	// those that hold something like one.
	PassErrors bool
}

// Forwarder sends requests to one Tinybird API. It holds no state between requests and may be used
// concurrently.
type Forwarder struct {
	base       url.URL
	prefix     string // what comes before each path, escaped
	transport  timed
	direct     *wire.Client // nil: none
	passErrors bool
}

// Request is one question.
type Request struct {
	Method   string
	Path     string      // from the root of the API, with nothing in it that needs escaping
	RawQuery string      // encoded
	Body     []byte      // JSON, rows, or empty; must not be changed afterwards, the transport may still read it
	Client   http.Header // the client's header, of which a few fields are copied
	Token    string      // the credential
	// Renew returns the credential that is good at the time when there is a connection, for which a request may wait long. Optional.
	Renew func() (string, error)

	rows bool // the body is rows
}

// Outcome is what the operator wants to know about a request, answered or not.
type Outcome struct {
	// UpstreamStatus is the status of Tinybird's answer, 0 if there was none.
	UpstreamStatus int
	// Duration is the time until the headers of Tinybird's answer, or until the lack of them was plain.
	Duration time.Duration
	// Err says why Tinybird's answer did not reach the client as it was. It holds no credential.
	Err error
}

// New returns a Forwarder.
func New(o Options) *Forwarder {
	f := &Forwarder{
		base:       *o.Base,
		transport:  timed{RoundTripper: o.Transport, headers: o.HeaderTimeout, bytes: o.IdleTimeout},
		direct:     o.Direct,
		passErrors: o.PassErrors,
	}
	f.base.Path = strings.TrimRight(f.base.Path, "/")
	f.base.RawPath = strings.TrimRight(f.base.RawPath, "/")
	f.prefix = f.base.EscapedPath()
	if f.transport.headers <= 0 {
		f.transport.headers = DefaultTimeout
	}
	if f.transport.bytes <= 0 {
		f.transport.bytes = DefaultTimeout
	}
	return f
}

// Forward asks Tinybird and writes its answer to w. What is already in w's header stays, but for the fields
// that come from the answer.
//
// The error is nil when the whole answer was written. An *apierr.Error means that nothing was written and is
// the answer to give. Other errors wrap ErrAborted, context.Canceled (the client went away) or both.
func (f *Forwarder) Forward(ctx context.Context, w http.ResponseWriter, q Request) (Outcome, error) {
	x := exchange{Forwarder: f, client: ctx, token: q.Token, words: queryWords}
	start := time.Now()
	resp, err := x.send(ctx, &q)
	out := Outcome{Duration: time.Since(start)}
	if err != nil {
		err = x.unanswered(err)
	} else {
		defer resp.Body.Close()
		out.UpstreamStatus = resp.StatusCode
		err = x.deliver(w, resp)
	}
	out.Err = causeOf(err)
	return out, err
}

// causeOf returns what the operator wants to know of an error.
func causeOf(err error) error {
	if err == nil {
		return nil
	}
	if refusal, ok := errors.AsType[*apierr.Error](err); ok {
		return refusal.Err
	}
	return err
}

// exchange is one request and its answer.
type exchange struct {
	*Forwarder

	client context.Context //nolint:containedctx // an exchange lives as long as the call it belongs to
	token  string
	words  words
}

// send sends the request and waits for the header of the answer.
func (x *exchange) send(ctx context.Context, q *Request) (*http.Response, error) {
	if !inOneLine(q.Path) || !inOneLine(q.RawQuery) {
		return nil, errTarget
	}
	if x.direct == nil || q.rows || len(q.Body) > maxDirectBody {
		r := x.request(q)
		resp, err := x.transport.send(renewing(ctx, q.Renew, r.Header), r)
		x.token = strings.TrimPrefix(r.Header["Authorization"][0], bearer)
		return resp, err
	}
	buf := texts.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer texts.Put(buf)
	*buf = x.text((*buf)[:0], q)
	return x.direct.Do(ctx, *buf)
}

// renewing returns the context of a request whose credential is renewed as soon as there is a connection for it: the transport has
// requests wait for one if the operator bounds their number. It writes the header after that. When it repeats a request on another
// connection, HTTP/2 can still be reading the header for the first one, so it is not touched then.
func renewing(ctx context.Context, renew func() (string, error), h http.Header) context.Context {
	if renew == nil {
		return ctx
	}
	var first sync.Once
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		first.Do(func() {
			token, err := renew()
			if now := bearer + token; err == nil && now != h["Authorization"][0] {
				h["Authorization"] = []string{now}
			}
		})
	}})
}

// deliver hands an answer on, or says with which refusal to answer instead.
func (x *exchange) deliver(w http.ResponseWriter, resp *http.Response) error {
	dropSecrets(resp.Header, x.token)
	if !servable(resp.StatusCode) {
		return x.refusal(w.Header(), resp)
	}
	if unframed(resp) {
		return unreachable(http.StatusBadGateway).Wrap(errUnframed)
	}
	return x.answer(w, resp)
}

// unframed tells whether the end of an answer is the end of its connection. Such an answer cannot be told from one that was
// cut off. Tinybird, like every server since HTTP/1.1, gives a length or sends chunks.
func unframed(resp *http.Response) bool {
	return resp.ContentLength < 0 && resp.ProtoMajor == 1 && len(resp.TransferEncoding) == 0 && hasBody(resp.StatusCode)
}

// gone returns an error if the client, or whoever else owns the request, has given up on it.
func (x *exchange) gone() error {
	if err := x.client.Err(); errors.Is(err, context.Canceled) {
		return fmt.Errorf("the client went away: %w", err)
	}
	return nil
}
