package clerk

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/MicahParks/jwkset"
)

var errReadOnly = errors.New("the key set is read-only")

// staticKeyBits is the size of the keys that Clerk's dashboard shows. Clerk's SDK can use no other.
const staticKeyBits = 2048

// StaticKey returns a key set of one key that never changes and answers to every kid: the PEM key of Clerk's
// dashboard names none. A key that cannot be used is reported by New.
func StaticKey(pub *rsa.PublicKey) KeySet {
	k := &staticKey{MemoryJWKSet: jwkset.NewMemoryStorage(), pub: pub}
	if pub == nil || pub.N == nil || pub.N.BitLen() != staticKeyBits {
		k.err = fmt.Errorf("want an RSA public key of %d bits, as Clerk's dashboard shows it; use a jwks_url for any other", staticKeyBits)
		return k
	}
	if k.jwk, k.err = jwkset.NewJWKFromKey(pub, jwkset.JWKOptions{}); k.err == nil {
		k.err = k.MemoryJWKSet.KeyWrite(context.Background(), k.jwk)
	}
	return k
}

type staticKey struct {
	*jwkset.MemoryJWKSet // for the reading methods

	pub *rsa.PublicKey
	jwk jwkset.JWK
	err error
}

var _ KeySet = (*staticKey)(nil)

func (k *staticKey) KeyRead(context.Context, string) (jwkset.JWK, error) { return k.jwk, k.err }

func (k *staticKey) Peek(string) (jwkset.JWK, bool) { return k.jwk, k.err == nil }

func (k *staticKey) Refresh(context.Context) bool { return false }

func (k *staticKey) Generation() uint64 { return 1 }

func (k *staticKey) KeyDelete(context.Context, string) (bool, error) { return false, errReadOnly }

func (k *staticKey) KeyReplaceAll(context.Context, []jwkset.JWK) error { return errReadOnly }

func (k *staticKey) KeyWrite(context.Context, jwkset.JWK) error { return errReadOnly }
