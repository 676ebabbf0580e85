package forward

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}"

// sent returns the text of the request that goes up for q, with the lines of its header in order.
func (w *way) sent(path string, q Request) string {
	w.Helper()
	base, requests := rawUpstream(w, func(c *net.TCPConn) { _, _ = io.WriteString(c, okAnswer) })
	if _, _, err := ask(w, w.forwarder(base+path), q); err != nil {
		w.Fatal(err)
	}
	return strings.Replace(inOrder(receive(w, requests)), strings.TrimPrefix(base, "http://"), "HOST", 1)
}

// inOrder sorts the lines of a request's header.
func inOrder(request string) string {
	head, body, _ := strings.Cut(request, "\r\n\r\n")
	l := strings.Split(head, "\r\n")
	slices.Sort(l[1:])
	return lines(append(l, "", body)...)
}

func lines(l ...string) string { return strings.Join(l, "\r\n") }

// Attack: everything a client can put in its header to reach Tinybird with a credential, an address, a host or a
// framing of its own. The whole text of the request is compared, so that nothing can come along unnoticed.
func TestOnlyNamedFieldsGoUp(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		q := question()
		q.RawQuery = "limit=10&from=2026-01-01"
		q.Client = http.Header{
			"Authorization":       {"Bearer the-clients-own"},
			"Cookie":              {"__session=secret"},
			"Proxy-Authorization": {"Basic secret"},
			"X-Tinybird-Token":    {"secret"},
			"X-Forwarded-For":     {"203.0.113.7"},
			"X-Forwarded-Host":    {"app.example.com"},
			"X-Forwarded-Proto":   {"https"},
			"Forwarded":           {"for=203.0.113.7"},
			"Via":                 {"1.1 example"},
			"X-Real-Ip":           {"203.0.113.7"},
			"Origin":              {"https://app.example.com"},
			"Referer":             {"https://app.example.com/?token=secret"},
			"Host":                {"elsewhere.example.com"},
			"Connection":          {"Authorization, keep-alive"},
			"Keep-Alive":          {"timeout=5"},
			"Te":                  {"trailers"},
			"Trailer":             {"X-Secret"},
			"Transfer-Encoding":   {"chunked"},
			"Upgrade":             {"websocket"},
			"Expect":              {"100-continue"},
			"Content-Length":      {"100"},
			"Content-Type":        {"text/plain"},
			"Content-Encoding":    {"gzip"},
			"Range":               {"bytes=0-1"},
			"Accept-Language":     {"de"},
			"Sec-Fetch-Site":      {"same-origin"},
			"X-Clerk-User-Id":     {"user_1"},
		}
		want := inOrder(lines(
			"GET /v0/pipes/top_pages.json?limit=10&from=2026-01-01 HTTP/1.1",
			"Host: HOST",
			"Accept-Encoding: identity",
			"Authorization: Bearer "+token,
			"", "",
		))
		if got := t.sent("", q); got != want {
			t.Errorf("went up:\n%q\nwant:\n%q", got, want)
		}
	})
}

func TestNamedFieldsGoUpOnce(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		q := question()
		q.Client = http.Header{
			"Accept":            {"application/json", "text/html"},
			"Accept-Encoding":   {"gzip, br", "zstd"},
			"If-None-Match":     {`"a"`, `"b"`},
			"If-Modified-Since": {"Mon, 02 Jan 2006 15:04:05 GMT"},
			"User-Agent":        {"client/1.0", "other"},
			"Traceparent":       {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			"Tracestate":        {"a=b"},
		}
		want := inOrder(lines(
			"GET /proxy/tb/v0/pipes/top_pages.json HTTP/1.1",
			"Host: HOST",
			"User-Agent: client/1.0",
			"Accept: application/json",
			"Accept-Encoding: gzip, br",
			"Authorization: Bearer "+token,
			"If-Modified-Since: Mon, 02 Jan 2006 15:04:05 GMT",
			`If-None-Match: "a"`,
			"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			"Tracestate: a=b",
			"", "",
		))
		if got := t.sent("/proxy/tb/", q); got != want {
			t.Errorf("went up:\n%q\nwant:\n%q", got, want)
		}
	})
}

func TestPost(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		q := question()
		q.Method = http.MethodPost
		q.Body = []byte(`{"limit":10}`)
		want := inOrder(lines(
			"POST /a%2Fb/v0/pipes/top_pages.json HTTP/1.1",
			"Host: HOST",
			"Content-Length: 12",
			"Accept-Encoding: identity",
			"Authorization: Bearer "+token,
			"Content-Type: application/json",
			"", `{"limit":10}`,
		))
		if got := t.sent("/a%2Fb/", q); got != want {
			t.Errorf("went up:\n%q\nwant:\n%q", got, want)
		}
	})
}

// Tinybird answers 411 to a POST that does not say how long it is.
func TestPostWithoutBodyHasALength(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		q := question()
		q.Method = http.MethodPost
		want := inOrder(lines(
			"POST /v0/pipes/top_pages.json HTTP/1.1",
			"Host: HOST",
			"Content-Length: 0",
			"Accept-Encoding: identity",
			"Authorization: Bearer "+token,
			"", "",
		))
		if got := t.sent("", q); got != want {
			t.Errorf("went up:\n%q\nwant:\n%q", got, want)
		}
	})
}

func TestBodyCanBeSentAgain(t *testing.T) {
	t.Parallel()
	f := forwarder(t, "http://127.0.0.1:1")
	q := question()
	q.Body = []byte(`{"a":1}`)
	r := (&exchange{Forwarder: f, token: token}).request(&q)
	for range 2 {
		b, err := r.GetBody()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); string(got) != `{"a":1}` || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// The configured base is shared by all requests and must not be changed by one.
func TestBaseIsNotChanged(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		f := t.forwarder(upstream(t, func(http.ResponseWriter, *http.Request) {}) + "/a%2Fb")
		before := f.base
		q := question()
		q.RawQuery = "a=1"
		for range 2 {
			if _, _, err := ask(t, f, q); err != nil {
				t.Fatal(err)
			}
		}
		if f.base != before {
			t.Errorf("base is %v, was %v", &f.base, &before)
		}
	})
}
