package devstack

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func fail(f Fault) func(*http.Request) *Fault { return func(*http.Request) *Fault { return &f } }

func TestFaultStatusHeaderBody(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{})
	for _, f := range []Fault{
		{Status: 408, Body: []byte(`{"error":"timeout"}`)},
		{Status: 599, Body: []byte("")},
		{Status: 503, Header: http.Header{"Retry-After": {"7"}}},
		{Status: 302, Header: http.Header{"Location": {"http://evil.test/"}}},
	} {
		s.API.Fail(fail(f))
		res, body, err := get(t, s.APIURL+"/v0/pipes/top_pages.json")
		if err != nil || res.StatusCode != f.Status {
			t.Fatalf("%v %v", res, err)
		}
		for k := range f.Header {
			if res.Header.Get(k) != f.Header.Get(k) {
				t.Errorf("%s: %s", k, res.Header.Get(k))
			}
		}
		if f.Body != nil && string(body) != string(f.Body) {
			t.Errorf("body %s", body)
		}
	}
	s.API.Fail(nil)
	if res, _, err := get(t, s.APIURL+"/v0/regions"); err != nil || res.StatusCode != 200 {
		t.Errorf("%v %v", res, err)
	}
	if n := len(s.API.Requests()); n != 5 {
		t.Errorf("%d recorded", n)
	}
}

func TestFaultDrops(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{})
	for _, f := range []Fault{
		{Stop: DropBeforeHeader},
		{Stop: DropInBody, Body: []byte("0123456789")},
		{Stop: DropInBody, Body: []byte("0123456789"), Chunked: true},
	} {
		s.API.Fail(fail(f))
		_, body, err := get(t, s.APIURL+"/v0/regions")
		if err == nil {
			t.Errorf("%+v: no error", f)
		}
		if f.Body != nil && (string(body) != "01234" || !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("%+v: %q, %v", f, body, err)
		}
	}
}

// A hanging answer ends when the client leaves, and when the stack is closed: goleak would see it otherwise.
func TestFaultHangs(t *testing.T) {
	t.Parallel()
	for _, stop := range []Stop{HangBeforeHeader, HangInBody} {
		for _, leave := range []bool{true, false} {
			s := mustStart(t, Options{})
			arrived := make(chan struct{})
			s.API.Fail(func(*http.Request) *Fault {
				close(arrived)
				return &Fault{Stop: stop}
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- fetch(ctx, s.APIURL+"/v0/regions") }()
			<-arrived
			if leave {
				cancel()
			} else if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; err == nil {
				t.Error("no error")
			}
			cancel()
		}
	}
}

func fetch(ctx context.Context, url string) error {
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func TestFaultSteps(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{})
	step := make(chan struct{})
	s.API.Fail(fail(Fault{Body: []byte("abcdef"), Chunked: true, Step: step, Piece: 2}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.APIURL+"/v0/regions", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ContentLength != -1 {
		t.Errorf("length %d", res.ContentLength)
	}
	buf := make([]byte, 2)
	for _, want := range []string{"ab", "cd"} {
		step <- struct{}{}
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != want {
			t.Errorf("%s, %v", buf, err)
		}
	}
	close(step)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "ef" {
		t.Errorf("%s, %v", rest, err)
	}
}

func TestStackEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := get(t, s.APIURL+"/v0/regions"); err == nil {
		t.Error("still answering")
	}
}

// The issuer signs anybody in: it must not be reachable from outside.
func TestStackListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{":0", "0.0.0.0:0", "192.0.2.1:0", "[::]:0", "example.com:0"} {
		if s, err := Start(t.Context(), Options{IssuerAddr: addr}); err == nil {
			t.Errorf("%s accepted", addr)
			_ = s.Close()
		}
		if s, err := Start(t.Context(), Options{APIAddr: addr}); err == nil {
			t.Errorf("%s accepted for the API", addr)
			_ = s.Close()
		}
	}
}

func TestStackTogether(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{})
	res, body, err := get(t, s.Issuer.JWKSURL())
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), s.Issuer.KeyID()) {
		t.Errorf("%v %s %v", res, body, err)
	}
	if s.Issuer.URL() != s.IssuerURL || !strings.HasPrefix(s.Issuer.PublishableKey(), "pk_test_") {
		t.Errorf("%s %s", s.Issuer.URL(), s.Issuer.PublishableKey())
	}
	token := mustSign(t, s.API.SigningKey(), map[string]any{
		"workspace_id": s.API.WorkspaceID(), "name": "n", "exp": 99999999999,
		"scopes": []any{map[string]any{"type": "PIPES:READ", "resource": "top_pages", "fixed_params": acme()}},
	})
	res, body, err = get(t, s.APIURL+"/v0/pipes/top_pages.json", "Authorization", "Bearer "+token)
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), "/acme/") {
		t.Errorf("%v %s %v", res, body, err)
	}
}
