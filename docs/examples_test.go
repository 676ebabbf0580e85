package docs_test

import (
	"path/filepath"
	"slices"
	"testing"
)

// TestExamplesAreThoseThatRun: the code for clients on the pages is, to the letter, that of the files which the integration tests
// run in Node and in a browser, and none of them is left out.
func TestExamplesAreThoseThatRun(t *testing.T) {
	t.Parallel()
	tested := map[string]string{}
	files, err := filepath.Glob("../integration/clients/examples/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		tested[read(t, file)] = filepath.Base(file)
	}
	shown := map[string]bool{}
	for _, path := range []string{"clients.md", "tracker.md", "migrate-from-clerk-template.md"} {
		p := readPage(t, path)
		for _, b := range p.blocks {
			if !slices.Contains([]string{"jsx", "js", "html"}, b.language) {
				continue
			}
			name, ok := tested[b.text]
			if !ok {
				t.Errorf("%s: no file in integration/clients/examples has this text:\n%s", p.name(b), b.text)
			}
			shown[name] = true
		}
	}
	for _, name := range tested {
		if !shown[name] {
			t.Errorf("%s is on no page", name)
		}
	}
}
