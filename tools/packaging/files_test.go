package packaging_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// buildCommand is the line by which `make build` compiles, with the variables' values.
func buildCommand(t *testing.T) string {
	t.Helper()
	text := read(t, "Makefile")
	_, rule, _ := strings.Cut(text, "\nbuild:")
	lines := strings.Split(rule, "\n")
	if len(lines) < 2 || !strings.Contains(lines[1], "build ") {
		t.Fatal("the Makefile has no rule build of one line")
	}
	for _, v := range regexp.MustCompile(`(?m)^([A-Z]+) *\?= *(\S+)$`).FindAllStringSubmatch(text, -1) {
		lines[1] = strings.ReplaceAll(lines[1], "$("+v[1]+")", v[2])
	}
	return strings.TrimSpace(lines[1])
}
