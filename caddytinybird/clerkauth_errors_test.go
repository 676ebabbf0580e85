package caddytinybird

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestAttackErrorBeforeClerkAuth: what Caddy refuses before the site's clerk_auth has run comes to handle_errors with the headers that
// the client sent. An application that makes the error page, as the manual has it, is told by them who somebody is no more than elsewhere.
func TestAttackErrorBeforeClerkAuth(t *testing.T) {
	t.Parallel()
	const before = "basic_auth /inner {\nBob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n"
	stack := newLiveStack(t)
	for _, guarded := range []bool{true, false} {
		lines := before + atStandIns(t, stack, errorPageOfAnApplication(t))
		if !guarded { // or the attack is none
			lines = regexp.MustCompile(`(?s)(rewrite /error[^\n]*\n).*(\s+reverse_proxy)`).ReplaceAllString(lines, "$1$2")
		}
		s := newSite(t, stack, lines)
		for name, line := range map[string]string{
			"no password":            "GET /inner",
			"a method of 33 letters": strings.Repeat("A", 33) + " /any",
		} {
			s.http.reset()
			s.sendRaw(t, line, http.Header{"X-Clerk-User-Id": {"user_victim"}, "X_Clerk_User_Id": {"user_victim"}, "X.Clerk-Org-Role": {"org:admin"}})
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

// sendRaw sends a request with the method and the target as they are written, and returns the answer without its body.
func (s *site) sendRaw(t *testing.T, line string, header http.Header) *http.Response {
	t.Helper()
	text := bytes.NewBufferString(line + " HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n")
	if err := header.Write(text); err != nil {
		t.Fatal(err)
	}
	text.WriteString("\r\n")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := text.WriteTo(conn); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

// errorPageOfAnApplication is the manual's example.
func errorPageOfAnApplication(t *testing.T) string {
	t.Helper()
	return exampleWith(t, `handle_errors \{\n`)
}

// exampleWith is the inside of the manual's first example of a site that matches the pattern.
func exampleWith(t *testing.T, pattern string) string {
	t.Helper()
	manual, err := os.ReadFile("../docs/protect-a-site.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)\n```caddyfile\napp.example.com \\{\n([^`]*" + pattern + "[^`]*)}\n```").FindSubmatch(manual)
	if example == nil {
		t.Fatalf("the manual has no example with %s", pattern)
	}
	return string(example[1])
}

// TestAttackTargetWithoutAPath: a target that has no path for Caddy, and one for the application, comes to no application past clerk_auth,
// also not by an error page, where no rewrite changes it.
func TestAttackTargetWithoutAPath(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, allCached()+"basic_auth /inner {\nBob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n"+atStandIns(t, stack, errorPageOfAnApplication(t)))
	for _, line := range []string{
		"GET x:http://h/members", "POST http:http://h/members", "GET x:members", "GET x:http://h/members?a=b", strings.Repeat("A", 33) + " x:http://h/members",
	} {
		for name, as := range map[string]func(*http.Request){"nobody": func(*http.Request) {}, "nobody's page": asDocument, "a member": s.as(t, "ada")} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			as(r)
			got := s.sendRaw(t, line, r.Header)
			if got.StatusCode != http.StatusBadRequest && got.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s, %s: status %d", name, line, got.StatusCode)
			}
			notForCDNs(t, name+", "+line, got.Header)
			if asked, n := s.http.last(); n > 0 && asked.URL.Path != "/error" {
				t.Errorf("%s, %s: the application was asked for %s", name, line, asked.RequestURI)
			}
			s.http.reset()
		}
	}
}

// TestErrorPageOfPHP: PHP is told the address of the error page, and not the one that was refused, by the line that the manual has.
func TestErrorPageOfPHP(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for env, want := range map[string]string{"env REQUEST_URI /error?status={err.status_code}": "/error?status=401", "": "/members?a=b"} {
		lines := regexp.MustCompile(`(?s)(handle_errors.*)reverse_proxy [^\n]*\n`).ReplaceAllString(errorPageOfAnApplication(t), "${1}root {root}\nphp_fastcgi {php} {\n"+env+"\n}\n")
		s := newSite(t, stack, atStandIns(t, stack, lines))
		s.ask(t, "/members?a=b", nil)
		if asked, _ := s.php.last(); asked == nil || asked.URL.RequestURI() != want {
			t.Errorf("%q: PHP was asked for %+v", env, asked)
		}
	}
}
