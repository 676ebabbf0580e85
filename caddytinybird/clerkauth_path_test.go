package caddytinybird

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

const importCleanPaths = "import clean_paths\n"

// examplesWithPaths are the examples of docs/protect-a-site.md that import clean_paths, by their line, as lines for newSite. What each
// serves is an application that takes paths as they come.
func examplesWithPaths(t *testing.T, stack *devstack.Stack) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../docs/protect-a-site.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	snippet := ""
	examples := make(map[string]string)
	global := regexp.MustCompile(`(?s)^\{\n(.*?)\n\}\n+`)
	for _, at := range regexp.MustCompile("(?s)\n```caddyfile\n(.*?)```").FindAllStringSubmatchIndex(text, -1) {
		block := text[at[2]:at[3]]
		switch {
		case strings.HasPrefix(block, "(clean_paths) {"):
			snippet = before(block, "before ")
		case strings.Contains(block, importCleanPaths):
			options := ""
			if found := global.FindStringSubmatch(block); found != nil {
				options, block = before(found[1], "global "), strings.TrimPrefix(block, found[0])
			}
			body := strings.TrimSuffix(strings.TrimPrefix(block, "app.example.com {\n"), "}\n")
			examples[fmt.Sprintf("line %d", strings.Count(text[:at[2]], "\n"))] = atStandIns(t, stack, options+snippet+body)
		}
	}
	if snippet == "" || len(examples) < 7 {
		t.Fatalf("%d examples with the snippet %q", len(examples), snippet)
	}
	return examples
}

// before writes a word before each line.
func before(text, word string) string {
	return word + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+word) + "\n"
}

// atStandIns has an example ask the stand-ins.
func atStandIns(t *testing.T, stack *devstack.Stack, lines string) string {
	t.Helper()
	const settings = "\nissuer {issuer}\non_unauthenticated redirect https://accounts.example.com/sign-in\n"
	lines = regexp.MustCompile(`(?m)(clerk_auth.* )\{env\.CLERK_PUBLISHABLE_KEY\}( \{)?$`).ReplaceAllStringFunc(lines, func(line string) string {
		opened := strings.HasSuffix(line, " {")
		line = strings.TrimSuffix(line, " {") + " {" + settings
		if !opened {
			line += "}"
		}
		return line
	})
	lines = strings.ReplaceAll(lines, "publishable_key {env.CLERK_PUBLISHABLE_KEY}", "publishable_key {env.CLERK_PUBLISHABLE_KEY}\nglobal issuer {issuer}")
	lines = regexp.MustCompile(`root /srv/\w+\n`).ReplaceAllString(lines, "")
	return strings.NewReplacer("{env.CLERK_PUBLISHABLE_KEY}", "{pk}", "{env.CLERK_SECRET_KEY}", secretFile(t, stack.Issuer.SecretKey()),
		"file_server\n", "reverse_proxy {backend}\n", "localhost:3000", "{backend}").Replace(lines)
}

// getRaw asks for a target as it is written, and returns the status.
func (s *site) getRaw(t *testing.T, target string, change func(*http.Request)) int {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-Clerk-User-Id", "user_victim")
	change(r)
	return s.sendRaw(t, "GET "+target, r.Header).StatusCode
}

// getHTTP2 is getRaw by HTTP/2, where the target is the field :path.
func (s *site) getHTTP2(t *testing.T, target string, change func(*http.Request)) int {
	t.Helper()
	server := httptest.NewUnstartedServer(s.server)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	decoded, err := url.PathUnescape(target)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Path, r.URL.RawPath = decoded, target
	change(r)
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Errorf("answered by %s", resp.Proto)
	}
	return resp.StatusCode
}

// readInTwoWays are paths which applications take for others than Caddy does.
var readInTwoWays = []string{
	"/members/..%2fassets/y", "/members/..%2Fassets/y", "/members/x/../../assets/y", "/members/%2e%2e/assets/y", "/members/.%2E/assets/y",
	"/members/%2e./assets/y", "/members/./../assets/y", "/members%2f..%2fassets/y", "/members/%5c..%5c../assets/y", `/members/..\assets/y`,
	"/assets/..;/members", "/assets/..;a=b/members", "/assets/%2e%2e;/members", "/assets/.;/..;/members", "/assets/..", "/assets/%2e%2e", "/assets/.",
	"//assets/members", "/%2fassets/members", "/%2Fassets/members", `/\assets/members`, "/%5Cassets/members", "/assets//../members",
	"/assets/%252e%252e/members", "/assets/%252e%252e%252fmembers", "/assets/..%252fmembers", "/assets%252f..%252fmembers", "/assets%255c..%255cmembers",
	"/assets/x#/../../members", "/assets/x%3f/../../members", "/assets/x%23/../../members", "/assets/../members?a=b", "/assets/..?/assets/y",
	"/orgs/globex/..%2facme/reports", "/orgs/globex/%2e%2e/acme/reports", "/orgs/globex/../acme", "/admin/users/..%2f..%2fx", "/admin/..;/x", "/x/../admin",
	"/login/..%2fx", "/sign-out/../x", "/x/..%2fsign-out", "/%2e%2e", "/..", "/.",
}

// notPaths are targets that have no path for Caddy, because they do not begin with a slash. What goes up of the first ones is an absolute
// form, of which every server takes the path (RFC 9112, 3.2.2).
var notPaths = []string{
	"x:http://h/members", "http:http://h/members", "https:http://h/admin/users", "x:http://h/orgs/globex/reports", "x:?/members", "x:members", "*", "http://app.example.com",
}

