package devstack

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
)

// devOnly lets through only what a page on this machine, served by the same origin, or a program on this machine
// would send. Other sites that the browser has open must not be able to sign in, read a token or rotate the key:
// not by a plain cross-site request (Origin, Sec-Fetch-Site), not by a form (media type), and not by a name of
// theirs that resolves to 127.0.0.1 (Host). A public edge in front is no way in either (X-Forwarded-For).
func devOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := refuseDev(r); why != "" {
			writeJSON(w, http.StatusForbidden, map[string]string{"error": why})
			return
		}
		if r.Method == http.MethodPost {
			mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
			if err != nil || mt != "application/json" {
				writeJSON(w, http.StatusUnsupportedMediaType, map[string]string{
					"error": "The body must be JSON, with the Content-Type application/json.",
				})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func refuseDev(r *http.Request) string {
	if !isLoopback(hostname(r.Host)) {
		return "The development endpoints answer only under a loopback name, such as localhost."
	}
	if forwardedFromAfar(r) {
		return "The development endpoints answer only clients on this machine."
	}
	if len(r.Header.Values("Origin")) > 1 || !sameOrigin(r.Header.Get("Origin"), r.Host) {
		return "The development endpoints answer only pages of their own origin."
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return ""
	}
	return "The development endpoints answer only pages of their own origin."
}

func forwardedFromAfar(r *http.Request) bool {
	for _, list := range r.Header.Values("X-Forwarded-For") {
		for ip := range strings.SplitSeq(list, ",") {
			if !isLoopback(strings.TrimSpace(ip)) {
				return true
			}
		}
	}
	return false
}

// sameOrigin compares the host and port of an Origin header with those of the request. No Origin is fine: a
// browser sends it with every POST, and with every GET that could read an answer across origins.
func sameOrigin(origin, host string) bool {
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return false
	}
	// Beyond ASCII, names that differ can fold to the same one.
	return isASCII(u.Host) && isASCII(host) && strings.EqualFold(u.Host, host)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if len(host) > len(".localhost") && strings.EqualFold(host[len(host)-len(".localhost"):], ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
