package tinybird

import (
	"errors"
	"net/http"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// Defaults of RequestLimits.
const (
	DefaultMaxURL  = 8 << 10
	DefaultMaxBody = 1 << 20
)

// RequestLimits bound what a client may send, in bytes.
type RequestLimits struct {
	MaxURL  int   // path and query, as they came and as they go up; 0: DefaultMaxURL
	MaxBody int64 // 0: DefaultMaxBody
}

// Question is the request that goes up, but for its headers.
type Question struct {
	Method   string // GET or POST
	Path     string // /v0/pipes/<pipe>.<format>, made of the policy's own strings
	RawQuery string // encoded anew from the parameters that may go up
	Body     []byte // nil, or a JSON object written anew from the members that may go up
	Dropped  int    // parameters and members that were left out
}

// Build constructs the upstream request for a grant from what r asks. The path is the grant's, a GET's body
// is not read, and parameters that are reserved, fixed, or not let through are left out and counted. The
// error is always an *apierr.Error: 400 for a query or body that could be read in two ways and for
// upgrades, 405, 413, 414, 415.
func Build(w http.ResponseWriter, r *http.Request, g *Grant, lim RequestLimits) (Question, error) {
	if lim.MaxURL <= 0 {
		lim.MaxURL = DefaultMaxURL
	}
	if lim.MaxBody <= 0 {
		lim.MaxBody = DefaultMaxBody
	}
	if g == nil || !validName(g.Pipe) || !validFormat(g.Format) {
		return Question{}, apierr.New(http.StatusInternalServerError, apierr.Internal, "The request could not be built.").
			Wrap(errors.New("a grant without a usable pipe and format"))
	}
	if err := CheckNoUpgrade(r.Header); err != nil {
		return Question{}, err
	}
	q := Question{Path: g.path}
	if q.Path == "" {
		q.Path = pathPrefix + g.Pipe + "." + g.Format
	}
	switch r.Method {
	case http.MethodGet:
		q.Method = http.MethodGet
	case http.MethodPost:
		q.Method = http.MethodPost
	default:
		return Question{}, apierr.New(http.StatusMethodNotAllowed, apierr.MethodNotAllowed, "Use GET or POST.").
			With("Allow", "GET, POST")
	}
	if err := q.addQuery(r.URL.RawQuery, g, lim.MaxURL); err != nil {
		return Question{}, err
	}
	if q.Method == http.MethodPost {
		if err := q.addBody(w, r, g, lim.MaxBody); err != nil {
			return Question{}, err
		}
	}
	return q, nil
}

func (q *Question) addQuery(raw string, g *Grant, limit int) error {
	if len(q.Path)+1+len(raw) > limit {
		return urlTooLong()
	}
	query, dropped, err := buildQuery(raw, g.lets)
	if err != nil {
		return apierr.New(http.StatusBadRequest, apierr.BadQuery,
			"The URL's query is malformed. Separate parameters by &, and percent-encode their names and values as UTF-8.").
			Wrap(err)
	}
	// Escaping can make three bytes of one.
	if len(q.Path)+1+len(query) > limit {
		return urlTooLong()
	}
	q.RawQuery = query
	q.Dropped += dropped
	return nil
}

func (q *Question) addBody(w http.ResponseWriter, r *http.Request, g *Grant, limit int64) error {
	raw, err := readBody(w, r, limit)
	if err != nil || raw == nil {
		return err
	}
	body, dropped, err := buildObject(raw, g.lets)
	if err != nil {
		return apierr.New(http.StatusBadRequest, apierr.BadBody,
			"The request's body must be one JSON object in UTF-8 that names no member twice and does not nest deeply.").
			Wrap(err)
	}
	q.Body = body
	q.Dropped += dropped
	return nil
}

// CheckNoUpgrade refuses a request for another protocol. The error is an *apierr.Error: 400.
func CheckNoUpgrade(h http.Header) error {
	if !upgrades(h) {
		return nil
	}
	return apierr.New(http.StatusBadRequest, apierr.BadRequest,
		"Upgrades are not supported here. Send the request without the Upgrade header.")
}

// upgrades reports whether the client asks for another protocol on the connection (RFC 9110 section 7.8).
func upgrades(h http.Header) bool {
	if len(h.Values("Upgrade")) > 0 {
		return true
	}
	for _, line := range h.Values("Connection") {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(option), "upgrade") {
				return true
			}
		}
	}
	return false
}

func urlTooLong() *apierr.Error {
	return apierr.New(http.StatusRequestURITooLong, apierr.URLTooLong,
		"The URL is too long. Send the parameters as a JSON object in a POST request.")
}
