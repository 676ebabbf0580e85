package secret

import (
	"strings"
	"testing"
)

const token = "header-of-some-length.payload-payload-of-a-length-that-no-text-has.short-end"

// Attack: a peer repeats what it was sent, whole or in part, and it is on a screen, in a log or in a client's answer.
func TestAttackTextsThatHoldASecret(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a JSON Web Token":       `malformed HTTP response "eyJhbGciOiJIUzI1NiJ9"`,
		"a token of Tinybird's":  "invalid token p.eyI",
		"a live key of Clerk's":  "sk_live_",
		"a test key of Clerk's":  "no such host: sk_test_abc",
		"the token":              "got " + token + ", sorry",
		"a whole part":           "bad length \"short-end\"",
		"a piece of a part":      "ayload-of-a-leng",
		"a piece within a word":  "xxayload-of-a-lengxx",
		"a piece of its payload": "<" + token[30:30+MinPiece] + ">",
	} {
		if !Holds(text, token) {
			t.Errorf("%s may be shown: %s", name, text)
		}
	}
	for i := 0; i+MinPiece <= len(token); i++ {
		if piece := token[i : i+MinPiece]; !strings.Contains(piece, ".") && !Holds("<"+piece+">", token) {
			t.Errorf("not found: %s", piece)
		}
	}
	// A token that is short, or no base64url, is a secret as well.
	for _, token := range []string{"short", "a+b/c=d,e+f/g=h,i+j/k=l", "abcdefg.a+b/c=d,e"} {
		parts := strings.Split(token, ".")
		if part := parts[len(parts)-1]; !Holds("an echo of "+token, token) || len(part) >= minPart && !Holds("an echo of "+part, token) {
			t.Errorf("%s may be shown", token)
		}
	}
}

func TestTextsThatHoldNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "a text of its own, which is long enough", "dial tcp 10.0.0.1:443: connect: connection refused", "header-of", "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k", "length",
	} {
		if Holds(text, token) || Holds(text, "") || Looks(text) {
			t.Errorf("not shown: %q", text)
		}
	}
}

// FuzzHolds holds that what is found in a text is found in a longer one.
func FuzzHolds(f *testing.F) {
	f.Add("a", "payload-of-a-len", "b")
	f.Add("e", "yJ", "")
	f.Add("", token, "é")
	f.Fuzz(func(t *testing.T, before, text, after string) {
		if Holds(text, token) && !Holds(before+text+after, token) {
			t.Errorf("%q is found, and not in %q", text, before+text+after)
		}
	})
}
