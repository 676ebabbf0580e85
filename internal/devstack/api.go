package devstack

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// APIOptions configures an API.
type APIOptions struct {
	WorkspaceID string // "": WorkspaceID
	SigningKey  string // the workspace admin token; "": a new one

	Now   func() time.Time // nil: time.Now
	Pipes []Pipe           // nil: Pipes()

	// Engine runs the Nodes of Pipes; nil: their Run.
	Engine Engine

	// LiveEvery makes a new row each time so much has passed; 0 leaves the rows as they are at the start.
	LiveEvery time.Duration

	// BodyBeatsFixed lets a parameter in the body win over the token's fixed one. Tinybird documents that a fixed
	// parameter wins over the URL and says nothing of the body; a safe edge does not depend on the answer.
	BodyBeatsFixed bool

	// Datasources are those that take rows at /v0/events; nil: analytics_events and events.
	Datasources []string
	// Append, if set, gets the rows that a data source takes, and says how many were stored and how many put aside.
	Append func(datasource string, rows [][]byte) (ok, quarantined int, err error)
}

// WorkspaceID is the workspace of an API that is not given another.
const WorkspaceID = "7d0c5a52-1b0e-4c55-9a3e-5b5f5c0de001"

// API is a Tinybird-shaped API with some rows and pipes. It is as strict about tokens as Tinybird documents, and
// as lenient about where they come from: whatever an edge lets through by mistake takes effect here.
type API struct {
	workspace, key string
	now            func() time.Time
	pipes          map[string]Pipe // by name and by id
	engine         Engine
	formats        map[string]format
	rows           *store
	bodyBeatsFixed bool
	append         string // a static token for events
	datasources    []string
	appender       func(datasource string, rows [][]byte) (ok, quarantined int, err error)
	limits         buckets
	log            recorder

	mu     sync.Mutex
	fail   func(*http.Request) *Fault
	events map[string][][]byte

	once   sync.Once
	closed chan struct{}
}

var _ http.Handler = (*API)(nil)

// NewAPI makes an API.
func NewAPI(o APIOptions) *API {
	if o.WorkspaceID == "" {
		o.WorkspaceID = WorkspaceID
	}
	if o.SigningKey == "" {
		o.SigningKey = NewSigningKey(o.WorkspaceID)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Pipes == nil {
		o.Pipes = Pipes()
	}
	if o.Datasources == nil {
		o.Datasources = []string{"analytics_events", "events"}
	}
	a := &API{
		append:         appendToken(o.SigningKey),
		datasources:    o.Datasources,
		appender:       o.Append,
		events:         map[string][][]byte{},
		workspace:      o.WorkspaceID,
		key:            o.SigningKey,
		now:            o.Now,
		pipes:          map[string]Pipe{},
		engine:         o.Engine,
		formats:        formats(),
		rows:           newStore(o.Now(), o.LiveEvery),
		bodyBeatsFixed: o.BodyBeatsFixed,
		closed:         make(chan struct{}),
	}
	for _, p := range o.Pipes {
		a.pipes[p.Name] = p
		if p.ID != "" {
			a.pipes[p.ID] = p
		}
	}
	return a
}

// Close breaks the requests that a Fault holds.
func (a *API) Close() { a.once.Do(func() { close(a.closed) }) }

// WorkspaceID is the workspace that tokens must name.
func (a *API) WorkspaceID() string { return a.workspace }

// SigningKey is the workspace admin token: what JWTs are signed with, and an all-powerful token by itself.
func (a *API) SigningKey() string { return a.key }

// Rows returns all rows there are now, of all tenants, oldest first.
func (a *API) Rows() []Row { return slices.Clone(a.rows.at(a.now())) }

// Fail asks f about every request, after it has been recorded; nil ends that. f returns nil for an answer as it
// should be. f may block, and sees the request without its body.
func (a *API) Fail(f func(*http.Request) *Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = f
}

// ServeHTTP answers as Tinybird's API does. Browsers may call it from any site, as they may call Tinybird.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in, bad := readInput(w, r)
	var who caller
	if bad == nil {
		who, bad = a.authenticate(in)
	}
	a.log.add(in, who)

	a.mu.Lock()
	fail := a.fail
	a.mu.Unlock()
	var f *Fault
	if fail != nil {
		f = fail(r)
	}
	deliver(w, r, a.answer(in, who, bad), f, a.closed) //nolint:contextcheck // in has the request, and that the context
}

