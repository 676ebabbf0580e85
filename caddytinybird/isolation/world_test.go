package isolation_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"

	_ "github.com/seed-32cb3e43/caddy-tinybird/caddytinybird"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// group is a workspace at Tinybird, and the sites that read from it. They share what the edge remembers of a workspace. The cases of
// a group come one after another, so that what its API has seen is that of the case.
type group struct {
	api                 *devstack.API
	url                 string
	keyFile, appendFile string
	templates           []*templateToken
	sites               []*site
	asked               []*question // the latest
}

// templateToken is a token of Clerk's template for Tinybird.
type templateToken struct {
	token string
	user  string
	fixed map[string]map[string]any // by pipe
}

// setting is what all worlds of a test share: processes, keys and people. Making it is slow.
type setting struct {
	issuer *devstack.Stack
	people []*person
	tokens map[string]*person
	bad    []string
	groups []*group
	port   int
	dir    string
}

const groupCount = 2

// pipesOfAPI answer each with what Tinybird has read: one row that has, for each parameter that could be fixed, a digest of its value.
func pipesOfAPI() []devstack.Pipe {
	var params []devstack.Param
	var columns []devstack.Column
	for _, name := range append(slices.Clone(fixedNames), markerParam) {
		params = append(params, devstack.Param{Name: name, Type: devstack.TypeString})
		columns = append(columns, devstack.Column{Name: name, Type: "String"})
	}
	run := func(q devstack.Query) devstack.Result {
		var row []any
		for _, name := range fixedNames {
			if !q.Defined(name) {
				row = append(row, mark(name, "everybody's"))
				continue
			}
			row = append(row, mark(name, q.String(name)))
		}
		return devstack.Result{Columns: columns, Rows: [][]any{append(row, q.String(markerParam))}}
	}
	var pipes []devstack.Pipe
	for n, name := range pipeNames {
		pipes = append(pipes, devstack.Pipe{Name: name, ID: fmt.Sprintf("t_id%d", n), Params: params, Run: run})
	}
	return pipes
}

// mark is how a row shows that it was read under a value.
func mark(name, value string) string {
	return fmt.Sprintf("W_%s_%x_", name, sha256.Sum256([]byte(name+"\x00"+value)))[:len("W__")+len(name)+16]
}

func newSetting(t testing.TB) *setting {
	t.Helper()
	s := &setting{dir: t.TempDir(), tokens: make(map[string]*person)}
	var err error
	if s.issuer, err = devstack.Start(context.Background(), devstack.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.issuer.Close() })
	s.people = newPeople(t, s.issuer.Issuer)
	for _, p := range s.people {
		s.tokens[p.token] = p
	}
	s.bad = badTokens(t, s.issuer.Issuer, s.people)
	for n := range groupCount {
		s.groups = append(s.groups, s.newGroup(t, n))
	}
	s.move(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	return s
}

// move makes the next config listen at another port: after a reload the config before goes on with what has come to its own.
func (s *setting) move(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
}

func (s *setting) newGroup(t testing.TB, n int) *group {
	t.Helper()
	g := &group{api: devstack.NewAPI(devstack.APIOptions{
		WorkspaceID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Pipes: pipesOfAPI(),
		BodyBeatsFixed: true, // so that whatever goes up in a body would count
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: g.api, ReadHeaderTimeout: time.Minute}
	var wait sync.WaitGroup
	wait.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() {
		g.api.Close()
		_ = srv.Close()
		wait.Wait()
	})
	g.url = "http://" + ln.Addr().String()
	secret := func(name, text string) string {
		path := filepath.Join(s.dir, fmt.Sprintf("%s%d", name, n))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	g.keyFile, g.appendFile = secret("key", g.api.SigningKey()), secret("append", g.api.AppendToken())
	g.templates = s.templateTokens(t, g)
	return g
}

func (s *setting) templateTokens(t testing.TB, g *group) []*templateToken {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	var list []*templateToken
	for n := range 12 {
		k := &templateToken{user: users[n%len(users)], fixed: make(map[string]map[string]any)}
		var scopes []any
		for _, pipe := range pipeNames {
			values := map[string]any{}
			for _, name := range some(r, fixedNames, 3+r.IntN(5)) {
				values[name] = lookalikes[n]
			}
			k.fixed[pipe] = values
			scopes = append(scopes, map[string]any{"type": "PIPES:READ", "resource": pipe, "fixed_params": values})
		}
		now := time.Now().Unix()
		var err error
		if k.token, err = devstack.SignToken(g.api.SigningKey(), map[string]any{
			"iss": s.issuer.IssuerURL, "sub": k.user, "iat": now - 60, "nbf": now - 60, "exp": now + 12*3600,
			"workspace_id": g.api.WorkspaceID(), "name": "frontend", "scopes": scopes,
		}); err != nil {
			t.Fatal(err)
		}
		list = append(list, k)
	}
	return list
}

// load runs Caddy with the sites that a seed stands for, and returns its server. It is a reload of the world before.
func (s *setting) load(seed uint64) (*caddyhttp.Server, error) {
	r := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	fmt.Fprintf(&b, "{\n admin off\n persist_config off\n skip_install_trust\n auto_https off\n grace_period 1s\n storage file_system %s\n"+
		" log {\n output discard\n level ERROR\n }\n servers {\n protocols h1 h2c\n }\n}\n", s.dir)
	var ofAuth []string
	clerk := fmt.Sprintf(" publishable_key %s\n issuer %s\n", s.issuer.Issuer.PublishableKey(), s.issuer.IssuerURL)
	for n, g := range s.groups {
		g.sites, g.asked = nil, nil
		for m := range 2 {
			site := randomSite(r, fmt.Sprintf("s%d.%s.test", m, []string{"alpha", "omega"}[n]))
			g.sites = append(g.sites, site)
			for _, source := range site.sources {
				if name, ok := strings.CutPrefix(source, "query "); ok {
					site.lookedAt = append(site.lookedAt, name)
				}
			}
			if site.clerkAuth {
				ofAuth = append(ofAuth, site.lookedAt...)
			}
			b.WriteString(site.caddyfile(s.port, clerk, g))
		}
	}
	for _, g := range s.groups {
		for _, site := range g.sites {
			site.lookedAt = append(site.lookedAt, ofAuth...)
		}
	}
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(b.String()), map[string]any{"filename": "Caddyfile"})
	if err != nil || slices.ContainsFunc(warnings, func(w caddyconfig.Warning) bool { return !strings.Contains(w.Message, "not formatted") }) {
		return nil, fmt.Errorf("adapt: %w, %v\n%s", err, warnings, b.String())
	}
	if err := caddy.Load(config, true); err != nil {
		return nil, fmt.Errorf("load: %w\n%s", err, b.String())
	}
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		return nil, fmt.Errorf("the app http: %w", err)
	}
	servers := app.(*caddyhttp.App).Servers
	if len(servers) != 1 {
		return nil, errors.New("not one server")
	}
	return servers["srv0"], nil
}

// siteOf is the site of a host; nil for none.
func (g *group) siteOf(host string) *site {
	host = strings.ToLower(host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	for _, s := range g.sites {
		if s.host == host {
			return s
		}
	}
	return nil
}
