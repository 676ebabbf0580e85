//go:build integration

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// rawSites are one that takes every host, so that a request that names another one gets as far as it can, and one of
// a single host at another address.
const rawSites = `
http://:{$PORT} {
	bind 127.0.0.1
	tinybird {
		` + credentials + allPipes + `
	}
}
`

// rawCase is what a client writes byte for byte. $ADA, $BEN and $CLEO are the users' tokens, $AUTH is ada's header line,
// $HOST the edge's address, $GET a request line for ada's rows and the Host line, and lines end with \r\n once a newline is written.
type rawCase struct {
	name string
	raw  string
	want []int    // the answers' statuses; empty: any single refusal by the server itself
	up   []string // whose questions go up, in this order
}

const getLive = "GET /v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n"

const postLive = "POST /v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTHContent-Type: application/json\n"

// smuggled is a whole request that hides in what should be a body.
const smuggled = "GET /v0/pipes/live_events.json?smuggled=1 HTTP/1.1\nHost: $HOST\nAuthorization: Bearer $CLEO\n\n"

var (
	forAda  = []string{"ada"}
	served  = []int{200}
	nothing []string
)

// headerCases are about header lines that a proxy may strip, add or join.
var headerCases = []rawCase{
	{"plain", getLive + "$AUTH\n", served, forAda},
	{"connection lists authorization", getLive + "$AUTHConnection: Authorization\n\n", served, forAda},
	{"connection lists everything", getLive + "$AUTHConnection: Authorization, Host, Content-Type, Accept, close, keep-alive, Cookie\n\n", served, forAda},
	{"connection lists the limits", getLive + "$AUTHConnection: X-RateLimit-Limit, Cache-Control\n\n", served, forAda},
	{"keep-alive and proxy-connection", getLive + "$AUTHKeep-Alive: timeout=5\nProxy-Connection: keep-alive\nTE: trailers\n\n", served, forAda},
	{"two authorization headers", getLive + "$AUTHAuthorization: Bearer $CLEO\n\n", []int{400}, nothing},
	{"two spellings of authorization", getLive + "authorization: Bearer $CLEO\nAUTHORIZATION: Bearer $ADA\n\n", []int{400}, nothing},
	{"one authorization with two tokens", getLive + "Authorization: Bearer $ADA, Bearer $CLEO\n\n", []int{401}, nothing},
	{"authorization with an underscore beside", getLive + "$AUTHAuthorization_: Bearer $CLEO\nProxy_Authorization: x\n\n", served, forAda},
	{"authorization with a dot beside", getLive + "$AUTHAuthorization.: Bearer $CLEO\n\n", served, forAda},
	{"content length with an underscore", getLive + "$AUTHContent_Length: 5\nTransfer_Encoding: chunked\n\n", served, forAda},
	{"space before the colon", getLive + "Authorization : Bearer $ADA\n\n", []int{400}, nothing},
	// As Clerk reads it: the second word is the token.
	{"another header folded into authorization", getLive + "X: y\n$AUTH Authorization: Bearer $CLEO\n\n", served, forAda},
	{"folded header", getLive + "Authorization: Bearer\n $ADA\n\n", served, forAda},
	{"folded first header", "GET /v0/pipes/live_events.json HTTP/1.1\n Host: $HOST\n$AUTH\n", []int{400}, nothing},
	{"NUL in a header", getLive + "$AUTHX: a\x00b\n\n", []int{400}, nothing},
	{"NUL in the token", getLive + "Authorization: Bearer $ADA\x00\n\n", []int{400}, nothing},
	{"CR in a header", getLive + "$AUTHX: a\rAuthorization: Bearer $CLEO\n\n", []int{400}, nothing},
	{"header without a colon", getLive + "$AUTHX\n\n", []int{400}, nothing},
	{"header with an empty name", getLive + "$AUTH: x\n\n", []int{400}, nothing},
	{"two hosts", getLive + "Host: evil.example\n$AUTH\n", []int{400}, nothing},
	{"no host", "GET /v0/pipes/live_events.json HTTP/1.1\n$AUTH\n", []int{400}, nothing},
	{"another host", "GET /v0/pipes/live_events.json HTTP/1.1\nHost: api.tinybird.co\n$AUTH\n", served, forAda},
	{"other ways to say another host", getLive + "$AUTHX-Forwarded-Host: evil.example\nX-Original-URL: /v0/sql\nX-Rewrite-URL: /v0/sql\nForwarded: host=evil.example\n\n", served, forAda},
	{"other ways to say another method", getLive + "$AUTHX-HTTP-Method-Override: DELETE\nX-Method-Override: PUT\n\n", served, forAda},
	{"another's cookie beside the header", getLive + "$AUTHCookie: __session=$CLEO; __client_uat=1\n\n", served, forAda},
	{"upgrade to websocket", getLive + "$AUTHConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n", []int{400}, nothing},
	{"upgrade to h2c", getLive + "$AUTHConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n\n", []int{400}, nothing},
	{"upgrade without connection", getLive + "$AUTHUpgrade: h2c\n\n", []int{400}, nothing},
	{"connection upgrade alone", getLive + "$AUTHConnection: keep-alive, UPGRADE\n\n", []int{400}, nothing},
	{"header over the limit", getLive + "$AUTHX: " + strings.Repeat("a", 1<<20) + "\n\n", []int{431}, nothing},
	{"header just over the default", getLive + "$AUTHX: " + strings.Repeat("a", 21<<10) + "\n\n", []int{431}, nothing},
	{"header below the default", getLive + "$AUTHX: " + strings.Repeat("a", 12<<10) + "\n\n", served, forAda},
}

