package tinybird

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
)

// Fingerprint stands for a question and for all that decides its answer. Two questions with the same one have the same answer,
// and are asked by the same tenant.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a question to a workspace of an API. It is made of the grant, which the minted token says,
// and of what the client asks, which the path, the query and the body say: nothing else of the session, and no token. Client
// parameters in another order are the same question, and so are members of the body; what is given twice keeps its order.
//
// It is false for a grant that Mint would not sign.
func FingerprintOf(api, workspaceID string, g *Grant, q *Question) (Fingerprint, bool) {
	if checkTokenName(g.TokenName) != nil || checkGrantFixed(g.Fixed) != nil {
		return Fingerprint{}, false
	}
	var room [1024]byte
	encoded, ok := appendQuestion(room[:0], api, workspaceID, g, q)
	return sha256.Sum256(encoded), ok
}

// appendQuestion appends an encoding that no two questions share: every text is preceded by what it is and by its length.
func appendQuestion(b []byte, api, workspaceID string, g *Grant, q *Question) (encoded []byte, ok bool) {
	b = appendSized(b, 'a', api)
	b = appendSized(b, 'w', workspaceID)
	b = appendSized(b, 'n', g.TokenName)
	b = appendGrant(b, g)
	b = appendSized(b, 'e', g.Format)
	b = appendSized(b, 'm', q.Method)
	for _, pair := range sortedPairs(q.RawQuery) {
		b = appendSized(b, 'q', pair)
	}
	var members map[string]json.RawMessage
	if len(q.Body) > 0 && json.Unmarshal(q.Body, &members) != nil {
		return b, false
	}
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendSized(appendSized(b, 'k', name), 'v', members[name])
	}
	return b, true
}

// sortedPairs returns the parameters of a query that buildQuery wrote, by name.
func sortedPairs(query string) []string {
	if query == "" {
		return nil
	}
	pairs := strings.Split(query, "&")
	slices.SortStableFunc(pairs, func(x, y string) int {
		x, _, _ = strings.Cut(x, "=")
		y, _, _ = strings.Cut(y, "=")
		return strings.Compare(x, y)
	})
	return pairs
}
