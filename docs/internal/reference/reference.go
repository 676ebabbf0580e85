// Package reference writes docs/reference.md: every field of the JSON config, from the comments of the config structs in
// caddytinybird. Those comments are also what Caddy's own site shows of the modules.
package reference

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// module is a Caddy module with a config.
type module struct {
	id    string
	typ   string // the struct
	where string // in the config, as Markdown
}

// anchor is the fragment by which GitHub knows the module's heading.
func (m module) anchor() string { return "module-" + strings.ReplaceAll(m.id, ".", "") }

// modules are in the order of the page.
var modules = []module{
	{"http.handlers.tinybird", "Handler", "The directive `tinybird`. In JSON a handler of a route: `apps` / `http` / `servers` / *name* / `routes` / `handle`, with `\"handler\": \"tinybird\"`."},
	{"http.handlers.clerk_auth", "ClerkAuth", "The directive `clerk_auth`. In JSON a handler of a route, with `\"handler\": \"clerk_auth\"`."},
	{"http.authentication.providers.clerk", "ClerkProvider", "In JSON only: the provider `clerk` of Caddy's handler `authentication`, in its `providers`."},
	{"clerk", "App", "The global option `clerk`. In JSON `apps` / `clerk`."},
	{"admin.api.tinybird", "AdminAPI", "There whenever the plugin is."},
}

// Config is a struct of the config.
type Config struct {
	Name   string
	Embeds []string // the structs whose fields are also its own
	Fields []Field

	doc   string
	paths []string // where it is, below which module
}

// Field is a member of the JSON.
type Field struct {
	JSON      string // its name
	Caddyfile string // how it is written in a Caddyfile, as Markdown; "" if it cannot be
	meaning   string
	preset    string // what it is when it is left out
	typ       string // as Markdown
	holds     string // the struct of its value or of its elements, if it is one
	list      bool
}

// Load reads the structs of the package in a directory, by their names.
func Load(dir string) (map[string]*Config, error) {
	files := token.NewFileSet()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("list the package: %w", err)
	}
	var parsed []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("read the package: %w", err)
		}
		parsed = append(parsed, file)
	}
	p, err := doc.NewFromFiles(files, parsed, "caddytinybird")
	if err != nil {
		return nil, fmt.Errorf("read the package's comments: %w", err)
	}
	configs := map[string]*Config{}
	for _, t := range p.Types {
		for _, spec := range t.Decl.Specs {
			s, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if fields, ok := s.Type.(*ast.StructType); ok {
				c := &Config{Name: t.Name, doc: strings.TrimSpace(t.Doc)}
				c.read(fields)
				configs[t.Name] = c
			}
		}
	}
	return configs, nil
}

func (c *Config) read(s *ast.StructType) {
	for _, f := range s.Fields.List {
		if len(f.Names) == 0 {
			if name := nameOf(f.Type); ast.IsExported(name) {
				c.Embeds = append(c.Embeds, name)
			}
			continue
		}
		if f.Tag == nil || !f.Names[0].IsExported() {
			continue
		}
		text, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(text).Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		comment := f.Doc.Text()
		if comment == "" && len(c.Fields) > 0 { // a comment for two lines stands before the first
			comment = "Belongs to `" + c.Fields[len(c.Fields)-1].JSON + "`."
		}
		field := Field{JSON: name, Caddyfile: caddyfileOf(c.Name, name)}
		field.meaning, field.preset = split(comment)
		field.typ, field.holds, field.list = typeOf(f.Type, reflect.StructTag(text).Get("caddy"))
		c.Fields = append(c.Fields, field)
	}
}

// nameOf is the name of a type, or of what it points to.
func nameOf(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.Ident:
		return t.Name
	case *ast.StarExpr:
		return nameOf(t.X)
	case *ast.SelectorExpr:
		return t.Sel.Name
	}
	return ""
}

// typeOf says in words what a field holds.
func typeOf(t ast.Expr, guest string) (words, holds string, list bool) {
	if array, ok := t.(*ast.ArrayType); ok {
		words, holds, _ = typeOf(array.Elt, "")
		if holds == "" {
			words += "s"
		}
		return "list of " + words, holds, true
	}
	switch name := nameOf(t); name {
	case "string":
		return "text", "", false
	case "bool":
		return "`true`, `false`", "", false
	case "int", "int64":
		return "whole number", "", false
	case "Duration":
		return "duration", "", false
	case "RawMessage":
		namespace, _, _ := strings.Cut(strings.TrimPrefix(guest, "namespace="), " ")
		return "a module of `" + namespace + "`", "", false
	default:
		return "[" + name + "](#" + strings.ToLower(name) + ")", name, false
	}
}

