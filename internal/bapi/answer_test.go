package bapi

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	const refused = `{"errors":[{"message":"no","code":"refresh_token_invalid"},{"code":"other"}],"clerk_trace_id":"x"}`
	for name, c := range map[string]struct {
		status int
		body   string
		want   []string // nil: an error
		code   string
		err    error
	}{
		"good":                   {status: 200, body: `{"object":"cookies","cookies":["a=1","b=2"],"directives":["a=1","b=2"]}`, want: []string{"a=1", "b=2"}},
		"without object":         {status: 200, body: `{"cookies":["a=1"],"directives":["a=1"]}`, want: []string{"a=1"}},
		"empty list":             {status: 200, body: `{"object":"cookies","cookies":[],"directives":[]}`, want: []string{}},
		"no content":             {status: 204, err: errShape},
		"created":                {status: 201, body: `{"cookies":["a=1"],"directives":["a=1"]}`, err: errShape},
		"no body":                {status: 200, err: errNoJSON},
		"HTML":                   {status: 200, body: "<html>marker", err: errNoJSON},
		"null":                   {status: 200, body: `null`, err: errNoJSON},
		"a list":                 {status: 200, body: `["a=1"]`, err: errNoJSON},
		"cut short":              {status: 200, body: `{"cookies":["a=1"],"directives":["a=1"]`, err: errNoJSON},
		"two documents":          {status: 200, body: `{"cookies":[],"directives":[]}{}`, err: errNoJSON},
		"no list":                {status: 200, body: `{"object":"cookies"}`, err: errShape},
		"list null":              {status: 200, body: `{"cookies":null,"directives":null}`, err: errShape},
		"list a string":          {status: 200, body: `{"cookies":"a=1","directives":"a=1"}`, err: errShape},
		"list of numbers":        {status: 200, body: `{"cookies":[1],"directives":[1]}`, err: errShape},
		"null in the list":       {status: 200, body: `{"cookies":["a=1",null],"directives":["a=1",null]}`, err: errShape},
		"names in other case":    {status: 200, body: `{"Cookies":["a=1"],"Directives":["a=1"]}`, err: errShape},
		"other name":             {status: 200, body: `{"data":["a=1"]}`, err: errShape},
		"refused":                {status: 401, body: refused, code: "refresh_token_invalid"},
		"not found":              {status: 404, body: `{"errors":[{"code":"resource_not_found"}]}`, code: "resource_not_found"},
		"too many":               {status: 429, body: `{"errors":[{"code":"too_many_requests"}]}`, code: "too_many_requests"},
		"down":                   {status: 500, body: refused, code: "refresh_token_invalid"},
		"down, HTML":             {status: 502, body: `<html>marker`},
		"refused, empty":         {status: 401},
		"no errors":              {status: 401, body: `{"errors":[]}`},
		"errors an object":       {status: 401, body: `{"errors":{"code":"x"}}`},
		"code a number":          {status: 401, body: `{"errors":[{"code":401}]}`},
		"code of two lines":      {status: 401, body: `{"errors":[{"code":"a\nb"}]}`},
		"code a sentence":        {status: 401, body: `{"errors":[{"code":"No such thing."}]}`},
		"code too long":          {status: 401, body: `{"errors":[{"code":"` + strings.Repeat("a", 65) + `"}]}`},
		"code repeats the key":   {status: 401, body: `{"errors":[{"code":"x` + secretKey + `"}]}`, code: CodeHidden},
		"code repeats the token": {status: 401, body: `{"errors":[{"code":"` + refreshToken + `"}]}`, code: CodeHidden},
		"code repeats the nonce": {status: 401, body: `{"errors":[{"code":"` + nonce + `"}]}`, code: CodeHidden},
	} {
		for method, ask := range calls {
			if strings.HasSuffix(name, "the token") && method == "HandshakePayload" || strings.HasSuffix(name, "the nonce") && method == "RefreshSession" {
				continue // it was not sent
			}
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				list, err := ask(t.Context(), newClient(t, Options{URL: serve(t, write(c.status, c.body)).URL}))
				if c.want != nil {
					if err != nil || list == nil || !slices.Equal(list, c.want) {
						t.Fatalf("got %q, %v", list, err)
					}
					return
				}
				e := wantError(t, err)
				if list != nil || e.Status != c.status || e.Code != c.code || !errors.Is(e.Err, c.err) {
					t.Fatalf("got %q, %v", list, err)
				}
			})
		}
	}
}

