package caddytinybird

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// renewing serves the lines, in which {clerk_auth} stands for the beginning of one that renews sessions, signs somebody in at /, and
// lets the session's minute pass.
func renewing(t *testing.T, lines string) *browser {
	t.Helper()
	stack := newStack(t, devstack.Options{Issuer: devstack.IssuerOptions{Live: true}})
	s := newSite(t, stack, strings.ReplaceAll(lines, "{clerk_auth}",
		"clerk_auth {pk} {\nissuer {issuer}\napi_url {issuer}\non_unauthenticated redirect {issuer}/sign-in\nsecret_key "+secretFile(t, stack.Issuer.SecretKey())+"\n"))
	stack.Issuer.AddSiteOrigin(s.url)
	s.http.answer = func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "public, max-age=60") }
	b := newBrowser(t, s)
	page := b.do(t, http.MethodGet, s.stack.IssuerURL+"/sign-in?redirect_url="+url.QueryEscape(s.url+"/"), "document", nil)
	b.signIn(t, page, "ada")
	b.expire(t, "ada")
	return b
}

// TestAttackCachedSessionOnAnErrorPage: a renewed session's cookies do not go out with an error page that the site has caches keep.
// They come with the next answer.
func TestAttackCachedSessionOnAnErrorPage(t *testing.T) {
	t.Parallel()
	const (
		public = "header Cache-Control \"public, max-age=60\"\nheader CDN-Cache-Control max-age=60\n"
		static = "root * {root}\nfile_server\n"
		text   = "handle_errors {\n" + public + "respond \"an error page\"\n}"
	)
	for name, tt := range map[string]struct {
		option, lines string
		status        int
		cookies       bool // with the error page
	}{
		"not found":           {"", static + text, http.StatusNotFound, false},
		"error":               {"", "@gone path /gone\nerror @gone 410\n" + static + text, http.StatusGone, false},
		"in a handle":         {"", "handle /gone {\nroute {\nerror 410\n}\n}\n" + static + text, http.StatusGone, false},
		"bad gateway":         {"", "handle /gone {\nreverse_proxy 127.0.0.1:1\n}\n" + static + text, http.StatusBadGateway, false},
		"optional":            {"optional", static + text, http.StatusNotFound, false},
		"without a page":      {"", static, http.StatusNotFound, false},
		"proxied page":        {"", static + "handle_errors {\nrewrite /error\nreverse_proxy {backend}\n}", http.StatusOK, false},
		"guarded page":        {"", static + "handle_errors {\n" + public + "{clerk_auth}}\nrespond \"an error page\" 404\n}", http.StatusNotFound, true},
		"no error of Caddy's": {"", "handle /gone {\n" + public + "respond \"gone\" 404\n}\n" + static + text, http.StatusNotFound, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := renewing(t, "{clerk_auth}"+tt.option+"\n}\n"+tt.lines)
			got := b.fetch(t, "/gone")
			if got.StatusCode != tt.status || tt.cookies != (got.Header["Set-Cookie"] != nil) {
				t.Errorf("status %d, %v", got.StatusCode, got.Header)
			}
			if tt.cookies {
				notForCDNs(t, name, got.Header)
				return
			}
			got = b.fetch(t, "/docs/page.html")
			if got.StatusCode != http.StatusOK || got.Header["Set-Cookie"] == nil {
				t.Errorf("after it: status %d, %v", got.StatusCode, got.Header)
			}
			notForCDNs(t, "after it", got.Header)
		})
	}
}

// TestAttackCachedSessionOnARefusal: nor do they with a refusal that the site's own error page tells.
func TestAttackCachedSessionOnARefusal(t *testing.T) {
	t.Parallel()
	for errorsOf, cookies := range map[string]bool{errorsCaddy: false, errorsJSON: true} {
		b := renewing(t, "handle /guarded {\n{clerk_auth}require role org:nobody\nerrors "+errorsOf+"\n}\n}\nhandle {\n{clerk_auth}}\nrespond ok\n}\n"+
			"handle_errors {\nheader Cache-Control \"public, max-age=60\"\nrespond \"an error page\"\n}")
		got := b.fetch(t, "/guarded")
		if got.StatusCode != http.StatusForbidden || cookies != (got.Header["Set-Cookie"] != nil) {
			t.Errorf("errors %s: status %d, %v", errorsOf, got.StatusCode, got.Header)
		}
		if cookies {
			notForCDNs(t, errorsOf, got.Header)
		}
	}
}