// targetCases are about where a request goes.
var targetCases = []rawCase{
	{"absolute form", "GET http://$HOST/v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", served, forAda},
	{"absolute form of another host", "GET http://api.tinybird.co/v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", served, forAda},
	{"absolute form with credentials", "GET http://a:b@evil.example/v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", served, forAda},
	{"absolute form with https", "GET https://evil.example:1/v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", served, forAda},
	{"absolute form with another scheme", "GET file:///v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", served, forAda},
	{"two slashes first", "GET //evil.example/v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{404}, nothing},
	{"authority form", "GET evil.example:80 HTTP/1.1\nHost: $HOST\n$AUTH\n", nil, nothing},
	{"asterisk form", "GET * HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{404}, nothing},
	{"options asterisk", "OPTIONS * HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{200}, nothing},
	{"no path", "GET  HTTP/1.1\nHost: $HOST\n$AUTH\n", nil, nothing},
	{"connect", "CONNECT api.tinybird.co:443 HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{404}, nothing},
	{"connect with a path", "CONNECT /v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{405}, nothing},
	{"trace", "TRACE /v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{405}, nothing},
	{"lower case method", "get /v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{405}, nothing},
	{"unknown method", "GETX /v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{405}, nothing},
	{"fragment", "GET /v0/pipes/live_events.json#x HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{404}, nothing},
	{"two spaces in the request line", "GET  /v0/pipes/live_events.json HTTP/1.1\nHost: $HOST\n$AUTH\n", nil, nothing},
	{"tab in the request line", "GET\t/v0/pipes/live_events.json\tHTTP/1.1\nHost: $HOST\n$AUTH\n", nil, nothing},
	{"NUL in the path", "GET /v0/pipes/live_events.json\x00 HTTP/1.1\nHost: $HOST\n$AUTH\n", nil, nothing},
	{"bytes over 127 in the path", "GET /v0/pipes/live_events.json\xff HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{404}, nothing},
	{"HTTP/1.0", "GET /v0/pipes/live_events.json HTTP/1.0\n$AUTH\n", served, forAda},
	{"HTTP/1.0 kept", "GET /v0/pipes/live_events.json HTTP/1.0\nConnection: keep-alive\n$AUTH\n", served, forAda},
	{"HTTP/0.9", "GET /v0/pipes/live_events.json\n", nil, nothing},
	{"HTTP/2.0 in a line", "GET /v0/pipes/live_events.json HTTP/2.0\nHost: $HOST\n$AUTH\n", nil, nothing},
}

// pathCases are spellings of a path that something else could read as a pipe's. All are 404, and nothing goes up.
var pathCases = []string{
	"/v0/pipes%2flive_events.json", "/v0%2Fpipes%2Flive_events.json", "/v0/pipes/live_events%2ejson", "/v0/pipes/live_events%2Ejson",
	"/v0/pipes/%6cive_events.json", "/%76%30/pipes/live_events.json", "/v0/pipes/live_events.%6ason", "/v0/pipes/live_events%252ejson",
	"/v0/./pipes/live_events.json", "/v0/../v0/pipes/live_events.json", "/v0/pipes/../pipes/live_events.json", "/v0/pipes/../sql",
	"/v0/pipes/%2e%2e/sql", "/v0/pipes/..%2fsql", "/v0/pipes/live_events.json/..", "/v0/pipes/live_events.json/", "/v0/pipes//live_events.json",
	"//v0/pipes/live_events.json", "/v0//pipes/live_events.json", "/v0/pipes/live_events.json%00", "/v0/pipes/live_events.json%20",
	"/v0/pipes/live_events.json%0d%0aX:1", "/v0/pipes/live_events.json%3fq=1", "/v0/pipes/live_events.json;x=1", "/v0/pipes/live_events;.json",
	`/v0\pipes\live_events.json`, `/v0/pipes/..\sql`, "/V0/PIPES/live_events.json", "/v0/pipes/Live_events.json", "/v0/pipes/live_events.JSON",
	"/v0/pipes/live_events.json.json", "/v0/pipes/live_events..json", "/v0/pipes/.json", "/v0/pipes/live_events.", "/v0/pipes/live_events",
	"/v0/pipes/", "/v0/pipes", "/v0/pipes/t_live0events.json", "/v0/pipes/live_events.json&x", "/v0/pipes/live_events,top_pages.json",
	"/v0/pipes/live-events.json", "/v0/pipes/l\u0131ve_events.json", "/v0/pipes/live_events.json%E2%80%8B", "/v0/tokens", "/v0/sql?q=SELECT+1", "/v0/datasources",
}

// bodyCases are about where a request ends, which is where one request can hide in another.
var bodyCases = []rawCase{
	{"body of a GET", getLive + "$AUTHContent-Length: 2\n\n{}", served, forAda},
	{"request in the body of a GET", getLive + "$AUTHContent-Length: $LEN(smuggled)\n\n" + smuggled, served, forAda},
	{"request in the body of a POST", postLive + "Content-Length: $LEN(smuggled)\n\n" + smuggled, []int{400}, nothing},
	{"request in the body of a refused request", "GET /v0/other HTTP/1.1\nHost: $HOST\nContent-Length: $LEN(smuggled)\n\n" + smuggled, []int{404}, nothing},
	{"request in the chunks of a GET", getLive + "$AUTHTransfer-Encoding: chunked\n\n$HEX(smuggled)\n" + smuggled + "\n0\n\n", served, forAda},
	{"both lengths, chunks end first", postLive + "Content-Length: 6\nTransfer-Encoding: chunked\n\n0\n\n", served, forAda},
	{"both lengths, a request after the chunks", postLive + "Content-Length: $LEN(hidden)\nTransfer-Encoding: chunked\n\n0\n\n" + smuggled, []int{200, 200}, []string{"ada", "cleo"}},
	{"both lengths, length first", postLive + "Transfer-Encoding: chunked\nContent-Length: 2\n\n2\n{}\n0\n\n", served, forAda},
	{"two lengths that differ", postLive + "Content-Length: 2\nContent-Length: 4\n\n{}{}", []int{400}, nothing},
	{"two lengths in a line", postLive + "Content-Length: 2, 4\n\n{}{}", []int{400}, nothing},
	{"two lengths that agree", postLive + "Content-Length: 2\nContent-Length: 2\n\n{}", served, forAda},
	{"length with a sign", postLive + "Content-Length: +2\n\n{}", []int{400}, nothing},
	{"negative length", postLive + "Content-Length: -2\n\n{}", []int{400}, nothing},
	{"hexadecimal length", postLive + "Content-Length: 0x2\n\n{}", []int{400}, nothing},
	{"empty length", postLive + "Content-Length: \n\n{}", []int{400}, nothing},
	{"huge length", postLive + "Content-Length: 99999999999999999999\n\n{}", []int{400}, nothing},
	{"length over the limit", postLive + "Content-Length: 1048577\nExpect: 100-continue\nConnection: close\n\n", []int{413}, nothing},
	{"unknown encoding", postLive + "Transfer-Encoding: xchunked\n\n0\n\n", []int{501}, nothing},
	{"encoding after chunked", postLive + "Transfer-Encoding: chunked, gzip\n\n0\n\n", []int{501}, nothing},
	{"chunked twice", postLive + "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n", []int{501}, nothing},
	{"identity and length", postLive + "Transfer-Encoding: identity\nContent-Length: 2\n\n{}", []int{501}, nothing},
	{"chunked after a space", postLive + "Transfer-Encoding : chunked\nContent-Length: 2\n\n{}", []int{400}, nothing},
	{"chunked after a vertical tab", postLive + "Transfer-Encoding: \vchunked\n\n0\n\n", []int{400}, nothing},
	{"chunked with HTTP/1.0", strings.Replace(postLive, "HTTP/1.1", "HTTP/1.0", 1) + "Transfer-Encoding: chunked\n\n", served, forAda},
	{"chunk extension", postLive + "Transfer-Encoding: chunked\n\n2;a=b;c=\"d\"\n{}\n0;e\n\n", served, forAda},
	{"chunk size with a sign", postLive + "Transfer-Encoding: chunked\n\n+2\n{}\n0\n\n", []int{400}, nothing},
	{"chunk size with a prefix", postLive + "Transfer-Encoding: chunked\n\n0x2\n{}\n0\n\n", []int{400}, nothing},
	{"huge chunk size", postLive + "Transfer-Encoding: chunked\n\nffffffffffffffff2\n{}\n0\n\n", []int{400}, nothing},
	{"chunk longer than its size", postLive + "Transfer-Encoding: chunked\n\n1\n{}\n0\n\n", []int{400}, nothing},
	{"trailer with a credential", postLive + "Transfer-Encoding: chunked\nTrailer: Authorization, Content-Length\n\n2\n{}\n0\nAuthorization: Bearer $CLEO\nContent-Length: 99\n\n", nil, nothing},
	{"trailer that was not announced", postLive + "Transfer-Encoding: chunked\n\n2\n{}\n0\nX-Organization: other\nToken: x\n\n", served, forAda},
	{"pipelined requests of several tenants", getLive + "$AUTH\n" + getLive + "Authorization: Bearer $CLEO\n\n" + getLive + "Authorization: Bearer $BEN\n\n", []int{200, 200, 200}, []string{"ada", "cleo", "ben"}},
	{"pipelined after a refusal", getLive + "\n" + getLive + "Authorization: Bearer $CLEO\n\n", []int{401, 200}, []string{"cleo"}},
	{"pipelined after a body that is not read", getLive + "Content-Length: 5\n\nabcde" + getLive + "Authorization: Bearer $CLEO\n\n", []int{401, 200}, []string{"cleo"}},
	{"empty lines first", "\n\n" + getLive + "$AUTH\n", nil, nothing},
	{"continue is asked for", postLive + "Content-Length: 2\nExpect: 100-continue\n\n{}", []int{100, 200}, forAda},
	{"continue is asked for, refused", strings.Replace(postLive, "$AUTH", "", 1) + "Content-Length: 2\nExpect: 100-continue\nConnection: close\n\n", []int{401}, nothing},
	{"something else is expected", postLive + "Content-Length: 2\nExpect: the-unexpected\n\n{}", []int{417}, nothing},
}

// bareCases have bare line feeds instead of \r\n. Go's server reads them as line ends, except in chunks.
var bareCases = []rawCase{
	{"bare line feeds", getLive + "$AUTH\n", served, forAda},
	{"bare line feeds in chunks", postLive + "Transfer-Encoding: chunked\n\n2\n{}\n0\n\n", []int{400}, nothing},
	{"bare line feeds, two requests", getLive + "$AUTH\n" + getLive + "Authorization: Bearer $CLEO\n\n", []int{200, 200}, []string{"ada", "cleo"}},
}

// TestRawRequests: whatever a client writes, what goes up is nothing or as many well-formed questions as it may ask, each for
// its own tenant. After every case the connection is asked once more, so that a rest that was left in it shows.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	e := newEdge(t, devstack.Options{})
	_, port, _ := strings.Cut(e.addr, ":")
	e.setenv("PORT", port)
	e.run(t, caddyfile("", rawSites))
	crlf := func(raw string) string { return strings.ReplaceAll(raw, "\n", "\r\n") }
	bare := func(raw string) string { return raw }
	// One after the other: what the API has seen is then that of the case.
	for _, c := range slices.Concat(headerCases, targetCases, bodyCases) {
		t.Run(c.name, func(t *testing.T) { c.run(t, e, crlf) })
	}
	for _, c := range bareCases {
		t.Run(c.name, func(t *testing.T) { c.run(t, e, bare) })
	}
	for _, path := range pathCases {
		t.Run(path, func(t *testing.T) {
			rawCase{path, "GET " + path + " HTTP/1.1\nHost: $HOST\n$AUTH\n", []int{404}, nothing}.run(t, e, crlf)
		})
	}
	// Once the process is gone, nothing can come any more.
	e.stack.API.Reset()
	e.terminate(t)
	if err := e.wait(t); err != nil {
		t.Error(err)
	}
	if late := e.stack.API.Requests(); len(late) != 0 {
		t.Errorf("%d requests went up later", len(late))
	}
}

// lastRequest is the request after a case: it is answered 404 and ends the connection.
const lastRequest = "GET /last HTTP/1.1\nHost: $HOST\nConnection: close\n\n"

// closing requests end their connection themselves.
var closing = regexp.MustCompile(`HTTP/1\.0\n(\$|Host)|(?m)^Connection: .*\bclose\b`)

func (c rawCase) run(t *testing.T, e *edge, ends func(string) string) {
	t.Helper()
	e.stack.API.Reset()
	hidden := ends(e.fill(t, smuggled))
	raw := strings.NewReplacer(
		"$LEN(smuggled)", fmt.Sprint(len(hidden)), "$HEX(smuggled)", fmt.Sprintf("%x", len(hidden)), "$LEN(hidden)", fmt.Sprint(len(hidden)+5),
	).Replace(ends(e.fill(t, c.raw)))

	conn, err := dial(e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	if err := conn.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if !closing.MatchString(c.raw) {
		raw += ends(e.fill(t, lastRequest))
	}
	// The server may answer and close before it has read everything.
	_, _ = io.WriteString(conn.conn, raw)
	statuses := answers(t, conn.r, e)

	if n := len(statuses); n > 1 && statuses[n-1] == http.StatusNotFound && n > len(c.want) {
		statuses = statuses[:n-1] // that of lastRequest
	}
	switch {
	case c.want == nil && (len(statuses) > 1 || len(statuses) == 1 && statuses[0] < 400):
		t.Errorf("answers %v, want a refusal and no more", statuses)
	case c.want != nil && !slices.Equal(statuses, c.want):
		t.Errorf("answers %v, want %v", statuses, c.want)
	}
	up := e.stack.API.Requests()
	if len(up) != len(c.up) {
		t.Fatalf("%d requests went up, want %d: %+v", len(up), len(c.up), up)
	}
	for n, user := range c.up {
		wellFormed(t, e, up[n], user, "live_events")
		hiding := strings.Contains(up[n].RawQuery, "smuggled")
		if hiding && !strings.Contains(c.name, "a request after the chunks") {
			t.Errorf("a request that was a body went up: %+v", up[n])
		}
	}
}

// fill puts fresh tokens and the address into a text.
func (e *edge) fill(t *testing.T, text string) string {
	t.Helper()
	text = strings.ReplaceAll(text, "$AUTH", "Authorization: Bearer $ADA\n")
	for _, user := range []string{"ada", "ben", "cleo"} {
		if mark := "$" + strings.ToUpper(user); strings.Contains(text, mark) {
			text = strings.ReplaceAll(text, mark, e.token(t, user))
		}
	}
	return strings.ReplaceAll(text, "$HOST", e.addr)
}

// answers reads all answers until the server closes.
func answers(t *testing.T, r *bufio.Reader, e *edge) (statuses []int) {
	t.Helper()
	for {
		if _, err := r.Peek(1); err != nil {
			return statuses
		}
		resp, err := http.ReadResponse(r, nil)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return statuses
		}
		if err != nil {
			t.Fatalf("no HTTP in the answer: %v\n%s", err, e.log.tail())
		}
		// The server's own refusals end with the connection, which it may reset.
		if _, err := io.Copy(io.Discard, resp.Body); err != nil && resp.ContentLength >= 0 {
			t.Errorf("an answer broke off: %v", err)
		}
		resp.Body.Close()
		statuses = append(statuses, resp.StatusCode)
	}
}
