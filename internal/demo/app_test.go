package demo

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
)

const testHost = "127.0.0.1:8080"

func newTestApp(t *testing.T) (http.Handler, *Demo) {
	t.Helper()
	d := &Demo{Origin: "http://" + testHost, Site: "http://127.0.0.1:8081", Stack: startStack(t), Caddyfile: "# config", decisions: newDecisions()}
	return newApp(d, testHost), d
}

func serve(h http.Handler, method, target, body string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://"+testHost+target, strings.NewReader(body))
	for name, values := range header {
		if name == "Host" {
			r.Host = values[0]
			continue
		}
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Another site, open in the same browser, must neither read what the API received nor take the issuer down.
func TestOnlyTheOwnPageIsAnswered(t *testing.T) {
	t.Parallel()
	h, _ := newTestApp(t)
	asJSON := http.Header{"Content-Type": {"application/json"}}
	with := func(name, value string) http.Header {
		header := asJSON.Clone()
		header[name] = []string{value}
		return header
	}
	for _, c := range []struct {
		name   string
		method string
		header http.Header
		want   int
	}{
		{"the page asks", http.MethodGet, with("Sec-Fetch-Site", "same-origin"), http.StatusOK},
		{"the page posts", http.MethodPost, with("Origin", "http://"+testHost), http.StatusOK},
		{"a program asks", http.MethodGet, asJSON, http.StatusOK},
		{"a name that resolves to loopback", http.MethodGet, with("Host", "rebound.example:8080"), http.StatusForbidden},
		{"another port of this machine", http.MethodGet, with("Host", "127.0.0.1:9090"), http.StatusForbidden},
		{"a cross-site request", http.MethodGet, with("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		{"another port in the same browser", http.MethodPost, with("Sec-Fetch-Site", "same-site"), http.StatusForbidden},
		{"a foreign origin", http.MethodPost, with("Origin", "https://elsewhere.example"), http.StatusForbidden},
		{"an opaque origin", http.MethodPost, with("Origin", "null"), http.StatusForbidden},
		{"a form", http.MethodPost, with("Content-Type", "text/plain"), http.StatusUnsupportedMediaType},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if w := serve(h, c.method, "/demo/issuer", `{"down":false}`, c.header); w.Code != c.want {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, c.want)
			}
		})
	}
}

func TestIssuerIsTakenDown(t *testing.T) {
	t.Parallel()
	h, d := newTestApp(t)
	header := http.Header{"Content-Type": {"application/json"}}
	if w := serve(h, http.MethodPost, "/demo/issuer", `{"down":true}`, header); !strings.Contains(w.Body.String(), `"down":true`) {
		t.Errorf("got %s", w.Body)
	}
	w := httptest.NewRecorder()
	d.Stack.Issuer.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/.well-known/jwks.json", http.NoBody))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("the key server answers %d", w.Code)
	}
	if w := serve(h, http.MethodPost, "/demo/issuer", `{`, header); w.Code != http.StatusBadRequest {
		t.Errorf("half an object: %d", w.Code)
	}
}

