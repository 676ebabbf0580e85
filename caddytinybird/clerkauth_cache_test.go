package caddytinybird

import (
	"net/http"
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
