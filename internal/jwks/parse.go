package jwks

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"
)

// MinBits is the least size of an RSA key (RFC 7518 section 3.3).
const MinBits = 2048

// maxBits is crypto/tls's bound, and keeps a verification from costing seconds.
const maxBits = 8192

var (
	errNotASet = errors.New("not a JWK set: a JSON object with an array \"keys\" is needed")
	errNoneFit = errors.New("no key in the set can be used: an RSA key for RS256 signatures with a kid is needed")
)

// ParseSet reads a JWK set (RFC 7517) and returns its keys that can verify RS256 signatures: RSA of 2048 to 8192
// bits with a kid, use absent or "sig", alg absent or "RS256", key_ops absent or with "verify". Any other key is
// skipped by itself and counted. Of two keys with one kid the last counts, as it does for Clerk's SDK. It is an error if
// no key is left.
//
// Only the members named here are read, by their exact names: what else a key brings along (a certificate chain, a
// URL) decides nothing.
func ParseSet(doc []byte) (keys []jwkset.JWK, skipped int, err error) {
	var set map[string]json.RawMessage
	if err := json.Unmarshal(doc, &set); err != nil {
		return nil, 0, notASet(err)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(set["keys"], &raw); err != nil || raw == nil {
		return nil, 0, errNotASet
	}
	var last error
	at := make(map[string]int, len(raw))
	for _, r := range raw {
		k, err := parseKey(r)
		if err != nil {
			last = err
			skipped++
			continue
		}
		kid := k.Marshal().KID
		if i, taken := at[kid]; taken {
			keys[i] = k
			skipped++
			continue
		}
		at[kid] = len(keys)
		keys = append(keys, k)
	}
	if len(keys) == 0 && last != nil {
		return nil, skipped, fmt.Errorf("%w (skipped %d, the last because %w)", errNoneFit, skipped, last)
	}
	if len(keys) == 0 {
		return nil, skipped, errNoneFit
	}
	return keys, skipped, nil
}

// notASet keeps from a JSON error what cannot quote the document.
func notASet(err error) error {
	if se, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%w, but the JSON is broken at byte %d", errNotASet, se.Offset)
	}
	return errNotASet
}

// jwk holds the members of a key that decide something. Absent and null are the zero value.
type jwk struct {
	kty, use, alg, kid, n, e string
	ops                      []string
}

func decodeJWK(raw json.RawMessage) (k jwk, err error) {
	// A map, because decoding into a struct would also take "KID" for "kid".
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil || m == nil {
		return k, errors.New("it is no JSON object")
	}
	// Anyone can sign with a key whose private half is published.
	if _, ok := m["d"]; ok {
		return k, errors.New("its private half is published with it")
	}
	for name, v := range map[string]any{
		"kty": &k.kty, "use": &k.use, "alg": &k.alg, "kid": &k.kid, "n": &k.n, "e": &k.e, "key_ops": &k.ops,
	} {
		if part, ok := m[name]; ok && json.Unmarshal(part, v) != nil {
			return k, fmt.Errorf("its %q has the wrong type", name)
		}
	}
	return k, nil
}

func parseKey(raw json.RawMessage) (jwkset.JWK, error) {
	k, err := decodeJWK(raw)
	if err != nil {
		return jwkset.JWK{}, err
	}
	if err := checkPurpose(k); err != nil {
		return jwkset.JWK{}, err
	}
	pub, err := parseRSA(k.n, k.e)
	if err != nil {
		return jwkset.JWK{}, err
	}
	out, err := jwkset.NewJWKFromKey(pub, jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: k.kid, ALG: jwkset.ALG(k.alg), USE: jwkset.USE(k.use)},
	})
	if err != nil {
		return jwkset.JWK{}, fmt.Errorf("it is refused: %w", err)
	}
	return out, nil
}

// algorithms are those of RSA keys that Clerk's SDK knows.
var algorithms = []string{"RS256", "RS384", "RS512"}

func checkPurpose(k jwk) error {
	switch {
	case k.kty != "RSA":
		return errors.New("it is no RSA key")
	case k.use != "" && k.use != "sig":
		return errors.New("its use is not \"sig\"")
	case k.alg != "" && !slices.Contains(algorithms, k.alg):
		return errors.New("its alg is not \"RS256\", \"RS384\" or \"RS512\"")
	case k.ops != nil && !slices.Contains(k.ops, "verify"):
		return errors.New("its key_ops lack \"verify\"")
	case k.kid == "" || len(k.kid) > MaxKID:
		return fmt.Errorf("its kid does not have 1 to %d bytes", MaxKID)
	}
	return nil
}

// parseRSA decodes the members n and e (RFC 7518 section 6.3.1).
func parseRSA(n, e string) (*rsa.PublicKey, error) {
	nb, err := decodeUint(n)
	if err != nil {
		return nil, fmt.Errorf("its modulus is no base64url: %w", err)
	}
	eb, err := decodeUint(e)
	if err != nil {
		return nil, fmt.Errorf("its exponent is no base64url: %w", err)
	}
	exp := new(big.Int).SetBytes(eb)
	// Compared before it becomes an int: a long exponent must not be cut down to a harmless-looking one.
	if exp.BitLen() > 31 {
		return nil, errExponent
	}
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(nb), E: int(exp.Int64())}
	return pub, checkRSA(pub)
}

// decodeUint decodes canonical unpadded base64url. Go's decoder skips line breaks even when strict.
func decodeUint(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return b, nil
}

var errExponent = errors.New("its exponent is not an odd number from 3 to 2147483647")

func checkRSA(pub *rsa.PublicKey) error {
	if bits := pub.N.BitLen(); bits < MinBits || bits > maxBits {
		return fmt.Errorf("its modulus has %d bits instead of %d to %d", bits, MinBits, maxBits)
	}
	if pub.N.Bit(0) == 0 {
		return errors.New("its modulus is even")
	}
	if pub.E < 3 || pub.E > math.MaxInt32 || pub.E%2 == 0 {
		return errExponent
	}
	return nil
}
