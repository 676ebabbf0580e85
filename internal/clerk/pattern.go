package clerk

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	patternSegment  = "[^/#?%s]+?" // what :name stands for; %s is one more character that ends it, or nothing
	patternAnything = "(.*)"

	patternSyntax = "a pattern is made of text, :name for one segment and (.*) for anything, such as /orgs/:slug/(.*)"
)

// pathMatcher finds the first of some patterns that a path matches. They mean what they do in the SDK's organization
// sync, which is path-to-regexp 6 with its defaults: letters match in either case, a slash at the end is free, and the
// values of parameters stay percent-encoded.
type pathMatcher struct{ patterns []pathPattern }

type pathPattern struct {
	re    *regexp.Regexp
	names []string // of its groups; of an unnamed one its index among those
}

// newPathMatcher compiles patterns. What path-to-regexp has beyond patternSyntax is refused, not read differently.
func newPathMatcher(patterns []string) (*pathMatcher, error) {
	m := &pathMatcher{}
	for _, p := range patterns {
		compiled, err := compilePattern(p)
		if err != nil {
			return nil, err
		}
		m.patterns = append(m.patterns, compiled)
	}
	return m, nil
}

// checkOrganizationPattern refuses a pattern that does not tell which organization it is about.
func checkOrganizationPattern(p string) error {
	compiled, err := compilePattern(p)
	if err != nil {
		return err
	}
	if !slices.Contains(compiled.names, "id") && !slices.Contains(compiled.names, "slug") {
		return fmt.Errorf("path pattern %q: an organization's pattern has to hold :id or :slug, such as /orgs/:slug/(.*)", p)
	}
	return nil
}

// match returns the parameters of the first pattern that the path, as it stands in the URL, matches as a whole.
func (m *pathMatcher) match(escapedPath string) (params map[string]string, ok bool) {
	if m == nil {
		return nil, false
	}
	for _, p := range m.patterns {
		groups := p.re.FindStringSubmatch(escapedPath)
		if groups == nil {
			continue
		}
		params = make(map[string]string, len(p.names))
		for n, name := range p.names {
			params[name] = groups[n+1]
		}
		return params, true
	}
	return nil, false
}

// patternCompiler goes through a pattern from left to right.
type patternCompiler struct {
	re      strings.Builder
	text    string // since the last parameter
	names   []string
	unnamed int
}

func compilePattern(p string) (pathPattern, error) {
	fail := func(err error) (pathPattern, error) { return pathPattern{}, fmt.Errorf("path pattern %q: %w", p, err) }
	if !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, patternAnything) {
		return fail(errors.New("it has to start with a slash, as every path does"))
	}
	c := &patternCompiler{}
	for rest := p; rest != ""; {
		n, err := c.next(rest)
		if err != nil {
			return fail(err)
		}
		rest = rest[n:]
	}
	re, err := regexp.Compile("(?i)^" + c.re.String() + regexp.QuoteMeta(c.text) + "[/#?]?$")
	if err != nil {
		return fail(err)
	}
	return pathPattern{re: re, names: c.names}, nil
}

// next takes what the rest of the pattern starts with, and returns how long that was.
func (c *patternCompiler) next(rest string) (int, error) {
	switch {
	case strings.HasPrefix(rest, patternAnything):
		c.parameter(strconv.Itoa(c.unnamed), ".*")
		c.unnamed++
		return len(patternAnything), nil
	case rest[0] == ':':
		return c.named(rest)
	case strings.IndexByte("*+?{}()\\", rest[0]) >= 0:
		return 0, fmt.Errorf("%q is not supported here; %s", rest[:1], patternSyntax)
	case !isPathByte(rest[0]):
		return 0, fmt.Errorf("%q cannot stand in a path; write it percent-encoded, as browsers do", rest[:1])
	default:
		c.text += rest[:1]
		return 1, nil
	}
}

// named takes a parameter with a name, and with (.*) if that follows.
func (c *patternCompiler) named(rest string) (int, error) {
	n := 1
	for n < len(rest) && isNameByte(rest[n]) {
		n++
	}
	if n == 1 {
		return 0, errors.New("a name of letters, digits and underscores has to follow the colon")
	}
	name := rest[1:n]
	if strings.HasPrefix(rest[n:], patternAnything) {
		c.parameter(name, ".*")
		return n + len(patternAnything), nil
	}
	stop, err := c.stop()
	if err != nil {
		return 0, fmt.Errorf("%w before :%s", err, name)
	}
	c.parameter(name, fmt.Sprintf(patternSegment, stop))
	return n, nil
}

// stop is the character, next to those that end a segment, at which a parameter ends that comes now: the dot in front
// of it, or else the text between it and the parameter before. That is path-to-regexp's way not to be slow.
func (c *patternCompiler) stop() (string, error) {
	between := c.text
	if strings.HasSuffix(between, ".") {
		between = "."
	}
	switch {
	case between == "":
		return "", errors.New("text has to stand between two parameters")
	case strings.Contains(between, "/"):
		return "", nil
	case len(between) > 1:
		return "", errors.New("only one character, or a slash, is supported between two parameters of the same segment")
	case isNameByte(between[0]):
		return between, nil
	default:
		return `\` + between, nil
	}
}

func (c *patternCompiler) parameter(name, expression string) {
	c.re.WriteString(regexp.QuoteMeta(c.text) + "(" + expression + ")")
	c.text = ""
	c.names = append(c.names, name)
}

func isNameByte(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
}

// isPathByte reports whether a byte stands for itself in a path that went through net/url.
func isPathByte(b byte) bool { return isNameByte(b) || strings.IndexByte("-.~!$&',;=@%/[]", b) >= 0 }