// Every code holds the empty string.
func TestCodeWhereNoTokenWasSent(t *testing.T) {
	t.Parallel()
	base := serve(t, write(http.StatusBadRequest, `{"errors":[{"code":"missing"}]}`)).URL
	_, err := newClient(t, Options{URL: base}).RefreshSession(t.Context(), Refresh{SessionID: "sess_1"})
	if e := wantError(t, err); e.Code != "missing" {
		t.Error(err)
	}
}

func TestRefreshOfAnotherKind(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{`"token"`, `"Cookies"`, `null`, `1`} {
		base := serve(t, write(http.StatusOK, `{"object":`+kind+`,"cookies":["a=1"]}`)).URL
		if _, err := newClient(t, Options{URL: base}).RefreshSession(t.Context(), refresh); !errors.Is(err, errShape) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// Attack: an answer that fills the memory, as it is or when it is unpacked.
func TestAnswerIsBounded(t *testing.T) {
	t.Parallel()
	const good = `{"cookies":["a=1"],"directives":["a=1"]}`
	pad := func(size int) string { return good + strings.Repeat(" ", size-len(good)) }
	for name, c := range map[string]struct {
		body string
		zip  bool
		err  error
	}{
		"at the limit":         {body: pad(maxAnswer)},
		"over the limit":       {body: pad(maxAnswer + 1), err: errHuge},
		"far over, compressed": {body: compress(t, pad(8*maxAnswer)), zip: true, err: errHuge},
	} {
		for method, ask := range calls {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					if c.zip {
						w.Header().Set("Content-Encoding", "gzip")
					}
					_, _ = io.WriteString(w, c.body)
				})
				if _, err := ask(t.Context(), newClient(t, Options{URL: srv.URL})); !errors.Is(err, c.err) {
					t.Fatal(err)
				}
			})
		}
	}
}

// compress takes its time beforehand, and not of that which a call has.
func compress(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	for method, ask := range calls {
		srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
					return
				}
			}
		})
		if _, err := ask(t.Context(), newClient(t, Options{URL: srv.URL})); !errors.Is(err, errHuge) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// Attack: an answer that sends the secret key elsewhere.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var visited atomic.Bool
	elsewhere := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		visited.Store(true)
		_, _ = io.WriteString(w, `{"cookies":["a=1"],"directives":["a=1"]}`)
	})
	for name, client := range map[string]*http.Client{
		"own client":   nil,
		"given client": {Transport: &http.Transport{DisableKeepAlives: true}},
		"given client that wants to": {
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return nil },
		},
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			for method, ask := range calls {
				srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, elsewhere.URL+r.URL.String(), status)
				})
				_, err := ask(t.Context(), newClient(t, Options{URL: srv.URL, Client: client}))
				if e := wantError(t, err); e.Status != status || !errors.Is(err, errRedirect) || visited.Load() {
					t.Fatalf("%s, %s, %d: %v, visited %v", name, method, status, err, visited.Load())
				}
			}
		}
		if client != nil && name == "given client" && client.CheckRedirect != nil {
			t.Error("the caller's client was changed")
		}
	}
}

func TestOneAttempt(t *testing.T) {
	t.Parallel()
	for method, ask := range calls {
		for _, status := range []int{401, 429, 500, 503} {
			var hits atomic.Int64
			srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				hits.Add(1)
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(status)
			})
			if _, err := ask(t.Context(), newClient(t, Options{URL: srv.URL})); err == nil || hits.Load() != 1 {
				t.Errorf("%s, %d: %v after %d attempts", method, status, err, hits.Load())
			}
		}
	}
}
