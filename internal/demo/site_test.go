package demo

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The plain site is what it says: files that name each other and nothing else, and no script.
func TestSiteIsPlain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "site")
	if err := writeSite(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		texts[entry.Name()] = string(text)
	}
	src := regexp.MustCompile(`\ssrc(?:set)?="/([^"]+)"`)
	pages := 0
	for name, text := range texts {
		if where := elsewhere.FindString(strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "")); where != "" {
			t.Errorf("%s names another host: %s", name, where)
		}
		if path.Ext(name) != ".html" {
			continue
		}
		pages++
		if inline.MatchString(text) || strings.Contains(text, "<script") || strings.Contains(strings.ToLower(text), "clerk-js") {
			t.Errorf("%s has a script, or something inline", name)
		}
		for _, m := range append(src.FindAllStringSubmatch(text, -1), linked.FindAllStringSubmatch(text, -1)...) {
			file := strings.TrimPrefix(m[1], "/")
			if _, ok := texts[file]; !ok && file != "sign-out" {
				t.Errorf("%s links %s, which is not there", name, m[1])
			}
		}
	}
	if pages < 2 {
		t.Errorf("%d pages", pages)
	}
}
