package bapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// call is one request, and the member of its answer that is wanted.
type call struct {
	method  string
	url     *url.URL
	body    any    // nil: none
	list    string // the member that holds the list
	object  string // what the member "object" says, if the answer has one; empty: anything
	member  string // of the list's elements that are objects, the member that is wanted; empty: they are strings
	secrets []string
}

// call makes the request when its turn comes. The error is an *Error.
func (c *Client) call(ctx context.Context, q call) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, c.late)
	defer cancel()
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // also if its turn came in the same moment
		return nil, &Error{Err: c.ended(ctx, errTurn)}
	}
	status, doc, err := c.send(ctx, q)
	if err != nil {
		return nil, &Error{Status: status, Err: c.ended(ctx, err)}
	}
	if status != http.StatusOK {
		return nil, c.refused(status, doc, q.secrets)
	}
	list, err := q.decode(doc)
	if err != nil {
		return nil, &Error{Status: status, Err: err}
	}
	return list, nil
}

// send returns the answer, which is no longer than maxAnswer; half an answer is none. The error says nothing that came from the other side.
func (c *Client) send(ctx context.Context, q call) (status int, doc []byte, err error) {
	r, err := c.request(ctx, q)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, nil, known(err)
	}
	defer resp.Body.Close()
	doc, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, known(err)
	}
	if len(doc) > maxAnswer {
		return resp.StatusCode, nil, errHuge
	}
	return resp.StatusCode, doc, nil
}

func (c *Client) request(ctx context.Context, q call) (*http.Request, error) {
	var body io.Reader = http.NoBody
	if q.body != nil {
		text, err := json.Marshal(q.body)
		if err != nil {
			return nil, errRequest
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, q.url.String(), body)
	if err != nil {
		return nil, errRequest
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Authorization", "Bearer "+c.key)
	r.Header.Set("Clerk-API-Version", Version)
	r.Header.Set("User-Agent", "caddy-tinybird")
	if q.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

var codePattern = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// refused is the error for an answer with another status than 200. Its code is left out if it is none.
func (c *Client) refused(status int, doc []byte, secrets []string) *Error {
	e := &Error{Status: status}
	switch status / 100 {
	case 2:
		e.Err = errShape
		return e
	case 3:
		e.Err = errRedirect
		return e
	}
	code := decodeCode(doc)
	if !codePattern.MatchString(code) {
		return e
	}
	for _, s := range append(secrets, c.key) {
		if s != "" && strings.Contains(code, s) {
			code = CodeHidden
		}
	}
	e.Code = code
	return e
}

func (q *call) decode(doc []byte) ([]string, error) {
	if q.member != "" {
		return decodeMembers(doc, q.list, q.member)
	}
	return decodeList(doc, q.list, q.object)
}

// decodeMembers reads one member of each object in a list. Objects without it are left out.
func decodeMembers(doc []byte, name, member string) ([]string, error) {
	var answer map[string]json.RawMessage
	if json.Unmarshal(doc, &answer) != nil || answer == nil {
		return nil, errNoJSON
	}
	var list []map[string]any
	if json.Unmarshal(answer[name], &list) != nil || list == nil {
		return nil, errShape
	}
	texts := []string{}
	for _, object := range list {
		if text, ok := object[member].(string); ok {
			texts = append(texts, text)
		}
	}
	return texts, nil
}

// decodeList reads the list of strings in an answer. The error quotes nothing of it.
func decodeList(doc []byte, name, object string) ([]string, error) {
	var answer map[string]json.RawMessage // names in exactly their case, unlike the fields of a struct
	if json.Unmarshal(doc, &answer) != nil || answer == nil {
		return nil, errNoJSON
	}
	if raw, ok := answer["object"]; ok && object != "" {
		var kind string
		if json.Unmarshal(raw, &kind) != nil || kind != object {
			return nil, errShape
		}
	}
	var list []*string
	if json.Unmarshal(answer[name], &list) != nil || list == nil {
		return nil, errShape
	}
	texts := make([]string, len(list))
	for n, text := range list {
		if text == nil {
			return nil, errShape
		}
		texts[n] = *text
	}
	return texts, nil
}

// decodeCode returns the code of the first error in an answer, "" if there is none.
func decodeCode(doc []byte) string {
	var answer struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal(doc, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	return answer.Errors[0].Code
}
