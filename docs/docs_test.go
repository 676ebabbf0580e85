// Package docs_test holds the documentation to what the program does: configs load, options and error codes are
// complete, links resolve, commands exist.
package docs_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// page is a Markdown file.
type page struct {
	path   string // from this directory
	prose  string // the text without fenced blocks
	blocks []block
}

// block is a fenced block of a page.
type block struct {
	language string
	line     int
	text     string
}

// pages reads all Markdown files of the repository's root and of this directory.
func pages(t *testing.T) []page {
	t.Helper()
	var found []page
	for _, pattern := range []string{"../*.md", "*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			found = append(found, readPage(t, path))
		}
	}
	if len(found) < 8 {
		t.Fatalf("only %d pages were found", len(found))
	}
	return found
}

func readPage(t *testing.T, path string) page {
	t.Helper()
	p := page{path: path}
	var prose, text strings.Builder
	fence, indent := false, 0
	for i, line := range strings.Split(read(t, path), "\n") {
		trimmed := strings.TrimLeft(line, " ")
		language, isFence := strings.CutPrefix(trimmed, "```")
		switch {
		case isFence && !fence:
			fence, indent = true, len(line)-len(trimmed)
			p.blocks = append(p.blocks, block{language: language, line: i + 1})
			text.Reset()
		case isFence:
			fence = false
			p.blocks[len(p.blocks)-1].text = text.String()
		case fence:
			text.WriteString(line[min(indent, len(line)-len(trimmed)):] + "\n")
		default:
			prose.WriteString(line + "\n")
		}
	}
	if fence {
		t.Errorf("%s: a fenced block is not closed", path)
	}
	p.prose = prose.String()
	return p
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// in returns the blocks of a language.
func (p *page) in(language string) []block {
	return slices.DeleteFunc(slices.Clone(p.blocks), func(b block) bool { return b.language != language })
}

// report reads a block as the JSON of a report, which has to know all of its members.
func (p *page) report(t *testing.T, b block, into any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(b.text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		t.Fatalf("%s: %v", p.name(b), err)
	}
}

// name is what a block is called in test output.
func (p *page) name(b block) string {
	return filepath.Base(p.path) + ":" + strconv.Itoa(b.line)
}

var headingLine = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)

// anchors returns the fragments by which GitHub knows the page's headings.
func (p *page) anchors() map[string]bool {
	known := make(map[string]bool)
	for _, heading := range headingLine.FindAllStringSubmatch(p.prose, -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(heading[1]))
		for n := 1; known[slug]; n++ {
			slug += "-" + strconv.Itoa(n)
		}
		known[slug] = true
	}
	return known
}

// section returns the prose below the heading, up to the next one of any level.
func (p *page) section(t *testing.T, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut("\n"+p.prose, "# "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", p.path, heading)
	}
	if next := headingLine.FindStringIndex(rest); next != nil {
		rest = rest[:next[0]]
	}
	return rest
}

// TestLinksResolve follows every relative link to its file and heading.
func TestLinksResolve(t *testing.T) {
	t.Parallel()
	codeSpan := regexp.MustCompile("`[^`\n]*`")
	link := regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	checked := 0
	for _, p := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(p.prose, ""), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			checked++
			path, anchor, _ := strings.Cut(match[1], "#")
			target := p.path
			if path != "" {
				target = filepath.Join(filepath.Dir(p.path), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which does not exist", p.path, match[1])
				continue
			}
			if anchor == "" {
				continue
			}
			if to := readPage(t, target); !to.anchors()[anchor] {
				t.Errorf("%s links to %s, but %s has no such heading", p.path, match[1], target)
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d links were found", checked)
	}
}

// TestEveryPageIsOnTheMap looks for each page of this directory in README.md, from where all of them are found.
func TestEveryPageIsOnTheMap(t *testing.T) {
	t.Parallel()
	onMap := firstGroups(regexp.MustCompile(`\]\(([a-z-]+\.md)\)`), readPage(t, "README.md").prose)
	paths, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if path != "README.md" && !slices.Contains(onMap, path) {
			t.Errorf("%s is not on the map; add it to docs/README.md", path)
		}
	}
}

// TestEveryCodeIsDescribed compares the codes of internal/apierr with the table in the README and with the
// headings of errors.md, both ways.
func TestEveryCodeIsDescribed(t *testing.T) {
	t.Parallel()
	codes := stringConstants(t, "../internal/apierr/apierr.go", "Code")
	if len(codes) < 20 {
		t.Fatalf("only %d codes were found", len(codes))
	}
	readme, errors := readPage(t, "../README.md"), readPage(t, "errors.md")
	row := regexp.MustCompile("(?m)^\\| [1-5][0-9]{2} \\| `([a-z_]+)` \\|")
	heading := regexp.MustCompile("(?m)^### ([a-z_]+)$")
	sameSet(t, "the README's table of errors", codes, firstGroups(row, readme.section(t, "Errors")))
	sameSet(t, "the headings of errors.md", codes, firstGroups(heading, errors.prose))
}

// repository is the address of this repository.
func repository(t *testing.T) string {
	t.Helper()
	return "https://" + firstGroups(regexp.MustCompile(`(?m)^module (.+)$`), read(t, "../go.mod"))[0]
}

