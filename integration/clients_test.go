//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// The hosts of the sites that clients meet. Each is a site of its own to a browser, which takes them all for this machine's.
const (
	shopHost   = "app.localhost"       // the pages, and the pipes under the same origin
	apiHost    = "analytics.localhost" // pipes for pages of other sites
	pagesOnly  = "pages.localhost"     // pages that may call apiHost
	strangers  = "foreign.localhost"   // pages that may not
	unsetHost  = "unset.localhost"     // pipes before which the operator forgot a clerk_auth
	ownOrigin  = "https://app.example.com"
	edgeOrigin = "https://analytics.example.com"
)

// clientSites serve the pages of the clients, and the pipes that they ask for.
const clientSites = `
(files) {
	bind 127.0.0.1
	root {$CLIENTS}/{args[0]}
	file_server
}

(pipes) {
	@pipes path /v0/* /api/* /tinybird/*
	handle @pipes {
		tinybird {` + credentials + allPipes + `
			clerk {
				publishable_key {env.CLERK_PUBLISHABLE_KEY}
				issuer {env.ISSUER}
				token_from {args[1:]}
			}
			cors {args[0]}
			events page_views analytics_events {
				append_token {env.APPEND_TOKEN}
				stamp organization_id {clerk.org.id}
				stamp user_id {clerk.user.id}
			}
			{block}
		}
	}
}

http://` + shopHost + `:{$PORT} {
	import files pages
	import pipes http://` + shopHost + `:{$PAGES_PORT} header cookie {
		token_endpoint /tinybird/token
	}
}

http://` + apiHost + `:{$PORT} http://{$EDGE} {
	bind 127.0.0.1
	import pipes http://` + pagesOnly + `:{$PORT} header cookie query token {
		accept_template_tokens
	}
}

http://` + pagesOnly + `:{$PORT} http://` + strangers + `:{$PORT} {
	import files pages
}

http://` + shopHost + `:{$PAGES_PORT} {
	import files neighbour
}

http://` + unsetHost + `:{$PORT} {
	import files pages
	route {
		@other header X-Other *
		clerk_auth @other {env.CLERK_PUBLISHABLE_KEY}
		@pipes path /v0/*
		tinybird @pipes {` + credentials + allPipes + `}
	}
}
`

// clients is an edge with pages, and a directory with those pages and the examples, written for its addresses.
type clients struct {
	*edge

	dir             string
	port, pagesPort string
}

// startClients starts the sites.
func startClients(t *testing.T) *clients {
	t.Helper()
	program(t, "npm", "npm")
	installed, err := installClients()
	if err != nil {
		t.Fatal(err)
	}
	// A body's parameters win over the token's, so that one which the edge lets through by mistake has an effect.
	e := newEdge(t, devstack.Options{API: devstack.APIOptions{BodyBeatsFixed: true, Datasources: []string{"page_views", "analytics_events"}}})
	c := &clients{edge: e}
	_, c.port, _ = strings.Cut(e.addr, ":")
	_, c.pagesPort, _ = strings.Cut(freeAddr(t), ":")
	if c.dir, err = os.MkdirTemp(installed, "run-"); err != nil { //nolint:usetesting // next to node_modules, where Node looks for packages
		t.Fatal(err)
	}
	// Node asks the system for names, and not every system knows those below localhost.
	c.write(t, installed, "dist", "pages", c.origin(apiHost))
	c.write(t, installed, "dist", "neighbour", c.origin(shopHost))
	c.write(t, installed, "examples", "examples", "http://"+c.addr)
	c.write(t, installed, "clients.mjs", "clients.mjs", "")
	e.setenv("PORT", c.port)
	e.setenv("PAGES_PORT", c.pagesPort)
	e.setenv("CLIENTS", c.dir)
	e.setenv("APPEND_TOKEN", e.stack.API.AppendToken())
	e.run(t, "{\n"+globalOptions+"}\n"+clientSites)
	return c
}

// write copies what is installed under a name to another, with the addresses of this edge over those of the examples.
func (c *clients) write(t *testing.T, installed, from, to, api string) {
	t.Helper()
	addresses := strings.NewReplacer(ownOrigin, c.origin(shopHost), edgeOrigin, api)
	from, to = filepath.Join(installed, from), filepath.Join(c.dir, to)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file := filepath.Join(to, rel)
		return errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(addresses.Replace(string(text))), 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *clients) origin(host string) string { return "http://" + host + ":" + c.port }

