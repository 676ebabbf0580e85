package devstack

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

const (
	maxBody = 10 << 20
	maxURL  = 16 << 10 // Tinybird answers 414 as well; from what length on is not documented
)

// input is a request after reading: its parameters by where they were, its SQL if it has some, and every place a
// token was found in.
type input struct {
	r     *http.Request
	raw   []byte
	query map[string]string
	body  map[string]string
	sql   string
}

// readInput reads generously: forms and JSON, SQL in the body or in q. It refuses only what cannot be read.
func readInput(w http.ResponseWriter, r *http.Request) (*input, *refusal) {
	in := &input{r: r}
	if r.ContentLength < 0 && r.Method == http.MethodPost {
		return in, &refusal{status: http.StatusLengthRequired, text: "Content-Length is required"}
	}
	if len(r.RequestURI) > maxURL {
		return in, &refusal{status: http.StatusRequestURITooLong, text: "The URL is too long"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	in.raw = body
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return in, &refusal{status: http.StatusRequestEntityTooLarge, text: "The body is too large"}
		}
		return in, &refusal{status: http.StatusBadRequest, text: "The body could not be read"}
	}
	// Pairs that cannot be parsed are left out; those around them count.
	query, _ := url.ParseQuery(r.URL.RawQuery)
	in.query = queryValues(query)
	in.sql = in.query["q"]
	if bad := in.parseBody(); bad != nil {
		return in, bad
	}
	return in, nil
}

func (in *input) parseBody() *refusal {
	text := bytes.TrimSpace(in.raw)
	if len(text) == 0 || in.r.Method != http.MethodPost || in.r.URL.Path == eventsPath {
		return nil
	}
	// A media type that cannot be parsed is none, and a bad pair of a form is left out, as in the query.
	mt, _, _ := mime.ParseMediaType(in.r.Header.Get("Content-Type"))
	switch {
	case isSQL(string(text)):
		in.sql = string(text)
	case mt == "application/json" || text[0] == '{':
		return in.parseJSON(text)
	default:
		form, _ := url.ParseQuery(string(text))
		in.body = queryValues(form)
	}
	if in.body["q"] != "" {
		in.sql = in.body["q"]
	}
	return nil
}

func (in *input) parseJSON(text []byte) *refusal {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var members map[string]any
	if err := dec.Decode(&members); err != nil {
		return &refusal{status: http.StatusBadRequest, text: "The body is not a JSON object", doc: docQuery}
	}
	in.body = map[string]string{}
	for name, v := range members {
		if text, ok := scalarText(v); ok {
			in.body[name] = text
		}
	}
	if in.body["q"] != "" {
		in.sql = in.body["q"]
	}
	return nil
}

// scalarText is a JSON value as a parameter's text: arrays are joined with commas, objects stay JSON, and null is
// as if it were not there.
func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", false
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case []any:
		parts := make([]string, 0, len(v))
		for _, e := range v {
			if text, ok := scalarText(e); ok {
				parts = append(parts, text)
			}
		}
		return strings.Join(parts, ","), true
	}
	text, err := marshal(v) // objects, true and false
	return string(text), err == nil
}

// tokens lists the request's credentials, most surprising place first: which of them Tinybird takes when there
// are several is not documented, so the one that an edge is most likely to have overlooked decides here.
func (in *input) tokens() []credential {
	var found []credential
	if t := in.body["token"]; t != "" {
		found = append(found, credential{t, "body"})
	}
	if t := in.query["token"]; t != "" {
		found = append(found, credential{t, "query"})
	}
	for _, h := range in.r.Header.Values("Authorization") {
		scheme, t, ok := strings.Cut(h, " ")
		if ok && strings.EqualFold(scheme, "Bearer") {
			found = append(found, credential{strings.TrimSpace(t), "header"})
		}
	}
	return found
}

type credential struct{ token, from string }

// sqlStart is how SQL and templates begin: after comments and parentheses, by a word that no form or parameter goes on from.
var sqlStart = regexp.MustCompile(`(?is)^(?:[\s(]|--[^\n]*\n|/\*.*?\*/)*(?:%\s|(?:SELECT|WITH|FROM|DESC|DESCRIBE|EXPLAIN|SHOW|EXISTS)[^\w=&])`)

func isSQL(text string) bool { return sqlStart.MatchString(text) }