// TestEveryCodeIsExplained: the section of each code says what it comes from, how to see that and what to do, and is where the logs
// lead to.
func TestEveryCodeIsExplained(t *testing.T) {
	t.Parallel()
	p := readPage(t, "errors.md")
	anchors := p.anchors()
	for _, code := range stringConstants(t, "../internal/apierr/apierr.go", "Code") {
		if got, want := apierr.Code(code).Help(), repository(t)+"/blob/main/docs/errors.md#"+code; got != want || !anchors[code] {
			t.Errorf("the logs lead to %s, want %s", got, want)
		}
		section, last := p.section(t, code), 0
		for _, part := range []string{"- **Cause:** ", "- **See it:** ", "- **Fix:** "} {
			at := strings.Index(section, "\n"+part)
			if at < last || strings.Count(section, part) != 1 {
				t.Errorf("%s: no %q in its place", code, part)
			}
			last = at
		}
	}
}

// TestLogMessagesExist looks for every message of logs.md in the source.
func TestLogMessagesExist(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../caddytinybird/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, path := range paths {
		source.WriteString(read(t, path))
	}
	logs := readPage(t, "logs.md")
	row := regexp.MustCompile("(?m)^\\| (?:error|warn|info|debug) \\| `([^`]+)` \\|")
	messages := firstGroups(row, logs.section(t, "The error log"))
	if len(messages) == 0 {
		t.Error("logs.md lists no messages")
	}
	for _, message := range messages {
		if !strings.Contains(source.String(), `"`+message) {
			t.Errorf("logs.md says %q, which nothing logs", message)
		}
	}
}

// TestCommandsExist accepts in shell blocks only what works in a fresh clone with nothing but Go. Transcripts that need
// accounts or other tools are console blocks, which nobody runs.
func TestCommandsExist(t *testing.T) {
	t.Parallel()
	target := regexp.MustCompile(`(?m)^([a-z]+):`)
	targets := firstGroups(target, read(t, "../Makefile"))
	programs := []string{"go run ./cmd/caddy demo", "go run ./cmd/caddy demo --check", "bin/caddy version"}
	checked := 0
	for _, p := range pages(t) {
		for _, b := range p.in("sh") {
			for line := range strings.SplitSeq(strings.TrimSpace(b.text), "\n") {
				checked++
				name, isMake := strings.CutPrefix(line, "make ")
				if isMake && !slices.Contains(targets, name) {
					t.Errorf("%s: the Makefile has no target %s", p.name(b), name)
				}
				if !isMake && !slices.Contains(programs, line) {
					t.Errorf("%s: %q is not known to work in a clone; make it a console block", p.name(b), line)
				}
			}
		}
	}
	if checked == 0 {
		t.Error("no command was found")
	}
}

// TestPromisesAreTested looks for the tests that SECURITY.md and the table of faults name.
func TestPromisesAreTested(t *testing.T) {
	t.Parallel()
	declared := make(map[string]bool)
	for _, pattern := range []string{"../caddytinybird/*_test.go", "../caddytinybird/*/*_test.go", "../internal/*/*_test.go", "../integration/*_test.go", "../tools/*/*_test.go"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			for _, d := range parse(t, path).Decls {
				if f, ok := d.(*ast.FuncDecl); ok {
					declared[f.Name.Name] = true
				}
			}
		}
	}
	security := readPage(t, "../SECURITY.md")
	name := regexp.MustCompile("`(Test[A-Za-z0-9]*)`")
	for n := range 8 {
		if promise := fmt.Sprintf("`TestP%d", n+1); !strings.Contains(security.section(t, "Promises"), promise) {
			t.Errorf("SECURITY.md names no test of promise %d", n+1)
		}
	}
	for _, name := range firstGroups(name, security.prose) {
		if !declared[name] {
			t.Errorf("SECURITY.md names %s, which is not declared", name)
		}
	}
	for _, name := range firstGroups(name, readPage(t, "security-reviews.md").prose) {
		if !declared[name] {
			t.Errorf("security-reviews.md names %s, which is not declared", name)
		}
	}
	operations := readPage(t, "operations.md")
	faults := firstGroups(name, operations.section(t, "What happens when"))
	if len(faults) == 0 {
		t.Error("the table of faults names no test")
	}
	for _, name := range faults {
		if !declared[name] {
			t.Errorf("operations.md names %s, which is not declared", name)
		}
	}
}

func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// stringConstants returns the values of the constants that a file declares with the given type.
func stringConstants(t *testing.T, path, typeName string) []string {
	t.Helper()
	var values []string
	ast.Inspect(parse(t, path), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if ident, ok := spec.Type.(*ast.Ident); !ok || ident.Name != typeName {
			return true
		}
		for _, value := range spec.Values {
			literal, ok := value.(*ast.BasicLit)
			if !ok {
				continue
			}
			if text, err := strconv.Unquote(literal.Value); err == nil {
				values = append(values, text)
			}
		}
		return true
	})
	return values
}

func firstGroups(pattern *regexp.Regexp, text string) []string {
	var groups []string
	for _, match := range pattern.FindAllStringSubmatch(text, -1) {
		groups = append(groups, match[1])
	}
	return groups
}

// sameSet fails unless the documentation has what the program has, each once.
func sameSet(t *testing.T, where string, program, documentation []string) {
	t.Helper()
	described := make(map[string]int)
	for _, name := range documentation {
		described[name]++
	}
	for _, name := range program {
		if described[name] != 1 {
			t.Errorf("%s should have %s once, and has it %d times", where, name, described[name])
		}
		delete(described, name)
	}
	for _, name := range slices.Sorted(maps.Keys(described)) {
		t.Errorf("%s has %s, which the program does not", where, name)
	}
}
