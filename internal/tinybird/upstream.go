package tinybird

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// errUpstream does not quote what was configured: a URL can hold a password.
var errUpstream = errors.New("upstream is not a base URL: write one such as " + DefaultUpstream)

// ParseUpstream reads the base URL of a Tinybird API: https, or http for an address or a name that is not
// on the public internet, since the token is in a header. No user, query or fragment; a base path is kept
// without its last slash.
func ParseUpstream(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		return nil, errUpstream
	}
	if u.User != nil {
		return nil, errors.New("upstream holds a user or password: remove them, the minted token is the credential")
	}
	if strings.ContainsAny(raw, "?#") {
		return nil, errors.New("upstream holds a query or fragment: remove it")
	}
	host := strings.ToLower(u.Hostname())
	if !validHost(host) || !validPort(u) || strings.HasSuffix(u.Host, ":") {
		return nil, errUpstream
	}
	switch u.Scheme {
	case "https":
	case "http":
		if !private(host) {
			return nil, errors.New("upstream is http: write https, " +
				"since http is for loopback and private addresses and names only")
		}
	default:
		return nil, errUpstream
	}
	path := strings.TrimSuffix(u.Path, "/")
	if !validBasePath(path) || u.RawPath != "" {
		return nil, errors.New("upstream has an unusual path: write one of letters, digits, - and _ between single slashes")
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: path}, nil
}

// private reports whether a host cannot be on the public internet.
func private(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback() || a.IsPrivate()
	}
	// A name of one label starts with a letter: some resolvers read "134744072" and "0x8080808" as addresses.
	if !strings.Contains(host, ".") {
		return 'a' <= host[0] && host[0] <= 'z'
	}
	for _, suffix := range [...]string{".localhost", ".internal", ".local"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

// validHost reports whether host, in lower case, is an IP address without a zone or a name.
func validHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Zone() == ""
	}
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) || len(label) > 63 || label[0] == '-' {
			return false
		}
	}
	return true
}

func validPort(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func validBasePath(path string) bool {
	if path == "" {
		return true
	}
	if path[0] != '/' {
		return false
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if !validLabel(strings.ToLower(segment)) {
			return false
		}
	}
	return true
}

// validLabel reports whether s is letters, digits, - and _ only, and not empty.
func validLabel(s string) bool {
	for i := range len(s) {
		if c := s[i]; !digit(c) && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}
