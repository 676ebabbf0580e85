package caddytinybird

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

var update = flag.Bool("update", false, "write the adapted JSON of the fixtures anew")

const fixtureSeparator = "----------\n"

// adapt returns the JSON that Caddy makes of a Caddyfile.
func adapt(t testing.TB, caddyfile string) ([]byte, []caddyconfig.Warning, error) {
	t.Helper()
	return caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
}

// TestAdaptFixtures compares what Caddyfiles become with what they became when somebody last looked.
func TestAdaptFixtures(t *testing.T) {
	t.Parallel()
	fixtures, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(fixtures) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, name := range fixtures {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(content), fixtureSeparator)
			adapted, warnings, err := adapt(t, input)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Errorf("warning: %v", w)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, adapted, "", "\t"); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(name, []byte(input+fixtureSeparator+got.String()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if strings.TrimSpace(want) != got.String() {
				t.Errorf("adapted JSON differs; run with -update and look at the difference. Got:\n%s", got.String())
			}
		})
	}
}

// inTinybird puts lines into an otherwise complete tinybird block. They start at line 3.
func inTinybird(lines string) string {
	return "example.com {\n\ttinybird {\n" + lines + "\n\t\tclerk {env.PK}\n\t\tsigning_key {env.KEY}\n\t\tpipe rest {\n\t\t\tfixed_param org {clerk.org.id}\n\t\t}\n\t}\n}\n"
}

// inClerk puts lines into a clerk block. They start at line 3.
func inClerk(lines string) string {
	return "{\n\tclerk {\n" + lines + "\n\t\tpublishable_key pk_live_Y2xlcmsuZXhhbXBsZS5jb20k\n\t}\n}\n"
}

