package jwks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/egress"
)

// fetchTimeout bounds one fetch from the dial to the last byte.
const fetchTimeout = 10 * time.Second

// newClient returns the client to fetch with, and whether it is the set's own. Redirects are never followed: the
// keys of an issuer come from where the operator said, over the transport security they asked for.
func newClient(c *http.Client) (client *http.Client, owned bool) {
	client = &http.Client{}
	if c != nil {
		*client = *c
	} else {
		owned = true
		client.Transport = &http.Transport{
			Proxy:                  egress.Tunnel(http.ProxyFromEnvironment),
			OnProxyConnectResponse: proxyAnswered,
			DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    fetchTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
			// Fetches are rare. A kept connection saves nothing, and one of HTTP/2 that has died unnoticed would be asked again and
			// again for as long as the system believes in it, a quarter of an hour.
			DisableKeepAlives: true,
		}
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, owned
}

// fetch gets and parses the issuer's document. The error holds neither the URL nor any part of the document.
func (s *Set) fetch(ctx context.Context) result {
	r := result{source: SourceNetwork}
	doc, header, err := s.get(ctx)
	if err != nil {
		r.err = fmt.Errorf("fetch key set: %w", err)
		return r
	}
	r.header = header
	if r.keys, r.skipped, err = ParseSet(doc); err != nil {
		r.err = fmt.Errorf("fetch key set: %s: %w", describe(header), err)
	}
	r.fetched = s.o.Now()
	return r
}

// describe names a document that is of no use. A page is that of a sign-in, a firewall or a wrong address.
func describe(header http.Header) string {
	if kind, _, err := mime.ParseMediaType(header.Get("Content-Type")); err == nil && kind == "text/html" {
		return "the answer is complete (status 200), but a page of HTML"
	}
	return "the answer is complete (status 200), but of no use"
}

func (s *Set) get(ctx context.Context) (doc []byte, header http.Header, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, errTimeout)
	defer cancel()
	var p progress
	req, err := http.NewRequestWithContext(p.follow(ctx), http.MethodGet, s.o.URL, http.NoBody)
	if err != nil {
		return nil, nil, fmt.Errorf("make the request: %w", withoutURL(err))
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	req.Header.Set("User-Agent", "caddy-tinybird")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, nil, p.locate(explain(ctx, withoutEcho(withoutURL(err), req.URL)))
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 3 {
		return nil, nil, fmt.Errorf("the issuer answered with status %d, and redirects are not followed", resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("the issuer answered with status %d instead of 200", resp.StatusCode)
	}
	doc, err = io.ReadAll(io.LimitReader(resp.Body, s.o.MaxBody+1))
	if err != nil {
		return nil, nil, fmt.Errorf("the issuer answered with status 200, but not with the whole document: %w", explain(ctx, withoutEcho(err, req.URL)))
	}
	if int64(len(doc)) > s.o.MaxBody {
		return nil, nil, fmt.Errorf("the document is larger than %d bytes", s.o.MaxBody)
	}
	return doc, resp.Header, nil
}

var errTimeout = fmt.Errorf("no complete answer within %v", fetchTimeout)

// explain names our own timeout as the cause, which some of what it waits in reports as a bare "context deadline exceeded".
func explain(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errTimeout) && !errors.Is(err, errTimeout) {
		return fmt.Errorf("%w: %w", errTimeout, err)
	}
	return err
}

// withoutURL drops the URL that net/http and net/url put into their errors: a query can hold a credential.
func withoutURL(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}

var errNoHTTP = errors.New("the connection broke, or what came back is no HTTP")

// withoutEcho returns err, or for a URL with a query only the part of it that says nothing of the answer: net/http quotes what it
// took for one, and that may be an echo of the request, or of a piece of it.
func withoutEcho(err error, u *url.URL) error {
	if u.RawQuery == "" {
		return err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
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

// PrintableURL is the part of a URL that may be shown: a query can hold a credential.
func PrintableURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