// TestRenewedSessionInEveryAnswer: however a handler answers, the cookies come with the header of the answer itself, once, and that says
// that it is for one browser. They do not come with what precedes it, nor with an answer that somebody else writes.
func TestRenewedSessionInEveryAnswer(t *testing.T) {
	t.Parallel()
	const cookie, ours = "__session=eyJ; Path=/", "kept=1"
	h := provisioned(t, newLiveStack(t), auth)
	h.site = decided{&clerk.Outcome{Status: clerk.SignedIn, Identity: &clerk.Identity{UserID: "user_ada"}, Cookies: []string{cookie}}}
	gone := caddyhttp.Error(http.StatusNotFound, errors.New("gone"))
	for name, tt := range map[string]struct {
		answer caddyhttp.HandlerFunc
		want   []string
	}{
		"nothing": {func(http.ResponseWriter, *http.Request) error { return nil }, []string{cookie}},
		"a body": {func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, "ok")
			return err
		}, []string{cookie}},
		"a file": {func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.Copy(w, struct{ io.Reader }{strings.NewReader("ok")})
			return err
		}, []string{cookie}},
		"flushed": {func(w http.ResponseWriter, _ *http.Request) error { return http.NewResponseController(w).Flush() }, []string{cookie}},
		"early hints": {func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
			return nil
		}, []string{cookie}},
		"hijacked": {func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				err = conn.Close()
			}
			return err
		}, []string{cookie}},
		"the site's own cookie": {func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Add("Set-Cookie", ours)
			w.WriteHeader(http.StatusOK)
			return nil
		}, []string{ours, cookie}},
		"an error": {func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Add("Set-Cookie", ours)
			return gone
		}, []string{ours}},
		"a header, and an error": {func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusOK)
			return gone
		}, []string{cookie}},
		"an answer that is held back, and an error": {func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Add("Set-Cookie", ours)
			w.WriteHeader(http.StatusOK)
			return gone
		}, []string{ours}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				to := w
				if strings.Contains(name, "held back") {
					to = caddyhttp.NewResponseRecorder(w, nil, func(int, http.Header) bool { return true })
				}
				if err := h.ServeHTTP(to, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil), tt.answer); errors.Is(err, gone) {
					w.Header().Set("Cache-Control", "public, max-age=60")
					w.WriteHeader(http.StatusNotFound)
				} else if err != nil {
					t.Error(err)
				}
			}))
			defer server.Close()
			header := answerTo(t, server.Listener.Addr().String())
			if got := header["Set-Cookie"]; !slices.Equal(got, tt.want) {
				t.Errorf("cookies %q, want %q", got, tt.want)
			}
			if slices.Contains(tt.want, cookie) != slices.Equal(header["Cache-Control"], []string{privateNoStore}) {
				t.Errorf("Cache-Control %q", header["Cache-Control"])
			}
		})
	}
}

// answerTo asks for a page, and returns the header of the answer after what precedes it, which must set no cookies.
func answerTo(t *testing.T, address string) http.Header {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(answers, r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= http.StatusOK || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp.Header
		}
		if resp.Header["Set-Cookie"] != nil {
			t.Errorf("status %d sets %q", resp.StatusCode, resp.Header["Set-Cookie"])
		}
	}
}

// TestErrorPageOfTheManual: with the error page as the manual has it, no cache keeps a refusal, whatever the application that makes the
// page says.
func TestErrorPageOfTheManual(t *testing.T) {
	t.Parallel()
	example := exampleWith(t, "errors caddy")
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.ReplaceAll(atStandIns(t, stack, example), "templates\n", ""))
	s.http.answer = func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "public, max-age=60") }
	for status, as := range map[int]func(*http.Request){http.StatusUnauthorized: nil, http.StatusForbidden: s.as(t, "ada", devstack.NoOrganization())} {
		got := s.ask(t, "/", as)
		asked, _ := s.http.last()
		if asked == nil || asked.URL.Path != fmt.Sprintf("/errors/%d.html", status) || string(got.body) != "from behind" {
			t.Fatalf("status %d, %s, the application was asked for %+v", got.StatusCode, got.body, asked)
		}
		if control := got.Header["Cache-Control"]; !slices.Equal(control, []string{privateNoStore}) {
			t.Errorf("%d: Cache-Control %q", status, control)
		}
	}
}
