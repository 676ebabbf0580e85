package rig

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
)

// Tampered is the token with another signature of the same length.
func Tampered(token string) string {
	const changed = 40 // characters, so that no two are alike
	cut := strings.LastIndexByte(token, '.') + 1
	noise := rand.Text() + rand.Text()
	return token[:cut] + noise[:changed] + token[cut+changed:]
}

// OtherKid is the token under the name of another key, which no two have.
func OtherKid(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	header := `{"alg":"RS256","cat":"cl_B7d4PD111AAA","kid":"ins_2` + rand.Text() + `","typ":"JWT"}`
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
}

// Padded is the token with another signature, and with as long claims as make it that size.
func Padded(token string, size int) string {
	head, rest, _ := strings.Cut(token, ".")
	body, signature, _ := strings.Cut(rest, ".")
	claims, _ := base64.RawURLEncoding.DecodeString(body)
	room := base64.RawURLEncoding.DecodedLen(size-len(head)-len(signature)-2) - len(claims)
	const member = `,"padding":""`
	padded := string(claims[:len(claims)-1]) + `,"padding":"` + strings.Repeat("x", max(0, room-len(member))) + `"}`
	return Tampered(head + "." + base64.RawURLEncoding.EncodeToString([]byte(padded)) + "." + signature)
}
