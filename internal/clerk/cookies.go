package clerk

import (
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// The cookies of Clerk that are needed.
const (
	cookieSession = iota
	cookieClientUAT
	cookieRefresh
	cookieDevBrowser
	cookieHandshake
	cookieNonce
	cookieCount
)

// Names of cookies that are names of query parameters, too.
const (
	devBrowser     = "__clerk_db_jwt"
	handshakeToken = "__clerk_handshake"
	handshakeNonce = "__clerk_handshake_nonce"
)

var cookieNames = [cookieCount]string{"__session", "__client_uat", "__refresh", devBrowser, handshakeToken, handshakeNonce}

// maxCookies is the size of all Cookie header fields together beyond which none is read. Browsers and the
// servers behind this one give up long before. To read some of them would let whoever can plant a cookie in
// front decide which of the others count.
const maxCookies = 64 << 10

// jar holds the values of Clerk's cookies; "" for one that is not there.
type jar [cookieCount]string

// jars are Clerk's cookies under their plain names, and under those with the suffix of the instance.
type jars struct{ plain, own jar }

func (j *jars) chosen(suffixed bool) *jar {
	if suffixed {
		return &j.own
	}
	return &j.plain
}

// readCookies reads the cookies as the SDK does, which is not how net/http does: pairs are separated by
// semicolons and by nothing else, names are compared exactly, the first of a name counts, a value keeps its
// quotes and is percent-decoded once. Decoding happens after splitting, so an encoded separator in a value
// makes no cookie. Several header fields are as one (RFC 9113, 8.2.3).
func readCookies(h http.Header, suffix string) jars {
	var found jars
	var seen struct{ plain, own [cookieCount]bool }
	eachCookie(h, func(key, value string) {
		if i := slices.Index(cookieNames[:], key); i >= 0 {
			found.plain.put(i, &seen.plain[i], value)
			return
		}
		bare, own := strings.CutSuffix(key, "_"+suffix)
		if i := slices.Index(cookieNames[:], bare); i >= 0 && own && suffix != "" {
			found.own.put(i, &seen.own[i], value)
		}
	})
	return found
}

// eachCookie calls f for each cookie that can be one of Clerk's, or for none if there is too much of them.
func eachCookie(h http.Header, f func(name, value string)) {
	size := 0
	for _, line := range h["Cookie"] {
		if size += len(line); size > maxCookies {
			return
		}
	}
	for _, line := range h["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			key, value, ok := strings.Cut(pair, "=")
			if key = strings.Trim(key, " \t"); ok && strings.HasPrefix(key, "__") {
				f(key, strings.Trim(value, " \t"))
			}
		}
	}
}

func (j *jar) put(i int, seen *bool, value string) {
	if !*seen {
		j[i], *seen = decodeCookie(value), true
	}
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
