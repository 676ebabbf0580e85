package demo

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// The whole demo, checked as `demo --check` does.
//
//nolint:paralleltest // Caddy and the environment are the process's
func TestCheckOfTheDemo(t *testing.T) {
	d, err := Start(t.Context(), Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Check(t.Context(), d.Target(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if n := strings.Count(out.String(), "\n  ok "); n < 80 {
		t.Errorf("%d steps are too few to be all of them:\n%s", n, out.String())
	}
	if strings.Contains(out.String(), d.Stack.API.SigningKey()[:30]) {
		t.Error("the signing key is in the lines")
	}
	if os.Getenv("TINYBIRD_SIGNING_KEY") != d.Stack.API.SigningKey() {
		t.Error("the signing key did not come from the environment")
	}
	leadsFromLocalhost(t, d.Origin)
	leadsFromLocalhost(t, d.Site)
	home := d.home
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	leavesNothing(t, d, home)
}

// Whoever types localhost must not meet an empty page.
func leadsFromLocalhost(t *testing.T, origin string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, origin+"/a?b=c", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "localhost:" + r.URL.Port()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := response.Header.Get("Location"); response.StatusCode != http.StatusFound || got != origin+"/a?b=c" {
		t.Errorf("localhost is answered %d %q", response.StatusCode, got)
	}
}

func leavesNothing(t *testing.T, d *Demo, home string) {
	t.Helper()
	if _, err := os.Stat(home); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the files are still there: %v", err)
	}
	for _, key := range []string{"TINYBIRD_SIGNING_KEY", "CLERK_SECRET_KEY"} {
		if _, ok := os.LookupEnv(key); ok {
			t.Errorf("%s is still in the environment", key)
		}
	}
	for _, address := range []string{d.Origin, d.Site, d.Stack.IssuerURL, d.Stack.APIURL} {
		ln, err := net.Listen("tcp", strings.TrimPrefix(address, "http://"))
		if err != nil {
			t.Errorf("somebody still listens: %v", err)
			continue
		}
		_ = ln.Close()
	}
}

// A check that cannot fail is worth nothing: in front of the same stand-ins, an edge that hands every request to
// Tinybird with the admin token, and serves the plain site to anybody, fails it.
func TestCheckFailsForANaiveEdge(t *testing.T) {
	t.Parallel()
	stack := startStack(t)
	upstream, err := url.Parse(stack.APIURL)
	if err != nil {
		t.Fatal(err)
	}
	naive := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(upstream)
		r.Out.Header.Set("Authorization", "Bearer "+stack.API.SigningKey())
	}}
	mux := http.NewServeMux()
	mux.Handle("/v0/", naive)
	mux.Handle("/dev/", stack.Issuer)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	stack.Issuer.SetAppOrigin(server.URL)

	files, err := fs.Sub(siteFiles, "site")
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(http.FileServerFS(files))
	t.Cleanup(site.Close)
	stack.Issuer.AddSiteOrigin(site.URL)

	var out bytes.Buffer
	err = Check(t.Context(), Target{Origin: server.URL, Site: site.URL, Stack: stack}, &out)
	if !errors.Is(err, ErrFailed) {
		t.Fatalf("the check passed an edge that isolates nothing: %v", err)
	}
	for _, step := range []string{
		"no session, no rows", "Ada Acme reads top_pages", "Dana has no organization", "the honest answer",
		"a pipe that Tinybird has", "SQL", "for top_pages", "Cleo asks until she is refused", "it cost one fetch", "signed with another key",
		"another's id is told as dropped", "nobody is sent to sign in", "nobody fetches", "nor by a header", "Clerk's sign-in page",
	} {
		if !strings.Contains(out.String(), "FAIL  "+step) {
			t.Errorf("the step %q did not fail:\n%s", step, out.String())
		}
	}
}

func TestCheckStopsWhenInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Check(ctx, Target{Stack: startStack(t)}, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The printed config holds no secret and names what a real one would.
func TestConfigHoldsNoSecret(t *testing.T) {
	t.Parallel()
	text, err := Config(t.Context(), Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "p.ey") || strings.Contains(text, "pk_test_") {
		t.Error("a key is in the config")
	}
	for _, want := range []string{"{env.TINYBIRD_SIGNING_KEY}", "{env.CLERK_PUBLISHABLE_KEY}", "fixed_param organization_id {clerk.org.id}", "admin off"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the config:\n%s", want, text)
		}
	}
	if _, err := adapt(text); err != nil {
		t.Error(err)
	}
}

func TestAdaptRefusesABrokenConfig(t *testing.T) {
	t.Parallel()
	if _, err := adapt("http://127.0.0.1:1 {\n\ttinybird {\n\t}\n}\n"); err == nil {
		t.Error("a tinybird block without a signing key was accepted")
	}
}

func TestWelcomeNamesWhatToOpen(t *testing.T) {
	t.Parallel()
	d := &Demo{Origin: "http://127.0.0.1:8080", Site: "http://127.0.0.1:8081", Stack: startStack(t)}
	var out bytes.Buffer
	if err := welcome(&out, d); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Open   http://127.0.0.1:8080", "And    http://127.0.0.1:8081", d.Stack.IssuerURL, d.Stack.APIURL} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
}

func startStack(t *testing.T) *devstack.Stack {
	t.Helper()
	stack, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Close(); err != nil {
			t.Error(err)
		}
	})
	return stack
}
