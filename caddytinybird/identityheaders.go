package caddytinybird

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// defaultHeaderPrefix begins the names of the headers that tell a backend who a request is from. No client may set one,
// whether or not the backend is told.
const defaultHeaderPrefix = "X-Clerk-"

// identityHeaders are the request headers by which a backend is told who a request is from.
type identityHeaders struct {
	prefix string   // of those that are set; empty: none are
	own    []string // what begins with one of these is not the client's to set
}

func newIdentityHeaders(prefix string) identityHeaders {
	h := identityHeaders{prefix: prefix, own: []string{defaultHeaderPrefix}}
	if prefix != "" {
		h.own = append(h.own, prefix)
	}
	return h
}

// clear deletes what the client sent in the place of an identity. Backends read underscores, and PHP more than those, as the
// hyphens in a name; and a Connection header makes proxies drop what it lists.
func (h *identityHeaders) clear(r *http.Request) {
	isOwn := func(name string, _ []string) bool { return h.isOwn(name) }
	maps.DeleteFunc(r.Header, isOwn)
	for i, list := range r.Header["Connection"] {
		names := slices.DeleteFunc(strings.Split(list, ","), func(name string) bool { return h.isOwn(strings.Trim(name, " \t")) })
		r.Header["Connection"][i] = strings.Join(names, ",")
	}
	if r.Trailer != nil {
		maps.DeleteFunc(r.Trailer, isOwn)
		// Trailers come after the body, also those that were not announced.
		r.Body = &trailerFilter{ReadCloser: r.Body, filter: func() { maps.DeleteFunc(r.Trailer, isOwn) }}
	}
}

func (h *identityHeaders) isOwn(name string) bool {
	return slices.ContainsFunc(h.own, func(prefix string) bool { return beginsAlike(name, prefix) })
}

// beginsAlike reports whether name begins with prefix if letters are compared without case and everything that is neither
// letter nor digit is the same.
func beginsAlike(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if folded(name[i]) != folded(prefix[i]) {
			return false
		}
	}
	return true
}

func folded(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c - 'A' + 'a'
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	default:
		return '-'
	}
}

// trailerFilter is a request's body, after which its trailers are looked at.
type trailerFilter struct {
	io.ReadCloser

	filter func()
}

func (f *trailerFilter) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		f.filter()
	}
	return n, err
}

// set tells the backend who the request is from.
func (h *identityHeaders) set(header http.Header, id *clerk.Identity) {
	if h.prefix == "" {
		return
	}
	for name, value := range map[string]string{
		"User-Id":    id.UserID,
		"Session-Id": id.SessionID,
		"Org-Id":     id.OrgID,
		"Org-Slug":   id.OrgSlug,
		"Org-Role":   id.OrgRole,
	} {
		if value != "" && plainText(value) {
			header.Set(h.prefix+name, value)
		}
	}
}

// plainText reports whether text arrives at a backend as it is: printable ASCII with no space at its ends.
func plainText(text string) bool {
	return strings.TrimSpace(text) == text && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' })
}

// notForIdentity are headers that a request loses under a prefix that is too wide.
var notForIdentity = []string{
	"Accept-Encoding", "Access-Control-Request-Method", "Cache-Control", "Content-Type", "If-None-Match", "Proxy-Connection",
	"Sec-Fetch-Dest", "Transfer-Encoding", "User-Agent", "X-Forwarded-For", "X-Requested-With",
}

// checkHeaderPrefix holds the form of forward_identity's prefix. Headers that begin with it are deleted from requests.
func checkHeaderPrefix(prefix string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	if strings.Trim(prefix, allowed) != "" || !strings.HasSuffix(prefix, "-") || strings.HasPrefix(prefix, "-") {
		return fmt.Errorf("forward_identity %s is no prefix for headers; write letters, digits and hyphens, with a hyphen at the end, as X-Clerk-", tinybird.Shown(prefix))
	}
	for _, name := range notForIdentity {
		if beginsAlike(name, prefix) {
			return fmt.Errorf("forward_identity %s is too wide a prefix: %s would be deleted from requests; write one such as X-Clerk-", prefix, name)
		}
	}
	return nil
}
