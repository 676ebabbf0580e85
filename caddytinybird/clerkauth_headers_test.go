package caddytinybird

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// spellings of a header that some backend reads as X-Clerk-User-Id.
var spellings = []string{
	"X-Clerk-User-Id", "x-clerk-user-id", "X-CLERK-USER-ID", "x_clerk_user_id", "X_Clerk_User_Id", "X-Clerk_User-Id", "X_Clerk-User_Id",
	"X.Clerk.User.Id", "X-Clerk.User_Id", "x~clerk!user*id", "X-Clerk-", "X_Clerk_", "X-Clerk-Anything-Else",
}

// TestIdentityHeadersAreNotTheClients (CVE-2026-30851, CVE-2026-52845): no spelling of an identity header that a client sends gets to what
// is behind, whoever it is signed in as and whether or not the backend is told.
func TestIdentityHeadersAreNotTheClients(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	ada, _ := devstack.UserByKey("ada")
	dana, _ := devstack.UserByKey("dana")
	for option, prefix := range map[string]string{"errors json": "", "forward_identity": "X-Clerk-", "forward_identity Remote-": "Remote-"} {
		names := slices.Clone(spellings)
		if prefix == "Remote-" {
			names = append(names, "Remote-User-Id", "remote_user_id", "REMOTE.User", "Remote-Anything")
		}
		h := provisioned(t, stack, strings.Replace(auth, "issuer", option+"\noptional\nissuer", 1))
		for user, identity := range map[string]*devstack.User{"": nil, "ada": &ada, "dana": &dana} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			for _, name := range names {
				r.Header[name] = []string{"planted", "twice"}
			}
			r.Header.Set("X-Clerkish", "kept")
			r.Header.Set("X-Clerk", "kept")
			if user != "" {
				token, err := stack.Issuer.Token(user)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+token)
			}
			seen := pass(t, h, r)
			want := map[string]string{}
			if identity != nil && prefix != "" {
				want[prefix+"User-Id"], want[prefix+"Session-Id"] = identity.ID, identity.SessionID
				if o := identity.Organization; o != nil {
					want[prefix+"Org-Id"], want[prefix+"Org-Slug"], want[prefix+"Org-Role"] = o.ID, o.Slug, o.Role
				}
			}
			got := map[string]string{}
			for name, values := range seen.Header {
				if strings.Contains(strings.Join(values, " "), "planted") {
					t.Errorf("%s, %s: %s got through", option, user, name)
				}
				if name != "Authorization" && name != "X-Clerkish" && name != "X-Clerk" {
					got[name] = strings.Join(values, "|")
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s, %s: the backend is told %v, want %v", option, user, got, want)
			}
			if seen.Header.Get("X-Clerkish") != "kept" || seen.Header.Get("X-Clerk") != "kept" {
				t.Errorf("%s, %s: a header of another name is gone", option, user)
			}
		}
	}
}

// provisioned is the one clerk_auth in the lines, provisioned.
func provisioned(t *testing.T, stack *devstack.Stack, lines string) *ClerkAuth {
	t.Helper()
	h := new(ClerkAuth)
	if err := unmarshal(h, strings.NewReplacer("{pk}", stack.Issuer.PublishableKey(), "{issuer}", stack.IssuerURL).Replace(lines)); err != nil {
		t.Fatal(err)
	}
	if err := h.Provision(newContext(t, storageDir(t))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// pass returns the request as it comes out of the handler.
func pass(t *testing.T, h *ClerkAuth, r *http.Request) *http.Request {
	t.Helper()
	var seen *http.Request
	w := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
	err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		seen = r
		return nil
	}))
	if err != nil || seen == nil {
		t.Fatalf("did not pass: %v, status %d, %s", err, w.Code, w.Body)
	}
	return seen
}

// TestIdentityHeadersAtBackends: through Caddy's own proxies a backend sees the session's identity and nothing planted, also
// where Caddy lets headers with underscores and dots in.
func TestIdentityHeadersAtBackends(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	ada, _ := devstack.UserByKey("ada")
	protect := strings.Replace(auth, "issuer", "forward_identity\noptional\nissuer", 1)
	for _, global := range []string{"", "global servers {\nglobal expected_underscore_headers X_Clerk_* X-Clerk_*\nglobal expected_dot_headers X.Clerk.*\nglobal }\n"} {
		for _, behind := range []string{"reverse_proxy {backend}", "root * {root}\nphp_fastcgi {php}"} {
			s := newSite(t, stack, global+protect+behind)
			for user, want := range map[string]string{"": "", "ada": ada.ID} {
				plant := func(r *http.Request) {
					for _, name := range spellings {
						r.Header[name] = []string{"planted"}
					}
					r.Header["X-Clerk-Org-Id"] = []string{"planted"}
				}
				if user != "" {
					plant = all(plant, s.as(t, user))
				}
				if got := s.ask(t, "/app/page.php", plant); got.StatusCode != http.StatusOK {
					t.Fatalf("status %d, %s", got.StatusCode, got.body)
				}
				up, _ := s.http.last()
				if up == nil {
					up, _ = s.php.last()
				}
				for name, values := range up.Header {
					if strings.Contains(strings.Join(values, " "), "planted") {
						t.Errorf("%s got through: %v", name, values)
					}
				}
				if got := up.Header.Values("X-Clerk-User-Id"); want == "" && len(got) != 0 || want != "" && !slices.Equal(got, []string{want}) {
					t.Errorf("X-Clerk-User-Id is %q, want %q", got, want)
				}
				for _, env := range s.php.env {
					for name, value := range env {
						if strings.Contains(value, "planted") {
							t.Errorf("%s got through", name)
						}
					}
				}
			}
		}
	}
}

