package clerk

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// keyServer is Clerk, of which only the behaviour is real: its key server, and its Backend API.
type keyServer struct {
	doc, later json.RawMessage // later: what comes after two fetches that failed, or after the first
	name       string
	down       bool
	fetches    atomic.Int64

	calls       map[string]int64
	refreshCall *refreshCall
}

// keyServer is the one of a case. Documents that are only a behaviour of the server have a name that says which.
func (o *oracle) keyServer(c *oracleCase) *keyServer {
	s := &keyServer{name: c.Input.JWKSDocument, doc: o.Meta.JWKSDocuments[c.Input.JWKSDocument], down: c.Input.APIDown}
	switch s.name {
	case "flaky":
		s.later = o.Meta.JWKSDocuments["prodA"]
	case "rotating":
		s.doc, s.later = o.Meta.JWKSDocuments["prodA"], o.Meta.JWKSDocuments["replaced"]
		if c.namesKeyOf(o.Meta.JWKSDocuments["rotated"], s.doc) {
			s.later = o.Meta.JWKSDocuments["rotated"]
		}
	}
	return s
}

// namesKeyOf reports whether a step's token names a key that is in one document and not in the other.
func (c *oracleCase) namesKeyOf(doc, other json.RawMessage) bool {
	for _, s := range c.Expect.Steps {
		p, err := parse(s.Token)
		if err != nil || p.kid() == "" {
			continue
		}
		name := []byte(`"` + p.kid() + `"`)
		if bytes.Contains(doc, name) && !bytes.Contains(other, name) {
			return true
		}
	}
	return false
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
		if body = string(s.later); n <= 2 {
			status = http.StatusServiceUnavailable
		}
	case "rotating":
		if n > 1 {
			body = string(s.later)
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
		if s.down {
			return nil, context.DeadlineExceeded
		}
		s.calls[r.Method+" "+r.URL.Path]++
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
