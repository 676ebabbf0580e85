package tinybird

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseTemplate(t *testing.T) {
	t.Parallel()
	lookup := func(name string) (any, bool) {
		v, ok := map[string]any{"clerk.org.id": "org_1", "clerk.claims.https://x.y/z": "deep"}[name]
		return v, ok
	}
	for text, want := range map[string]string{
		"plain":                        "plain",
		"{clerk.org.id}":               "org_1",
		"a-{clerk.org.id}-b":           "a-org_1-b",
		"{clerk.org.id}{clerk.org.id}": "org_1org_1",
		`\{clerk.org.id\}`:             "{clerk.org.id}",
		`\{{clerk.org.id}\}`:           "{org_1}",
		`a\b\\c`:                       `a\b\\c`,
		`end\`:                         `end\`,
		"{clerk.claims.https://x.y/z}": "deep",
	} {
		tmpl, err := ParseTemplate(text, checkClerk)
		if err != nil {
			t.Errorf("ParseTemplate(%q): %v", text, err)
			continue
		}
		if got, err := tmpl.Resolve(lookup); err != nil || got != want {
			t.Errorf("%q resolves to %q, %v; want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{
		"{", "}", "{}", "a}", "{a", "{clerk.org.id", "{clerk.{org}.id}", "{{clerk.org.id}}", `{clerk.org.id\}`, "{query.x}",
		"{env.HOME}", "{ clerk.org.id}", "{clerk.org.id }", "{CLERK.ORG.ID}", "a\x00b", "a\xffb", strings.Repeat("a", 1025),
		strings.Repeat("{clerk.org.id}", 400),
	} {
		if _, err := ParseTemplate(bad, checkClerk); err == nil {
			t.Errorf("ParseTemplate(%q) passes", bad)
		}
	}
}

func TestTemplateIsBounded(t *testing.T) {
	t.Parallel()
	tmpl, err := ParseTemplate(strings.Repeat("{clerk.org.id}", 250), checkClerk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tmpl.Resolve(func(string) (any, bool) { return strings.Repeat("x", 1024), true }); err == nil {
		t.Error("250 KiB of value pass")
	}
	if got, err := tmpl.Resolve(func(string) (any, bool) { return "abcd", true }); err != nil || len(got) != 1000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// render writes a template back as operator text.
func render(t Template) string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.placeholder != "" {
			b.WriteString("{" + p.placeholder + "}")
			continue
		}
		b.WriteString(strings.NewReplacer("{", `\{`, "}", `\}`).Replace(p.literal))
	}
	return b.String()
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"", "a", "{clerk.org.id}", `\{a\}{b}c`, "{", "}", "{}", `\`, `\\{a}`, "{a}{b}", "é{a}\x00"} {
		f.Add(seed, "org_1")
		f.Add(seed, "{clerk.org.id}")
		f.Add(seed, "\\{\n")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		var asked []string
		tmpl, err := ParseTemplate(text, func(name string) error {
			asked = append(asked, name)
			return nil
		})
		if err != nil {
			return
		}
		var used []string
		want := ""
		for _, p := range tmpl.parts {
			if p.placeholder != "" {
				used = append(used, p.placeholder)
				want += value
			}
			want += p.literal
		}
		if strings.Join(used, "\n") != strings.Join(asked, "\n") {
			t.Fatalf("placeholders %q, but only %q were checked", used, asked)
		}
		// Writing it out and parsing it again is a fixed point, unless a backslash stands before a placeholder.
		if again, err := ParseTemplate(render(tmpl), func(string) error { return nil }); !strings.Contains(text, `\`) &&
			(err != nil || render(again) != render(tmpl)) {
			t.Fatalf("%q parses again as %q, %v", render(tmpl), render(again), err)
		}
		got, err := tmpl.Resolve(func(string) (any, bool) { return value, true })
		if err != nil {
			return
		}
		if got != want {
			t.Fatalf("resolved to %q, want %q: the value was looked into", got, want)
		}
		if len(got) > maxValue || !utf8.ValidString(got) || strings.TrimSpace(got) == "" || checkRunes(got) != nil {
			t.Fatalf("unusable value %q", got)
		}
	})
}
