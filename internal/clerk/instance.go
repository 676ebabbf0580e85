package clerk

import (
	"crypto/sha1" //nolint:gosec // Clerk's cookie names are made with it; nothing is protected by it
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// Instance is what a publishable key says about a Clerk instance.
type Instance struct {
	FrontendAPI  string // host of the Frontend API
	Issuer       string // claim iss of the instance's tokens
	JWKSURL      string // where the instance's keys are, without authentication
	Development  bool   // pk_test_...
	CookieSuffix string // of the instance's own cookies, such as __session_<suffix>
}

var errPublishableKey = errors.New("publishable_key: want the key as Clerk's dashboard shows it, such as pk_live_Y2xlcmsuZXhhbXBsZS5jb20k")

// ParsePublishableKey reads a publishable key: pk_live_ or pk_test_, then the base64 of the Frontend API's
// host and a dollar sign.
func ParsePublishableKey(key string) (Instance, error) {
	body, live := strings.CutPrefix(key, "pk_live_")
	if !live {
		var test bool
		if body, test = strings.CutPrefix(key, "pk_test_"); !test {
			return Instance{}, errPublishableKey
		}
	}
	// Go's decoder skips line breaks; standard base64 has no underscore.
	if strings.ContainsAny(body, "\r\n_") {
		return Instance{}, errPublishableKey
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimRight(body, "="))
	if err != nil {
		return Instance{}, errPublishableKey
	}
	host, ok := strings.CutSuffix(string(raw), "$")
	if !ok || !isHost(host) {
		return Instance{}, errPublishableKey
	}
	return Instance{
		FrontendAPI:  host,
		Issuer:       "https://" + host,
		JWKSURL:      "https://" + host + "/.well-known/jwks.json",
		Development:  !live,
		CookieSuffix: cookieSuffix(key),
	}, nil
}

// cookieSuffix tells the cookies of several Clerk applications on one domain apart.
func cookieSuffix(publishableKey string) string {
	sum := sha1.Sum([]byte(publishableKey)) //nolint:gosec // see the import
	return base64.RawURLEncoding.EncodeToString(sum[:])[:8]
}

// isHost reports whether text is a host name with a dot in it, and perhaps a port: URLs are built from it.
func isHost(text string) bool {
	host, port, hasPort := strings.Cut(text, ":")
	if hasPort {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
	}
	labels := strings.Split(host, ".")
	if len(labels) < 2 || len(host) > 253 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return false
		}
	}
	return true
}