// What the page shows of the API's side is found by the trace id, and holds no token.
func TestReceived(t *testing.T) {
	t.Parallel()
	h, d := newTestApp(t)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	r := httptest.NewRequest(http.MethodGet, "/v0/pipes/top_pages.json?organization_id="+organizations()[0].ID, http.NoBody)
	r.Header.Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	r.Header.Set("Authorization", "Bearer "+d.Stack.API.SigningKey())
	d.Stack.API.ServeHTTP(httptest.NewRecorder(), r)

	w := serve(h, http.MethodGet, "/demo/received?trace="+trace, "", nil)
	var got struct {
		Received *receipt `json:"received"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Received == nil || got.Received.Path != "/v0/pipes/top_pages.json" || got.Received.Credentials != 1 {
		t.Errorf("got %s", w.Body)
	}
	if strings.Contains(w.Body.String(), d.Stack.API.SigningKey()) {
		t.Error("the token is shown")
	}
	for _, other := range []string{"", "0", strings.Repeat("1", 32)} {
		if w := serve(h, http.MethodGet, "/demo/received?trace="+other, "", nil); strings.TrimSpace(w.Body.String()) != `{"received":null}` {
			t.Errorf("trace %q: %s", other, w.Body)
		}
	}
}

func TestSetupHasEverything(t *testing.T) {
	t.Parallel()
	h, _ := newTestApp(t)
	body := serve(h, http.MethodGet, "/demo/setup", "", nil).Body.String()
	for _, want := range []string{`"key":"ada"`, `"slug":"globex"`, `"caddyfile":"# config"`, `"site":"http://127.0.0.1:8081"`, `"down":false`} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is missing: %s", want, body)
		}
	}
}

// Each file of the page is served with its media type and the policy, and nothing but files is.
func TestPageIsServed(t *testing.T) {
	t.Parallel()
	h, _ := newTestApp(t)
	for name := range pageTexts(t) {
		w := serve(h, http.MethodGet, "/"+name, "", nil)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != mediaTypes[path.Ext(name)] || w.Header().Get("Content-Type") == "" {
			t.Errorf("%s: %d %s", name, w.Code, w.Header().Get("Content-Type"))
		}
		if w.Header().Get("Content-Security-Policy") != contentSecurity {
			t.Errorf("%s comes without the policy", name)
		}
	}
	if w := serve(h, http.MethodGet, "/", "", nil); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<title>") {
		t.Errorf("/: %d", w.Code)
	}
	for _, name := range []string{"/css", "/css/", "/js/", "/none.js", "/../app.go", "/%2e%2e/app.go"} {
		if w := serve(h, http.MethodGet, name, "", nil); w.Code == http.StatusOK {
			t.Errorf("%s was served", name)
		}
	}
}

var (
	elsewhere = regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]`)
	inline    = regexp.MustCompile(`(?is)\sstyle=|\son[a-z]+=|<style|<script>|<script [^>]*>[^<]|="javascript:`)
	idInHTML  = regexp.MustCompile(`\sid="([^"]+)"`)
	idInJS    = regexp.MustCompile(`\$\("([^"]+)"\)`)
	imported  = regexp.MustCompile(`from "\./([^"]+)"`)
	linked    = regexp.MustCompile(`(?:href|src)="(/[^"]+)"`)
)

// The page brings everything itself, and nothing in it needs a laxer policy.
func TestPageIsSelfContained(t *testing.T) {
	t.Parallel()
	texts := pageTexts(t)
	ids := map[string]bool{}
	for _, m := range idInHTML.FindAllStringSubmatch(texts["index.html"], -1) {
		ids[m[1]] = true
	}
	for name, text := range texts {
		if where := elsewhere.FindString(strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "")); where != "" {
			t.Errorf("%s names another host: %s", name, where)
		}
		if path.Ext(name) == ".html" && inline.MatchString(text) {
			t.Errorf("%s has something inline: %q", name, inline.FindString(text))
		}
		for _, m := range idInJS.FindAllStringSubmatch(text, -1) {
			if !ids[m[1]] {
				t.Errorf("%s looks for #%s, which the page does not have", name, m[1])
			}
		}
		for _, m := range imported.FindAllStringSubmatch(text, -1) {
			if _, ok := texts["js/"+m[1]]; !ok {
				t.Errorf("%s imports %s, which is not there", name, m[1])
			}
		}
	}
	for _, m := range linked.FindAllStringSubmatch(texts["index.html"], -1) {
		if _, ok := texts[strings.TrimPrefix(m[1], "/")]; !ok {
			t.Errorf("the page links %s, which is not there", m[1])
		}
	}
}

func pageTexts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := fs.WalkDir(pageFiles, "page", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := pageFiles.ReadFile(name)
		texts[strings.TrimPrefix(name, "page/")] = string(text)
		return err
	})
	if err != nil || len(texts) < 10 {
		t.Fatalf("%d files, %v", len(texts), err)
	}
	return texts
}
