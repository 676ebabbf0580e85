//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// What the edge lets through it has read itself, and Tinybird reads it once more. A pair or a member that two parsers read differently
// is how a parameter gets past a filter, so these tests hold the edge's reading against those of Go, Node, Python and ClickHouse.

// differentialCases is how many inputs of each sort are made; about a third of them is let through.
const differentialCases = 30_000

// reader is a program that reads line by line.
type reader struct {
	name string
	in   io.WriteCloser
	out  *bufio.Reader
}

func startReader(t *testing.T, name string, args ...string) *reader {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program(t, name, args[0]), args[1:]...)
	killInTime(t, cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log output
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, log.tail())
		}
	})
	return &reader{name, in, bufio.NewReaderSize(out, 1<<20)}
}

func startReaders(t *testing.T) (node, python *reader) {
	t.Helper()
	return startReader(t, "Node", "node", filepath.Join("readers", "read.mjs")), startReader(t, "Python", "python3", filepath.Join("readers", "read.py"))
}

// read returns what the program makes of each text.
func (r *reader) read(t *testing.T, kind string, texts []string) []string {
	t.Helper()
	var wait sync.WaitGroup
	wait.Go(func() {
		w := bufio.NewWriterSize(r.in, 1<<16)
		for _, text := range texts {
			fmt.Fprintf(w, "%s %x\n", kind, text)
		}
		_ = w.Flush()
	})
	defer wait.Wait()
	readings := make([]string, len(texts))
	for n := range texts {
		line, err := r.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%s ends: %v", r.name, err)
		}
		readings[n] = strings.TrimSuffix(line, "\n")
	}
	return readings
}

// corpus are all texts in the tests of the parsers, which the seeds of their fuzz targets are among.
func corpus(t *testing.T) []string {
	t.Helper()
	var texts []string
	for _, name := range []string{"tinybird/query_test.go", "tinybird/object_test.go", "tinybird/build_test.go", "jsonobject/jsonobject_test.go", "ingest/fuzz_test.go", "ingest/attack_test.go", "ingest/reader_test.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(module, "internal", filepath.FromSlash(name)), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					texts = append(texts, text)
				}
			}
			return true
		})
	}
	if len(texts) < 300 {
		t.Fatalf("a corpus of %d texts", len(texts))
	}
	return texts
}

// inputs are made of the corpus as it is, spoiled and, mostly, of pieces.
func inputs(t *testing.T, r *rand.Rand, pieces []string, random func() string) []string {
	t.Helper()
	list := corpus(t)
	seeds := len(list)
	for len(list) < differentialCases {
		text := random()
		if r.IntN(3) == 0 {
			text = list[r.IntN(seeds)]
		}
		for range r.IntN(3) {
			at := r.IntN(len(text) + 1)
			text = text[:at] + pieces[r.IntN(len(pieces))] + text[min(len(text), at+r.IntN(2)):]
		}
		list = append(list, text)
	}
	return list
}

