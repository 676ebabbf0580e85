package forward

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
)

func passErrors(o *Options) { o.PassErrors = true }

// envelope is an error body as Tinybird sends it.
func envelope(text string) string {
	b, _ := json.Marshal(map[string]string{"error": text, "documentation": "https://docs.tinybird.co/"})
	return string(b)
}

// refusing returns the address of an upstream that answers with this status and body.
func refusing(t testing.TB, status int, body string) string {
	t.Helper()
	return upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	const text = "[Error] DB::Exception: Unknown column 'secret_column'"
	for _, c := range []struct {
		upstream, status int
		code             apierr.Code
		shown            bool // under PassErrors
		retryAfter       string
	}{
		{300, 502, apierr.UpstreamUnreachable, false, ""},
		{301, 502, apierr.UpstreamUnreachable, false, ""},
		{302, 502, apierr.UpstreamUnreachable, false, ""},
		{307, 502, apierr.UpstreamUnreachable, false, ""},
		{308, 502, apierr.UpstreamUnreachable, false, ""},
		{400, 400, apierr.QueryRefused, true, ""},
		{401, 403, apierr.UpstreamRefused, false, ""},
		{403, 403, apierr.UpstreamRefused, false, ""},
		{404, 404, apierr.NotFound, true, ""},
		{405, 400, apierr.QueryRefused, true, ""},
		{408, 504, apierr.UpstreamTimeout, true, ""},
		{411, 400, apierr.QueryRefused, true, ""},
		{413, 413, apierr.BodyTooLarge, true, ""},
		{414, 414, apierr.URLTooLong, true, ""},
		{422, 400, apierr.QueryRefused, true, ""},
		{429, 429, apierr.RateLimited, true, "7"},
		{500, 502, apierr.UpstreamUnreachable, true, ""},
		{502, 502, apierr.UpstreamUnreachable, true, ""},
		{503, 503, apierr.UpstreamUnreachable, true, "7"},
		{504, 502, apierr.UpstreamUnreachable, true, ""},
		{598, 502, apierr.UpstreamUnreachable, true, ""},
		{599, 502, apierr.UpstreamUnreachable, true, ""},
		{799, 502, apierr.UpstreamUnreachable, true, ""},
	} {
		t.Run(strconv.Itoa(c.upstream), func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *way) {
				base := refusing(t, c.upstream, envelope(text))

				w, out, err := ask(t, t.forwarder(base), question())
				hidden := wantRefusal(t, err, c.status, c.code)
				if strings.Contains(hidden.Message, "secret_column") {
					t.Errorf("shown to the client: %q", hidden.Message)
				}
				if got := hidden.Header.Get("Retry-After"); got != c.retryAfter || len(hidden.Header) > 1 {
					t.Errorf("header of the refusal: %v, want Retry-After %q", hidden.Header, c.retryAfter)
				}
				if out.UpstreamStatus != c.upstream || out.Err == nil || errors.As(out.Err, new(*apierr.Error)) || !strings.Contains(out.Err.Error(), strconv.Itoa(c.upstream)) {
					t.Errorf("outcome %+v", out)
				}
				if c.upstream >= 400 && !strings.Contains(out.Err.Error(), "secret_column") {
					t.Errorf("the operator is not told what Tinybird said: %v", out.Err)
				}
				if len(w.Header()) != 0 || w.Body.Len() != 0 {
					t.Errorf("written: %v %q", w.Header(), w.Body)
				}

				_, _, err = ask(t, t.forwarder(base, passErrors), question())
				passed := wantRefusal(t, err, c.status, c.code)
				if got := passed.Message == text; got != c.shown {
					t.Errorf("with PassErrors the client is told %q", passed.Message)
				}
			})
		})
	}
}

// Attack: a redirection makes the edge send the token somewhere else.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		other := upstream(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("followed to %s", r.URL) })
		f := t.forwarder(upstream(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other+"/v0/pipes/x.json", http.StatusTemporaryRedirect)
		}))
		_, _, err := ask(t, f, question())
		wantRefusal(t, err, 502, apierr.UpstreamUnreachable)
	})
}

