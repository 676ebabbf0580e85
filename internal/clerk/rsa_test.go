package clerk

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"math/big"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// smallExponent is a key whose exponent is 3, for which forgeries of badly read padding are known (CVE-2006-4339).
var smallExponent = sync.OnceValue(func() *rsa.PrivateKey {
	three := big.NewInt(3)
	for {
		p, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			panic(err)
		}
		q, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			panic(err)
		}
		one := big.NewInt(1)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(three, phi)
		n := new(big.Int).Mul(p, q)
		if d == nil || n.BitLen() != 2048 {
			continue
		}
		return &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 3}, D: d, Primes: []*big.Int{p, q}}
	}
})

// block is what a signature holds, before the key is applied.
func block(size int, digestInfo, digest []byte) []byte {
	b := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, size-3-len(digestInfo)-len(digest))...)
	return slices.Concat(b, []byte{0}, digestInfo, digest)
}

// power signs a block as it is, whatever it holds, by the Chinese remainders of the key's two primes.
func power(key *rsa.PrivateKey, block []byte) []byte {
	c, p, q := new(big.Int).SetBytes(block), key.Primes[0], key.Primes[1]
	one := big.NewInt(1)
	part := func(prime *big.Int) *big.Int {
		d := new(big.Int).Mod(key.D, new(big.Int).Sub(prime, one))
		return new(big.Int).Exp(c, d, prime)
	}
	m, n := part(p), part(q)
	h := m.Sub(m, n)
	h.Mul(h, new(big.Int).ModInverse(q, p)).Mod(h, p)
	return h.Mul(h, q).Add(h, n).FillBytes(make([]byte, key.Size()))
}

// TestAttackPadding: only the one signature that the standard prescribes is accepted, and crypto/rsa says the same of each.
func TestAttackPadding(t *testing.T) {
	t.Parallel()
	const input = "header.claims"
	sum := sha256.Sum256([]byte(input))
	info := digestInfo[crypto.SHA256]
	for name, key := range map[string]*rsa.PrivateKey{"65537": keyA(), "3": smallExponent()} {
		size := key.Size()
		good := block(size, info, sum[:])
		changed := func(at int, to byte) []byte { b := slices.Clone(good); b[at] = to; return b }
		noNull := []byte{0x30, 0x2f, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x04, 0x20}
		short := slices.Concat([]byte{0, 1}, bytes.Repeat([]byte{0xff}, 8), []byte{0}, info, sum[:])
		garbage := append(slices.Clone(short), bytes.Repeat([]byte{7}, size-len(short))...)
		signature := power(key, good)
		plusN := new(big.Int).Add(new(big.Int).SetBytes(signature), key.N).Bytes()
		forgeries := map[string][]byte{
			"garbage after the digest":      power(key, garbage),
			"garbage instead of padding":    power(key, changed(20, 0xfe)),
			"no NULL in the algorithm":      power(key, block(size, noNull, sum[:])),
			"another algorithm's name":      power(key, block(size, digestInfo[crypto.SHA512], append(sum[:], sum[:]...))),
			"no algorithm":                  power(key, block(size, nil, sum[:])),
			"another digest":                power(key, changed(size-1, good[size-1]^1)),
			"block type 2":                  power(key, changed(1, 2)),
			"block type 0":                  power(key, changed(1, 0)),
			"no separator":                  power(key, changed(size-1-len(info)-sha256.Size, 0xff)),
			"nothing":                       {},
			"zero":                          make([]byte, size),
			"one":                           append(make([]byte, size-1), 1),
			"the modulus":                   key.N.Bytes(),
			"the modulus less one":          new(big.Int).Sub(key.N, big.NewInt(1)).Bytes(),
			"the signature and the modulus": plusN,
			"a byte before":                 append([]byte{0}, signature...),
			"a byte behind":                 append(slices.Clone(signature), 0),
			"a byte less":                   signature[:size-1],
			"all ones":                      bytes.Repeat([]byte{0xff}, size),
		}
		k := newRSAKey(&key.PublicKey)
		if k.modulus == nil {
			t.Fatalf("exponent %s: the key is left to crypto/rsa, so nothing here is tested", name)
		}
		if err := k.verify(jwt.SigningMethodRS256, input, signature); err != nil {
			t.Errorf("exponent %s: the right signature: %v", name, err)
		}
		for what, forgery := range forgeries {
			if err := k.verify(jwt.SigningMethodRS256, input, forgery); !errors.Is(err, rsa.ErrVerification) {
				t.Errorf("exponent %s, %s: error %v, want %v", name, what, err, rsa.ErrVerification)
			}
			if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], forgery); err == nil {
				t.Errorf("exponent %s, %s: crypto/rsa accepts it", name, what)
			}
		}
	}
}

