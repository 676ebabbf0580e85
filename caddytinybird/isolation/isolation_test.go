// Package isolation_test attacks the whole handler with random configs, sessions and requests, and holds every answer and everything
// that goes up to the promises P1 to P3: one credential, the tenant's own fixed parameters, a path that was built.
//
// What is right is worked out by an oracle of its own, from the config and the sessions as they were made; it shares no
// code with the handler. Each case is made from a seed. What fails says how to run it again; its seed then belongs into
// testdata/seeds.txt, which is always run.
package isolation_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// casesOfWorld is how many requests each config gets, per group.
const casesOfWorld = 600

// count is a number from the environment.
func count(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// seeds are those that are always run, or the one of the environment alone.
func seeds(t testing.TB) (list []uint64, only bool) {
	t.Helper()
	text := os.Getenv("ISOLATION_SEED")
	only = text != ""
	if !only {
		kept, err := os.ReadFile("testdata/seeds.txt")
		if err != nil {
			t.Fatal(err)
		}
		text = string(kept)
	}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		seed, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, seed)
	}
	return list, only
}

// figures are what became of the cases of each kind.
type figures struct {
	mu   sync.Mutex
	kind map[string]*tally
}

type tally struct {
	cases, up, rows, shared int
	refused                 map[string]int
}

func (f *figures) of(kind string) *tally {
	if f.kind == nil {
		f.kind = make(map[string]*tally)
	}
	if f.kind[kind] == nil {
		f.kind[kind] = &tally{refused: make(map[string]int)}
	}
	return f.kind[kind]
}

func (f *figures) add(kind string, up int, rows, shared bool, code string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.of(kind)
	n.cases++
	if up > 0 {
		n.up++
	}
	if rows {
		n.rows++
	}
	if shared {
		n.shared++
	}
	if code != "" {
		n.refused[code]++
	}
}

func (f *figures) String() string {
	var b strings.Builder
	total := tally{refused: make(map[string]int)}
	for _, kind := range slices.Sorted(maps.Keys(f.kind)) {
		n := f.kind[kind]
		fmt.Fprintf(&b, "\n%-15s %8d cases, %8d went up, %8d got rows, %7d of them shared; refused:", kind, n.cases, n.up, n.rows, n.shared)
		for _, code := range slices.Sorted(maps.Keys(n.refused)) {
			fmt.Fprintf(&b, " %s %d", code, n.refused[code])
			total.refused[code] += n.refused[code]
		}
		total.cases, total.up, total.rows, total.shared = total.cases+n.cases, total.up+n.up, total.rows+n.rows, total.shared+n.shared
	}
	fmt.Fprintf(&b, "\n%-15s %8d cases, %8d went up, %8d got rows, %7d of them shared; refused:", "all", total.cases, total.up, total.rows, total.shared)
	for _, code := range slices.Sorted(maps.Keys(total.refused)) {
		fmt.Fprintf(&b, " %s %d", code, total.refused[code])
	}
	return b.String()
}

// TestIsolation: whatever the config, the session and the request, only the tenant's own rows come back, and what goes up is one
// credential, the tenant's fixed parameters and a built path. ISOLATION_CASES is how many cases there are, ISOLATION_SEED the one
// config to run.
func TestIsolation(t *testing.T) { //nolint:paralleltest // a process has one config of Caddy's
	s := newSetting(t)
	f := new(figures)
	list, only := seeds(t)
	const each = casesOfWorld * groupCount
	worlds := max(len(list)+1, (count(t, "ISOLATION_CASES", 6000)+each-1)/each)
	for n := range worlds {
		seed := rand.Uint64()
		if n < len(list) {
			seed = list[n]
		} else if only {
			break
		}
		server, err := s.load(seed)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var wait sync.WaitGroup
		for n, g := range s.groups {
			wait.Go(func() {
				for i := range casesOfWorld {
					if err := s.run(server, g, rand.New(rand.NewPCG(seed, uint64(n)<<32+uint64(i)+1)), f); err != nil {
						t.Errorf("case %d of group %d: %v\nrun it again: ISOLATION_SEED=%d go test -run '^TestIsolation$' ./caddytinybird/isolation", i, n, err, seed)
						return
					}
				}
			})
		}
		wait.Wait()
		if t.Failed() {
			break
		}
	}
	t.Log(f)
	if !only && !t.Failed() {
		f.check(t)
	}
}

// check sees that the cases were worth something: of each kind some were answered, or refused, in the way that is usual.
func (f *figures) check(t *testing.T) {
	t.Helper()
	shared := 0
	for _, kind := range kinds {
		n := f.of(kind)
		shared += n.shared
		rare := kind == "mutated" || kind == "path" || kind == "token endpoint"
		if n.cases < 50 || n.up == 0 && !rare || kind == "plain" && n.rows < n.cases/4 {
			t.Errorf("%s: %d cases, %d went up, %d got rows: that shows nothing", kind, n.cases, n.up, n.rows)
		}
	}
	if shared == 0 {
		t.Error("no answer was shared")
	}
}

