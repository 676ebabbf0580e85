package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

type tokenKind byte

// The kinds of tokens of ClickHouse's SQL.
const (
	tokenWord   tokenKind = iota // an identifier or keyword
	tokenQuoted                  // an identifier in quotes
	tokenString
	tokenNumber
	tokenMark  // an operator or other punctuation
	tokenParam // a {{ }} of the template
	tokenGroup // what is in brackets
)

// token is one token; those in brackets are a tree.
type token struct {
	kind  tokenKind
	text  string // of a group: its opening bracket
	param *expr
	inner []token
}

// keyword reports whether the token is one of the words, which are given in capitals.
func (t token) keyword(words ...string) bool {
	return t.kind == tokenWord && slices.Contains(words, strings.ToUpper(t.text))
}

func (t token) mark(text string) bool { return t.kind == tokenMark && t.text == text }

// name reports whether the token is an identifier.
func (t token) name() bool { return t.kind == tokenWord || t.kind == tokenQuoted }

// round reports whether the token is a pair of parentheses.
func (t token) round() bool { return t.kind == tokenGroup && t.text == "(" }

// silent are functions of the template language that leave a comment in the SQL.
var silent = []string{"max_threads", "backend_hint", "cache_ttl", "activate", "disable"}

// maxTokens bounds the SQL of one node.
const maxTokens = 50_000

var (
	errSQLSize  = errors.New("its SQL is too long")
	errSQLQuote = errors.New("a string or comment in its SQL is not closed")
)

// lexSQL reads SQL into a tree of tokens and says whether there were comments in it. Parameters in strings and comments are
// no tokens.
func lexSQL(pieces []piece) (tokens []token, comments bool, err error) {
	x := sqlLexer{}
	for _, p := range pieces {
		if p.out != nil {
			err = x.param(p.out)
		} else {
			err = x.text(p.text)
		}
		if err != nil {
			return nil, false, err
		}
	}
	if x.inside != "" && x.inside != "\n" {
		return nil, false, errSQLQuote
	}
	rest := x.flat
	tree, closer, err := group(&rest, 0)
	if err == nil && closer != "" {
		err = fmt.Errorf("its SQL has a %s that closes nothing", closer)
	}
	return tree, x.comments, err
}

// sqlLexer reads piece after piece. A string or comment may begin in one and end in another.
type sqlLexer struct {
	flat     []token
	inside   string // what ends the string, identifier or comment that is open
	value    strings.Builder
	comments bool
}

func (x *sqlLexer) emit(t token) error {
	if len(x.flat) >= maxTokens {
		return errSQLSize
	}
	x.flat = append(x.flat, t)
	return nil
}

func (x *sqlLexer) param(e *expr) error {
	if x.inside != "" || e.call && slices.Contains(silent, e.name) {
		return nil
	}
	return x.emit(token{kind: tokenParam, text: e.text, param: e})
}

func (x *sqlLexer) text(s string) error {
	for s != "" {
		if x.inside != "" {
			s = x.close(s)
			continue
		}
		n, err := x.token(s)
		if err != nil {
			return err
		}
		s = s[n:]
	}
	return nil
}

// close reads on in what is open and returns what comes after it.
func (x *sqlLexer) close(s string) string {
	quote := x.inside == "'" || x.inside == "`" || x.inside == `"`
	for i := 0; i < len(s); i++ {
		switch {
		case quote && s[i] == '\\' && i+1 < len(s):
			i++
			x.value.WriteByte(s[i])
		case quote && s[i] == x.inside[0] && strings.HasPrefix(s[i+1:], x.inside):
			i++
			x.value.WriteByte(s[i])
		case strings.HasPrefix(s[i:], x.inside):
			kind := tokenString
			if x.inside == "`" || x.inside == `"` {
				kind = tokenQuoted
			}
			if x.inside != "\n" && x.inside != "*/" {
				x.flat = append(x.flat, token{kind: kind, text: x.value.String()})
			}
			s = s[i+len(x.inside):]
			x.inside = ""
			return s
		default:
			x.value.WriteByte(s[i])
		}
	}
	return ""
}

// open begins what goes on to the end, and returns the length of its beginning.
func (x *sqlLexer) open(end string, length int) int {
	x.inside = end
	x.value.Reset()
	return length
}

// token reads one token, or the beginning of a string or comment, and returns its length.
func (x *sqlLexer) token(s string) (int, error) {
	switch c := s[0]; {
	case strings.IndexByte(" \t\n\r\f\v", c) >= 0:
		return 1, nil
	case strings.HasPrefix(s, "--"), strings.HasPrefix(s, "# "), strings.HasPrefix(s, "#!"):
		x.comments = true
		return x.open("\n", 2), nil
	case strings.HasPrefix(s, "/*"):
		x.comments = true
		return x.open("*/", 2), nil
	case c == '\'' || c == '`' || c == '"':
		return x.open(s[:1], 1), nil
	case c == '$':
		return x.heredoc(s)
	case wordStart(c):
		word := wordAt(s, 0, "")
		return len(word), x.emit(token{kind: tokenWord, text: word})
	case digit(c):
		number := wordAt(s, 0, ".")
		return len(number), x.emit(token{kind: tokenNumber, text: number})
	default:
		return x.punctuation(s)
	}
}

func (x *sqlLexer) punctuation(s string) (int, error) {
	for _, m := range [...]string{"<=>", "<=", ">=", "!=", "<>", "==", "||", "->", "::"} {
		if strings.HasPrefix(s, m) {
			return len(m), x.emit(token{kind: tokenMark, text: m})
		}
	}
	return 1, x.emit(token{kind: tokenMark, text: s[:1]})
}

// heredoc begins a string between two equal $tags$.
func (x *sqlLexer) heredoc(s string) (int, error) {
	tag := wordAt(s, 1, "")
	if !strings.HasPrefix(s[1+len(tag):], "$") {
		return 1, x.emit(token{kind: tokenMark, text: "$"})
	}
	return x.open("$"+tag+"$", len(tag)+2), nil
}

// group builds the tree up to the bracket that closes it, which is returned; "" at the end.
func group(flat *[]token, depth int) (tree []token, closer string, err error) {
	if depth > maxNesting {
		return nil, "", errNesting
	}
	for len(*flat) > 0 {
		t := (*flat)[0]
		*flat = (*flat)[1:]
		if t.kind != tokenMark {
			tree = append(tree, t)
			continue
		}
		switch t.text {
		case ")", "]", "}":
			return tree, t.text, nil
		case "(", "[", "{":
			inner, closer, err := group(flat, depth+1)
			if err != nil {
				return nil, "", err
			}
			if closer != map[string]string{"(": ")", "[": "]", "{": "}"}[t.text] {
				return nil, "", fmt.Errorf("its SQL has a %s that is not closed", t.text)
			}
			tree = append(tree, token{kind: tokenGroup, text: t.text, inner: inner})
		default:
			tree = append(tree, t)
		}
	}
	return tree, "", nil
}

// mentions reports whether a parameter is anywhere in the tokens.
func mentions(tokens []token, name string) bool {
	return slices.ContainsFunc(tokens, func(t token) bool {
		return t.param != nil && t.param.mentions(name) || mentions(t.inner, name)
	})
}

// split splits the tokens at what matches.
func split(tokens []token, at func(token) bool) [][]token {
	var parts [][]token
	from := 0
	for i, t := range tokens {
		if at(t) {
			parts = append(parts, tokens[from:i])
			from = i + 1
		}
	}
	return append(parts, tokens[from:])
}
