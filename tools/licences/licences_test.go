package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFilesOf: a licence above a package and one beside code that was taken over are both found; one of a package that is not linked
// is not.
func TestFilesOf(t *testing.T) {
	t.Parallel()
	apache, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"LICENSE":            string(apache),
		"NOTICE":             "Made by somebody.",
		"license.go":         "package x",
		"a/b/b.go":           "package b",
		"taken/COPYING.txt":  isc,
		"taken/x/x.go":       "package x",
		"unused/LICENSE.mit": "nothing that is known",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filesOf(dir, map[string]bool{filepath.Join(dir, "a", "b"): true, filepath.Join(dir, "taken", "x"): true})
	if err != nil {
		t.Fatal(err)
	}
	m := module{path: "example.com/m", files: files}
	if got := m.ids(); !slices.Equal(got, []string{"Apache-2.0", "ISC"}) {
		t.Errorf("found %v in %s", got, names(m))
	}
	if len(files) != 3 {
		t.Errorf("read %s", names(m))
	}
}

// TestJudge: what nobody has looked at, and what has no licence at all, fails; each module is named.
func TestJudge(t *testing.T) {
	t.Parallel()
	of := func(path string, ids ...string) module {
		return module{path, []licenceFile{{name: "LICENSE", ids: ids}}}
	}
	if err := judge([]module{of("example.com/a", "MIT"), of("example.com/b", "MIT", "Apache-2.0")}); err != nil {
		t.Error(err)
	}
	err := judge([]module{of("example.com/a", "MIT"), of("example.com/c", "MIT", "AGPL-3.0"), of("example.com/d"), {path: "example.com/e"}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"example.com/c: nobody has looked at AGPL-3.0", "example.com/d: no licence", "example.com/e: no licence"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "example.com/a") {
		t.Error(err)
	}
}

const isc = `Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, provided
that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF
MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY
DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION,
ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`