// Attack: Tinybird quotes the token it was given, and the edge hands the quote to the client or to its own log.
func TestQuotedCredentialsAreHidden(t *testing.T) {
	t.Parallel()
	parts := strings.Split(token, ".")
	for name, text := range map[string]string{
		"as Tinybird does":  "invalid authentication token. Invalid token b'" + token + "': ",
		"escaped":           "token " + strings.ReplaceAll(token, ".", "%2E"),
		"the first half":    "invalid token " + token[:len(token)/2],
		"a short beginning": "invalid token eyJhbGci...",
		"the signature":     "bad signature " + parts[2],
		"the payload":       "bad payload " + parts[1],
		"an admin token":    "sign with p.eyJ1IjoiMDVkOGJiYjQifQ.c2lnbmF0dXJl",
		"part of one":       "sign with p.ey",
		"another token":     "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
	} {
		for _, status := range []int{400, 401, 403, 404, 429, 500} {
			t.Run(name+" "+strconv.Itoa(status), func(t *testing.T) {
				t.Parallel()
				bothWays(t, func(t *way) {
					_, out, err := ask(t, t.forwarder(refusing(t, status, envelope(text)), passErrors), question())
					if err == nil {
						t.Fatal("not refused")
					}
					if s := out.Err.Error() + err.Error(); strings.Contains(s, "eyJ") || strings.Contains(s, "p.ey") {
						t.Errorf("quoted: %s", s)
					}
				})
			})
		}
	}
}

// Attack: the whole body of a 403, not only its "error", quotes the token. Nothing of it may reach the client.
func TestForbiddenBodyIsHidden(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		f := t.forwarder(refusing(t, http.StatusForbidden, `{"error":"no scope for pipe hidden_pipe","token":"`+token+`"}`), passErrors)
		front, _ := edge(t, f, question())
		resp, err := get(t.Context(), t, front)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 403 || bytes.Contains(body, []byte("hidden_pipe")) || bytes.Contains(body, []byte("eyJ")) ||
			!bytes.Contains(body, []byte(`"code":"upstream_refused"`)) || resp.Header.Get("Cache-Control") != "private, no-store" ||
			resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
		}
	})
}

// Attack: what listens at the address is no HTTP server and echoes what it is sent, and net/http quotes that.
func TestEchoedRequestIsHidden(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		for _, answer := range []string{
			"HTTP/1.1 200 OK\r\nBearer " + token + "\r\n\r\n",
			token + "\r\n\r\n",
			"HTTP/1.1 " + token + "\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: " + token + "\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + token + "\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + token + "\r\n",
		} {
			base, _ := rawUpstream(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, answer) })
			_, _, err := ask(t, t.forwarder(base), question()) // looks for the token
			wantRefusal(t, err, 502, apierr.UpstreamUnreachable)
		}
	})
}