func testSeed(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// member is the identity whose requests are read.
type tenantIdentity struct{}

func (tenantIdentity) Lookup(string) (any, bool) { return "org_a", true }
func (tenantIdentity) HasRole(string) bool       { return false }
func (tenantIdentity) HasPermission(string) bool { return false }
func (tenantIdentity) HasFeature(string) bool    { return false }
func (tenantIdentity) HasPlan(string) bool       { return false }

func differentialGrant(t *testing.T) *tinybird.Grant {
	t.Helper()
	p, err := tinybird.NewPolicy(tinybird.PolicyConfig{
		CheckPlaceholder: func(string) error { return nil },
		FixedParams:      []tinybird.FixedParam{{Name: "organization_id", Value: "{clerk.org.id}"}, {Name: "task", Value: "{clerk.org.id}"}},
		Pipes:            []tinybird.PipeConfig{{Names: []string{"sales"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.Authorize("sales", "json", tenantIdentity{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// mayGoUp says anew which parameters are the client's to set, in the grant above.
func mayGoUp(name string) bool {
	if name == "" || len(name) > 128 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || '0' <= name[0] && name[0] <= '9' {
		return false
	}
	lower := strings.ToLower(name)
	return !slices.Contains([]string{"token", "q", "pipeline", "organization_id", "task", "debug", "debug_source_tables", "explain", "finalize_aggregations", "playground", "query_id", "release_replacements", "template_parameters"}, lower) &&
		!strings.HasPrefix(lower, "__tb__") && !strings.HasPrefix(lower, "__clerk") && !strings.HasPrefix(lower, "__session")
}

var queryPieces = []string{
	"&", "=", "+", "%", ";", "%26", "%3D", "%25", "%00", "%0a", "%E2%84%AA", "%c5%bf", "%ff", "%C0%80", "%ed%a0%80", "\u00e9", "\u4e16", "\xff", "#", "?", "a", "b", "limit", "a[]", "a%5B0%5D", "a.b",
	"organization_id", "Organization_ID", "organization%5Fid", "tas\u212a", "token", "q", "__tb__x", "x=1", "=1", "==", "&&", "&a", "&organization_id=org_b", "&a=1&a=2", "1", "%2", "%u0061", "\"", "'", "<", "\\", "\t", "\x00", " ", "__proto__", "constructor", "toString", "length", "&amp;", "%EF%BB%BF", "\ufeff",
}

// TestQueryIsReadAlike: the query that goes up has, for Go, Node's two parsers and Python, the parameters that the edge has read from the
// client's, and so has the client's own, without those that may not go up.
func TestQueryIsReadAlike(t *testing.T) {
	t.Parallel()
	node, python := startReaders(t)
	g, r := differentialGrant(t), testSeed(t)
	var client, up, believed []string
	for _, raw := range inputs(t, r, queryPieces, func() string {
		var b strings.Builder
		for range 1 + r.IntN(8) {
			b.WriteString(queryPieces[r.IntN(len(queryPieces))])
		}
		return b.String()
	}) {
		req := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		req.URL.RawQuery = raw
		q, err := tinybird.Build(httptest.NewRecorder(), req, g, tinybird.RequestLimits{})
		if err != nil {
			continue
		}
		values := make(url.Values)
		if err := tinybird.ParseQuery(raw, func(name, value string) {
			if mayGoUp(name) {
				values.Add(name, value)
			}
		}); err != nil {
			t.Fatalf("%q goes up, and is refused: %v", raw, err)
		}
		client, up, believed = append(client, raw), append(up, q.RawQuery), append(believed, groupedValues(values))
		if got, err := url.ParseQuery(q.RawQuery); err != nil || groupedValues(got) != groupedValues(values) {
			t.Errorf("Go reads %q, which became of %q, as %v %v", q.RawQuery, raw, got, err)
		}
	}
	for name, readings := range map[string][]string{
		"Node's URLSearchParams": node.read(t, "query", up), "Node's querystring": node.read(t, "querystring", up), "Python": python.read(t, "query", up),
	} {
		for n, reading := range readings {
			if reading != believed[n] {
				t.Errorf("%s reads %q, which became of %q, as %s, not %s", name, up[n], client[n], reading, believed[n])
			}
		}
	}
	for name, readings := range map[string][]string{
		"Node's URLSearchParams": node.read(t, "query", client), "Node's querystring": node.read(t, "querystring", client), "Python": python.read(t, "query", client),
	} {
		for n, reading := range readings {
			if reading = allowedOf(t, reading); reading != believed[n] {
				t.Errorf("%s reads the client's %q as %s, and the edge as %s", name, client[n], reading, believed[n])
			}
		}
	}
	if t.Logf("%d queries", len(up)); len(up) < differentialCases/20 {
		t.Errorf("only %d of %d queries went up", len(up), differentialCases)
	}
}

// groupedValues writes parameters as the readers do.
func groupedValues(v url.Values) string {
	var all []string
	for name, values := range v {
		var list []string
		for _, value := range values {
			list = append(list, hex.EncodeToString([]byte(value)))
		}
		all = append(all, hex.EncodeToString([]byte(name))+"="+strings.Join(list, ","))
	}
	slices.Sort(all)
	return strings.Join(all, ";")
}

// allowedOf keeps of a reading what may go up.
func allowedOf(t *testing.T, reading string) string {
	t.Helper()
	var kept []string
	for pair := range strings.SplitSeq(reading, ";") {
		encoded, _, _ := strings.Cut(pair, "=")
		name, err := hex.DecodeString(encoded)
		if err != nil {
			return reading // an error
		}
		if mayGoUp(string(name)) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, ";")
}
