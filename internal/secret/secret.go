// Package secret decides whether a text may be shown. What others write, a server in its answer or an operator in the wrong place, can
// hold a token or a key, and whoever is about to print it asks here first.
package secret

import "strings"

const (
	// MinPiece is the length, in bytes, from which a piece of a token counts as a secret.
	MinPiece = 16
	// minPart is the length, in bytes, from which a whole part of a token does. Shorter ones are in many a text.
	minPart = 8
)

// marks are what tokens and keys of Tinybird's and Clerk's begin with, and JSON Web Tokens.
var marks = [...]string{"p.ey", "eyJ", "sk_live_", "sk_test_"}

// Looks tells whether text holds what looks like the beginning of a token or a secret key.
func Looks(text string) bool {
	for _, mark := range marks {
		if strings.Contains(text, mark) {
			return true
		}
	}
	return false
}

// Holds tells whether text holds what looks like a secret, or the token, a whole part of it, or a piece of one. An empty token stands for
// none.
func Holds(text, token string) bool {
	return Looks(text) || token != "" && (strings.Contains(text, token) || holdsPart(text, token) || sharesPiece(text, token))
}

func holdsPart(text, token string) bool {
	for part := range strings.SplitSeq(token, ".") {
		if len(part) >= minPart && strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// sharesPiece tells whether a piece of one of the token's parts stands in the text. Only runs of the characters that such a part
// has are looked at, and most texts have none of that length.
func sharesPiece(text, token string) bool {
	for run := range strings.FieldsFuncSeq(text, notOfToken) {
		for i := 0; i+MinPiece <= len(run); i++ {
			if strings.Contains(token, run[i:i+MinPiece]) {
				return true
			}
		}
	}
	return false
}

// notOfToken tells the characters that the parts of a token do not have: they are base64url (RFC 7515, section 2).
func notOfToken(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}
