//go:build integration

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// startTLS starts an edge whose site has a certificate of Caddy's own authority, and returns that.
func startTLS(t *testing.T) (*edge, *x509.CertPool) {
	t.Helper()
	e := newEdge(t, devstack.Options{})
	config := caddyfile("\tservers {\n protocols h1 h2\n}\n", strings.Replace(plainSite, "http://{$EDGE} {", "https://{$EDGE} {\n tls internal", 1))
	e.run(t, strings.Replace(config, "auto_https off", "auto_https disable_redirects", 1))
	_, answer := e.ask(t, http.MethodGet, "/pki/ca/local", "", "")
	var ca struct {
		Root string `json:"root_certificate"`
	}
	if err := json.Unmarshal([]byte(answer), &ca); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca.Root)) {
		t.Fatalf("no certificate: %s", answer)
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	eventually(t, "there is a certificate", func() bool {
		c, err := d.DialContext(t.Context(), "tcp", e.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return e, roots
}

// TestHTTP2: many streams of several tenants on one connection.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	e, roots := startTLS(t)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, MaxConnsPerHost: 1,
	}
	defer tr.CloseIdleConnections()
	e.http = &http.Client{Transport: tr, Timeout: patience}
	ask := func(t *testing.T, user string) {
		t.Helper()
		r := e.request(t, user, http.MethodGet, "/v0/pipes/live_events.json", "")
		r.URL.Scheme = "https"
		got := e.do(t, r)
		if got.ProtoMajor != 2 {
			t.Errorf("answered by %s", got.Proto)
		}
		ownRows(t, user, got)
		wantPrivate(t, got)
	}
	var all sync.WaitGroup
	for range 10 {
		for _, user := range []string{"ada", "ben", "cleo"} {
			all.Go(func() { ask(t, user) })
		}
	}
	all.Wait()
}

// h2case is one request in frames. want is "rows" for ada's rows, the code of a refusal, or "" for a reset or a refusal by
// the server itself.
type h2case struct {
	name   string
	fields func(f h2fields) []field
	data   string // sent after the headers, if it is not empty
	want   string
}

// h2fields makes the fields of a proper request, for the cases to change.
type h2fields struct {
	host, ada, cleo string
	cookies         []*http.Cookie // ben's
}

const livePath = "/v0/pipes/live_events.json"

func (f h2fields) pseudo(method, path string) []field {
	return []field{{":method", method}, {":scheme", "https"}, {":authority", f.host}, {":path", path}}
}

func (f h2fields) to(path string) []field { return append(f.pseudo("GET", path), f.auth()) }

func (f h2fields) auth() field { return field{"authorization", "Bearer " + f.ada} }

func (f h2fields) and(more ...field) []field { return append(f.to(livePath), more...) }

func (f h2fields) post(more ...field) []field {
	return append(append(f.pseudo("POST", livePath), f.auth(), field{"content-type", "application/json"}), more...)
}

func h2cases() []h2case {
	with := func(more ...field) func(h2fields) []field {
		return func(f h2fields) []field { return f.and(more...) }
	}
	path := func(path string) func(h2fields) []field {
		return func(f h2fields) []field { return f.to(path) }
	}
	post := func(more ...field) func(h2fields) []field {
		return func(f h2fields) []field { return f.post(more...) }
	}
	return []h2case{
		{"plain", with(), "", "rows"},
		{"post", post(), `{"limit":3}`, "rows"},
		{"two authorizations", func(f h2fields) []field { return f.and(field{"authorization", "Bearer " + f.cleo}) }, "", "bad_request"},
		{"authorization in capitals", func(f h2fields) []field { return f.and(field{"Authorization", "Bearer " + f.cleo}) }, "", ""},
		{"connection lists authorization", with(field{"connection", "authorization"}), "", ""},
		{"keep-alive", with(field{"keep-alive", "timeout=5"}), "", ""},
		{"proxy-connection", with(field{"proxy-connection", "keep-alive"}), "", ""},
		{"upgrade", with(field{"upgrade", "websocket"}), "", ""},
		{"chunked", post(field{"transfer-encoding", "chunked"}), "0\r\n\r\n", ""},
		{"te gzip", with(field{"te", "gzip"}), "", ""},
		{"te trailers", with(field{"te", "trailers"}), "", "rows"},
		{"line break in a value", func(f h2fields) []field { return f.and(field{"x", "a\r\nauthorization: Bearer " + f.cleo}) }, "", ""},
		{"line break in a name", with(field{"x\r\ny", "a"}), "", ""},
		{"NUL in a value", with(field{"x", "a\x00b"}), "", ""},
		{"colon in a name", with(field{"x:y", "a"}), "", ""},
		{"space in a name", with(field{"x y", "a"}), "", ""},
		{"empty name", with(field{"", "a"}), "", ""},
		{"name with an underscore", with(field{"authorization_", "Bearer x"}), "", "rows"},
		{"pseudo-header last", with(field{":path", livePath}), "", ""},
		{"two paths", func(f h2fields) []field { return append([]field{{":path", "/v0/sql"}}, f.to(livePath)...) }, "", ""},
		{"two methods", func(f h2fields) []field { return append([]field{{":method", "POST"}}, f.to(livePath)...) }, "", ""},
		{"unknown pseudo-header", func(f h2fields) []field { return append([]field{{":organization", "x"}}, f.to(livePath)...) }, "", ""},
		{"status from a client", func(f h2fields) []field { return append([]field{{":status", "200"}}, f.to(livePath)...) }, "", ""},
		{"no path", func(f h2fields) []field { return append(f.pseudo("GET", "")[:3], f.auth()) }, "", ""},
		{"no method", func(f h2fields) []field { return append(f.pseudo("GET", livePath)[1:], f.auth()) }, "", ""},
		{"host beside authority", with(field{"host", "evil.example"}), "", ""},
		{"path with a host", path("https://evil.example" + livePath), "", ""},
		{"path with two slashes", path("//evil.example" + livePath), "", "not_found"},
		{"path without a slash", path("v0/pipes/live_events.json"), "", ""},
		{"path with a request", path(livePath + " HTTP/1.1\r\nHost: evil.example\r\n\r\n"), "", ""},
		{"path with a NUL", path(livePath + "\x00"), "", ""},
		{"path with an escape", path("/v0/pipes%2flive_events.json"), "", "not_found"},
		{"path with dots", path("/v0/pipes/../pipes/live_events.json"), "", "not_found"},
		{"path with a fragment", path(livePath + "#x"), "", "not_found"},
		{"asterisk", path("*"), "", "not_found"},
		{"method with a space", func(f h2fields) []field { return append(f.pseudo("GET /v0/sql", livePath), f.auth()) }, "", ""},
		{"method in small letters", func(f h2fields) []field { return append(f.pseudo("get", livePath), f.auth()) }, "", "method_not_allowed"},
		{"connect", func(f h2fields) []field {
			return []field{{":method", "CONNECT"}, {":authority", "api.tinybird.co:443"}, f.auth()}
		}, "", ""},
		{"extended connect", func(f h2fields) []field {
			return append(append(f.pseudo("CONNECT", livePath), field{":protocol", "websocket"}), f.auth())
		}, "", ""},
		{"body shorter than its length", post(field{"content-length", "10"}), `{}`, ""},
		{"body longer than its length", post(field{"content-length", "1"}), `{}`, ""},
		// The frame says where the body ends.
		{"two lengths", post(field{"content-length", "2"}, field{"content-length", "3"}), `{}`, "rows"},
		{"request in the body of a GET", with(), "GET /v0/pipes/live_events.json?smuggled=1 HTTP/1.1\r\nHost: x\r\n\r\n", "rows"},
		{"another's cookies in crumbs", func(f h2fields) []field {
			fields := f.to(livePath)
			for _, c := range f.cookies {
				fields = append(fields, field{"cookie", c.Name + "=" + c.Value})
			}
			return fields
		}, "", "rows"},
		{"own cookies in crumbs", func(f h2fields) []field {
			fields := f.pseudo("GET", livePath)
			for _, c := range f.cookies {
				fields = append(fields, field{"cookie", c.Name + "=" + c.Value})
			}
			return fields
		}, "", "rows"},
	}
}

// TestRawHTTP2: as TestRawRequests, in frames.
func TestRawHTTP2(t *testing.T) {
	t.Parallel()
	e, roots := startTLS(t)
	for _, c := range h2cases() {
		t.Run(c.name, func(t *testing.T) { c.run(t, e, roots) })
	}
}

func (c h2case) run(t *testing.T, e *edge, roots *x509.CertPool) {
	t.Helper()
	e.stack.API.Reset()
	fields := block(c.fields(h2fields{e.addr, e.token(t, "ada"), e.token(t, "cleo"), e.cookies(t, "ben")}))
	// In two frames, cut in the middle, as a proxy that looks at one of them would not expect it.
	half := len(fields) / 2
	flags := byte(0)
	if c.data == "" {
		flags = flagEndStream
	}
	frames := [][]byte{frame(frameHeaders, flags, 1, fields[:half]), frame(frameContinuation, flagEndHeaders, 1, fields[half:])}
	if c.data != "" {
		frames = append(frames, frame(frameData, flagEndStream, 1, []byte(c.data)))
	}
	got := dialH2(t, e.addr, roots).ask(t, frames...)

	up := e.stack.API.Requests()
	if c.want == "rows" {
		if len(up) != 1 {
			t.Fatalf("%d requests went up: %q", len(up), got.body)
		}
		wellFormed(t, e, up[0], "ada", "live_events") // ben is of the same organization
		if !got.answered || !strings.Contains(got.body, "/acme/") || strings.Contains(got.body, "/globex/") {
			t.Errorf("answer: %.300q", got.body)
		}
		return
	}
	if len(up) != 0 {
		t.Errorf("%d requests went up: %+v", len(up), up)
	}
	var refusal struct{ Code string }
	// A refusal by the server itself is no JSON.
	_ = json.Unmarshal([]byte(got.body), &refusal)
	if strings.Contains(got.body, "/acme/") || (c.want != "" && refusal.Code != c.want) {
		t.Errorf("answer %.300q, want %q", got.body, c.want)
	}
}
