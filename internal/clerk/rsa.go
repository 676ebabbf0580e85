package clerk

import (
	"bytes"
	"crypto"
	"crypto/fips140"
	"crypto/rsa"
	"math/bits"

	"filippo.io/bigmod"
	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// rsaKey is a public key that is ready to verify. crypto/rsa prepares the modulus anew for each signature, which is a third of what
// verifying one costs.
type rsaKey struct {
	pub     *rsa.PublicKey
	modulus *bigmod.Modulus // nil: crypto/rsa does it
	e       uint
}

// newRSAKey prepares the key. One that crypto/rsa would refuse, or that is not a usual one, is left to it, and so is every key where
// only a validated module may calculate.
func newRSAKey(pub *rsa.PublicKey) *rsaKey {
	k := &rsaKey{pub: pub}
	if fips140.Enabled() || pub.N.BitLen() < jwks.MinBits || pub.N.BitLen()%bits.UintSize != 0 || pub.N.Bit(0) == 0 || pub.E < 3 || pub.E&1 == 0 || pub.E >= 1<<31 {
		return k
	}
	modulus, err := bigmod.NewModulus(pub.N.Bytes())
	if err != nil {
		return k
	}
	k.modulus, k.e = modulus, uint(pub.E)
	return k
}

// digestInfo is what stands before a digest in a signature, as DER (RFC 8017, section 9.2, note 1).
var digestInfo = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

// verify is RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2.2). The padding that the signature holds is not read but written anew and
// compared whole, so that there is one signature of a text and no other is taken for it. The error is crypto/rsa's.
func (k *rsaKey) verify(method *jwt.SigningMethodRSA, input string, signature []byte) error {
	prefix, ok := digestInfo[method.Hash]
	if k.modulus == nil || !ok {
		return method.Verify(input, signature, k.pub) //nolint:wrapcheck // of crypto/rsa, as here
	}
	size := k.modulus.Size()
	if len(signature) != size {
		return rsa.ErrVerification
	}
	s, err := bigmod.NewNat().SetBytes(signature, k.modulus)
	if err != nil { // not below the modulus
		return rsa.ErrVerification
	}
	h := method.Hash.New()
	h.Write([]byte(input))
	want := make([]byte, 0, size)
	want = append(want, 0, 1)
	want = append(want, bytes.Repeat([]byte{0xff}, size-3-len(prefix)-h.Size())...)
	want = append(want, 0)
	want = append(want, prefix...)
	want = h.Sum(want)
	if !bytes.Equal(bigmod.NewNat().ExpShortVarTime(s, k.e, k.modulus).Bytes(k.modulus), want) {
		return rsa.ErrVerification
	}
	return nil
}
