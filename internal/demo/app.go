package demo

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

//go:embed page
var pageFiles embed.FS

// contentSecurity lets the page have what it brings itself and nothing else.
const contentSecurity = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// app is the front end behind the edge: the page, the issuer's sign-in, and what the page tells of the two
// stand-ins. It takes no part in answering a pipe.
type app struct {
	demo  *Demo
	files fs.FS
	down  atomic.Bool
}

// newApp serves the page to browsers that came through the edge, which answers at host.
func newApp(d *Demo, host string) http.Handler {
	a := &app{demo: d}
	// The folder is embedded, so it is there.
	a.files, _ = fs.Sub(pageFiles, "page")
	own := http.NewServeMux()
	own.HandleFunc("GET /demo/setup", a.setup)
	own.HandleFunc("GET /demo/received", a.received)
	own.HandleFunc("GET /demo/decisions", a.decisions)
	own.HandleFunc("GET /demo/issuer", a.issuer)
	own.HandleFunc("POST /demo/issuer", a.setIssuer)

	mux := http.NewServeMux()
	mux.Handle("/dev/", d.Stack.Issuer)
	mux.Handle("/demo/", ownPageOnly(host, own))
	mux.HandleFunc("/", a.page)
	return mux
}

// ownPageOnly refuses what other sites open in the same browser could send: by a name of theirs that resolves to
// loopback, by a cross-site request, or by a form.
func ownPageOnly(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		origin := r.Header.Get("Origin")
		switch {
		case r.Host != host, site != "" && site != "same-origin" && site != "none", origin != "" && origin != "http://"+host:
			writeJSON(w, http.StatusForbidden, map[string]string{"error": "Only the demo's own page is answered here."})
		case r.Method == http.MethodPost && r.Header.Get("Content-Type") != "application/json":
			writeJSON(w, http.StatusUnsupportedMediaType, map[string]string{"error": "The body must be JSON."})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// mediaTypes are set here, because those of the operating system can be anything.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func (a *app) page(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if name == "" {
		name = "index.html"
	}
	body, err := fs.ReadFile(a.files, name)
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurity)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	switch {
	case err != nil:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "This page is only read.", http.StatusMethodNotAllowed)
		return
	}
	h.Set("Content-Type", mediaTypes[path.Ext(name)])
	_, _ = w.Write(body) //nolint:gosec // a file that was embedded, whole
}

// organization is what the page shows of a tenant.
type organization struct {
	ID   string `json:"id"`
	Slug string `json:"slug"`
	Name string `json:"name"`
}

func organizations() []organization {
	var list []organization
	seen := map[string]bool{}
	for _, u := range devstack.Users() {
		if o := u.Organization; o != nil && !seen[o.ID] {
			seen[o.ID] = true
			list = append(list, organization{o.ID, o.Slug, o.Name})
		}
	}
	return list
}

// issuerState is what the page shows of the key server.
type issuerState struct {
	Down    bool `json:"down"`
	Fetches int  `json:"fetches"`
}

func (a *app) issuerState() issuerState {
	return issuerState{Down: a.down.Load(), Fetches: a.demo.Stack.Issuer.Fetches()}
}

func (a *app) setup(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"users":         devstack.Users(),
		"organizations": organizations(),
		"caddyfile":     a.demo.Caddyfile,
		"site":          a.demo.Site,
		"issuer":        a.issuerState(),
	})
}

func (a *app) issuer(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, a.issuerState())
}

func (a *app) setIssuer(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Down bool `json:"down"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&in); err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "The body is not the JSON object that this endpoint takes."})
		return
	}
	a.down.Store(in.Down)
	a.demo.Stack.Issuer.SetDown(in.Down)
	writeJSON(w, http.StatusOK, a.issuerState())
}

// receipt is one request as the API received it. The token itself is not in it: its claims are enough to look at.
type receipt struct {
	Method      string         `json:"method"`
	Path        string         `json:"path"`
	RawQuery    string         `json:"raw_query"`
	Body        string         `json:"body"`
	Credentials int            `json:"credentials"`
	Claims      map[string]any `json:"claims"`
}

// received answers what reached the API with the trace id that the page had given its request. The edge passes the
// traceparent header on, as it would in production.
func (a *app) received(w http.ResponseWriter, r *http.Request) {
	got, ok := receivedFor(a.demo.Stack.API, r.URL.Query().Get("trace"))
	if !ok {
		writeJSON(w, http.StatusOK, map[string]any{"received": nil})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"received": receipt{
		Method: got.Method, Path: got.Path, RawQuery: got.RawQuery, Body: string(got.Body),
		Credentials: len(got.Tokens), Claims: got.Claims,
	}})
}

// receivedFor returns the API's record of the latest request with a trace id.
func receivedFor(api *devstack.API, trace string) (devstack.Recorded, bool) {
	for _, got := range slices.Backward(api.Requests()) {
		// W3C trace context: version-traceid-parentid-flags.
		if parts := strings.Split(got.Header.Get("Traceparent"), "-"); len(parts) == 4 && parts[1] == trace {
			return got, true
		}
	}
	return devstack.Recorded{}, false
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, `{"error":"The answer could not be encoded."}`, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
