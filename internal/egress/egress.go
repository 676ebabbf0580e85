// Package egress has what the clients for Clerk's endpoints have in common.
package egress

import (
	"net/http"
	"net/url"
)

// Tunnel uses a proxy only for https, of which it sees nothing but the host. Of a plain request it would read the credentials, and
// could answer in the place of whoever was asked, with keys of its own.
func Tunnel(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme != "https" {
			return nil, nil
		}
		return proxy(r)
	}
}
