package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// tags are those that the binary is built with, and systems those that the releases are built for: each links other modules.
const tags = "nobadger,nomysql,nopgx"

var systems = []string{"darwin", "freebsd", "linux", "windows"}

// module is one that is linked, with the files that say under which licence.
type module struct {
	path  string
	files []licenceFile
}

// licenceFile is one file, and the licences found in it.
type licenceFile struct {
	name string // below the module's directory
	text []byte
	ids  []string
}

// ids are the licences of all of the module's files, sorted.
func (m module) ids() []string {
	var all []string
	for _, f := range m.files {
		all = append(all, f.ids...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// listed is what `go list` says of a package.
type listed struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Dir string
		Main      bool
	}
}

// linked returns the modules of all packages that the binary is made of, on any system, and the standard library.
func linked(root string) ([]module, error) {
	directories := map[string]map[string]bool{} // of packages, by the module's path and directory
	at := map[string]string{}
	for _, system := range systems {
		packages, err := list(root, system)
		if err != nil {
			return nil, err
		}
		for _, p := range packages {
			m := p.Module
			switch {
			case p.Standard, m != nil && m.Main:
				continue
			case m == nil:
				return nil, fmt.Errorf("the package in %s is of no module", p.Dir)
			}
			at[m.Path] = m.Dir
			if directories[m.Path] == nil {
				directories[m.Path] = map[string]bool{}
			}
			directories[m.Path][p.Dir] = true
		}
	}
	goRoot, err := output(root, nil, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	standard := filepath.Clean(strings.TrimSpace(string(goRoot)))
	at["std"], directories["std"] = standard, map[string]bool{standard: true}

	var all []module
	for path, dir := range at {
		files, err := filesOf(dir, directories[path])
		if err != nil {
			return nil, err
		}
		all = append(all, module{path, files})
	}
	slices.SortFunc(all, func(a, b module) int { return cmp.Compare(a.path, b.path) })
	return all, nil
}

func list(root, system string) ([]listed, error) {
	out, err := output(root, []string{"GOOS=" + system, "GOARCH=amd64", "CGO_ENABLED=0"},
		"list", "-deps", "-tags", tags, "-json=Dir,Standard,Module", "./cmd/caddy")
	if err != nil {
		return nil, err
	}
	var packages []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("read what go list says: %w", err)
		}
		packages = append(packages, p)
	}
}

// output runs the go command that runs this program.
func output(dir string, env []string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...) //nolint:gosec,noctx // arguments of this program
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s (%s): %w", strings.Join(args, " "), runtime.Version(), err)
	}
	return out, nil
}

// fileName is how files that hold a licence, or what has to be said along with it, are called.
var fileName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|unlicen[cs]e|patents)([-._].*)?$`)

// filesOf reads the files in the packages' directories and in those above them, up to the module's own: code that was taken over
// from elsewhere has its licence beside it.
func filesOf(module string, packages map[string]bool) ([]licenceFile, error) {
	directories := map[string]bool{}
	for dir := range packages {
		for ; !directories[dir]; dir = filepath.Dir(dir) {
			directories[dir] = true
			if dir == module {
				break
			}
		}
	}
	var files []licenceFile
	for _, dir := range slices.Sorted(maps.Keys(directories)) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("look for a licence: %w", err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !fileName.MatchString(e.Name()) || filepath.Ext(e.Name()) == ".go" {
				continue
			}
			f, err := readLicence(module, filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
	}
	return files, nil
}

// enough is how much of a file must be known text, in percent; pkg.go.dev asks for the same. Files that hold other things,
// such as a NOTICE, stay below and count as none.
const enough = 75

func readLicence(module, path string) (licenceFile, error) {
	name, err := filepath.Rel(module, path)
	if err != nil {
		return licenceFile{}, fmt.Errorf("name %s: %w", path, err)
	}
	f := licenceFile{name: filepath.ToSlash(name)}
	if f.text, err = os.ReadFile(path); err != nil { //nolint:gosec // a file of a module
		return f, fmt.Errorf("read a licence: %w", err)
	}
	found := licensecheck.Scan(f.text)
	if found.Percent < enough {
		return f, nil
	}
	for _, m := range found.Match {
		if !slices.Contains(f.ids, m.ID) {
			f.ids = append(f.ids, m.ID)
		}
	}
	return f, nil
}
