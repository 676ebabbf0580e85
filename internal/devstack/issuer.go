package devstack

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// IssuerOptions configures an Issuer.
type IssuerOptions struct {
	Now func() time.Time // nil: time.Now

	// URL is the tokens' iss, without a trailing slash, and its host is the one in the publishable key. "" is
	// filled in by Start with the address it listens on.
	URL string

	// AppOrigin is the tokens' azp: the origin of the site that people sign in to. "" leaves azp out of tokens
	// that Token makes; the dev endpoints then use the origin that they are called from.
	AppOrigin string

	// Live makes it a production instance: pk_live, and no __clerk_db_jwt cookie.
	Live bool

	// SiteOrigins are further origins, besides AppOrigin, that a redirect_url may lead to.
	SiteOrigins []string

	// SessionLifetime is how long session tokens live; 0 is the constant of that name, Clerk's 60 seconds.
	SessionLifetime time.Duration

	// OmitHandshakeAZP leaves azp out of the tokens that handshakes bring. It is the origin of the redirect_url
	// otherwise. Clerk takes it from the request's Origin, which a top-level navigation does not have.
	OmitHandshakeAZP bool
}

// Issuer is a Clerk-shaped instance: it serves its key set, signs session tokens and sets a browser's cookies, and
// it plays the instance's Frontend API, its account portal and the Backend API as far as a server beside it needs
// them. It is for loopback only, as it signs in anybody as anybody.
type Issuer struct {
	now func() time.Time
	mux *http.ServeMux

	live    bool
	omitAZP bool
	secret  string                          // of the Backend API
	foreign func() (*rsa.PrivateKey, error) // a key that no key set lists, for forged tokens

	mu       sync.Mutex
	url      string
	app      string
	key      *rsa.PrivateKey
	kid      string
	down     bool
	fetches  int
	fail     func(*http.Request) *Fault
	origins  []string
	lifetime time.Duration
	counts   counts

	failFrontend, failBackend func(*http.Request) *Fault

	sessions map[string]devSession // by the handle that the browser's __client holds
	order    []string              // handles of sessions, oldest first
	browsers map[string]string     // handles by the browsers' __clerk_db_jwt, in development
	known    []string              // the browsers, oldest first
	payloads map[string]payload    // of handshakes, by their nonces
	nonces   []string              // oldest first

	once   sync.Once
	closed chan struct{}
}

var _ http.Handler = (*Issuer)(nil)

// NewIssuer makes an issuer with a key of its own.
func NewIssuer(o IssuerOptions) (*Issuer, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	i := &Issuer{
		now:      o.Now,
		live:     o.Live,
		omitAZP:  o.OmitHandshakeAZP,
		url:      strings.TrimRight(o.URL, "/"),
		app:      o.AppOrigin,
		origins:  slices.Clone(o.SiteOrigins),
		foreign:  sync.OnceValues(newRSAKey),
		sessions: map[string]devSession{},
		browsers: map[string]string{},
		payloads: map[string]payload{},
		closed:   make(chan struct{}),
	}
	i.secret = "sk_" + i.kind() + rand.Text() + rand.Text()
	i.SetSessionLifetime(o.SessionLifetime)
	if err := i.Rotate(false); err != nil {
		return nil, err
	}
	i.mux = http.NewServeMux()
	i.mux.HandleFunc("GET /.well-known/jwks.json", i.serveKeys)
	i.mux.Handle("/dev/", devOnly(i.devRoutes()))
	i.frontendRoutes(i.mux)
	i.backendRoutes(i.mux)
	return i, nil
}

// Close breaks the requests that a Fault holds. The issuer can still sign.
func (i *Issuer) Close() { i.once.Do(func() { close(i.closed) }) }

// ServeHTTP serves /.well-known/jwks.json, the dev endpoints, the Frontend API with the account portal, and the
// Backend API.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.mux.ServeHTTP(w, r) }

// URL is the issuer's base URL, the iss of its tokens.
func (i *Issuer) URL() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.url
}

// SetURL changes the base URL, and with it the publishable key and the cookies' suffix.
func (i *Issuer) SetURL(base string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.url = strings.TrimRight(base, "/")
}

// JWKSURL is where the key set is served.
func (i *Issuer) JWKSURL() string { return i.URL() + "/.well-known/jwks.json" }

// AppOrigin is the azp of the tokens.
func (i *Issuer) AppOrigin() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.app
}

// SetAppOrigin changes the azp of the tokens, for a site whose port is known later than the issuer's.
func (i *Issuer) SetAppOrigin(origin string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.app = origin
}

// PublishableKey is the key of this instance: a prefix that tells its type, and the base64 of its host and a "$".
func (i *Issuer) PublishableKey() string {
	host := i.URL()
	if u, err := url.Parse(host); err == nil && u.Host != "" {
		host = u.Host
	}
	return "pk_" + i.kind() + base64.RawStdEncoding.EncodeToString([]byte(host+"$"))
}

// kind is what keys say of the instance's type.
func (i *Issuer) kind() string {
	if i.live {
		return "live_"
	}
	return "test_"
}

// KeyID is the kid of the current key. Clerk uses the instance's id, so it looks like one.
func (i *Issuer) KeyID() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.kid
}

// PublicKeyPEM is the current public key as Clerk's dashboard shows it, for jwt_key.
func (i *Issuer) PublicKeyPEM() (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return publicPEM(&i.key.PublicKey)
}

// Rotate replaces the key. With keepKid the new material has the old kid, which Clerk's kid (an instance's id)
// makes possible; without, the kid is new as well.
func (i *Issuer) Rotate(keepKid bool) error {
	key, err := newRSAKey()
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key = key
	if !keepKid {
		i.kid = "ins_2" + rand.Text()
	}
	return nil
}

// SetDown makes the key set answer 503, as in an outage, or ends that.
func (i *Issuer) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Fail asks f about every request for the key set; nil ends that. f returns nil for an answer as it should be.
func (i *Issuer) Fail(f func(*http.Request) *Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = f
}

// Fetches counts the requests for the key set, the failed ones included.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

func (i *Issuer) serveKeys(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.fetches++
	down, fail, kid, pub := i.down, i.fail, i.kid, i.key.PublicKey
	i.mu.Unlock()

	var f *Fault
	if fail != nil {
		f = fail(r)
	}
	a := answer{header: http.Header{"Content-Type": {"application/json"}}}
	if down {
		a.status, a.body = http.StatusServiceUnavailable, []byte(`{"errors":[{"message":"the issuer is down"}]}`)
	} else {
		a.status, a.body = http.StatusOK, keySet(kid, &pub)
	}
	deliver(w, r, a, f, i.closed)
}

// keySet is the document of RFC 7517 with one RSA key in it (RFC 7518 6.3).
func keySet(kid string, pub *rsa.PublicKey) []byte {
	enc := base64.RawURLEncoding
	doc, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"use": "sig",
		"kty": "RSA",
		"kid": kid,
		"alg": "RS256",
		"n":   enc.EncodeToString(pub.N.Bytes()),
		"e":   enc.EncodeToString(big.NewInt(int64(pub.E)).Bytes()),
	}}})
	if err != nil { // strings always marshal
		return nil
	}
	return doc
}

func newRSAKey() (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make an RSA key: %w", err)
	}
	return key, nil
}

func publicPEM(pub *rsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encode the public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}
