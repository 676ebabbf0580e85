package tinybird

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
)

// maxName is the longest name of a pipe or parameter, in bytes.
const maxName = 128

// CheckName tells whether name can be the name of a pipe or a parameter: [A-Za-z_][A-Za-z0-9_]*, at most
// 128 characters.
func CheckName(name string) error {
	if !validName(name) {
		return fmt.Errorf("the name %s is not usable: write letters, digits and underscores, no digit first, "+
			"at most %d characters", Shown(name), maxName)
	}
	return nil
}

func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
		case '0' <= c && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return true
}

// Printable is text that others wrote, such as a server in an error, as a terminal may get it: on one line, without codes that steer it.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// Shown quotes text of the operator's for an error. A key pasted into the wrong place must not end up in a
// log, so what looks like a token is not shown.
func Shown(text string) string {
	const longest = 64
	if secret.Looks(text) {
		return "(not shown: it looks like a token)"
	}
	if len(text) > longest {
		return strconv.Quote(text[:longest]) + "..."
	}
	return strconv.Quote(text)
}
