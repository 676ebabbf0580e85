package clerk

import (
	"strings"
	"testing"
)

// The end of a string is that of encoding/json, whatever is escaped before it.
func TestCursorText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`""`, `"a"`, `"\""`, `"\\"`, `"\\\""`, `"a\\"`, `"\"\"\"a"`, `"\u0022a\\\\"`, `"` + strings.Repeat(`\"`, 100) + `"`,
		`"` + strings.Repeat("x", 5000) + `"`, `"` + strings.Repeat("x", 5000) + `\\"`,
	} {
		c := cursor{doc: text + `:"more\""`}
		c.text()
		if c.at != len(text) {
			t.Errorf("%.40s ends at %d, want %d", text, c.at, len(text))
		}
	}
}

// Nothing that fits into a document can be too deep before it is as long as that.
func TestTooDeep(t *testing.T) {
	t.Parallel()
	nested := func(depth int) []byte {
		return []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))
	}
	for depth, want := range map[int]bool{1: false, maxDepth: false, maxDepth + 1: false, maxDepth + 2: true} {
		if got := tooDeep(nested(depth)); got != want {
			t.Errorf("%d deep: %v", depth, got)
		}
	}
	if !tooDeep([]byte(strings.Repeat("{", maxDepth+2))) {
		t.Error("so many openings are too deep")
	}
}
