package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/seed-32cb3e43/caddy-tinybird/docs/internal/reference"
)

// TestReferenceIsCurrent: reference.md is what the comments in the code say now.
func TestReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	page, err := reference.Generate("../caddytinybird")
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != read(t, "reference.md") {
		t.Error("reference.md is older than the comments in caddytinybird; run `make reference`")
	}
}

// TestReferenceIsComplete: every field is explained, and says what it is when it is left out.
func TestReferenceIsComplete(t *testing.T) {
	t.Parallel()
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| .* \\| (.*) \\| (.*) \\|$")
	rows := row.FindAllStringSubmatch(read(t, "reference.md"), -1)
	if len(rows) < 70 {
		t.Fatalf("only %d fields were found", len(rows))
	}
	optional := []string{"pipes", "name"} // whose comments say when they are required
	for _, r := range rows {
		if len(r[2]) < 10 {
			t.Errorf("%s is not explained: %q", r[1], r[2])
		}
		if r[3] == "" && !slices.Contains(optional, r[1]) {
			t.Errorf("%s does not say what it is when it is left out; end its comment with `Default: ...` or `Required.`", r[1])
		}
	}
}

// TestReferenceKnowsTheCaddyfile compares the words of reference.md with those that the parser knows, both ways.
func TestReferenceKnowsTheCaddyfile(t *testing.T) {
	t.Parallel()
	configs, err := reference.Load("../caddytinybird")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`known here are: ([a-z_, ]+), at `)
	word := regexp.MustCompile("`([a-z_]+)")
	inline := []string{"Pipe.names", "Events.datasources", "SharedLimit.url"} // arguments of the block itself
	const unknown = "no_such_option\n"
	for _, b := range []struct {
		structs string
		text    string
	}{
		{"Handler", nest("tinybird", unknown)},
		{"Token", nest("tinybird", nest("token", unknown))},
		{"Limits", nest("tinybird", nest("limits", unknown))},
		{"Pipe", nest("tinybird", nest("pipe p", unknown))},
		{"Events", nest("tinybird", nest("events e", unknown))},
		{"SharedLimit", nest("tinybird", nest("rate_limit redis redis://redis", unknown))},
		{"Clerk", nest("tinybird", nest("clerk", unknown))},
		{"ClerkLimits", nest("tinybird", nest("clerk", nest("limits", unknown)))},
		{"Clerk ClerkProvider ClerkAuth", nest("clerk_auth", unknown)},
	} {
		t.Run(b.structs, func(t *testing.T) {
			t.Parallel()
			_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(site(b.text)), map[string]any{"filename": "Caddyfile"})
			if err == nil {
				t.Fatal("an unknown option was accepted")
			}
			known := list.FindStringSubmatch(err.Error())
			if known == nil {
				t.Fatalf("the error does not list the options: %v", err)
			}
			var written []string
			for name := range strings.FieldsSeq(b.structs) {
				for _, f := range configs[name].Fields {
					if !slices.Contains(inline, name+"."+f.JSON) {
						written = append(written, firstGroups(word, f.Caddyfile)...)
					}
				}
			}
			slices.Sort(written)
			sameSet(t, "reference.md for "+b.structs, strings.Split(known[1], ", "), slices.Compact(written))
		})
	}
}
