package caddytinybird

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// accessLine is what a line of the access log tells about the user.
type accessLine struct {
	Logger  string      `json:"logger"`
	Status  int         `json:"status"`
	UserID  string      `json:"user_id"`
	User    string      `json:"clerk_user"`
	Org     string      `json:"clerk_org"`
	Headers http.Header `json:"resp_headers"`
}

// awaitLines returns a log once it has n lines with the text: the last request may be answered before it is logged.
func awaitLines(t *testing.T, path, text string, n int) []byte {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		logged, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(logged, []byte(text)) >= n && bytes.HasSuffix(logged, []byte("\n")) {
			return logged
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the requests are not logged: %s", logged)
		}
	}
}

// clerkAuthIn finds the clerk_auth in routes, nil for none.
func clerkAuthIn(routes caddyhttp.RouteList) *ClerkAuth {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *caddyhttp.Subroute:
				if found := clerkAuthIn(h.Routes); found != nil {
					return found
				}
			case *ClerkAuth:
				return h
			}
		}
	}
	return nil
}

// TestP4ClerkAuthLogs: the access log tells who a request was from, and no log has a token, also of those that Clerk is sent. It runs
// alone, because Caddy's logging is one for the process.
//
//nolint:paralleltest // see above
func TestP4ClerkAuthLogs(t *testing.T) {
	stack := newLiveStack(t)
	logFile := filepath.Join(t.TempDir(), "log")
	const secret = "sk_live_planted0123456789012345678901234567890123"
	// Before clerk_auth is encode, which holds headers back.
	s := newSite(t, stack, "global log {\nglobal output file "+logFile+"\nglobal level DEBUG\nglobal }\nlog\nencode\nhandle {\n"+
		strings.Replace(auth, "issuer", "secret_key "+secretFile(t, secret)+"\nissuer", 1)+"respond ok\n}")
	ada, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*http.Request){
		s.as(t, "ada"), nil, asDocument, s.as(t, "ada", devstack.ForeignKey()), s.as(t, "ben", devstack.Expired()),
		s.withCookies(t, "cleo", devstack.Pending()), all(s.withCookies(t, "ada", devstack.Expired()), asDocument),
	} {
		s.ask(t, "/", change)
	}
	location := "https://clerk.example.com/v1/client/handshake?redirect_url=https%3A%2F%2Fx.example&__session=" + ada + "&a=b&__clerk_db_jwt=dvb_planted"
	clerkAuthIn(s.server.Routes).site = decided{&clerk.Outcome{Status: clerk.Handshake, Refusal: refusalFor(t, stack), Location: location, Cookies: []string{"__session=" + ada}}}
	if got := s.ask(t, "/", nil); got.Header.Get("Location") != location {
		t.Errorf("the browser is sent to %s", got.Header.Get("Location"))
	}
	logged := awaitLines(t, logFile, `"logger":"http.log.access`, 8)
	for _, planted := range []string{secret, "planted", "eyJhbGciOi"} {
		if bytes.Contains(logged, []byte(planted)) {
			t.Errorf("%s is in the log: %s", planted, logged)
		}
	}
	u, _ := devstack.UserByKey("ada")
	var lines []accessLine
	for scanner := bufio.NewScanner(bytes.NewReader(logged)); scanner.Scan(); {
		var line accessLine
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line.Logger, "http.log.access") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 8 {
		t.Fatalf("%d requests were logged: %s", len(lines), logged)
	}
	if first := lines[0]; first.Status != 200 || first.UserID != u.ID || first.User != u.ID || first.Org != devstack.AcmeID {
		t.Errorf("logged %+v", first)
	}
	if second := lines[1]; second.Status != 401 || second.UserID != "" || second.User != "" {
		t.Errorf("logged %+v", second)
	}
	if last := lines[7]; last.Status != 307 || last.Headers.Get("Location") != "https://clerk.example.com/v1/client/handshake?redirect_url=https%3A%2F%2Fx.example&a=b" {
		t.Errorf("logged %+v", last)
	}
}

// TestAttackTokenOfTheQueryInLogs: a link with a live session token, as `token_from query` takes it, is opened by a browser that still
// has a trace of an older session and so is sent to Clerk, to return to the link. The filter that the documentation has
// takes the token off the request's line, and nobody else puts it there. It runs alone, because Caddy's logging is one for
// the process.
//
//nolint:paralleltest // see above
func TestAttackTokenOfTheQueryInLogs(t *testing.T) {
	stack := newLiveStack(t)
	logFile := filepath.Join(t.TempDir(), "log")
	s := newSite(t, stack, "global log {\nglobal output file "+logFile+"\nglobal level DEBUG\n"+
		"global format filter {\nglobal request>uri query {\nglobal replace session_jwt REDACTED\nglobal }\nglobal wrap json\nglobal }\nglobal }\nlog\n"+
		strings.Replace(auth, "issuer", "token_from header cookie query session_jwt\nissuer", 1)+"respond ok")
	token, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	got := s.ask(t, "/report?a=b&session_jwt="+token, func(r *http.Request) {
		asDocument(r)
		r.Header.Set("Cookie", "__client_uat=1")
	})
	back := got.location(t).Query().Get("redirect_url")
	if got.StatusCode != http.StatusTemporaryRedirect || back != s.url+"/report?a=b&session_jwt="+token {
		t.Fatalf("status %d, to return to %s", got.StatusCode, back)
	}
	logged := awaitLines(t, logFile, `"logger":"http.log.access`, 1)
	if bytes.Contains(logged, []byte(token)) || bytes.Contains(logged, []byte("eyJ")) {
		t.Errorf("the token is in the log: %s", logged)
	}
	if !bytes.Contains(logged, []byte("redirect_url=")) {
		t.Errorf("where the browser was sent is not in the log: %s", logged)
	}
}
