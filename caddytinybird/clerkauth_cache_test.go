package caddytinybird

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
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
		"not found":       {lines: "root * {root}/missing\nfile_server\nhandle_errors {\nrespond \"gone\" 404\n}", status: http.StatusNotFound, want: private},
		"not found, bare": {lines: "root * {root}/missing\nfile_server", status: http.StatusNotFound, want: private},
		"nobody answers":  {want: private},
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

// toCDNs are what caches in front of a site obey before Cache-Control.
var toCDNs = []string{
	"CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Netlify-CDN-Cache-Control", "Surrogate-Control", "Edge-Control", "X-Accel-Expires",
}

// allCached has the whole site kept by the caches in front of it, in each way that they know.
func allCached() string {
	lines := "header {\nCache-Control \"public, max-age=60\"\n"
	for _, name := range toCDNs {
		lines += name + " max-age=60\n"
	}
	return lines + "}\n"
}

func notForCDNs(t *testing.T, what string, header http.Header) {
	t.Helper()
	for _, name := range toCDNs {
		if got := header.Get(name); got != "" {
			t.Errorf("%s: %s is %q", what, name, got)
		}
	}
	if got := header.Get("Cache-Control"); !strings.Contains(got, "no-store") {
		t.Errorf("%s: Cache-Control is %q", what, got)
	}
}

// TestAttackCachedRows: where the site has the caches in front of it keep everything, they keep no tenant's rows, no token of
// the token endpoint and no refusal.
func TestAttackCachedRows(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, allCached()+"tinybird {\nclerk {pk} {\nissuer {issuer}\n}\nsigning_key "+secretFile(t, stack.API.SigningKey())+
		"\nworkspace_id "+stack.API.WorkspaceID()+"\nupstream "+stack.APIURL+"\ntoken_endpoint /token\ncors https://app.example.com\n"+
		"pipe top_pages {\nfixed_param organization_id {clerk.org.id}\n}\npipe sales_by_day {\ncache 10s\nfixed_param organization_id {clerk.org.id}\n}\n"+
		"events page_views {\nappend_token "+secretFile(t, stack.API.AppendToken())+"\nstamp organization_id {clerk.org.id}\n}\n}")
	for target, status := range map[string]int{
		"/v0/pipes/top_pages.csv": http.StatusOK, "/v0/pipes/sales_by_day.csv": http.StatusOK, "/token": http.StatusOK,
		"/v0/pipes/unlisted.csv": http.StatusNotFound, "/elsewhere.js": http.StatusNotFound, "/v0/events": http.StatusMethodNotAllowed,
	} {
		for _, ask := range []func(*http.Request){s.withCookies(t, "ada"), nil} {
			got := s.ask(t, target, ask)
			if ask != nil && got.StatusCode != status {
				t.Errorf("%s: status %d, %s", target, got.StatusCode, got.body)
			}
			notForCDNs(t, target, got.Header)
		}
	}
}

// TestAttackCachedBusyRefusal: where the site has caches keep everything, they do not keep that one tenant has too many queries under way,
// to give it to the others.
func TestAttackCachedBusyRefusal(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	h := hold(t, stack)
	s := newSite(t, stack, allCached()+"tinybird {\nclerk {pk} {\nissuer {issuer}\n}\nsigning_key "+secretFile(t, stack.API.SigningKey())+
		"\nworkspace_id "+stack.API.WorkspaceID()+"\nupstream "+stack.APIURL+"\nconcurrency 1\npipe top_pages {\nfixed_param organization_id {clerk.org.id}\n}\n}")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.ask(t, "/v0/pipes/top_pages.json?hold", s.withCookies(t, "ada"))
	}()
	<-h.arrived
	got := s.ask(t, "/v0/pipes/top_pages.json", s.withCookies(t, "ada"))
	if got.StatusCode != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, %v", got.StatusCode, got.Header)
	}
	notForCDNs(t, "busy", got.Header)
	h.release()
	<-ended
}

// TestAttackCachedRefusals: where the site has the caches in front of it keep everything, they keep no answer of clerk_auth's own: a
// redirect can hold a session token, a refusal can set a session's cookies, and each would be given to people who are signed in.
func TestAttackCachedRefusals(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	const page = "on_unauthenticated redirect https://accounts.example.com/sign-in"
	for name, option := range map[string]string{
		"redirect": page, "401": "on_unauthenticated 401", "403": "require role org:nobody\n" + page, "handle_errors": "errors caddy\n" + page,
	} {
		s := newSite(t, stack, allCached()+strings.Replace(auth, page, option, 1)+"respond ok")
		for who, as := range map[string]func(*http.Request){"nobody": func(*http.Request) {}, "expired": s.withCookies(t, "ada", devstack.Expired())} {
			for _, kind := range []func(*http.Request){asDocument, func(*http.Request) {}} {
				got := s.ask(t, "/", all(as, kind))
				if got.StatusCode < 300 {
					t.Errorf("%s, %s: status %d", name, who, got.StatusCode)
				}
				notForCDNs(t, name+", "+who, got.Header)
			}
		}
		if name == "403" {
			got := s.ask(t, "/", s.withCookies(t, "ada"))
			if got.StatusCode != http.StatusForbidden {
				t.Errorf("status %d", got.StatusCode)
			}
			notForCDNs(t, name, got.Header)
		}
	}
}

// TestAttackCachedSession: an answer that renews somebody's session sets its cookies. No cache may keep it, whatever the site says
// of its pages.
func TestAttackCachedSession(t *testing.T) {
	t.Parallel()
	public := func(w http.ResponseWriter) {
		for _, name := range append([]string{"Cache-Control"}, toCDNs...) {
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
			notForCDNs(t, name+" "+option, got.Header)
		}
	}
}