func (a *API) answer(in *input, who caller, bad *refusal) answer {
	out := answer{status: http.StatusOK, header: http.Header{"Access-Control-Allow-Origin": {"*"}}}
	switch {
	case in.r.Method == http.MethodOptions:
		out.status = http.StatusNoContent
		out.header.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS")
		out.header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		return out
	case in.r.URL.Path == "/v0/regions":
		out.header.Set("Content-Type", "application/json; charset=UTF-8")
		out.body = []byte(`{"regions":[{"name":"local","provider":"local","api_host":"http://` + in.r.Host + `"}]}`)
		return out
	}
	if bad == nil {
		bad = a.route(in, who, &out)
	}
	if bad != nil {
		bad.into(&out)
	}
	return out
}

func (a *API) route(in *input, who caller, out *answer) *refusal {
	if in.r.Method != http.MethodGet && in.r.Method != http.MethodPost {
		return &refusal{status: http.StatusMethodNotAllowed, text: "Method Not Allowed"}
	}
	path := in.r.URL.Path
	if path == eventsPath {
		return a.takeEvents(in, who, out)
	}
	if path == "/v0/sql" {
		return a.sql(in, who, "", "", out)
	}
	if file, ok := strings.CutPrefix(path, "/v0/pipes/"); ok {
		if name, ext, ok := strings.Cut(file, "."); ok && !strings.Contains(file, "/") {
			return a.pipe(in, who, name, ext, out)
		}
	}
	if who.admin && in.r.Method == http.MethodGet {
		if bad, known := a.aboutWorkspace(path, out); known {
			return bad
		}
	}
	if strings.HasPrefix(path, "/v0/") {
		return &refusal{status: http.StatusForbidden, text: "Not enough permissions: JWTs only read endpoints", doc: docAuth}
	}
	return &refusal{status: http.StatusNotFound, text: "Not found"}
}

func (a *API) pipe(in *input, who caller, name, ext string, out *answer) *refusal {
	p, exists := a.pipes[name]
	ids := []string{name}
	if exists {
		ids = []string{p.Name, p.ID}
	}
	fixed, bad := who.scope(ids)
	if bad == nil {
		bad = a.count(who, out)
	}
	if bad != nil {
		return bad
	}
	fm, known := a.formats[ext]
	switch {
	case !exists || !known:
		return &refusal{status: http.StatusNotFound, text: "The pipe '" + name + "' does not exist", doc: docPipe}
	case p.Run == nil && (a.engine == nil || !p.published()):
		return &refusal{status: http.StatusNotFound, text: "The pipe '" + p.Name + "' does not have an endpoint yet", doc: docPipe}
	case in.sql != "":
		return a.sql(in, who, p.Name, ext, out)
	case a.engine != nil:
		return a.ask(in, Question{Pipe: p.Name, Params: a.merge(in, fixed)}, ext, out)
	}
	q, bad := p.bind(a.rows.at(a.now()), a.merge(in, fixed))
	if bad != nil {
		return bad
	}
	return write(p.Run(q), fm, out)
}

// merge is the parameters of a call: those of the URL, over them those of the body, over all the token's fixed.
func (a *API) merge(in *input, fixed map[string]string) map[string]string {
	given := map[string]string{}
	layers := []map[string]string{in.query, in.body, fixed}
	if a.bodyBeatsFixed {
		layers = []map[string]string{in.query, fixed, in.body}
	}
	for _, layer := range layers {
		maps.Copy(given, layer)
	}
	return given
}

// count applies limits.rps of the token and reports it in the X-RateLimit headers.
func (a *API) count(who caller, out *answer) *refusal {
	if who.rps <= 0 {
		return nil
	}
	res := a.limits.take(who.name, who.rps, a.now())
	out.header.Set("X-RateLimit-Limit", strconv.Itoa(who.rps))
	out.header.Set("X-RateLimit-Remaining", strconv.Itoa(res.remaining))
	out.header.Set("X-RateLimit-Reset", strconv.Itoa(res.reset))
	if res.ok {
		return nil
	}
	out.header.Set("Retry-After", strconv.Itoa(res.retryAfter))
	return &refusal{status: http.StatusTooManyRequests, text: "Too many requests: the rate limit of token '" + who.name + "' is exceeded", doc: docLimits}
}

func write(res Result, fm format, out *answer) *refusal {
	body, err := fm.encode(res)
	if err != nil {
		return &refusal{status: http.StatusBadRequest, text: err.Error(), doc: docPipe}
	}
	out.header.Set("Content-Type", fm.contentType)
	out.body = body
	return nil
}

// queryValues joins what is given twice with commas, as an Array parameter reads it.
func queryValues(v url.Values) map[string]string {
	m := make(map[string]string, len(v))
	for name, all := range v {
		m[name] = strings.Join(all, ",")
	}
	return m
}
