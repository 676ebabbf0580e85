package clerk

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The schemes of sites.
const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
)

// IsDocument reports whether the request loads a document, so that its answer may send the browser elsewhere. It is
// the SDK's rule: HEAD is none, and neither is any other spelling of "document".
func IsDocument(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest != "" {
		return dest == "document" || dest == "iframe"
	}
	return strings.HasPrefix(r.Header.Get("Accept"), "text/html")
}

// PublicURL is the URL of the request as the browser sees it. With forwarded, which is for requests from a proxy that
// is trusted, the first of X-Forwarded-Host and of X-Forwarded-Proto count. The host is empty if it is none.
func PublicURL(r *http.Request, forwarded bool) *url.URL {
	u := &url.URL{Scheme: schemeHTTP, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	if !strings.HasPrefix(u.Path, "/") { // OPTIONS * and the like: nothing that could run into the host
		u.Path, u.RawPath = "/", ""
	}
	if r.TLS != nil || r.URL.Scheme == schemeHTTPS {
		u.Scheme = schemeHTTPS
	}
	u.Host = publicHost(u.Scheme, r.Host)
	if !forwarded {
		return u
	}
	scheme, host := u.Scheme, r.Host
	if first := firstOf(r.Header.Get("X-Forwarded-Proto")); first != "" {
		scheme = first
	}
	if first := firstOf(r.Header.Get("X-Forwarded-Host")); first != "" {
		host = first
	}
	if public := publicHost(scheme, host); public != "" && (scheme == schemeHTTP || scheme == schemeHTTPS) {
		u.Scheme, u.Host = scheme, public
	}
	return u
}

func firstOf(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(first)
}

// publicHost is a host as browsers write it: in lower case, without the port that goes without saying.
func publicHost(scheme, host string) string {
	u := url.URL{Host: host}
	name, port := u.Hostname(), u.Port()
	if port == "" && strings.HasSuffix(host, ":") {
		return ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return ""
	}
	isIPv6 := strings.HasPrefix(host, "[") && strings.Trim(name, "0123456789abcdefABCDEF:.") == ""
	if name == "" || !isIPv6 && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return ""
	}
	if port == "80" && scheme == schemeHTTP || port == "443" && scheme == schemeHTTPS {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return strings.ToLower(host)
}

// origin of a URL, as browsers write it.
func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// originOf is the origin of the text of a URL, "" if it is none of a site.
func originOf(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.User != nil {
		return ""
	}
	scheme := strings.ToLower(u.Scheme)
	host := publicHost(scheme, u.Host)
	if host == "" || scheme != schemeHTTP && scheme != schemeHTTPS {
		return ""
	}
	return scheme + "://" + host
}

// without is the text of the URL without some parameters of its query. The rest of the query is written anew, as
// JavaScript's URLSearchParams does.
func without(u *url.URL, names ...string) string {
	var kept form
	for _, p := range parseForm(u.RawQuery) {
		if !slices.Contains(names, p.name) {
			kept.add(p.name, p.value)
		}
	}
	text := origin(u) + pathOf(u)
	if kept.text.Len() == 0 {
		return text
	}
	return text + "?" + kept.text.String()
}

// pathOf is the path as the browser wrote it, also with the two characters that browsers leave alone and net/url escapes.
func pathOf(u *url.URL) string {
	if strings.ContainsAny(u.RawPath, "|^") {
		plain := url.URL{Path: u.Path, RawPath: strings.NewReplacer("|", "%7C", "^", "%5E").Replace(u.RawPath)}
		if plain.EscapedPath() == plain.RawPath {
			return u.RawPath
		}
	}
	return u.EscapedPath()
}

// param is a parameter of a query.
type param struct{ name, value string }

// parseForm reads a query as browsers do (WHATWG URL, 5.1): whatever is no escape stands for itself. Queries of
// requests are judged more strictly elsewhere; this one only goes back to where it came from.
func parseForm(query string) []param {
	var list []param
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		list = append(list, param{unescapeForm(name), unescapeForm(value)})
	}
	return list
}

func queryValue(query, name string) string {
	for _, p := range parseForm(query) {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

func unescapeForm(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '+' {
			c = ' '
		}
		if c == '%' && i+2 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				c, i = byte(n), i+2
			}
		}
		b.WriteByte(c)
	}
	return strings.ToValidUTF8(b.String(), "�")
}

// form writes a query as JavaScript's URLSearchParams does. A query that a client sends can have very many parameters.
type form struct{ text strings.Builder }

func (f *form) add(name, value string) {
	if f.text.Len() > 0 {
		f.text.WriteByte('&')
	}
	f.text.WriteString(escapeForm(name))
	f.text.WriteByte('=')
	f.text.WriteString(escapeForm(value))
}

var formEscaper = strings.NewReplacer("~", "%7E", "%2A", "*")

func escapeForm(text string) string { return formEscaper.Replace(url.QueryEscape(text)) }
