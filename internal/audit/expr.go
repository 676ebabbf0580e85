package audit

import (
	"slices"
	"strings"
)

// expr is a Python expression of a template, understood as far as the audit needs: plain names, literals and calls.
// Everything else is only known by the names it mentions.
type expr struct {
	text    string
	name    string // of a plain name, or of the function that is called
	call    bool
	args    []argument
	literal *string  // the value of a string or number
	names   []string // all names that are read
	calls   []string // those of them that are called
}

type argument struct {
	key   string // of a keyword argument
	value *expr
}

// mentions reports whether the expression reads the name.
func (e *expr) mentions(name string) bool { return slices.Contains(e.names, name) }

// plain reports whether the expression is a name alone.
func (e *expr) plain() bool { return e.name != "" && !e.call }

// aborts reports whether no SQL runs where the expression is put out.
func (e *expr) aborts() bool { return e.call && (e.name == "error" || e.name == "custom_error") }

// unquoted tells why the expression may put out what is sent as SQL, and not as a value in quotes; nil for one that does not.
func (e *expr) unquoted() *why {
	for _, name := range e.calls {
		if own := e.call && e.name == name; !raw(name) || own && e.harmless() {
			continue
		}
		return notProven("`" + short(e.text) + "` can put what is sent into the SQL without quotes")
	}
	return nil
}

// raw are the functions of the template language that can write what they are given into the SQL as it is.
func raw(function string) bool {
	return slices.Contains(silent, function) || slices.Contains([]string{"sql_unescape", "table", "TABLE", "columns", "symbol", typeSymbol, typeColumn}, function)
}

// harmless reports whether a call of a raw function is one that writes no more than a value or a name in quotes.
func (e *expr) harmless() bool {
	switch e.name {
	case "sql_unescape":
		// It takes the backslashes away from one character. What LIKE needs has none that ends a string.
		return len(e.args) == 2 && e.args[1].value.literal != nil && slices.Contains([]string{"%", "_"}, *e.args[1].value.literal)
	case "columns":
		// The third argument is a function, and the column's name then an alias without quotes.
		return len(e.args) <= 2 && !slices.ContainsFunc(e.args, func(a argument) bool { return a.key == "fn" })
	case "symbol", typeSymbol, typeColumn:
		return len(e.args) == 1 // the second argument is the quote
	}
	return len(e.names) == 1 // nothing is read but the function
}

// definedName is the function that tells whether a parameter was given, and an argument of the types.
const definedName = "defined"

// The type of lists, and the two that write a name and no value.
const (
	typeArray  = "Array"
	typeColumn = "Column"
	typeSymbol = "Symbol"
)

// paramTypes are the functions of the template language that check a parameter's type and write it as a literal.
var paramTypes = map[string]string{
	"String": "", "Boolean": "1", "DateTime64": "2026-01-01 00:00:00.000", "DateTime": "2026-01-01 00:00:00", "Date": "2026-01-01",
	"Float32": "1", "Float64": "1", "Int": "1", "Integer": "1", "Int8": "1", "Int16": "1", "Int32": "1", "Int64": "1", "Int128": "1", "Int256": "1",
	"UInt8": "1", "UInt16": "1", "UInt32": "1", "UInt64": "1", "UInt128": "1", "UInt256": "1", typeArray: "", "JSON": "{}", "bool": "1",
	typeColumn: "", typeSymbol: "",
}

// typed is a parameter with its type, as in {{String(name, 'default', required=True)}}.
type typed struct {
	param, typ string
	element    string // of an Array
	hasDefault bool
	fallback   string // a literal default
	required   bool
	values     []string // of enum
}

// typedParam reads the expression as a parameter with a type.
func (e *expr) typedParam() (typed, bool) {
	if _, ok := paramTypes[e.name]; !ok || !e.call || len(e.args) == 0 || e.args[0].key != "" || !e.args[0].value.plain() {
		return typed{}, false
	}
	t := typed{param: e.args[0].value.name, typ: e.name}
	positions := []string{"", "default", definedName, "required"}
	if t.typ == typeArray {
		positions = []string{"", "_type", "default", definedName, "required"}
	}
	for i, a := range e.args[1:] {
		if a.key == "" && i+1 < len(positions) {
			a.key = positions[i+1]
		}
		t.set(a)
	}
	return t, true
}

func (t *typed) set(a argument) {
	switch a.key {
	case "_type":
		if a.value.literal != nil {
			t.element = *a.value.literal
		}
	case "default":
		t.setDefault(a.value)
	case "required":
		t.required = a.value.name == "True" || a.value.literal != nil && *a.value.literal == "1"
	case definedName:
		// defined=False makes a missing value no error.
		t.hasDefault = t.hasDefault || a.value.name != "True"
	case "enum":
		t.values = stringsIn(a.value.text)
	}
}

func (t *typed) setDefault(e *expr) {
	if e.name == "None" {
		return
	}
	t.hasDefault = true
	if e.literal != nil {
		t.fallback = *e.literal
	}
}

// pyToken is a word, a string, a number or one punctuation mark of Python.
type pyToken struct {
	kind byte // 'w', 's', 'n' or 'p'
	text string
}

func (t pyToken) is(punctuation string) bool { return t.kind == 'p' && t.text == punctuation }

