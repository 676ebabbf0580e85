package jwks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
)

// step is how far a fetch got before its answer's status.
type step int32

// The steps, in the order in which they are reached.
const (
	stepNone step = iota
	stepDNS
	stepDial
	stepDialed
	stepTLS
	stepSent
	stepAnswer
)

// ended says in which step a fetch ended, for an operator: each is somebody else's to mend.
var ended = map[step]string{
	stepNone:   "could not connect",
	stepDNS:    "DNS gave no address of the host",
	stepDial:   "could not connect",
	stepDialed: "connected to a proxy, but not through it to the issuer",
	stepTLS:    "connected, but TLS failed",
	stepSent:   "connected, but no answer came",
	stepAnswer: "an answer began, but its header could not be read",
}

// progress follows one fetch. Its hooks may be called by goroutines that outlive the fetch.
type progress struct{ at atomic.Int32 }

func (p *progress) reach(s step) {
	for {
		at := p.at.Load()
		if at >= int32(s) || p.at.CompareAndSwap(at, int32(s)) {
			return
		}
	}
}

func (p *progress) follow(ctx context.Context) context.Context {
	reached := func(s step, err error) {
		if err == nil {
			p.reach(s)
		}
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:             func(httptrace.DNSStartInfo) { p.reach(stepDNS) },
		ConnectStart:         func(string, string) { p.reach(stepDial) },
		ConnectDone:          func(_, _ string, err error) { reached(stepDialed, err) },
		TLSHandshakeStart:    func() { p.reach(stepTLS) },
		TLSHandshakeDone:     func(_ tls.ConnectionState, err error) { reached(stepSent, err) },
		GotConn:              func(httptrace.GotConnInfo) { p.reach(stepSent) },
		GotFirstResponseByte: func() { p.reach(stepAnswer) },
	})
}

// locate puts in front of an error how far the fetch got.
func (p *progress) locate(err error) error {
	at := step(p.at.Load())
	// A name or a certificate is a proxy's or the issuer's; the kind of error is sure.
	switch {
	case is[*net.DNSError](err):
		at = stepDNS
	case is[*tls.CertificateVerificationError](err), is[tls.RecordHeaderError](err), is[tls.AlertError](err):
		at = stepTLS
	case errors.Is(err, errProxy):
		at = stepDialed
	}
	return fmt.Errorf("%s: %w", ended[at], err)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

var errProxy = errors.New("the proxy refuses")

// proxyAnswered replaces net/http's own error, which is the text of the proxy's status line and nothing more.
func proxyAnswered(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w with status %d", errProxy, resp.StatusCode)
	}
	return nil
}