// installClients puts the packages and the built pages into a directory that goes when the tests end, once for all of them.
var installClients = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(caddyBinary), "clients")
	if err := os.CopyFS(dir, os.DirFS("clients")); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*patience)
	defer cancel()
	for _, args := range [][]string{
		{"ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"},
		{"exec", "--offline", "--", "vite", "build"},
	} {
		npm := exec.CommandContext(ctx, "npm", args...)
		npm.Dir = dir
		if out, err := npm.CombinedOutput(); err != nil {
			return "", fmt.Errorf("npm %s, for the clients: %w\n%s", args[0], err, out)
		}
	}
	// What is no module is served as it is.
	for from, name := range map[string]string{
		"node_modules/@tinybirdco/flock.js/dist/index.js": "flock.js",
		"examples/fetch.html":                             "fetch.html",
		"examples/tracker.html":                           "tracker.html",
		"examples/tracker-proxy.html":                     "tracker-proxy.html",
	} {
		text, err := os.ReadFile(filepath.Join(dir, from))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, "dist", name), text, 0o600); err != nil {
			return "", err
		}
	}
	return dir, nil
})

// failing has the API answer the next n requests with a fault, and counts all of them.
func (c *clients) failing(n int, f devstack.Fault) {
	if f.Header == nil {
		f.Header = map[string][]string{}
	}
	var mu sync.Mutex
	c.stack.API.Fail(func(*http.Request) *devstack.Fault {
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 {
			return nil
		}
		return &f
	})
}

// nodeClients is the program that calls the examples for Node.
type nodeClients struct {
	in      io.WriteCloser
	answers *bufio.Reader
	log     output
}

// call is one call of an example.
type call struct {
	Client string `json:"client"`
	Call   string `json:"call"`
	Args   []any  `json:"args"`

	// Hurry notes how long the client would wait between attempts, and does not wait.
	Hurry bool `json:"hurry,omitempty"`
}

// called is what became of it.
type called struct {
	Value json.RawMessage `json:"value"`
	Error *struct {
		Name    string   `json:"name"`
		Message string   `json:"message"`
		Status  int      `json:"status"`
		Code    string   `json:"code"`
		Kinds   []string `json:"kinds"`
	} `json:"error"`
	Answers []struct {
		Status int               `json:"status"`
		URL    string            `json:"url"`
		Header map[string]string `json:"header"`
		Body   string            `json:"body"`
	} `json:"answers"`
	Delays []int `json:"delays"`
}

func (c *clients) startNode(t *testing.T) *nodeClients {
	t.Helper()
	n := new(nodeClients)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program(t, "Node", "node"), filepath.Join(c.dir, "clients.mjs"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.home, "TINYBIRD_TELEMETRY_ENABLED=0"}
	cmd.Dir = c.home
	cmd.Stderr = &n.log
	cmd.WaitDelay = patience
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if n.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	n.answers = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killInTime(t, cmd)
	t.Cleanup(func() {
		n.in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the clients' program ended with %v\n%s", err, n.log.tail())
		}
	})
	return n
}

// do calls an example. Whatever the client got on the way holds no token of Tinybird's.
func (n *nodeClients) do(t *testing.T, c call) (o called) {
	t.Helper()
	err := json.NewEncoder(n.in).Encode(c)
	var line []byte
	if err == nil {
		line, err = n.answers.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &o)
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s", c, err, n.log.tail())
	}
	if minted := tinybirdTokens(string(line)); len(minted) > 0 {
		t.Errorf("%s got a Tinybird token: %s", c.Client, minted)
	}
	return o
}

var (
	anyJWT    = regexp.MustCompile(`eyJ[\w-]+\.([\w-]+)\.[\w-]*`)
	anyStatic = regexp.MustCompile(`p\.eyJ[\w-]+`)
)

// tinybirdTokens finds the Tinybird tokens in a text: JWTs that name a workspace, and static ones.
func tinybirdTokens(text string) []string {
	found := anyStatic.FindAllString(text, -1)
	for _, m := range anyJWT.FindAllStringSubmatch(text, -1) {
		payload, err := base64.RawURLEncoding.DecodeString(m[1])
		if err == nil && strings.Contains(string(payload), `"workspace_id"`) {
			found = append(found, m[0])
		}
	}
	return found
}
