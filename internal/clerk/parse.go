package clerk

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// algorithm is the only one that is accepted. The token's header never selects another.
const algorithm = "RS256"

var errForm = errors.New("not three segments of base64url")

// parsed is a token taken apart. Nothing in it is verified.
type parsed struct {
	header map[string]any
	claims claims
}

// parse takes a token apart: three segments of unpadded canonical base64url, two of them JSON. It looks at
// each byte a bounded number of times and makes no list of the segments, however many dots there are
// (CVE-2025-30204).
func parse(token string) (*parsed, error) {
	head, rest, _ := strings.Cut(token, ".")
	body, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return nil, errForm
	}
	if _, err := decodeSegment(signature); err != nil {
		return nil, err
	}
	var p parsed
	raw, err := decodeSegment(head)
	if err != nil {
		return nil, err
	}
	if p.header, err = decodeObject(raw); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if raw, err = decodeSegment(body); err != nil {
		return nil, err
	}
	if p.claims, err = decodeObject(raw); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return &p, nil
}

// decodeSegment decodes unpadded base64url that is written in the one canonical way: Strict refuses stray
// bits at the end, but skips line breaks.
func decodeSegment(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errForm
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errForm
	}
	return raw, nil
}

// kid is the name of the key the token says it is signed with; "" if it names none.
func (p *parsed) kid() string {
	kid, _ := p.header["kid"].(string)
	return kid
}

// The values of the header parameter cat, which says what a token is for.
const (
	categorySession = "cl_B7d4PD111AAA"
	categoryM2M     = "cl_B7d4PD333AAA"
	categoryIgnored = "cl_I7d4PD111III" // on every token of some instances
)

// otherKind reports whether the token says of itself that it is no session token: an OAuth or machine token,
// or one from a JWT template. They are signed with the same key. It needs no key, so it is asked first.
func (p *parsed) otherKind() bool {
	if typ, _ := p.header["typ"].(string); strings.EqualFold(typ, "at+jwt") || strings.EqualFold(typ, "application/at+jwt") {
		return true
	}
	if sub, _ := p.claims.text("sub"); strings.HasPrefix(sub, "mch_") {
		return true
	}
	cat, ok := p.header["cat"]
	return ok && cat != categorySession && cat != categoryIgnored
}

// isOpaque reports whether the token is one of Clerk's opaque ones: machine, OAuth or API key.
func isOpaque(token string) bool {
	return strings.HasPrefix(token, "mt_") || strings.HasPrefix(token, "oat_") || strings.HasPrefix(token, "ak_")
}

// headerFault says what is wrong with the header, apart from the key it names. The header of a session token
// has no parameter that changes how it must be verified (RFC 7515, 4.1.11; RFC 7797).
func (p *parsed) headerFault() *failure {
	if typ, ok := p.header["typ"]; ok && typ != "JWT" {
		return failHeader
	}
	switch p.header["alg"] {
	case algorithm:
	case "RS384", "RS512":
		return failKey // the SDK knows them by name, but not with Clerk's keys
	default:
		return failAlgorithm
	}
	for _, name := range []string{"crit", "b64"} {
		if _, ok := p.header[name]; ok {
			return failHeader
		}
	}
	return nil
}
