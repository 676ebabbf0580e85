package tinybird

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
)

// Fingerprint stands for a question and for all that decides its answer. Two questions with the same one have the same answer,
// and are asked by the same tenant.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a question to a workspace of an API. It is made of the grant, which the token says, and of
// what the client asks, which the URL and the body say: nothing of the session, and no token. Client parameters in another
// order are the same question, and so are members of the body; what is given twice keeps its order.
//
// It is false for a question with a value that it does not know how to tell from others.
func FingerprintOf(api, workspaceID string, g *Grant, q *Question) (Fingerprint, bool) {
	var room [1024]byte
	encoded, ok := appendQuestion(room[:0], api, workspaceID, g, q)
	if !ok {
		return Fingerprint{}, false
	}
	return sha256.Sum256(encoded), true
}

// appendQuestion appends an encoding in which each text follows its length, and each list its count. So no two questions
// have the same, and none begins like another.
func appendQuestion(b []byte, api, workspaceID string, g *Grant, q *Question) (encoded []byte, ok bool) {
	for _, s := range [...]string{api, workspaceID, g.TokenName, g.Pipe, g.Format, q.Method} {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(g.Fixed)))
	for _, f := range g.Fixed { // sorted by name
		b = appendText(b, f.Name)
		switch v := f.Value.(type) {
		case string:
			b = appendText(append(b, 's'), v)
		case json.Number:
			b = appendText(append(b, 'n'), string(v))
		case bool:
			if v {
				b = append(b, 't')
			} else {
				b = append(b, 'f')
			}
		default:
			return b, false
		}
	}
	b = appendQuery(b, q.RawQuery)
	return appendBody(b, q.Body)
}

// appendQuery appends the parameters of a query that buildQuery wrote, by name.
func appendQuery(b []byte, query string) []byte {
	var pairs []string
	if query != "" {
		pairs = strings.Split(query, "&")
	}
	slices.SortStableFunc(pairs, func(x, y string) int {
		x, _, _ = strings.Cut(x, "=")
		y, _, _ = strings.Cut(y, "=")
		return strings.Compare(x, y)
	})
	b = binary.AppendUvarint(b, uint64(len(pairs)))
	for _, pair := range pairs {
		b = appendText(b, pair)
	}
	return b
}

// appendBody appends the members of an object that buildObject wrote, by name.
func appendBody(b, body []byte) (encoded []byte, ok bool) {
	var members map[string]json.RawMessage
	if len(body) > 0 && json.Unmarshal(body, &members) != nil {
		return b, false
	}
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = appendText(appendText(b, name), members[name])
	}
	return b, true
}

func appendText[T string | ~[]byte](b []byte, text T) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}
