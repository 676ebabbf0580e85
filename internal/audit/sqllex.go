package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
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
	errSQLSize    = errors.New("its SQL is too long")
	errSQLQuote   = errors.New("a string or comment in its SQL is not closed")
	errSQLComment = errors.New("its SQL has a comment that begins with //, or one inside another, which not every version of ClickHouse reads alike")
	errSQLASCII   = errors.New("its SQL has a character outside of ASCII that is in no string, such as a space that does not break or a typographic quote; type it anew")
)

// lexed is SQL as a tree of tokens. Parameters in strings and comments are no tokens.
type lexed struct {
	tokens   []token
	comments bool
	loose    *why // a parameter may turn out as more than a value
}

// lexSQL reads SQL. Where a template's tag ends is no end of a word, so texts that stand next to each other are read as one.
func lexSQL(pieces []piece) (lexed, error) {
	x := sqlLexer{}
	var text strings.Builder
	for i, p := range pieces {
		text.WriteString(p.text)
		if p.out == nil && i+1 < len(pieces) {
			continue
		}
		if err := x.text(text.String()); err != nil {
			return lexed{}, err
		}
		text.Reset()
		if p.out == nil {
			continue
		}
		if err := x.param(p.out); err != nil {
			return lexed{}, err
		}
	}
	switch {
	case x.nested:
		return lexed{}, errSQLComment
	case x.inside != "" && x.inside != lineComment:
		return lexed{}, errSQLQuote
	}
	rest := x.flat
	tree, closer, err := group(&rest, 0)
	if err == nil && closer != "" {
		err = fmt.Errorf("its SQL has a %s that closes nothing", closer)
	}
	return lexed{tree, x.comments, x.loose}, err
}

// openAfter is what a piece leaves open, given what was open before it: what ends that string, identifier or comment.
func openAfter(open string, p piece) string {
	x := sqlLexer{inside: open}
	if p.out != nil {
		_ = x.param(p.out)
	} else {
		_ = x.text(p.text) // what is wrong with it is found by lexSQL
	}
	return x.inside
}

// What ends the two kinds of comments.
const (
	lineComment  = "\n"
	blockComment = "*/"
)

// sqlLexer reads piece after piece. A string or comment may begin in one and end in another.
type sqlLexer struct {
	flat     []token
	inside   string // what ends the string, identifier or comment that is open
	value    strings.Builder
	comments bool
	nested   bool // a comment begins in another
	loose    *why
}

func (x *sqlLexer) emit(t token) error {
	if len(x.flat) >= maxTokens {
		return errSQLSize
	}
	if strings.ContainsFunc(t.text, func(r rune) bool { return r >= utf8.RuneSelf }) && t.kind != tokenParam {
		return errSQLASCII
	}
	x.flat = append(x.flat, t)
	return nil
}

func (x *sqlLexer) param(e *expr) error {
	if e.call && slices.Contains(silent, e.name) && e.harmless() {
		return x.text("--\n")
	}
	if x.loose == nil {
		x.loose = looseIn(e, x.inside)
	}
	if x.inside != "" {
		return nil
	}
	return x.emit(token{kind: tokenParam, text: e.text, param: e})
}

// looseIn tells why what an expression puts out may be more than a value. Tinybird writes a text with quotes around it, wherever it
// stands, and escapes what would end these quotes or a line; not what ends a comment.
func looseIn(e *expr, inside string) *why {
	if w := e.unquoted(); w != nil {
		return w
	}
	if inside == "" || inside == lineComment || len(e.names) == 0 {
		return nil
	}
	return notProven("`" + short(e.text) + "` is put into a string, a quoted name or a comment, which what is sent can end; take it out")
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
			n := i + len(x.inside)
			x.end()
			return s[n:]
		default:
			x.value.WriteByte(s[i])
		}
	}
	return ""
}

// end keeps what was open.
func (x *sqlLexer) end() {
	switch x.inside {
	case lineComment:
	case blockComment:
		// The * of what ends it may also be that of a beginning.
		x.nested = x.nested || strings.Contains(x.value.String()+"*", "/*")
	case "`", `"`:
		x.flat = append(x.flat, token{kind: tokenQuoted, text: x.value.String()})
	default:
		x.flat = append(x.flat, token{kind: tokenString, text: x.value.String()})
	}
	x.inside = ""
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
		return x.open(lineComment, 2), nil
	case strings.HasPrefix(s, "/*"):
		x.comments = true
		return x.open(blockComment, 2), nil
	case strings.HasPrefix(s, "//"):
		return 0, errSQLComment
	case c == '\'' || c == '`' || c == '"':
		return x.open(s[:1], 1), nil
	case c == '$':
		return x.heredoc(s)
	case wordStart(c):
		word := wordAt(s, 0, "$")
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
