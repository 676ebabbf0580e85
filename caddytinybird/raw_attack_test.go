package caddytinybird

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// answers sends bytes to the site and reads answers until it closes the connection or says nothing more.
func (s *site) answers(t *testing.T, text string) (status []int, bodies []string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return status, bodies
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil && !strings.HasPrefix(text, http.MethodHead) {
			t.Errorf("the answer broke off: %v", err)
		}
		status, bodies = append(status, resp.StatusCode), append(bodies, string(body))
	}
}

// TestAttackRawRequests: bytes that servers read in two ways, through Caddy's server with handle_path and rewrite in front. Whatever
// is made of them, what goes up is the read of one listed pipe for the session's tenant, or nothing.
func TestAttackRawRequests(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	s := newSite(t, stack, "handle_path /api/* {\ntinybird {\nclerk {pk} {\nissuer {issuer}\n}\nsigning_key "+secretFile(t, stack.API.SigningKey())+
		"\nworkspace_id "+stack.API.WorkspaceID()+"\nupstream "+stack.APIURL+"\ntoken_endpoint /token\n"+
		"pipe top_pages {\nfixed_param organization_id {clerk.org.id}\n}\n}\n}\nrewrite /old/* /api/v0/pipes/{path.1}\nrespond 418")
	ada, _ := devstack.UserByKey("ada")
	token, err := stack.Issuer.Token("ada")
	if err != nil {
		t.Fatal(err)
	}
	const path = "/api/v0/pipes/top_pages.json"
	auth := "Authorization: Bearer " + token + "\r\n"
	get := "GET " + path + " HTTP/1.1\r\nHost: edge\r\n" + auth
	post := "POST " + path + " HTTP/1.1\r\nHost: edge\r\n" + auth + "Content-Type: application/json\r\n"
	last := "Connection: close\r\n\r\n"
	theft := "GET " + path + "?organization_id=org_other HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n" // without a session
	chunked := func(body string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body) }
	at := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: edge\r\n" + auth + last }
	for name, tt := range map[string]struct {
		text   string
		status []int // of all answers
		up     int   // requests
	}{
		"as it should be":             {get + last, []int{200}, 1},
		"rewritten":                   {at("/old/top_pages.json"), []int{200}, 1},
		"absolute, another host":      {"GET http://edge" + path + " HTTP/1.1\r\nHost: evil\r\n" + auth + last, []int{200}, 1},
		"prefix in capitals":          {at("/API/v0/pipes/top_pages.json"), []int{200}, 1},
		"escape in the prefix":        {at("/%61pi/v0/pipes/top_pages.json"), []int{200}, 1},
		"escaped slash in the prefix": {at("/api%2Fv0/pipes/top_pages.json"), []int{200}, 1},
		"escape in the rest":          {at("/api/v0/pipes/top%5Fpages.json"), []int{404}, 0},
		"dots after the prefix":       {at("/api/../v0/pipes/top_pages.json"), []int{418}, 0},
		"dots before the prefix":      {at("/x/../api/v0/pipes/top_pages.json"), []int{200}, 1},
		"two slashes":                 {at("/api//v0/pipes/top_pages.json"), []int{200}, 1},
		"the prefix twice":            {at("/api/api/v0/pipes/top_pages.json"), []int{404}, 0},
		"token endpoint, escaped":     {at("/api/%74oken"), []int{404}, 0},
		"lower-case method":           {"get" + strings.TrimPrefix(get, "GET") + last, []int{405}, 0},
		"HEAD":                        {"HEAD" + strings.TrimPrefix(get, "GET") + last, []int{405}, 0},
		"TRACE":                       {"TRACE" + strings.TrimPrefix(get, "GET") + last, []int{405}, 0},
		"CONNECT":                     {"CONNECT edge:443 HTTP/1.1\r\nHost: edge\r\n" + auth + last, []int{418}, 0},
		"method override":             {get + "X-HTTP-Method-Override: DELETE\r\n" + last, []int{200}, 1},
		"websocket":                   {get + "Upgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n", []int{400}, 0},
		"h2c":                         {get + "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\r\n", []int{400}, 0},
		"length and chunks":           {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(`{}`) + theft, []int{200, 401}, 1},
		"chunks hidden by a tab":      {post + "Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n\r\n" + chunked(`{}`) + theft, []int{200, 401}, 1},
		"chunks, twice":               {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(`{}`) + theft, []int{501}, 0},
		"chunks of another kind":      {post + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked(`{}`) + theft, []int{501}, 0},
		"two lengths":                 {post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} " + theft, []int{400}, 0},
		"a length with a plus":        {post + "Content-Length: +2\r\n\r\n{}" + theft, []int{400}, 0},
		"a name with a space":         {post + "Content-Length : 2\r\n\r\n{}" + theft, []int{400}, 0},
		"line feeds alone":            {strings.ReplaceAll(get+last, "\r\n", "\n"), []int{200}, 1},
		"a folded header":             {get + "X-A: b\r\n Authorization: Bearer x\r\n" + last, []int{200}, 1},
		"two hosts":                   {get + "Host: evil\r\n" + last, []int{400}, 0},
		"two tokens":                  {get + auth + last, []int{400}, 0},
		"NUL":                         {get + "Accept: a\x00b\r\n" + last, []int{400}, 0},
		"a GET with a request inside": {get + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(theft)) + theft + theft, []int{200, 401}, 1},
		"an answer to wait for":       {post + "Expect: 100-continue\r\nContent-Length: 2\r\n" + last + "{}", []int{100, 200}, 1},
		"another expectation":         {get + "Expect: 200-ok\r\n" + last, []int{417}, 0},
		"trailers":                    {post + "Transfer-Encoding: chunked\r\nTrailer: Authorization, Organization_id\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\nAuthorization: Bearer p.x\r\nOrganization_id: org_other\r\nContent-Length: 9\r\n\r\n", []int{200}, 1},
		"a part":                      {get + "Range: bytes=0-1\r\nIf-Range: \"x\"\r\n" + last, []int{200}, 1},
		"conditions":                  {get + "If-Match: \"x\"\r\nIf-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n" + last, []int{200}, 1},
		"two types":                   {post + "Content-Type: text/plain\r\nContent-Length: 2\r\n" + last + "{}", []int{415}, 0},
		"a form":                      {strings.Replace(post, "application/json", "application/x-www-form-urlencoded", 1) + "Content-Length: 25\r\n" + last + "organization_id=org_other", []int{415}, 0},
		"the tenant in the body":      {post + "Content-Length: 37\r\n" + last + `{"Organization_\u0069d":"org_other"} `, []int{200}, 1},
		"the tenant in the query":     {at(path + "?organization%5Fid=org_other&ORGANIZATION_ID=org_other&organization_id%00=org_other"), []int{400}, 0},
		"a query in a fragment":       {at(path + "#?organization_id=org_other"), []int{404}, 0},
		"HTTP/1.0":                    {"GET " + path + " HTTP/1.0\r\n" + auth + "\r\n", []int{200}, 1},
		"two in one":                  {get + "\r\n" + theft, []int{200, 401}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			stack.API.Reset()
			status, bodies := s.answers(t, tt.text)
			if !slices.Equal(status, tt.status) {
				t.Errorf("answered %v %q", status, bodies)
			}
			up := stack.API.Requests()
			if len(up) != tt.up {
				t.Errorf("%d requests went up, want %d", len(up), tt.up)
			}
			for _, r := range up {
				if r.Path != "/v0/pipes/top_pages.json" || len(r.Tokens) != 1 || mentions(r, "org_other") || mentions(r, "p.x") {
					t.Errorf("%s %s?%s went up: %v %s", r.Method, r.Path, r.RawQuery, r.Header, r.Body)
				}
				if scopes := fmt.Sprint(r.Claims["scopes"]); !strings.Contains(scopes, ada.Organization.ID) {
					t.Errorf("the token is for %s", scopes)
				}
			}
		})
	}
}