// run is one case.
func (s *setting) run(server *caddyhttp.Server, g *group, r *rand.Rand, f *figures) error {
	a := &asker{r, s, g}
	q := a.question()
	raw := q.write()
	spoiled := q.kind == "mutated"
	if spoiled {
		raw = a.mutate(raw)
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		f.add(q.kind, 0, false, false, "no HTTP")
		return nil //nolint:nilerr // a server refuses it before any handler
	}
	seen := take(req, spoiled)
	g.api.Reset()
	w, aborted := serve(server, req)
	up := g.api.Requests()

	code := ""
	if w.Code >= http.StatusBadRequest {
		code = codeOf(w)
	}
	if aborted {
		code = "aborted"
	}
	err = s.judge(g, q, seen, w, up, code)
	if err != nil {
		return errors.New(s.short(fmt.Sprintf("%s: %v\nthe request: %q\nthe answer: %d %v %.400q\nwent up: %+v", q.kind, err, raw, w.Code, w.Header(), w.Body, up)))
	}
	rows := w.Code == http.StatusOK && (aMark.Match(w.Body.Bytes()) || bytes.Contains(w.Body.Bytes(), []byte("successful_rows")) || bytes.Contains(w.Body.Bytes(), []byte(`"token"`)))
	f.add(q.kind, len(up), rows, rows && len(up) == 0 && w.Header().Get("Cache-Status") != "", code)
	return nil
}

// short writes names for the tokens in a text.
func (s *setting) short(text string) string {
	for n, p := range s.people {
		text = strings.ReplaceAll(text, p.token, fmt.Sprintf("<session of %d>", n))
	}
	return aLongText.ReplaceAllString(text, "<long>")
}

var aLongText = regexp.MustCompile(`(x|%78){100,}`)

// take takes down what a request says, and gives it its body back.
func take(r *http.Request, spoiled bool) asked {
	body, err := io.ReadAll(r.Body)
	again := io.Reader(bytes.NewReader(body))
	if err != nil {
		again = io.MultiReader(again, broken{err})
	}
	r.Body = io.NopCloser(again)
	r.RemoteAddr = "192.0.2.1:1"
	return asked{
		method: r.Method, host: r.Host, path: r.URL.EscapedPath(), rawQuery: r.URL.RawQuery, header: r.Header.Clone(),
		body: body, whole: err == nil, spoiled: spoiled,
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func serve(server *caddyhttp.Server, r *http.Request) (w *httptest.ResponseRecorder, aborted bool) {
	w = httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			aborted = true
		}
	}()
	server.ServeHTTP(w, r)
	return w, false
}

// codeOf is the code of a refusal.
func codeOf(w *httptest.ResponseRecorder) string {
	var refusal struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(w.Body.Bytes(), &refusal) != nil || refusal.Code == "" {
		return strconv.Itoa(w.Code)
	}
	return refusal.Code
}

// upstreamCodes are refusals that Tinybird has a part in: only these may have gone up.
var upstreamCodes = []string{"query_refused", "upstream_refused", "upstream_unreachable", "upstream_timeout", "rate_limited", "aborted", "events_incomplete", "bad_body", "304"}

// judge is the oracle: it holds one case to the promises.
func (s *setting) judge(g *group, q *question, r asked, w *httptest.ResponseRecorder, up []devstack.Recorded, code string) error {
	site := g.siteOf(r.host)
	if site == nil {
		if len(up) > 0 || aMark.Match(w.Body.Bytes()) {
			return fmt.Errorf("the host %q is no site's, and was answered", r.host)
		}
		return nil
	}
	who := g.claimants(s, site, r)
	if code != "" && len(up) > 0 && !slices.Contains(upstreamCodes, code) {
		return fmt.Errorf("refused with %s, and %d requests went up", code, len(up))
	}
	if code == "upstream_refused" || code == "internal" || code == "500" {
		return fmt.Errorf("the answer %s", code)
	}
	if code != "" && aMark.Match(w.Body.Bytes()) {
		return errors.New("a refusal has rows")
	}
	for _, one := range up {
		p, values, err := g.upstream(s, site, one, who, r.spoiled)
		if err == nil && p != nil {
			err = site.same(p, r, one, values)
		}
		if err != nil {
			return err
		}
	}
	if len(up) > 1 && up[0].Path != "/v0/events" {
		return fmt.Errorf("%d requests went up", len(up))
	}
	if code == "" {
		if err := s.answer(g, site, r, w, who); err != nil {
			return err
		}
	}
	if q.kind == "plain" {
		return q.plain(r, w, code)
	}
	return nil
}

func (s *setting) answer(g *group, site *site, r asked, w *httptest.ResponseRecorder, who []claimant) error {
	m := aPath.FindStringSubmatch(site.path(r.path))
	body := w.Body.Bytes()
	switch {
	case m != nil && site.pipes[m[1]] != nil:
		return site.pipes[m[1]].answer(body, who)
	case aMark.Match(body):
		return fmt.Errorf("%s was answered with rows", r.path)
	case w.Code == http.StatusOK && site.endpoint != "" && bytes.Contains(body, []byte(`"token"`)):
		return g.clientToken(site, body, who)
	default:
		return nil
	}
}

// plain holds that an ordinary request is answered: a handler that refuses everything would pass all else.
func (q *question) plain(r asked, w *httptest.ResponseRecorder, code string) error {
	m := aPath.FindStringSubmatch(q.site.path(r.path))
	if q.me == nil || m == nil || m[2] == "prometheus" || q.site.pipes[m[1]] == nil {
		return nil
	}
	p := q.site.pipes[m[1]]
	_, may := p.tenant(claimant{person: q.me})
	listed := slices.Contains(allFormats, m[2]) && (p.formats == nil || slices.Contains(p.formats, m[2]))
	want := may && listed
	limited := code == "rate_limited" && q.site.rate > 0 && q.site.rate < 1000
	if ok := w.Code == http.StatusOK; ok != want && (!want || !limited) {
		return fmt.Errorf("answered: %v, want %v", ok, want)
	}
	if want && w.Code == http.StatusOK && m[2] == "json" && !aMark.Match(w.Body.Bytes()) {
		return errors.New("no rows")
	}
	return nil
}
