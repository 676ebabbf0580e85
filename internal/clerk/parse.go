package clerk

import (
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// algorithm is that of Clerk's tokens.
const algorithm = "RS256"

// algorithms are those that are accepted: signatures by an RSA key (RFC 7518, 3.3). If the key says which one it
// is for, as Clerk's keys do, the token's header cannot select another.
var algorithms = map[string]*jwt.SigningMethodRSA{
	algorithm: jwt.SigningMethodRS256,
	"RS384":   jwt.SigningMethodRS384,
	"RS512":   jwt.SigningMethodRS512,
}

// maxHeader is the longest header of a token, as it is sent. Clerk's have less than 300 characters.
const maxHeader = 1 << 10

var (
	errForm       = errors.New("not three segments of base64url")
	errLongHeader = fmt.Errorf("the header has more than %d characters", maxHeader)
)

// The members that are looked at before the signature is: they say which key must have made it, whether the
// token can be one of a session at all, and which of two sets of cookies counts.
var (
	headerNames = []string{"alg", "b64", "cat", "crit", "kid", "typ"}
	claimNames  = []string{"exp", "iat", "iss", "sub"}
)

// parsed is a token taken apart as far as is needed to verify its signature. Nothing in it is verified.
type parsed struct {
	input     string // what is signed
	head      document
	body      document
	header    map[string]any // the headerNames
	claims    claims         // the claimNames
	signature []byte
}

// parse takes a token apart: three segments of unpadded canonical base64url, two of them JSON. It looks at
// each byte a bounded number of times and makes no list of the segments, however many dots there are
// (CVE-2025-30204). Of the JSON it decodes a few members.
func parse(token string) (*parsed, error) {
	head, rest, _ := strings.Cut(token, ".")
	body, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return nil, errForm
	}
	if len(head) > maxHeader {
		return nil, errLongHeader
	}
	p := parsed{input: token[:len(head)+1+len(body)]}
	var err error
	if p.signature, err = decodeSegment(signature); err != nil {
		return nil, err
	}
	if p.head, p.header, err = scanSegment(head, headerNames); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if p.body, p.claims, err = scanSegment(body, claimNames); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return &p, nil
}

// scanSegment decodes a segment, and of its members those with one of the names.
func scanSegment(segment string, names []string) (document, map[string]any, error) {
	raw, err := decodeSegment(segment)
	if err != nil {
		return "", nil, err
	}
	d, err := newDocument(raw)
	if err != nil {
		return "", nil, err
	}
	found, err := d.scan(names)
	return d, found, err
}

// open verifies the signature with the key and by its algorithm, and then decodes all of the token.
func (p *parsed) open(s signer) (claims, *failure) {
	method, ok := algorithms[s.alg]
	if !ok {
		return nil, failAlgorithm
	}
	switch err := s.key.verify(method, p.input, p.signature); {
	case errors.Is(err, rsa.ErrVerification):
		return nil, failSignature
	case err != nil:
		return nil, failKey.because(err)
	}
	header, signed, f := p.decode()
	if f != nil {
		return nil, f
	}
	// Once more, because what was judged before was read without looking at all of it.
	if f := headerFault(header); f != nil {
		return nil, f
	}
	if header["alg"] != s.alg {
		return nil, failAlgorithm
	}
	return signed, nil
}

// decode decodes all of a token whose signature is right.
func (p *parsed) decode() (header map[string]any, signed claims, f *failure) {
	header, err := p.head.object()
	if err != nil {
		return nil, nil, failMalformed.because(fmt.Errorf("header: %w", err))
	}
	if signed, err = p.body.object(); err != nil {
		return nil, nil, failMalformed.because(fmt.Errorf("claims: %w", err))
	}
	return header, signed, nil
}

// decodeSegment decodes unpadded base64url that is written in the one canonical way: Strict refuses stray
// bits at the end, but skips line breaks.
func decodeSegment(s string) ([]byte, error) {
	if strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 { // a tenth of what ContainsAny takes
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

// alg is the algorithm the token says it is signed by.
func (p *parsed) alg() string {
	alg, _ := p.header["alg"].(string)
	return alg
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

// uncategorized reports whether the token says nothing of what it is for, as all did in the past.
func (p *parsed) uncategorized() bool {
	cat, ok := p.header["cat"]
	return !ok || cat == categoryIgnored
}

// isOpaque reports whether the token is one of Clerk's opaque ones: machine, OAuth or API key.
func isOpaque(token string) bool {
	return strings.HasPrefix(token, "mt_") || strings.HasPrefix(token, "oat_") || strings.HasPrefix(token, "ak_")
}

// headerFault says what is wrong with the header, apart from the key it names.
func headerFault(header map[string]any) *failure {
	if f := typeFault(header); f != nil {
		return f
	}
	if alg, _ := header["alg"].(string); algorithms[alg] == nil {
		return failAlgorithm
	}
	return extensionFault(header)
}

func typeFault(header map[string]any) *failure {
	if typ, ok := header["typ"]; ok && typ != "JWT" {
		return failHeader
	}
	return nil
}

// extensionFault refuses parameters that change how a token must be verified (RFC 7515, 4.1.11; RFC 7797). None of Clerk's
// tokens has any.
func extensionFault(header map[string]any) *failure {
	for _, name := range []string{"crit", "b64"} {
		if _, ok := header[name]; ok {
			return failHeader
		}
	}
	return nil
}