// TestAttackPathsThatAreReadInTwoWays: where a part of a site is open, or another one's, as in each example of the manual with a path, the
// application behind it gets no path that it could take for one of another part, signed in or not.
func TestAttackPathsThatAreReadInTwoWays(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for name, lines := range examplesWithPaths(t, stack) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, stack, lines)
			for who, as := range map[string]func(*http.Request){
				"nobody": func(*http.Request) {}, "nobody's page": asDocument, "a page after the minute": all(asDocument, s.withCookies(t, "ben", devstack.Expired())),
				"member": s.as(t, "ben"), "admin": s.as(t, "ada"),
			} {
				check := func(target string, status int) {
					t.Helper()
					if signedIn := who == "member" || who == "admin"; signedIn && status != http.StatusBadRequest || status < http.StatusFound {
						t.Errorf("%s, %s: status %d", who, target, status)
					}
					if r, n := s.http.last(); n > 0 {
						t.Fatalf("%s, %s: the application was asked for %s", who, target, r.RequestURI)
					}
				}
				for _, target := range readInTwoWays {
					check(target, s.getRaw(t, target, as))
					check("http://app.example.com"+target, s.getRaw(t, "http://app.example.com"+target, as))
				}
				for _, target := range notPaths {
					check(target, s.getRaw(t, target, as))
				}
				for _, target := range []string{"/members/..%2fassets/y", "/members/x/../../assets/y", "//assets/members", "/orgs/globex/..%2facme/reports"} {
					check(target+" by HTTP/2", s.getHTTP2(t, target, as))
				}
			}
		})
	}
}

// TestCleanPathsComeFirst: however many parts a site has, and of whatever kind, the first line of it is what decides first.
func TestCleanPathsComeFirst(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	lines := ""
	for _, example := range examplesWithPaths(t, stack) {
		lines, _, _ = strings.Cut(example, importCleanPaths)
		break
	}
	lines += importCleanPaths
	for i := range 60 {
		lines += fmt.Sprintf("handle /%s* {\nreverse_proxy {backend}\n}\n", strings.Repeat("a/", (i*37)%60))
	}
	for _, rest := range []string{
		"handle_path /b/* {\nreverse_proxy {backend}\n}", "route /b/* {\nreverse_proxy {backend}\n}", "error /b/* 403", "rewrite /b/* /c\nreverse_proxy {backend}",
		"route {\nuri strip_prefix /b\nreverse_proxy {backend}\n}", "handle {\nhandle /b/* {\nreverse_proxy {backend}\n}\n}", "root * {root}\nphp_fastcgi {php}",
	} {
		s := newSite(t, stack, lines+rest)
		for _, target := range []string{"/a/a/..%2fx", "/a/../b", "/b/..%2fa", "/b/../x"} {
			status := s.getRaw(t, target, func(*http.Request) {})
			_, n := s.http.last()
			_, php := s.php.last()
			if status != http.StatusBadRequest || n > 0 || php > 0 {
				t.Errorf("%s, %s: status %d, asked for %d and %d times", rest, target, status, n, php)
			}
		}
	}
}

// TestPathsThatAreReadInOneWay: all else passes as it was written, of which much is only similar.
func TestPathsThatAreReadInOneWay(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	for name, lines := range examplesWithPaths(t, stack) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, stack, lines)
			for _, target := range []string{
				"/", "/assets/y", "/members", "/a/b/", "/a..b", "/..a/b..", "/a./b", "/.well-known/x", "/...", "/.../a", "/a;b=c/d;", "/files/a%2Fb", "/files/.a%2f.b",
				"/job/feature%252Fbar", "/100%25", "/%E2%82%AC", "/orgs/acme/reports", "/admin/users",
				"/x?next=%2f..%2f", "/x?next=/../y", "/x?u=https://example.com//a/./b", `/x?a=\`, "/x?%2e%2e/", "/x?/..",
			} {
				if status := s.getRaw(t, target, s.as(t, "ada")); status != http.StatusOK {
					t.Errorf("%s: status %d", target, status)
				}
				if r, _ := s.http.last(); r == nil || r.RequestURI != target {
					t.Errorf("%s: the application was asked for %+v", target, r)
				}
				s.http.reset()
			}
		})
	}
}

// TestPathsAreCaddys: the attacks are some. Without the snippet each of the page's addresses reaches the application, past the rule.
func TestPathsAreCaddys(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	examples := examplesWithPaths(t, stack)
	for mark, targets := range map[string][]string{
		"not path /":        {"/members/..%2fassets/y", "/members/x/../../assets/y", "/members/%2e%2e/assets/y", "/assets/..;/members", "//assets/members"},
		"handle @members {": {"x:http://h/members"},
		"error @others":     {"/admin/users/..%2f..%2fx"},
		"error @foreign":    {"/orgs/globex/..%2facme/reports"},
	} {
		found := false
		for name, lines := range examples {
			if !strings.Contains(lines, mark) {
				continue
			}
			found = true
			s := newSite(t, stack, strings.Replace(lines, importCleanPaths, "", 1))
			as := s.as(t, "ben")
			if mark != "error @others" && mark != "error @foreign" {
				as = func(*http.Request) {}
			}
			for _, target := range targets {
				s.getRaw(t, target, as)
				if r, n := s.http.last(); n != 1 || !strings.HasSuffix(target, r.RequestURI) {
					t.Errorf("%s: %s does not reach the application", name, target)
				}
				s.http.reset()
			}
		}
		if !found {
			t.Errorf("no example has %q", mark)
		}
	}
}
