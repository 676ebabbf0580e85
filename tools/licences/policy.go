package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// allowed are the licences under which something may be linked into a binary that is handed on under the Apache License 2.0. Most
// of them ask that their notices travel along, which is what `texts` is for. A new one is added after it was read.
//
// OFL-1.1 is that of a font in chroma, which may be bundled with any software and is not sold by itself.
// GooglePatentsFile grants rights beyond the BSD licence beside it, and asks for nothing in return.
var allowed = []string{
	"Apache-2.0", "BSD-2-Clause", "BSD-2-Clause-Views", "BSD-3-Clause", "CC0-1.0", "GooglePatentsFile", "MIT", "OFL-1.1",
}

// judge refuses a module without a licence that is known, and one under a licence that is not on the list.
func judge(modules []module) error {
	var errs []error
	for _, m := range modules {
		ids := m.ids()
		if len(ids) == 0 {
			errs = append(errs, fmt.Errorf("%s: no licence was recognized in %s", m.path, names(m)))
		}
		for _, id := range ids {
			if !slices.Contains(allowed, id) {
				errs = append(errs, fmt.Errorf("%s: nobody has looked at %s yet, in %s", m.path, id, names(m)))
			}
		}
	}
	return errors.Join(errs...)
}

func names(m module) string {
	var all []string
	for _, f := range m.files {
		all = append(all, fmt.Sprintf("%s %v", f.name, f.ids))
	}
	if all == nil {
		return "its files, of which none is called LICENSE"
	}
	return strings.Join(all, ", ")
}

// markdown is the page.
func markdown(modules []module) string {
	var b strings.Builder
	b.WriteString(`# Licences

Made by ` + "`make licences`" + `; CI fails when it is not current. This project is under the Apache License 2.0. These are the modules that are linked
into Caddy with this plugin, on any system that releases are built for, with the licences found in their files by
[licensecheck](https://github.com/google/licensecheck). Several mean that parts of the module are under different ones, and all of them apply.
`)
	fmt.Fprintf(&b, "CI accepts %s, and nothing else unseen.\n\n", strings.Join(allowed, ", "))
	b.WriteString(`Nearly all of them ask that their notices travel with a binary that is handed on. ` + "`make notices`" + ` writes them to ` + "`bin/NOTICES.txt`" + `, and the archives of
a release hold that file. Versions are in ` + "`go.mod`" + ` and, for a binary, in what ` + "`go version -m bin/caddy`" + ` and ` + "`make sbom`" + ` say.

| module | licence |
| --- | --- |
`)
	for _, m := range modules {
		name := "`" + m.path + "`"
		if m.path == "std" {
			name = "Go's standard library"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", name, strings.Join(m.ids(), ", "))
	}
	return b.String()
}

// writeTexts writes every file of every module, each once.
func writeTexts(w io.Writer, modules []module) error {
	var b strings.Builder
	b.WriteString("Caddy with caddy-tinybird is made with the software below, under these terms.\n")
	for _, m := range modules {
		for _, f := range m.files {
			line := strings.Repeat("=", 80)
			fmt.Fprintf(&b, "\n%s\n%s, %s\n%s\n\n%s\n", line, m.path, f.name, line, strings.TrimSpace(string(f.text)))
		}
	}
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("write the texts: %w", err)
	}
	return nil
}
