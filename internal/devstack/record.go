package devstack

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// maxRecorded bounds the requests that are remembered; the oldest are forgotten first.
const maxRecorded = 1000

// Recorded is one request as it arrived.
type Recorded struct {
	Method   string
	Host     string
	Path     string // as sent, still escaped
	RawQuery string
	Header   http.Header
	Body     []byte

	// Token is what the request was judged by and TokenFrom where it was: "header", "query" or "body", in the
	// reverse of that order if there were several. Tokens lists them all.
	Token, TokenFrom string
	Tokens           []string
	Claims           map[string]any // of a JWT whose signature held, numbers as json.Number; nil otherwise
}

type recorder struct {
	mu   sync.Mutex
	list []Recorded
}

func (l *recorder) add(in *input, who caller) {
	path, query, _ := strings.Cut(in.r.RequestURI, "?")
	rec := Recorded{
		Method: in.r.Method, Host: in.r.Host, Path: path, RawQuery: query,
		Header: in.r.Header.Clone(), Body: slices.Clone(in.raw),
		Token: who.token, TokenFrom: who.from, Claims: who.claims,
	}
	for _, c := range in.tokens() {
		rec.Tokens = append(rec.Tokens, c.token)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= maxRecorded {
		l.list = slices.Delete(l.list, 0, 1)
	}
	l.list = append(l.list, rec)
}

// Requests returns the requests since the start or the last Reset, oldest first, at most the latest thousand.
func (a *API) Requests() []Recorded {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	list := slices.Clone(a.log.list)
	for n := range list {
		list[n].Claims = maps.Clone(list[n].Claims)
	}
	return list
}

// Reset forgets the recorded requests.
func (a *API) Reset() {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	a.log.list = nil
}