// TestAttackShortSignature: a signature that begins with a zero is not accepted without it, so that a token has one spelling.
func TestAttackShortSignature(t *testing.T) {
	t.Parallel()
	key := smallExponent()
	k := newRSAKey(&key.PublicKey)
	for n := range 10_000 {
		input := "header.claims" + strconv.Itoa(n)
		sum := sha256.Sum256([]byte(input))
		signature := power(key, block(key.Size(), digestInfo[crypto.SHA256], sum[:]))
		if signature[0] != 0 {
			continue
		}
		if err := k.verify(jwt.SigningMethodRS256, input, signature); err != nil {
			t.Errorf("whole: %v", err)
		}
		if err := k.verify(jwt.SigningMethodRS256, input, signature[1:]); !errors.Is(err, rsa.ErrVerification) {
			t.Errorf("without its zero: error %v, want %v", err, rsa.ErrVerification)
		}
		return
	}
	t.Fatal("no signature begins with a zero")
}

// TestRSAKeySizes: keys of every size verify, by whichever way; those that are no keys are crypto/rsa's to refuse.
func TestRSAKeySizes(t *testing.T) {
	t.Parallel()
	const input = "header.claims"
	for _, bits := range []int{2048, 2056, 3072} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		k := newRSAKey(&key.PublicKey)
		if got, want := k.modulus != nil, bits%64 == 0; got != want {
			t.Errorf("%d bits: prepared is %t, want %t", bits, got, want)
		}
		for _, method := range algorithms {
			signature, err := method.Sign(input, key)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.verify(method, input, signature); err != nil {
				t.Errorf("%d bits, %s: %v", bits, method.Alg(), err)
			}
			if err := k.verify(method, input+"x", signature); !errors.Is(err, rsa.ErrVerification) {
				t.Errorf("%d bits, %s, another text: %v", bits, method.Alg(), err)
			}
		}
	}
	even := rsa.PublicKey{N: new(big.Int).Add(keyA().N, big.NewInt(1)), E: 65537}
	for name, pub := range map[string]*rsa.PublicKey{
		"an even modulus": &even, "a small one": {N: big.NewInt(15), E: 3}, "exponent 1": {N: keyA().N, E: 1}, "an even exponent": {N: keyA().N, E: 4},
	} {
		if err := newRSAKey(pub).verify(jwt.SigningMethodRS256, input, make([]byte, 256)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzRSA holds what is made of a signature against crypto/rsa.
func FuzzRSA(f *testing.F) {
	const input = "header.claims"
	sum := sha256.Sum256([]byte(input))
	keys := []*rsa.PrivateKey{keyA(), smallExponent()}
	prepared := []*rsaKey{newRSAKey(&keys[0].PublicKey), newRSAKey(&keys[1].PublicKey)}
	good := block(256, digestInfo[crypto.SHA256], sum[:])
	f.Add(good, true)
	f.Add(power(keys[0], good), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, sign bool) {
		for i, key := range keys {
			signature := data
			if sign {
				if i == 0 {
					continue // one is enough, and slow
				}
				signature = power(key, data[:min(len(data), 256)])
			}
			err := prepared[i].verify(jwt.SigningMethodRS256, input, signature)
			want := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], signature)
			if (err == nil) != (want == nil) {
				t.Errorf("key %d, %x: %v, crypto/rsa says %v", i, signature, err, want)
			}
		}
	})
}
