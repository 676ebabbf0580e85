package docs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	// The directives that the documentation uses.
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/seed-32cb3e43/caddy-tinybird"
)

// TestMain gives the configs of the documentation the keys that they read from the environment. Loading one
// starts to fetch Clerk's keys; the proxy, at which nobody listens, keeps that on this machine.
func TestMain(m *testing.M) {
	about := `{"u":"6f1c9a52-3f0e-4a53-9d0b-5a1e2c7d8b90","id":"0b7e4c11-8a55-4f0c-b1c3-9e2d7a6f5041","host":"eu_shared"}`
	for name, value := range map[string]string{
		"CLERK_PUBLISHABLE_KEY": "pk_test_" + base64.RawStdEncoding.EncodeToString([]byte("clerk.example.invalid$")),
		"CLERK_SECRET_KEY":      "sk_test_" + strings.Repeat("k", 42),
		"TINYBIRD_SIGNING_KEY":  signingKey(about),
		"TINYBIRD_APPEND_TOKEN": signingKey(about),
		"REDIS_PASSWORD":        "a/password",
		"HTTPS_PROXY":           "http://127.0.0.1:1",
		"HTTP_PROXY":            "http://127.0.0.1:1",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	caddy.RegisterModule(execHandler{})
	os.Exit(m.Run())
}

// signingKey has the form of a workspace admin token and is none.
func signingKey(about string) string {
	return "p." + base64.RawURLEncoding.EncodeToString([]byte(about)) + "." + strings.Repeat("k", 43)
}

// TestCaddyfilesLoad loads every Caddyfile of the documentation, whole or in part, as `caddy validate` would.
func TestCaddyfilesLoad(t *testing.T) {
	t.Parallel()
	secrets := t.TempDir()
	certificate, key := selfSigned(t)
	for name, text := range map[string]string{
		"tinybird_signing_key": os.Getenv("TINYBIRD_SIGNING_KEY") + "\n",
		"redis_password":       "a/password\n",
		"redis_ca.pem":         certificate,
		"redis_edge.pem":       certificate,
		"redis_edge.key":       key,
	} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	for _, p := range pages(t) {
		for _, b := range p.in("caddyfile") {
			found++
			t.Run(p.name(b), func(t *testing.T) {
				t.Parallel()
				text := strings.NewReplacer("/run/secrets", secrets, "/run/credentials/caddy.service", secrets).Replace(complete(t, b.text))
				validate(t, text)
			})
		}
	}
	if found < 40 {
		t.Errorf("only %d Caddyfiles were found", found)
	}
}

// selfSigned is a certificate with its key, as PEM.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	asPEM := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return asPEM("CERTIFICATE", der), asPEM("PRIVATE KEY", keyDER)
}

func TestCaddyfileExampleLoads(t *testing.T) {
	t.Parallel()
	validate(t, read(t, "../Caddyfile.example"))
}

// complete returns a whole Caddyfile for a block that says in its first line which part of one it is.
func complete(t *testing.T, text string) string {
	t.Helper()
	text = withCleanPaths(t, text)
	const marker = "# snippet: "
	first, rest, _ := strings.Cut(text, "\n")
	if !strings.HasPrefix(first, marker) {
		return text
	}
	switch where := strings.TrimPrefix(first, marker); where {
	case "inside tinybird":
		return site(nest("tinybird", withDefaults(rest)))
	case "inside clerk":
		return site(nest("tinybird", withDefaults(nest("clerk", "publishable_key {env.CLERK_PUBLISHABLE_KEY}\n"+rest))))
	case "inside clerk_auth":
		return site(nest("clerk_auth {env.CLERK_PUBLISHABLE_KEY}", rest))
	case "global options":
		return nest("", rest) + "\n" + site(nest("tinybird", withDefaults("")))
	case "site":
		return site(rest)
	default:
		t.Fatalf("the snippet's place %q is not known", where)
		return ""
	}
}

// cleanPaths is the manual's snippet of that name.
const cleanPaths = "(clean_paths) {"

// withCleanPaths adds the snippet to a config that imports it, where the manual has it put, and a site to the snippet itself.
func withCleanPaths(t *testing.T, text string) string {
	t.Helper()
	if strings.HasPrefix(text, cleanPaths) {
		return text + "\n" + site("import clean_paths\n")
	}
	if !strings.Contains(text, "import clean_paths\n") {
		return text
	}
	page := readPage(t, "protect-a-site.md")
	for _, b := range page.in("caddyfile") {
		if strings.HasPrefix(b.text, cleanPaths) {
			at := regexp.MustCompile(`(?m)^[a-z].* \{$`).FindStringIndex(text)[0]
			return text[:at] + b.text + "\n" + text[at:]
		}
	}
	t.Fatal("the page does not have the snippet")
	return ""
}