// TestCaddyfileErrors holds that a mistake in a Caddyfile is an error that names its line and the fix.
func TestCaddyfileErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config string
		line   string
		text   string
	}{
		"unknown subdirective":        {inTinybird("pip x"), ":3", "unknown subdirective"},
		"unknown subdirective lists":  {inTinybird("pip x"), ":3", "signing_key"},
		"surplus argument":            {inTinybird("upstream https://a.example https://b.example"), ":3", "exactly one argument"},
		"directive argument":          {"example.com {\n\ttinybird / x {\n\t}\n}", ":2", "takes no argument"},
		"repeated":                    {inTinybird("errors json\nerrors caddy"), ":4", "second time (first in line 3)"},
		"bad word":                    {inTinybird("errors html"), ":3", "use one of: json, caddy"},
		"pipe without name":           {inTinybird("pipe {\n}"), ":3", "at least one name"},
		"pipe name":                   {inTinybird("pipe top-pages {\n\tfixed_param org {clerk.org.id}\n}"), ":3", "letters, digits and underscores"},
		"pipe without fixed param":    {inTinybird("pipe open {\n}"), ":3", "unrestricted"},
		"pipe twice":                  {inTinybird("pipe rest {\n\tunrestricted\n}"), ":8", "listed twice"},
		"unrestricted and fixed":      {inTinybird("pipe x {\n\tfixed_param org {clerk.org.id}\n\tunrestricted\n}"), ":3", "unrestricted contradicts"},
		"params fixed":                {inTinybird("pipe x {\n\tfixed_param org {clerk.org.id}\n\tparams org\n}"), ":3", "which no client sets"},
		"params reserved":             {inTinybird("pipe x {\n\tparams token\n\tunrestricted\n}"), ":3", "reserved"},
		"params credential":           {"a.example {\n\ttinybird {\n\t\tpipe x {\n\t\t\tparams access\n\t\t\tunrestricted\n\t\t}\n\t\tclerk {env.PK} {\n\t\t\ttoken_from query access\n\t\t}\n\t\tsigning_key {env.KEY}\n\t}\n}", ":3", "token_from"},
		"fixed params differ in case": {inTinybird("fixed_param org {clerk.org.id}\npipe x {\n\tfixed_param Org {clerk.org.id}\n}"), ":4", "letter case"},
		"reserved name":               {inTinybird("fixed_param Token x"), ":3", "reserved"},
		"reserved prefix":             {inTinybird("fixed_param __TB__deployment x"), ":3", "reserved"},
		"fixed param twice":           {inTinybird("fixed_param a x\nfixed_param A y"), ":4", "given twice"},
		"fixed param type":            {inTinybird("fixed_param a 1 integer"), ":3", "number"},
		"fixed param arguments":       {inTinybird("fixed_param a"), ":3", "a name, a value"},
		"unknown clerk placeholder":   {inTinybird("fixed_param a {clerk.org.ids}"), ":3", "clerk.org.id"},
		"client placeholder":          {inTinybird("fixed_param a {query.org}"), ":3", "clerk.org.id"},
		"client header placeholder":   {inTinybird("fixed_param a {http.request.header.X-Org}"), ":3", "clerk.org.id"},
		"client placeholder in name":  {inTinybird("token {\n\tname {query.x}\n}"), ":3", "clerk.org.id"},
		"rate zero":                   {inTinybird("rate_limit 0"), ":3", "rate_limit"},
		"rate fraction":               {inTinybird("rate_limit 0.5"), ":3", "whole number"},
		"rate of the client's":        {inTinybird("rate_limit {query.rps}"), ":3", "client's to choose"},
		"burst":                       {inTinybird("rate_limit 5 burst 0"), ":3", "burst"},
		"concurrency of nothing":      {inTinybird("concurrency 0"), ":3", "concurrency \"0\""},
		"concurrency of words":        {inTinybird("concurrency many"), ":3", "whole number"},
		"concurrency without a value": {inTinybird("concurrency"), ":3", "exactly one argument"},
		"concurrency of two values":   {inTinybird("concurrency 5 6"), ":3", "exactly one argument"},
		"concurrency that is empty":   {inTinybird(`concurrency ""`), ":3", "concurrency 20"},
		"concurrency twice":           {inTinybird("concurrency 5\nconcurrency 6"), ":4", "second time"},
		"concurrency with a block":    {inTinybird("concurrency 5 {\n}"), ":3", "block"},
		"concurrency of the client's": {inTinybird("concurrency {query.n}"), ":3", "client's to choose"},
		"concurrency of a pipe":       {inTinybird("pipe q {\nfixed_param a b\nconcurrency -1\n}"), ":5", "concurrency"},
		"burst word":                  {inTinybird("rate_limit 5 6"), ":3", "rate_limit 50 burst 100"},
		"redis without address":       {inTinybird("rate_limit 5\nrate_limit redis"), ":4", "takes one address"},
		"redis, two addresses":        {inTinybird("rate_limit 5\nrate_limit redis redis://a redis://b"), ":4", "takes one address"},
		"redis address":               {inTinybird("rate_limit 5\nrate_limit redis redis:6379"), ":4", "redis://host:6379"},
		"redis password":              {inTinybird("rate_limit 5\nrate_limit redis redis://:hunter2/x@redis"), ":4", "percent-encoded"},
		"redis password in option":    {inTinybird("rate_limit 5\nrate_limit redis redis://redis?password=hunter2"), ":4", "cluster=true"},
		"redis of the client's":       {inTinybird("rate_limit 5\nrate_limit redis redis://{query.hunter2}"), ":4", "{env.NAME}"},
		"redis twice":                 {inTinybird("rate_limit 5\nrate_limit redis redis://a\nrate_limit redis redis://b"), ":5", "second time (first in line 4)"},
		"rate twice":                  {inTinybird("rate_limit 5\nrate_limit redis redis://a\nrate_limit 6"), ":5", "second time (first in line 3)"},
		"redis without rate":          {inTinybird("rate_limit redis redis://redis"), ":3", "add `rate_limit <rps>`"},
		"redis in a pipe":             {inTinybird("pipe x {\n\trate_limit redis redis://redis\n\tunrestricted\n}"), ":4", "out of the pipe"},
		"redis unknown":               {inTinybird("rate_limit 5\nrate_limit redis redis://redis {\n\tretries 5\n}"), ":5", "ca, client_certificate, timeout"},
		"redis time-out":              {inTinybird("rate_limit 5\nrate_limit redis redis://redis {\n\ttimeout 1m\n}"), ":5", "from 1ms to 5s"},
		"redis ca without TLS":        {inTinybird("rate_limit 5\nrate_limit redis redis://redis {\n\tca /ca.pem\n}"), ":4", "rediss://"},
		"redis certificate":           {inTinybird("rate_limit 5\nrate_limit redis rediss://redis {\n\tclient_certificate /c.pem\n}"), ":5", "of its key"},
		"ttl zero":                    {inTinybird("token {\n\tttl 0s\n}"), ":4", "ttl"},
		"ttl no duration":             {inTinybird("token {\n\tttl soon\n}"), ":4", "no duration"},
		"requirement kind":            {inTinybird("pipe x {\n\trequire team a\n\tunrestricted\n}"), ":4", "role"},
		"format":                      {inTinybird("pipe x {\n\tformats xml\n\tunrestricted\n}"), ":4", "csvwithnames"},
		"upstream http":               {inTinybird("upstream http://api.tinybird.co"), ":3", "https"},
		"literal secret short":        {"example.com {\n\ttinybird {\n\t\tsigning_key hunter2\n\t}\n}", ":3", "too short"},
		"literal secret template":     {"example.com {\n\ttinybird {\n\t\tsigning_key <your-workspace-admin-token-goes-here>\n\t}\n}", ":3", "angle brackets"},
		"no signing key":              {"example.com {\n\ttinybird {\n\t\tpipe x {\n\t\t\tunrestricted\n\t\t}\n\t}\n}", ":2", "signing_key is missing"},
		"no pipe":                     {"example.com {\n\ttinybird {\n\t\tsigning_key {env.KEY}\n\t}\n}", ":2", "no pipe is listed"},
		"transport":                   {inTinybird("transport fastcgi {\n}"), ":3", "http"},
		"cors star":                   {inTinybird("cors *"), ":3", "list each origin"},
		"cors slash":                  {inTinybird("cors https://app.example.com/"), ":3", "slash at the end"},
		"cors null":                   {inTinybird("cors https://app.example.com null"), ":3", "sandboxed"},
		"cors http":                   {inTinybird("cors http://app.example.com"), ":3", "write https"},
		"cors nothing":                {inTinybird("cors"), ":3", "at least one argument"},
		"token endpoint":              {inTinybird("token_endpoint token"), ":3", "/tinybird/token"},
		"token endpoint slash":        {inTinybird("token_endpoint /token/"), ":3", "/tinybird/token"},
		"token endpoint of a pipe":    {inTinybird("token_endpoint /v0/pipes/rest.json"), ":3", "choose another path"},
		"token endpoint of events":    {inTinybird("token_endpoint /v0/events"), ":3", "choose another path"},
		"template tokens, argument":   {inTinybird("accept_template_tokens yes"), ":3", "no argument"},
		"cors twice":                  {inTinybird("cors https://a.example\ncors https://b.example"), ":4", "second time"},
		"limits":                      {inTinybird("limits {\n\ttokens 0\n}"), ":4", "at least 1"},
		"events without name":         {inTinybird("events {\n}"), ":3", "at least one data source"},
		"events name":                 {inTinybird("events a-b {\n}"), ":3", "letters, digits and underscores"},
		"events without token":        {inTinybird("events a {\n\tstamp org {clerk.org.id}\n}"), ":3", "append_token is missing"},
		"events without stamp":        {inTinybird("events a {\n\tappend_token {env.A}\n}"), ":3", "stamp organization_id"},
		"events twice":                {inTinybird("events a {\n\tappend_token {env.A}\n\tstamp o {clerk.org.id}\n}\nevents b a {\n\tappend_token {env.A}\n\tstamp o {clerk.org.id}\n}"), ":7", "listed twice"},
		"events token twice":          {inTinybird("events a {\n\tappend_token {env.A}\n\tappend_token {env.A}\n}"), ":5", "second time"},
		"events token short":          {inTinybird("events a {\n\tappend_token hunter2\n}"), ":4", "too short"},
		"events unknown":              {inTinybird("events a {\n\tname x\n}"), ":4", "append_token, stamp"},
		"stamp arguments":             {inTinybird("events a {\n\tstamp org\n}"), ":4", "a field, a value"},
		"stamp name":                  {inTinybird("events a {\n\tstamp a.b {clerk.org.id}\n}"), ":4", "letters, digits and underscores"},
		"stamp twice":                 {inTinybird("events a {\n\tstamp org x\n\tstamp ORG y\n}"), ":5", "given twice"},
		"stamp of the client's":       {inTinybird("events a {\n\tstamp org {query.org}\n}"), ":4", "clerk.org.id"},
		"stamp type":                  {inTinybird("events a {\n\tstamp org x int\n}"), ":4", "number"},
		"events size":                 {inTinybird("limits {\n\tevents_size 0\n}"), ":4", "at least 1"},
		"cache zero":                  {inTinybird("pipe x {\n\tcache 0s\n\tunrestricted\n}"), ":4", "at least 1s"},
		"cache negative":              {inTinybird("pipe x {\n\tcache -5s\n\tunrestricted\n}"), ":4", "at least 1s"},
		"cache too long":              {inTinybird("pipe x {\n\tcache 25h\n\tunrestricted\n}"), ":4", "at most 24h"},
		"cache for how long":          {inTinybird("pipe x {\n\tcache\n\tunrestricted\n}"), ":4", "exactly one argument"},
		"cache no duration":           {inTinybird("pipe x {\n\tcache on\n\tunrestricted\n}"), ":4", "no duration"},
		"cache of the client's":       {inTinybird("pipe x {\n\tcache {query.ttl}\n\tunrestricted\n}"), ":4", "no duration"},
		"cache twice":                 {inTinybird("pipe x {\n\tcache 5s\n\tcache 10s\n\tunrestricted\n}"), ":5", "second time"},
		"cache for all pipes":         {inTinybird("cache 5s"), ":3", "unknown subdirective"},
		"cache size":                  {inTinybird("limits {\n\tcache_size 0\n}"), ":4", "at least 1"},
		"cache entry size":            {inTinybird("limits {\n\tcache_size 1000\n\tcache_entry_size 1001\n}"), ":6", "lower the one"},
		"block where none is":         {inTinybird("errors json {\n}"), ":3", "block"},
		"clerk unknown":               {inClerk("audience x"), ":3", "unknown subdirective"},
		"clerk publishable key":       {"{\n\tclerk pk_live_nonsense\n}\n", ":2", "publishable"},
		"clerk key twice":             {"{\n\tclerk {env.PK} {\n\t\tpublishable_key {env.PK}\n\t}\n}\n", ":3", "second time"},
		"clerk global twice":          {"{\n\tclerk {env.PK}\n\tclerk {env.PK}\n}\n", ":3", "second time"},
		"clerk says nothing":          {"{\n\tclerk {\n\t\tazp off\n\t}\n}\n", ":2", "which Clerk instance"},
		"clerk issuer slash":          {inClerk("issuer https://clerk.example.com/"), ":3", "no slash"},
		"clerk issuer http":           {inClerk("issuer http://clerk.example.com"), ":3", "https"},
		"clerk skew":                  {inClerk("clock_skew 61s"), ":3", "out of range"},
		"clerk refresh":               {inClerk("jwks_refresh 10ms"), ":3", "at least 1s"},
		"clerk token_from":            {inClerk("token_from body"), ":3", "header, cookie or query"},
		"clerk token_from query":      {inClerk("token_from header query"), ":3", "parameter's name"},
		"clerk token_from twice":      {inClerk("token_from cookie header cookie"), ":3", "twice"},
		"clerk pem":                   {inClerk("jwt_key abc"), ":3", ""},
		"clerk pem and jwks":          {inClerk("jwt_key {env.PEM}\njwks_url https://x.example/k"), ":2", "exclude each other"},
		"clerk authorized party":      {inClerk("authorized_parties app.example.com"), ":3", "origin"},
		"clerk azp":                   {inClerk("azp loose"), ":3", "strict"},
		"clerk secret":                {inClerk("secret_key sk_test"), ":3", "too short"},
		"clerk flag with an argument": {inClerk("allow_impersonation yes"), ":3", "no argument"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := adapt(t, tt.config)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), "Caddyfile"+tt.line) {
				t.Errorf("the error does not name line %s: %v", tt.line, err)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("the error does not hold %q: %v", tt.text, err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "your-workspace") {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

// FuzzCaddyfile holds that no Caddyfile makes the parser panic, and that what it accepts is valid JSON.
func FuzzCaddyfile(f *testing.F) {
	fixtures, _ := filepath.Glob("testdata/adapt/*.caddyfiletest")
	for _, name := range fixtures {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		input, _, _ := strings.Cut(string(content), fixtureSeparator)
		f.Add(input)
	}
	f.Add(inTinybird("fixed_param a \\{x"))
	f.Add(inClerk("token_from query"))
	f.Fuzz(func(t *testing.T, input string) {
		if strings.Contains(input, "import") {
			return // import reads files
		}
		adapted, _, err := adapt(t, input)
		if err == nil && !json.Valid(adapted) {
			t.Errorf("not JSON: %s", adapted)
		}
	})
}
