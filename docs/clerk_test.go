package docs_test

import (
	"go/ast"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

// TestReasonsAreDescribed compares the reasons that internal/clerk gives with the table in errors.md, both ways.
func TestReasonsAreDescribed(t *testing.T) {
	t.Parallel()
	var reasons []string
	ast.Inspect(parse(t, "../internal/clerk/errors.go"), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "reason") || len(spec.Values) != 1 {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
			if reason, err := strconv.Unquote(literal.Value); err == nil {
				reasons = append(reasons, reason)
			}
		}
		return true
	})
	if len(reasons) < 20 {
		t.Fatalf("only %d reasons were found", len(reasons))
	}
	errors := readPage(t, "errors.md")
	cell := regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|")
	reason := regexp.MustCompile("`([a-z-]+)(?:\\.\\.\\.)?`")
	first := strings.Join(firstGroups(cell, errors.section(t, "Reasons")), " ")
	sameSet(t, "the table of reasons in errors.md", reasons, firstGroups(reason, first))
}

// TestPlaceholdersExist holds every {clerk.*} of the documentation against those that there are.
func TestPlaceholdersExist(t *testing.T) {
	t.Parallel()
	placeholder := regexp.MustCompile(`\{(clerk\.[^{}\s]*)\}`)
	for _, p := range pages(t) {
		for _, name := range firstGroups(placeholder, read(t, p.path)) {
			if strings.HasSuffix(name, "*") || strings.HasSuffix(name, "...") {
				continue // stands for several
			}
			if err := clerk.CheckPlaceholder(strings.ReplaceAll(name, "<path>", "a.b")); err != nil {
				t.Errorf("%s names {%s}: %v", p.path, name, err)
			}
		}
	}
}

// TestUserPlaceholdersExist holds every {http.auth.user.*} of the documentation against those that clerk_auth sets.
func TestUserPlaceholdersExist(t *testing.T) {
	t.Parallel()
	set := map[string]bool{"id": true}
	ast.Inspect(parse(t, "../caddytinybird/clerkprovider.go"), func(n ast.Node) bool {
		f, ok := n.(*ast.FuncDecl)
		if !ok || f.Name.Name != "metadataOf" {
			return true
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if pair, ok := n.(*ast.KeyValueExpr); ok {
				if literal, ok := pair.Key.(*ast.BasicLit); ok {
					set[strings.Trim(literal.Value, `"`)] = true
				}
			}
			return true
		})
		return false
	})
	if len(set) < 5 {
		t.Fatalf("only %d were found", len(set))
	}
	placeholder := regexp.MustCompile(`\{http\.auth\.user\.([^{}\s]*)\}`)
	for _, p := range pages(t) {
		for _, name := range firstGroups(placeholder, read(t, p.path)) {
			if name != "*" && !set[name] {
				t.Errorf("%s names {http.auth.user.%s}, which nothing sets", p.path, name)
			}
		}
	}
}