// TestExamplesWithPathsAreGuarded: every example of the manual in which a path decides what clerk_auth does refuses, before all else,
// the paths that can be read in two ways.
func TestExamplesWithPathsAreGuarded(t *testing.T) {
	t.Parallel()
	byPath := regexp.MustCompile(`(?m)^\s*(@\w+ (not )?path|path|(handle|handle_path|route|clerk_auth) /)|path_regexp`)
	page, found := readPage(t, "protect-a-site.md"), 0
	for _, b := range page.in("caddyfile") {
		if !byPath.MatchString(b.text) {
			continue
		}
		found++
		if !regexp.MustCompile(`(?m)^[a-z.]+ \{\n\timport clean_paths$`).MatchString(b.text) {
			t.Errorf("line %d does not begin with import clean_paths:\n%s", b.line, b.text)
		}
	}
	if found < 7 {
		t.Errorf("only %d examples were found", found)
	}
}

func site(text string) string { return nest("analytics.example.com", text) }

// nest puts text into a block, indented as `caddy fmt` would.
func nest(name, text string) string {
	var b strings.Builder
	b.WriteString(strings.TrimPrefix(name+" {\n", " "))
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			b.WriteString("\t")
		}
		b.WriteString(line)
	}
	b.WriteString("}\n")
	return b.String()
}

// withDefaults adds what `tinybird` cannot do without.
func withDefaults(text string) string {
	for _, needed := range []struct{ option, text string }{
		{"clerk", "clerk {env.CLERK_PUBLISHABLE_KEY}\n"},
		{"signing_key", "signing_key {env.TINYBIRD_SIGNING_KEY}\n"},
		{"pipe", nest("pipe p", "fixed_param organization_id {clerk.org.id}\n")},
	} {
		if !regexp.MustCompile(`(?m)^` + needed.option + `\b`).MatchString(text) {
			text += needed.text
		}
	}
	return text
}

// loading is held while a config is provisioned: Caddy does that one at a time, and keeps global state.
var loading sync.Mutex

// validate does what `caddy validate` does. Warnings are errors, the one about formatting included.
func validate(t *testing.T, text string) {
	t.Helper()
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, w := range warnings {
		t.Errorf("%s\n%s", w, text)
	}
	config := new(caddy.Config)
	if err := json.Unmarshal(adapted, config); err != nil {
		t.Fatal(err)
	}
	loading.Lock()
	defer loading.Unlock()
	if err := caddy.Validate(config); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// TestEveryOptionIsDescribed compares the tables of config.md with the options that the parser knows, both ways. The parser
// lists them when it meets one that it does not know. An option with several forms has a row for each.
func TestEveryOptionIsDescribed(t *testing.T) {
	t.Parallel()
	const unknown = "no_such_option\n"
	config := readPage(t, "config.md")
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)[ `]")
	list := regexp.MustCompile(`known here are: ([a-z_, ]+), at `)
	for heading, text := range map[string]string{
		"tinybird":           nest("tinybird", unknown),
		"pipe":               nest("tinybird", nest("pipe p", unknown)),
		"rate_limit redis":   nest("tinybird", nest("rate_limit redis redis://redis", unknown)),
		"token":              nest("tinybird", nest("token", unknown)),
		"limits of tinybird": nest("tinybird", nest("limits", unknown)),
		"clerk":              nest("tinybird", nest("clerk", unknown)),
		"limits of clerk":    nest("tinybird", nest("clerk", nest("limits", unknown))),
		"clerk_auth":         nest("clerk_auth", unknown),
	} {
		t.Run(heading, func(t *testing.T) {
			t.Parallel()
			_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(site(text)), map[string]any{"filename": "Caddyfile"})
			if err == nil {
				t.Fatal("an unknown option was accepted")
			}
			known := list.FindStringSubmatch(err.Error())
			if known == nil {
				t.Fatalf("the error does not list the options: %v", err)
			}
			described := firstGroups(row, config.section(t, heading))
			if heading == "clerk_auth" { // which takes all that clerk takes
				described = append(described, firstGroups(row, config.section(t, "clerk"))...)
			}
			described = slices.Compact(described)
			sameSet(t, "the table below "+heading+" in config.md", strings.Split(known[1], ", "), described)
		})
	}
}