// split takes what a comment says about the field being left out from the rest of it.
func split(comment string) (meaning, preset string) {
	text := strings.Join(strings.Fields(comment), " ")
	text, required := strings.CutSuffix(text, " Required.")
	if required {
		return text, "required"
	}
	before, after, ok := strings.Cut(text, "Default: ")
	if !ok {
		return text, ""
	}
	preset, rest, _ := strings.Cut(after+" ", ". ")
	return strings.TrimSpace(strings.TrimSpace(before) + " " + strings.TrimSpace(rest)), strings.TrimSuffix(strings.TrimSpace(preset), ".")
}

// Generate makes the page from the package in a directory.
func Generate(dir string) ([]byte, error) {
	configs, err := Load(dir)
	if err != nil {
		return nil, err
	}
	var order []string
	for _, m := range modules {
		c, ok := configs[m.typ]
		if !ok {
			return nil, fmt.Errorf("there is no struct %s for the module %s", m.typ, m.id) //nolint:err113 // for whoever runs the generator
		}
		if err := find(configs, c, "`"+m.id+"`", &order); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	b.WriteString(head)
	for _, m := range modules {
		fmt.Fprintf(&b, "- [`%s`](#%s)\n", m.id, m.anchor())
	}
	for _, name := range order {
		fmt.Fprintf(&b, "- [%s](#%s)\n", name, strings.ToLower(name))
	}
	for _, m := range modules {
		fmt.Fprintf(&b, "\n## Module %s\n\n%s\n", m.id, m.where)
		configs[m.typ].write(&b)
	}
	for _, name := range order {
		fmt.Fprintf(&b, "\n## %s\n\nIn %s.\n", name, strings.Join(configs[name].paths, ", "))
		configs[name].write(&b)
	}
	return b.Bytes(), nil
}

// find notes where the structs below c are, in the order in which they are met.
func find(configs map[string]*Config, c *Config, path string, order *[]string) error {
	for _, f := range c.Fields {
		if f.holds == "" {
			continue
		}
		below, ok := configs[f.holds]
		if !ok {
			return fmt.Errorf("%s.%s holds a %s, which is no struct of the package", c.Name, f.JSON, f.holds) //nolint:err113 // for whoever runs the generator
		}
		at := path + " / `" + f.JSON + "`"
		if f.list {
			at += " / *each*"
		}
		if !slices.Contains(*order, f.holds) {
			*order = append(*order, f.holds)
		}
		below.paths = append(below.paths, at)
		if err := find(configs, below, at, order); err != nil {
			return err
		}
	}
	for _, name := range c.Embeds {
		if embedded, ok := configs[name]; ok {
			if !slices.Contains(*order, name) && !slices.ContainsFunc(modules, func(m module) bool { return m.typ == name }) {
				*order = append(*order, name)
			}
			if err := find(configs, embedded, path, order); err != nil {
				return err
			}
			if !slices.Contains(embedded.paths, path) {
				embedded.paths = append(embedded.paths, path)
			}
		}
	}
	return nil
}

func (c *Config) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n%s\n", c.doc)
	if len(c.Fields) > 0 {
		b.WriteString("\n| JSON | Caddyfile | value | meaning | when left out |\n|---|---|---|---|---|\n")
	}
	for _, f := range c.Fields {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", f.JSON, cell(f.Caddyfile), cell(f.typ), cell(f.meaning), cell(f.preset))
	}
	for _, name := range c.Embeds {
		anchor := strings.ToLower(name)
		for _, m := range modules {
			if m.typ == name {
				name, anchor = "`"+m.id+"`", m.anchor()
			}
		}
		fmt.Fprintf(b, "\nAnd every field of [%s](#%s), beside these.\n", name, anchor)
	}
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// Write makes the page from a checkout's root.
func Write(root string) error {
	page, err := Generate(filepath.Join(root, "caddytinybird"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "reference.md"), page, 0o644); err != nil { //nolint:gosec // a page for everybody
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}
