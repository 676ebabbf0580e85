package caddytinybird

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestProtectedAnswersStayPrivate: a site behind clerk_auth that says nothing of caches must not be served from one to somebody
// else, nor from the browser's own after a sign-out.
func TestProtectedAnswersStayPrivate(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	const private = "private, no-cache"
	for name, tt := range map[string]struct {
		lines  string
		answer func(http.ResponseWriter)
		status int
		want   string
	}{
		"static":          {lines: "root * {root}\nfile_server", want: private},
		"compressed":      {lines: "encode gzip\nroot * {root}\nfile_server", want: private},
		"respond":         {lines: "respond \"hello\"", want: private},
		"no body":         {lines: "respond 204", status: http.StatusNoContent, want: private},
		"not found":       {lines: "root * {root}/missing\nfile_server\nhandle_errors {\nrespond \"gone\" 404\n}", status: http.StatusNotFound},
		"proxied":         {lines: "reverse_proxy {backend}", want: private},
		"flushed at once": {lines: "reverse_proxy {backend} {\nflush_interval -1\n}", want: private},
		"the site's own": {lines: "reverse_proxy {backend}", want: "public, max-age=60", answer: func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "public, max-age=60")
		}},
		"by header":        {lines: "header Cache-Control no-store\nrespond \"hello\"", want: "no-store"},
		"by header, later": {lines: "header >Cache-Control no-store\nrespond \"hello\"", want: "no-store"},
		"early hints": {lines: "reverse_proxy {backend}", want: private, answer: func(w http.ResponseWriter) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, stack, auth+tt.lines)
			s.http.answer = tt.answer
			if tt.status == 0 {
				tt.status = http.StatusOK
			}
			got := s.ask(t, "/", s.withCookies(t, "ada"))
			if got.StatusCode != tt.status || strings.Join(got.Header.Values("Cache-Control"), " + ") != tt.want {
				t.Errorf("status %d, Cache-Control %q, want %q", got.StatusCode, got.Header.Values("Cache-Control"), tt.want)
			}
		})
	}
	s := newSite(t, stack, strings.Replace(auth, "\n}", "\noptional\n}", 1)+"respond \"hello\"")
	if got := s.ask(t, "/", nil); got.Header["Cache-Control"] != nil {
		t.Errorf("what everybody is shown: Cache-Control %q", got.Header["Cache-Control"])
	}
}

// TestAttackCachedSession: an answer that renews somebody's session sets its cookies. No cache may keep it, whatever the site says
// of its pages.
func TestAttackCachedSession(t *testing.T) {
	t.Parallel()
	public := func(w http.ResponseWriter) {
		for _, name := range append([]string{"Cache-Control"}, cdnControls...) {
			w.Header().Set(name, "public, max-age=60")
		}
	}
	for name, behind := range map[string]string{
		"proxied": "reverse_proxy {backend}",
		"header":  "handle {\nheader Cache-Control \"public, max-age=60\"\nheader CDN-Cache-Control \"max-age=60\"\nrespond ok\n}",
	} {
		for _, option := range []string{"", "optional"} {
			s := clerkSite(t, true, true, option, behind)
			s.http.answer = public
			b := newBrowser(t, s)
			page := b.do(t, http.MethodGet, s.stack.IssuerURL+"/sign-in?redirect_url="+url.QueryEscape(s.url+"/"), "document", nil)
			b.signIn(t, page, "ada")
			if got := b.fetch(t, "/"); got.Header.Get("Cache-Control") != "public, max-age=60" || got.Header["Set-Cookie"] != nil {
				t.Errorf("%s %s, not renewed: status %d, %v", name, option, got.StatusCode, got.Header)
			}
			b.expire(t, "ada")
			got := b.fetch(t, "/")
			if got.StatusCode != http.StatusOK || got.Header["Set-Cookie"] == nil {
				t.Fatalf("%s %s, not renewed: status %d, %v", name, option, got.StatusCode, got.Header)
			}
			if control := strings.Join(got.Header.Values("Cache-Control"), " + "); control != privateNoStore {
				t.Errorf("%s %s: Cache-Control %q", name, option, control)
			}
			for _, control := range cdnControls {
				if got.Header[control] != nil {
					t.Errorf("%s %s: %s %q", name, option, control, got.Header[control])
				}
			}
		}
	}
}
