package devstack

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: start} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// do serves one request. Headers are given as name, value, name, value.
func do(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for n := 0; n+1 < len(headers); n += 2 {
		if headers[n] == "Host" {
			r.Host = headers[n+1]
			continue
		}
		r.Header.Add(headers[n], headers[n+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func claimsFor(pipe string, fixed map[string]any) map[string]any {
	return map[string]any{
		"workspace_id": WorkspaceID, "name": AcmeID, "exp": start.Add(time.Minute).Unix(),
		"scopes": []any{map[string]any{"type": "PIPES:READ", "resource": pipe, "fixed_params": fixed}},
	}
}

func acme() map[string]any { return map[string]any{"organization_id": AcmeID} }

func mustSign(t testing.TB, key string, claims map[string]any) string {
	t.Helper()
	token, err := SignToken(key, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearer(t testing.TB, a *API, pipe string, fixed map[string]any) []string {
	t.Helper()
	return []string{"Authorization", "Bearer " + mustSign(t, a.SigningKey(), claimsFor(pipe, fixed))}
}

type document struct {
	Meta []struct{ Name, Type string }
	Data []map[string]any
	Rows int

	BeforeLimit *int `json:"rows_before_limit_at_least"`
	Statistics  struct {
		RowsRead int `json:"rows_read"`
	}
	Error, Documentation string
}

func decode(t testing.TB, body io.Reader) document {
	t.Helper()
	var d document
	if err := json.NewDecoder(body).Decode(&d); err != nil {
		t.Fatalf("no JSON: %v", err)
	}
	return d
}

func mustStart(t testing.TB, o Options) *Stack {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// get does a request over the network and returns the answer with its body read.
func get(t testing.TB, url string, headers ...string) (*http.Response, []byte, error) {
	t.Helper()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n+1 < len(headers); n += 2 {
		req.Header.Set(headers[n], headers[n+1])
	}
	res, err := (&http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}).Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	return res, b.Bytes(), err
}
