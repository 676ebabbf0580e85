package caddytinybird

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// raw sends bytes as they are and returns the answer's status, 0 when the connection was closed.
func (e *edge) raw(t testing.TB, request string) int {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// TestP3PathIsBuilt: the path that goes up is built from a pipe's name and a format, so nothing of the client's path can
// lead elsewhere. Targets go over the wire as they are, because Go's client would clean them.
func TestP3PathIsBuilt(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	e := newEdge(t, stack, nil)
	session := e.bearer(t, "ada")

	for _, target := range []string{
		"/v0/sql?q=select+1", "/v0/tokens", "/v0/pipes", "/v0/pipes/", "/v0/pipes/top_pages", "/v0/pipes/top_pages.json/",
		"/v0/pipes/top_pages.json/../../sql", "/v0/pipes/../sql?q=select+1", "/v0/pipes/%2e%2e/sql", "/v0/pipes/..%2fsql",
		"//v0/pipes/top_pages.json", "/v0//pipes/top_pages.json", "/./v0/pipes/top_pages.json", "/x/../v0/pipes/top_pages.json",
		"/v0/pipes/top%5Fpages.json", "/v0/pipes/top_pages%2ejson", "/v0/pipes/top_pages.json%00", "/v0/pipes/top_pages.json%3Fq=1",
		"/v0/pipes/top_pages.json;q=1", "/v0/pipes/top_pages.JSON", "/V0/pipes/top_pages.json", "/v0/pipes/Top_pages.json",
		"/v0/pipes/top_pages.xml", "/v0/pipes/top_pages.json.json", "/v0/pipes/t_top0pages.json", "/v0/pipes/unlisted.json",
		"/v0/pipes/top_pages.json%20", `/v0/pipes\top_pages.json`, "/v0/pipes/top_pages.json%0d%0aX:1", "/v0/pipes/%74op_pages.json",
		"*", "http://api.tinybird.co/v0/tokens", "/v0/pipes/top_pages.json/data", "/v0/pipes/top_pages.", "/v0/pipes/.json",
	} {
		t.Run(target, func(t *testing.T) {
			stack.API.Reset()
			status := e.raw(t, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", target, session))
			if status == http.StatusOK {
				t.Error("answered")
			}
			if up := stack.API.Requests(); len(up) != 0 {
				t.Errorf("went up as %s", up[0].Path)
			}
		})
	}
	for _, target := range []string{"/v0/pipes/top_pages.json", "http://edge/v0/pipes/top_pages.json?a=/../"} {
		stack.API.Reset()
		status := e.raw(t, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", target, session))
		up := stack.API.Requests()
		if status != http.StatusOK || len(up) != 1 || up[0].Path != "/v0/pipes/top_pages.json" {
			t.Errorf("%s: status %d, %d requests", target, status, len(up))
		}
		if up[0].Host != strings.TrimPrefix(stack.APIURL, "http://") {
			t.Errorf("host %s went up", up[0].Host)
		}
	}
}
