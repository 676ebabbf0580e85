package clerk

import (
	"math"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// The names of Clerk's cookies.
const (
	cookieSession    = "__session"
	cookieClientUAT  = "__client_uat"
	cookieRefresh    = "__refresh"
	cookieDevBrowser = "__clerk_db_jwt" // also a query parameter
)

// cookie returns the value of a cookie as the SDK reads it, which is not how net/http does: pairs are
// separated by semicolons and by nothing else, names are compared exactly, the first of a name counts, a value
// keeps its quotes and is percent-decoded once. Decoding happens after splitting, so an encoded separator in a
// value makes no cookie.
func cookie(h http.Header, name string) string {
	for _, line := range h["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			key, value, ok := strings.Cut(pair, "=")
			if ok && strings.Trim(key, " \t") == name {
				return decodeCookie(strings.Trim(value, " \t"))
			}
		}
	}
	return ""
}

// decodeCookie is decodeURIComponent, and keeps what that refuses.
func decodeCookie(value string) string {
	if !strings.Contains(value, "%") {
		return value
	}
	decoded, err := url.PathUnescape(value)
	if err != nil || !utf8.ValidString(decoded) {
		return value
	}
	return decoded
}

// parseClientUAT reads the time of the last sign-in or sign-out of this browser as JavaScript's parseInt does:
// leading space, a sign, and the digits up to whatever follows; 0 if there are none. A number that is too large
// stays the largest, so that no token is newer.
func parseClientUAT(text string) int64 {
	text = strings.TrimSpace(text)
	negative := strings.HasPrefix(text, "-")
	if negative || strings.HasPrefix(text, "+") {
		text = text[1:]
	}
	var n int64
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			break
		}
		if n > (math.MaxInt64-9)/10 {
			n = math.MaxInt64
			break
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		return -n
	}
	return n
}