// TestIdentityHeadersInTrailers: what comes after the body is no better, whether it was announced or not.
func TestIdentityHeadersInTrailers(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.Replace(auth, "issuer", "forward_identity\noptional\nissuer", 1)+"reverse_proxy {backend}")
	for _, announced := range []string{"X-Note", "X-Note, X-Clerk-User-Id, x_clerk_org_id", "X-Clerk-User-Id"} {
		s.http.reset()
		s.raw(t, "POST / HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\nTrailer: "+announced+
			"\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\nX-Note: kept\r\nX-Clerk-User-Id: planted\r\nx_clerk_org_id: planted\r\n\r\n")
		up, _ := s.http.last()
		if up == nil || s.http.bodies[0] != "hello" {
			t.Fatalf("announced %s: nothing arrived", announced)
		}
		for name, values := range up.Trailer {
			if strings.Contains(strings.Join(values, " "), "planted") {
				t.Errorf("announced %s: the trailer %s got through", announced, name)
			}
		}
		if strings.HasPrefix(announced, "X-Note") && up.Trailer.Get("X-Note") != "kept" {
			t.Errorf("announced %s: the other trailer is gone: %v", announced, up.Trailer)
		}
	}
}

// TestConnectionDoesNotDropIdentity: a client cannot have a proxy take an identity header away, as if the user had no organization.
func TestConnectionDoesNotDropIdentity(t *testing.T) {
	t.Parallel()
	stack := newLiveStack(t)
	s := newSite(t, stack, strings.Replace(auth, "issuer", "forward_identity\nissuer", 1)+"reverse_proxy {backend}")
	token, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	s.raw(t, "GET / HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer "+token+
		"\r\nX-Other: x\r\nConnection: X-Clerk-Org-Id\r\nConnection: x-clerk-user-id , X-Other, close\r\n\r\n")
	up, _ := s.http.last()
	if up == nil {
		t.Fatal("nothing arrived")
	}
	ada, _ := devstack.UserByKey("ada")
	if up.Header.Get("X-Clerk-User-Id") != ada.ID || up.Header.Get("X-Clerk-Org-Id") != devstack.AcmeID {
		t.Errorf("the backend is told %v", up.Header)
	}
	if up.Header.Get("X-Other") != "" {
		t.Error("what else the Connection header lists was not dropped")
	}
}

// TestIdentityHeaderValues: a value that would not arrive as it is stays out.
func TestIdentityHeaderValues(t *testing.T) {
	t.Parallel()
	h := newIdentityHeaders("X-Clerk-")
	header := http.Header{}
	h.set(header, &clerk.Identity{UserID: "user_1\r\nX-Clerk-Org-Id: org_2", SessionID: " sess", OrgID: "org_\x00", OrgSlug: "größe", OrgRole: "org:admin"})
	if len(header) != 1 || header.Get("X-Clerk-Org-Role") != "org:admin" {
		t.Errorf("%v", header)
	}
}

// raw sends bytes as they are, and waits for the answer.
func (s *site) raw(t testing.TB, request string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
}

// FuzzIdentityHeaders holds that no name of a header that is left is one that a backend takes for an identity header.
func FuzzIdentityHeaders(f *testing.F) {
	for _, name := range spellings {
		f.Add(name, "X-Clerk-")
	}
	f.Add("Remote_User", "Remote-")
	f.Fuzz(func(t *testing.T, name, prefix string) {
		if checkHeaderPrefix(prefix) != nil {
			return
		}
		h := newIdentityHeaders(prefix)
		r := &http.Request{Header: http.Header{name: {"planted"}}}
		h.clear(r)
		// As CGI has it, and PHP on top of that.
		cgi := func(text string) string {
			return strings.Map(func(c rune) rune {
				if 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
					return c
				}
				return '_'
			}, strings.ToUpper(text))
		}
		for left := range r.Header {
			for _, own := range []string{prefix, defaultHeaderPrefix} {
				if isASCII(left) && strings.HasPrefix(cgi(left), cgi(own)) {
					t.Errorf("%q is left, and is %s", left, cgi(left))
				}
			}
		}
	})
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c > '~' })
}
