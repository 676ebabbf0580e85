// Package bapi is a client of Clerk's Backend API, of the two calls that a site behind the edge needs: the payload
// of a handshake, and the refresh of a session. A third one tells an operator whether the secret key is good.
package bapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/egress"
)

const (
	// DefaultURL is where the Backend API is.
	DefaultURL = "https://api.clerk.com"
	// Version is the version of the Backend API that is spoken.
	Version = "2026-05-12"

	defaultTimeout    = 3 * time.Second
	defaultConcurrent = 32

	maxRefresh   = 4 << 10 // as long as browsers let a cookie be
	maxSessionID = 64
	maxAnswer    = 1 << 20
)

// noncePattern has all that encoders of random bytes make. What looks like something else is not sent: a firewall in front of Clerk
// could answer it, as if Clerk were away.
var noncePattern = regexp.MustCompile(`^[A-Za-z0-9._~+/=-]{1,512}$`)

// Options of a client. The zero value of each field but SecretKey is usable.
type Options struct {
	URL           string        // base URL; empty: DefaultURL
	SecretKey     string        // of the instance
	Client        *http.Client  // to call with; nil: one of its own. Redirects are never followed
	Timeout       time.Duration // of one call, from the wait for its turn to the last byte; 0: 3 s
	MaxConcurrent int           // calls at a time; others wait; 0: 32
}

// Client calls the Backend API. It is safe for concurrent use. A call is tried once, because a browser is waiting; only
// net/http itself repeats one whose connection turns out to be closed.
type Client struct {
	base    *url.URL
	key     string
	http    *http.Client
	owned   bool
	timeout time.Duration
	late    error // that the timeout is over
	turns   chan struct{}
}

// New returns a client. It makes no request. Whether the URL may be without TLS is for the caller to decide. The
// errors quote neither the URL nor the key.
func New(o Options) (*Client, error) {
	if o.URL == "" {
		o.URL = DefaultURL
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxConcurrent <= 0 {
		o.MaxConcurrent = defaultConcurrent
	}
	base, err := parseBase(o.URL)
	if err != nil {
		return nil, err
	}
	if o.SecretKey == "" {
		return nil, errors.New("the secret key is missing")
	}
	if strings.ContainsFunc(o.SecretKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the secret key holds a space or another character that no key has")
	}
	c := &Client{
		base: base, key: o.SecretKey, timeout: o.Timeout,
		late:  fmt.Errorf("no complete answer within %v", o.Timeout),
		turns: make(chan struct{}, o.MaxConcurrent),
	}
	c.http, c.owned = newHTTPClient(o)
	return c, nil
}

// Close closes idle connections, unless they are those of a client that New was given. Calls that still run end by
// themselves.
func (c *Client) Close() {
	if c.owned {
		c.http.CloseIdleConnections()
	}
}

// HandshakePayload returns the Set-Cookie fields that the nonce of a handshake stands for. An error is an [*Error].
func (c *Client) HandshakePayload(ctx context.Context, nonce string) ([]string, error) {
	if !noncePattern.MatchString(nonce) || strings.Contains(nonce, "..") {
		return nil, notAsked("nonce_invalid", errNonce)
	}
	u := c.base.JoinPath("v1", "clients", "handshake_payload")
	u.RawQuery = url.Values{"nonce": {nonce}}.Encode()
	return c.call(ctx, call{method: http.MethodGet, url: u, list: "directives", secrets: []string{nonce}})
}

// KeyIDs returns the kids of the keys by which the secret key's instance signs. An error is an [*Error].
func (c *Client) KeyIDs(ctx context.Context) ([]string, error) {
	return c.call(ctx, call{method: http.MethodGet, url: c.base.JoinPath("v1", "jwks"), list: "keys", member: "kid"})
}

// Refresh is what a new session token is asked for with.
type Refresh struct {
	SessionID    string // the claim sid of the expired token
	ExpiredToken string
	RefreshToken string
	Origin       string // of the site, such as https://app.example.com
	Suffixed     bool   // the cookies with the instance's suffix are in use
	// Headers of the browser's request that Clerk looks at, by their names.
	Headers map[string][]string
}

// RefreshSession exchanges an expired session token and a refresh token for Set-Cookie fields with new ones. An error
// is an [*Error].
func (c *Client) RefreshSession(ctx context.Context, r Refresh) ([]string, error) {
	// It becomes a segment of a path, to which the secret key is sent.
	if !isID(r.SessionID) {
		return nil, notAsked("session_id_invalid", errSessionID)
	}
	if len(r.RefreshToken) > maxRefresh {
		return nil, notAsked("refresh_token_invalid", errRefresh)
	}
	u := c.base.JoinPath("v1", "sessions", r.SessionID, "refresh")
	if r.Suffixed {
		u.RawQuery = "suffixed_cookies=true"
	}
	if r.Headers == nil {
		r.Headers = map[string][]string{}
	}
	return c.call(ctx, call{
		method: http.MethodPost, url: u, list: "cookies", object: "cookies",
		secrets: []string{r.ExpiredToken, r.RefreshToken},
		body: map[string]any{
			"format":          "cookie",
			"expired_token":   r.ExpiredToken,
			"refresh_token":   r.RefreshToken,
			"request_origin":  r.Origin,
			"request_headers": r.Headers,
		},
	})
}

// isID reports whether the text has the form of Clerk's ids.
func isID(s string) bool {
	if s == "" || len(s) > maxSessionID {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return true
}

func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil: // it quotes the URL, which may hold a credential
		return nil, errors.New("the address of Clerk's Backend API is no URL; it is " + DefaultURL + " for everybody")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return nil, errors.New("the address of Clerk's Backend API has to be https:// and a host, such as " + DefaultURL)
	case u.User != nil:
		return nil, errors.New("the address of Clerk's Backend API cannot hold a user or a password")
	case strings.ContainsAny(raw, "?#"):
		return nil, errors.New("the address of Clerk's Backend API cannot have a query or a fragment")
	}
	return u, nil
}

// newHTTPClient returns the client to call with, and whether its connections are this package's own. A redirect would
// take the secret key to another place.
func newHTTPClient(o Options) (client *http.Client, owned bool) {
	client = &http.Client{}
	if o.Client != nil {
		*client = *o.Client
	} else {
		owned = true
		client.Transport = &http.Transport{
			Proxy:                  egress.Tunnel(http.ProxyFromEnvironment),
			DialContext:            (&net.Dialer{Timeout: o.Timeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    o.Timeout,
			IdleConnTimeout:        30 * time.Second,
			MaxIdleConnsPerHost:    o.MaxConcurrent,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
			// Without pings every call on a connection that died unnoticed would time out, for minutes.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: o.Timeout},
		}
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, owned
}