func (t pyToken) opens() bool { return t.is("(") || t.is("[") || t.is("{") }

func (t pyToken) closes() bool { return t.is(")") || t.is("]") || t.is("}") }

// parseExpr reads an expression. There is none that it refuses: what it does not understand is no name and no call.
func parseExpr(text string) *expr {
	text = strings.TrimSpace(text)
	e := build(pyTokens(text))
	e.text = text
	return e
}

// quotes keeps apart in texts what differs in a string.
var quotes = strings.NewReplacer(`\`, `\\`, "'", `\'`)

func build(tokens []pyToken) *expr {
	names, calls := readNames(tokens)
	e := &expr{names: names, calls: calls}
	for i, t := range tokens {
		if i > 0 && t.kind != 'p' && tokens[i-1].kind != 'p' {
			e.text += " "
		}
		if t.kind == 's' {
			e.text += "'" + quotes.Replace(t.text) + "'"
			continue
		}
		e.text += t.text
	}
	switch {
	case len(tokens) == 0:
	case len(tokens) == 1 && tokens[0].kind == 'w':
		e.name = tokens[0].text
	case len(tokens) == 1 && tokens[0].kind != 'p':
		e.literal = &tokens[0].text
	case tokens[0].kind == 'w' && closing(tokens, 1) == len(tokens)-1:
		e.name, e.call = tokens[0].text, true
		e.args = arguments(tokens[2 : len(tokens)-1])
	case closing(tokens, 0) == len(tokens)-1 && tokens[0].is("("):
		return build(tokens[1 : len(tokens)-1])
	}
	return e
}

// readNames lists the names that are read: no keywords of arguments, no attributes. Those before a parenthesis are called.
func readNames(tokens []pyToken) (names, calls []string) {
	for i, t := range tokens {
		if t.kind != 'w' || i > 0 && tokens[i-1].is(".") || i+1 < len(tokens) && tokens[i+1].is("=") {
			continue
		}
		names = append(names, t.text)
		if i+1 < len(tokens) && tokens[i+1].is("(") {
			calls = append(calls, t.text)
		}
	}
	return names, calls
}

// closing is the place of the bracket that closes the one at i; -1 without one.
func closing(tokens []pyToken, i int) int {
	if i >= len(tokens) || !tokens[i].is("(") {
		return -1
	}
	depth := 0
	for ; i < len(tokens); i++ {
		switch {
		case tokens[i].kind != 'p':
		case tokens[i].opens():
			depth++
		case tokens[i].closes():
			depth--
			if depth == 0 {
				return i
			}
		}
	}
	return -1
}

func arguments(tokens []pyToken) []argument {
	var args []argument
	for _, part := range pySplit(tokens, ",") {
		switch {
		case len(part) == 0:
		case len(part) > 2 && part[0].kind == 'w' && part[1].is("="):
			args = append(args, argument{key: part[0].text, value: build(part[2:])})
		default:
			args = append(args, argument{value: build(part)})
		}
	}
	return args
}

// pySplit splits at a word or mark outside of all brackets.
func pySplit(tokens []pyToken, separator string) [][]pyToken {
	var parts [][]pyToken
	depth, from := 0, 0
	for i, t := range tokens {
		switch {
		case t.opens():
			depth++
		case t.closes():
			depth--
		case depth == 0 && t.kind != 's' && t.text == separator:
			parts = append(parts, tokens[from:i])
			from = i + 1
		}
	}
	return append(parts, tokens[from:])
}

func stringsIn(text string) []string {
	var found []string
	for _, t := range pyTokens(text) {
		if t.kind == 's' {
			found = append(found, t.text)
		}
	}
	return found
}

func pyTokens(text string) []pyToken {
	var tokens []pyToken
	for i := 0; i < len(text); {
		if strings.IndexByte(" \t\n\r", text[i]) >= 0 {
			i++
			continue
		}
		var t pyToken
		t, i = pyNext(text, i)
		tokens = append(tokens, t)
	}
	return tokens
}

// pyNext reads the token that begins at i and returns where it ends.
func pyNext(text string, i int) (pyToken, int) {
	from := i
	switch c := text[i]; {
	case wordStart(c):
		return pyToken{'w', wordAt(text, i, "")}, i + len(wordAt(text, i, ""))
	case digit(c):
		return pyToken{'n', wordAt(text, i, ".")}, i + len(wordAt(text, i, "."))
	case c == '\'' || c == '"':
		value, end := pyString(text, i)
		return pyToken{'s', value}, end
	default:
		i++
		if i < len(text) && text[i] == '=' && strings.IndexByte("=!<>", c) >= 0 {
			i++
		}
		return pyToken{'p', text[from:i]}, i
	}
}

// wordAt is the letters and digits from i on, and the characters of more.
func wordAt(text string, i int, more string) string {
	from := i
	for i < len(text) && (wordStart(text[i]) || digit(text[i]) || strings.IndexByte(more, text[i]) >= 0) {
		i++
	}
	return text[from:i]
}

// pyString reads the string that begins at i and returns where it ends. Escapes other than of quotes and backslashes stay.
func pyString(text string, i int) (string, int) {
	quote := text[i]
	var b strings.Builder
	for i++; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case text[i] == quote:
			return b.String(), i + 1
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String(), i
}

func wordStart(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
