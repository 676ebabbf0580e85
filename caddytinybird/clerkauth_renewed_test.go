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
	"os"
	"regexp"
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
	manual, err := os.ReadFile("../docs/protect-a-site.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)\n```caddyfile\napp.example.com \\{\n([^`]*errors caddy[^`]*)}\n```").FindSubmatch(manual)
	if example == nil {
		t.Fatal("the manual has no example of an error page")
	}
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.ReplaceAll(atStandIns(t, stack, string(example[1])), "templates\n", ""))
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

// TestAttackErrorBeforeClerkAuth: what Caddy refuses before the site's clerk_auth has run comes to handle_errors with the headers that
// the client sent. An application that makes the error page, as the manual has it, is told by them who somebody is no more than elsewhere.
func TestAttackErrorBeforeClerkAuth(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../docs/protect-a-site.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)\n```caddyfile\napp.example.com \\{\n([^`]*handle_errors \\{\n[^`]*)}\n```").FindSubmatch(manual)
	if example == nil {
		t.Fatal("the manual has no example of an error page that an application makes")
	}
	const before = "basic_auth /inner {\nBob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n"
	stack := newLiveStack(t)
	for _, guarded := range []bool{true, false} {
		lines := before + atStandIns(t, stack, string(example[1]))
		if !guarded { // or the attack is none
			lines = regexp.MustCompile(`(?s)(rewrite /error[^\n]*\n).*(\s+reverse_proxy)`).ReplaceAllString(lines, "$1$2")
		}
		s := newSite(t, stack, lines)
		for name, line := range map[string]string{
			"no password":            "GET /inner HTTP/1.1\r\n",
			"a method of 33 letters": strings.Repeat("A", 33) + " /any HTTP/1.1\r\n",
		} {
			s.http.reset()
			s.sendRaw(t, line+"Host: app.example.com\r\nX-Clerk-User-Id: user_victim\r\nX_Clerk_User_Id: user_victim\r\nX.Clerk-Org-Role: org:admin\r\nConnection: close\r\n\r\n")
			asked, _ := s.http.last()
			if asked == nil || asked.URL.Path != "/error" {
				t.Fatalf("%s: the application was asked for %+v", name, asked)
			}
			told := false
			for field := range asked.Header {
				told = told || strings.HasPrefix(strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(field)), "x-clerk-")
			}
			if told == guarded {
				t.Errorf("%s, guarded %t: the application is told %v", name, guarded, asked.Header)
			}
		}
	}
}

// sendRaw sends text, and waits for the answer.
func (s *site) sendRaw(t *testing.T, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
