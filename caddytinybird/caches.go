package caddytinybird

import (
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// cdnControls are what caches in front of a site obey before Cache-Control, next to the fields of RFC 9213, whose names end in
// -Cache-Control: its forerunner, Akamai's and nginx's.
var cdnControls = []string{"Surrogate-Control", "Edge-Control", "X-Accel-Expires"}

func isCDNControl(name string) bool {
	return strings.HasSuffix(name, "-Cache-Control") || slices.Contains(cdnControls, name)
}

// dropCDNControls removes what the site has said so far to the caches in front of it, by which they would keep an answer that is for
// one client.
func dropCDNControls(h http.Header) {
	for name := range h {
		if isCDNControl(name) {
			delete(h, name)
		}
	}
}

// noticeCaches tells the operator, once, that the site's config has changed what this handler says to caches: a `header` that is
// deferred comes after everything else, and no handler can prevent it. err is how the request ended.
func (h *Handler) noticeCaches(sent http.Header, err error) {
	if err != nil || forOneClient(sent) || !h.cached.CompareAndSwap(false, true) {
		return
	}
	h.log.Error("the site lets caches keep what is for one tenant, so that they may serve it to another",
		zap.String("fix", "a deferred header overwrites Cache-Control: keep it from this handler with a matcher, or set it without defer, > or -Field in the same block"))
}

// forOneClient reports whether no cache may serve an answer to others.
func forOneClient(h http.Header) bool {
	if !closed(h["Cache-Control"]) {
		return false
	}
	for name, values := range h {
		if isCDNControl(name) && !closed(values) {
			return false
		}
	}
	return true
}

// closed reports whether the values of a field that controls caches keep an answer out of those that serve several clients.
func closed(values []string) bool {
	for directive := range strings.SplitSeq(strings.Join(values, ","), ",") {
		switch strings.ToLower(strings.Trim(directive, " \t")) {
		case "private", "no-store", "0", "off": // the last two are nginx's
			return true
		}
	}
	return false
}