func pack(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.String()
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, encoding, body, want string
	}{
		{"plain", "", envelope(" Missing parameter 'from' "), "Missing parameter 'from'"},
		{"packed", "gzip", pack(envelope("Missing parameter")), "Missing parameter"},
		{"packed, in another spelling", "GZIP", pack(envelope("Missing parameter")), "Missing parameter"},
		{"as long as is read", "", envelope(strings.Repeat("x", maxErrorBody-len(envelope("")))), strings.Repeat("x", maxErrorBody-len(envelope("")))},
		{"longer than that", "", envelope(strings.Repeat("x", maxErrorBody-len(envelope(""))+1)), ""},
		{"a bomb", "gzip", pack(envelope(strings.Repeat("x", 1<<20))), ""},
		{"packed otherwise", "br", "\x0b\x02\x80", ""},
		{"said to be packed", "gzip", envelope("Missing parameter"), ""},
		{"packed and cut", "gzip", pack(envelope("Missing parameter"))[:20], ""},
		{"not UTF-8", "", "{\"error\":\"\xff\"}", ""},
		{"no JSON", "", "<html>502</html>", ""},
		{"no object", "", `["error"]`, ""},
		{"no text", "", `{"error":{"a":1}}`, ""},
		{"no error", "", `{"documentation":"x"}`, ""},
		{"empty", "", "", ""},
		{"more after it", "", envelope("a") + envelope("b"), ""},
		{"written with escapes", "", `{"error":"\u0065yJhbGciOiJIUzI1NiJ9"}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			resp := &http.Response{Header: http.Header{"Content-Encoding": {c.encoding}}, Body: io.NopCloser(strings.NewReader(c.body))}
			x := exchange{Forwarder: new(Forwarder), token: token}
			if got := x.errorText(resp); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// Attack: a small body that unpacks to a large one.
func TestUnpackingIsBounded(t *testing.T) {
	t.Parallel()
	resp := &http.Response{
		Header: http.Header{"Content-Encoding": {"gzip"}},
		Body:   io.NopCloser(strings.NewReader(pack(strings.Repeat("x", 1<<20)))),
	}
	body, err := readErrorBody(resp)
	if err != nil || len(body) != maxErrorBody+1 {
		t.Errorf("%d bytes, %v, want %d", len(body), err, maxErrorBody+1)
	}
}

func TestLimitsOfA429(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		edge, upstream map[string]string
		want           map[string]string // "": not there
	}{
		{
			"Tinybird's replace the edge's",
			map[string]string{"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "1", "RateLimit": "r=4", "RateLimit-Policy": "q=5"},
			map[string]string{"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "Retry-After": "3", "X-RateLimit-Reset": "9"},
			map[string]string{"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9", "RateLimit": "", "RateLimit-Policy": "", "Retry-After": "3"},
		},
		{
			"the edge's, by which there is more left, go in any case",
			map[string]string{"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "4", "RateLimit": "r=4"},
			map[string]string{"Retry-After": "3"},
			map[string]string{"X-RateLimit-Limit": "", "X-RateLimit-Remaining": "", "RateLimit": "", "Retry-After": "3"},
		},
		{"the larger wait: the edge's", map[string]string{"Retry-After": "8"}, map[string]string{"Retry-After": "3"}, map[string]string{"Retry-After": "8"}},
		{"the larger wait: Tinybird's", map[string]string{"Retry-After": "2"}, map[string]string{"Retry-After": "3"}, map[string]string{"Retry-After": "3"}},
		{"only a reset", nil, map[string]string{"X-RateLimit-Reset": "4"}, map[string]string{"Retry-After": "4", "X-RateLimit-Reset": "4"}},
		{"nothing", nil, nil, map[string]string{"Retry-After": "1"}},
		{"nonsense", nil, map[string]string{"Retry-After": "soon"}, map[string]string{"Retry-After": "1"}},
		{"zero", nil, map[string]string{"Retry-After": "0"}, map[string]string{"Retry-After": "1"}},
		{"a date long past", nil, map[string]string{"Retry-After": "Mon, 02 Jan 2006 15:04:05 GMT"}, map[string]string{"Retry-After": "1"}},
		{"a date far off", nil, map[string]string{"Retry-After": "Fri, 02 Jan 2206 15:04:05 GMT"}, map[string]string{"Retry-After": "86400"}},
		{"a number far off", nil, map[string]string{"Retry-After": "999999"}, map[string]string{"Retry-After": "86400"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *way) {
				f := t.forwarder(upstream(t, func(w http.ResponseWriter, _ *http.Request) {
					for name, v := range c.upstream {
						w.Header().Set(name, v)
					}
					w.WriteHeader(http.StatusTooManyRequests)
				}))
				w := httptest.NewRecorder()
				for name, v := range c.edge {
					w.Header().Set(name, v)
				}
				_, err := f.Forward(t.Context(), w, question())
				if err := wantRefusal(t, err, 429, apierr.RateLimited).Write(w); err != nil {
					t.Fatal(err)
				}
				for name, want := range c.want {
					if got := w.Header().Get(name); got != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
			})
		})
	}
}

func FuzzWait(f *testing.F) {
	for _, s := range []string{"", "0", "1", "-1", "+3", " 5 ", "1.5", "99999999999999999999", "Mon, 02 Jan 2006 15:04:05 GMT", "soon"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := wait(s)
		if ok && (n < 0 || n > maxRetryAfter) {
			t.Errorf("wait(%q) = %d", s, n)
		}
	})
}

func TestWaitUntilADate(t *testing.T) {
	t.Parallel()
	n, ok := wait(time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	if !ok || n < 3000 || n > 3600 {
		t.Errorf("%d, %v, want about 3600", n, ok)
	}
}

// Whatever Tinybird answers, no text that is shown or logged holds the token or what looks like one.
func FuzzErrorText(f *testing.F) {
	f.Add([]byte(envelope("Missing parameter")), "")
	f.Add([]byte(envelope(token)), "")
	f.Add([]byte(pack(envelope(token))), "gzip")
	f.Add([]byte(`{"error":"p\u002eeyJ","Error":"x"}`), "")
	f.Add([]byte(`{"error":null}`), "identity")
	f.Fuzz(func(t *testing.T, body []byte, encoding string) {
		resp := &http.Response{Header: http.Header{"Content-Encoding": {encoding}}, Body: io.NopCloser(bytes.NewReader(body))}
		x := exchange{Forwarder: new(Forwarder), token: token}
		text := x.errorText(resp)
		if strings.Contains(text, "eyJ") || len(text) > maxErrorBody {
			t.Errorf("%q", text)
		}
	})
}

// Attack: what answers in Tinybird's place repeats the token, or a piece of it, in a field that comes down.
func TestAttackEchoInAHeader(t *testing.T) {
	t.Parallel()
	token := "header-of-some-length." + strings.Repeat("payload-", 40) + "end-of-the-payload.signature-that-nobody-may-see"
	for i := 0; i+secret.MinPiece <= len(token); i++ {
		piece := token[i : i+secret.MinPiece]
		if strings.Contains(piece, ".") {
			continue
		}
		h := http.Header{"X-Db-Echo": {piece}, "Etag": {"abc"}}
		dropSecrets(h, token)
		if len(h) != 1 || h.Get("Etag") == "" {
			t.Fatalf("header left: %v", h)
		}
	}
}
