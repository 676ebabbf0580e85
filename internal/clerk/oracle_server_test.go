package clerk

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// keyServer is Clerk, of which only the behaviour is real: its key server, and its Backend API.
type keyServer struct {
	doc, flaky json.RawMessage
	name       string
	down       bool
	fetches    atomic.Int64

	calls       map[string]int64
	refreshCall *refreshCall
}

func (s *keyServer) RoundTrip(r *http.Request) (*http.Response, error) {
	n := s.fetches.Add(1)
	if s.down {
		return nil, context.DeadlineExceeded
	}
	status, body := http.StatusOK, string(s.doc)
	switch s.name {
	case "fail500":
		status = http.StatusInternalServerError
	case "fail401":
		status = http.StatusUnauthorized
	case "fail429":
		status = http.StatusTooManyRequests
	case "garbage":
		body = "garbage"
	case "flaky":
		if body = string(s.flaky); n <= 2 {
			status = http.StatusServiceUnavailable
		}
	}
	return response(r, status, body), nil
}

func response(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}
}

// backend is the Backend API of one case.
func (s *keyServer) backend(c *oracleCase) http.RoundTripper {
	s.calls = map[string]int64{}
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		s.calls[r.Method+" "+r.URL.Path]++
		if s.down {
			return nil, context.DeadlineExceeded
		}
		if r.Method == http.MethodGet {
			return answerNonce(r, c)
		}
		return s.answerRefresh(r, c)
	})
}

func answerNonce(r *http.Request, c *oracleCase) (*http.Response, error) {
	list, ok := c.Input.Nonces[r.URL.Query().Get("nonce")]
	if !ok {
		return response(r, http.StatusNotFound, `{"errors":[{"code":"resource_not_found"}]}`), nil
	}
	body, err := json.Marshal(map[string]any{"directives": list})
	return response(r, http.StatusOK, string(body)), err
}

func (s *keyServer) answerRefresh(r *http.Request, c *oracleCase) (*http.Response, error) {
	sid := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/sessions/"), "/refresh")
	s.refreshCall = &refreshCall{SID: sid, Query: r.URL.RawQuery}
	if err := json.NewDecoder(r.Body).Decode(&s.refreshCall.Body); err != nil {
		return nil, err
	}
	list, ok := c.Input.Refresh[s.refreshCall.Body.RefreshToken]
	if !ok {
		return response(r, http.StatusUnauthorized, `{"errors":[{"code":"refresh_token_invalid"}]}`), nil
	}
	body, err := json.Marshal(map[string]any{"object": "cookies", "cookies": list})
	return response(r, http.StatusOK, string(body)), err
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
