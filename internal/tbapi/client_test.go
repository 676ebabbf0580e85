package tbapi

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

type answers func(*http.Request) (*http.Response, error)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func reply(status int, body string) answers {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func client(tr http.RoundTripper) *Client {
	return &Client{Base: &url.URL{Scheme: "https", Host: "api.example.com"}, Transport: tr, Timeout: time.Minute, Token: "p.secret"}
}

// TestAnswersOutOfBounds holds that answers that are too large, broken or never end are errors.
func TestAnswersOutOfBounds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		transport answers
		timeout   time.Duration
		want      error
	}{
		"huge":   {reply(200, strings.Repeat(" ", MaxDefinition+1)), time.Minute, ErrTooBig},
		"denied": {reply(403, `{"error":"invalid token p.eyJhbGciOi"}`), time.Minute, ErrToken},
		"none":   {reply(404, `{}`), time.Minute, ErrNoPipe},
		"hangs":  {func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }, time.Millisecond, ErrTimeout},
	} {
		c := client(tt.transport)
		c.Timeout = tt.timeout
		if _, err := c.Definition(t.Context(), "p"); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, body := range []string{"", "[]", "{}", `{"name":"p"}`, `{"name":"p","nodes":[]}`, `{"name":"p","endpoint":"t_x","nodes":[{"id":"t_y","name":"n"}]}`} {
		if d, err := parseDefinition([]byte(body)); err == nil {
			t.Errorf("%s: %+v", body, d)
		}
	}
	// From before endpoints were so named.
	if d, err := parseDefinition([]byte(`{"name":"p","published_version":"t_y","nodes":[{"id":"t_y","name":"n","sql":"select 1"}]}`)); err != nil || d.Endpoint != "n" {
		t.Errorf("%+v %v", d, err)
	}
}

// TestWorkspaceAnswersOutOfShape holds the same for tokens and data sources, and that no error quotes an answer: the list of tokens
// is one of secrets.
func TestWorkspaceAnswersOutOfShape(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "[]", "{}", `{"tokens":null}`, `{"tokens":[{"token":"p.eyJsecret"}`, `{"name":""}`, `{"tokens":"p.eyJsecret"}`} {
		if _, err := client(reply(200, body)).Tokens(t.Context()); err == nil || strings.Contains(err.Error(), "p.ey") {
			t.Errorf("tokens %s: %v", body, err)
		}
		if _, err := client(reply(200, body)).Datasource(t.Context(), "events"); err == nil {
			t.Errorf("data source %s: no error", body)
		}
	}
	if _, err := client(reply(403, `{"error":"p.eyJsecret"}`)).Tokens(t.Context()); !errors.Is(err, ErrToken) {
		t.Errorf("%v", err)
	}
	if _, err := client(reply(404, `{}`)).Tokens(t.Context()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
}

// TestWorkspace reads what the stand-in for Tinybird says of its own tokens and data sources, and that it is asked for nothing
// but with GET.
func TestWorkspace(t *testing.T) {
	t.Parallel()
	s, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	c := client(tr)
	if c.Base, err = url.Parse(s.APIURL); err != nil {
		t.Fatal(err)
	}
	c.Token = s.API.SigningKey()
	list, err := c.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, ok := list.Find(s.API.AppendToken())
	if !ok || found.Scopes[0] != (Scope{"DATASOURCES:APPEND", "analytics_events"}) || found.Scopes[0].String() != "DATASOURCES:APPEND:analytics_events" {
		t.Errorf("%+v", found)
	}
	if admin, ok := list.Find(s.API.SigningKey()); !ok || admin.Name != "workspace admin token" || admin.Scopes[0].String() != "ADMIN" {
		t.Errorf("%+v", admin)
	}
	if _, ok := list.Find(""); ok {
		t.Error("no token is a token")
	}
	d, err := c.Datasource(t.Context(), "events")
	if err != nil || !slices.Contains(d.Columns, "organization_id") {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := c.Datasource(t.Context(), "no_such"); !errors.Is(err, ErrNoDatasource) {
		t.Errorf("%v", err)
	}
	if res, err := c.Get(t.Context(), "/v0/regions", nil, "", 0); err != nil || res.Status != 200 || res.Header.Get("Date") == "" {
		t.Errorf("%+v %v", res, err)
	}
	for _, r := range s.API.Requests() {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
	if rows, status, err := c.Read(t.Context(), "top_pages", c.Token, url.Values{"organization_id": {devstack.AcmeID}}); err != nil || status != 200 || len(rows.Data) == 0 {
		t.Errorf("%d %v", status, err)
	}
	if _, status, err := c.Read(t.Context(), "top_pages", "p.wrong", nil); err != nil || status != 403 {
		t.Errorf("%d %v", status, err)
	}
}

// Attack: what listens at the address of the API is no HTTP server and echoes what it is sent. net/http quotes that in its errors, and
// the signing key would be on the screen or in the log of a pipeline.
func TestAttackEchoOfTheSigningKey(t *testing.T) {
	t.Parallel()
	const key = "p.eyJ1IjoieCJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
	for name, write := range map[string]func(header string) string{
		"as it is":         func(header string) string { return header },
		"as a status line": func(header string) string { return "HTTP/1.1 " + strings.ReplaceAll(header, "\r\n", " ") + "\r\n\r\n" },
		"as a status":      func(string) string { return "HTTP/1.1 " + key + "\r\n\r\n" },
		"as a broken field": func(header string) string {
			return "HTTP/1.1 200 OK\r\n" + strings.ReplaceAll(header, ":", "") + "\r\n\r\n"
		},
		"as a length": func(string) string { return "HTTP/1.1 200 OK\r\nContent-Length: " + key + "\r\n\r\n" },
		"its end as an encoding": func(string) string {
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + key[strings.LastIndex(key, ".")+1:] + "\r\n\r\n"
		},
	} {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				room := make([]byte, 4<<10)
				n, _ := conn.Read(room)
				_, header, _ := strings.Cut(string(room[:n]), "\r\n")
				_, _ = io.WriteString(conn, write(strings.TrimSpace(header)))
				_ = conn.Close()
			}
		}()
		tr := &http.Transport{DisableKeepAlives: true}
		c := client(tr)
		c.Base, c.Token = &url.URL{Scheme: "http", Host: l.Addr().String()}, key
		_, err = c.Definition(t.Context(), "p")
		if err == nil || strings.Contains(err.Error(), "eyJ1") || strings.Contains(err.Error(), "c2ln") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
