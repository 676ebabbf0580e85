package jwks

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
)

func b64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// pkix is the PEM form of a public key of any kind.
func pkix(tb testing.TB, pub any) string {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func rsaPEM(tb testing.TB, n *big.Int, e int) string {
	tb.Helper()
	return pkix(tb, &rsa.PublicKey{N: n, E: e})
}

func bodyOf(text string) string {
	text = strings.TrimPrefix(strings.TrimSpace(text), pemBegin)
	return strings.TrimSpace(strings.TrimSuffix(text, pemEnd))
}

func TestParsePEM(t *testing.T) {
	t.Parallel()
	full := rsaPEM(t, modulus(2048, "1"), 65537)
	body := bodyOf(full)
	for name, text := range map[string]string{
		"PEM":                          full,
		"body of many lines":           body,
		"body of one line":             strings.ReplaceAll(body, "\n", ""),
		"surrounding space":            "\n\t " + full + " \r\n",
		"CRLF":                         strings.ReplaceAll(full, "\n", "\r\n"),
		"all on one line":              strings.ReplaceAll(full, "\n", ""),
		"spaces for line breaks":       strings.ReplaceAll(full, "\n", " "),
		"backslash n":                  strings.ReplaceAll(full, "\n", `\n`),
		"backslash r backslash n":      strings.ReplaceAll(full, "\n", `\r\n`),
		"indented, as in a Caddyfile":  strings.ReplaceAll(full, "\n", "\n\t\t"),
		"body with backslash n":        strings.ReplaceAll(body, "\n", `\n`),
		"body with trailing line feed": body + "\n",
	} {
		pub, err := ParsePEM(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if pub.N.Cmp(modulus(2048, "1")) != 0 || pub.E != 65537 {
			t.Errorf("%s: another key", name)
		}
	}
	// The SDK strips a fixed prefix and takes 2048 bits only.
	if _, err := ParsePEM(rsaPEM(t, modulus(4096, "1"), 65537)); err != nil {
		t.Errorf("4096 bits: %v", err)
	}
}

func TestParsePEMRefuses(t *testing.T) {
	t.Parallel()
	full := rsaPEM(t, modulus(2048, "1"), 65537)
	body := bodyOf(full)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	retype := func(kind string) string { return strings.ReplaceAll(full, "PUBLIC KEY", kind) }
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "empty"},
		{"space", " \n", "empty"},
		{"empty block", pemBegin + "\n" + pemEnd, "empty"},
		{"private key", retype("PRIVATE KEY"), "private key"},
		{"RSA private key", retype("RSA PRIVATE KEY"), "private key"},
		{"PKCS 1", retype("RSA PUBLIC KEY"), "must begin with"},
		{"certificate", retype("CERTIFICATE"), "must begin with"},
		{"no end", strings.Replace(full, pemEnd, "", 1), "must end with"},
		{"no beginning", strings.Replace(full, pemBegin, "", 1), "must begin with"},
		{"two keys", full + full, "more than one"},
		{"text before", "key: " + full, "must begin with"},
		{"text after", full + "x", "must end with"},
		{"no base64", "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k", "no base64"},
		{"base64 cut off", body[:len(body)-30], ""},
		{"other DER", "c2VjcmV0", "SubjectPublicKeyInfo"},
		{"data after the key", base64.StdEncoding.EncodeToString(append(der(t, full), 0)), "SubjectPublicKeyInfo"},
		{"EC", pkix(t, &ec.PublicKey), "no RSA key"},
		{"Ed25519", pkix(t, ed), "no RSA key"},
		{"1024 bits", rsaPEM(t, modulus(1024, "1"), 65537), "1024 bits"},
		{"8193 bits", rsaPEM(t, modulus(8193, "1"), 65537), "8193 bits"},
		{"exponent 1", rsaPEM(t, modulus(2048, "1"), 1), ""},
		{"even exponent", rsaPEM(t, modulus(2048, "1"), 65536), "exponent"},
		{"even modulus", rsaPEM(t, new(big.Int).Lsh(modulus(2048, "1"), 1), 65537), "even"},
		{"huge", strings.Repeat("A", maxPEM+1), "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pub, err := ParsePEM(c.text)
			if err == nil || pub != nil {
				t.Fatalf("got %v, %v", pub, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %q", err)
			}
			if len(body) > 40 && strings.Contains(err.Error(), body[:20]) || strings.Contains(err.Error(), "pk_live") {
				t.Errorf("the error quotes the text: %q", err)
			}
		})
	}
}

func der(t *testing.T, text string) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	return block.Bytes
}

func FuzzParsePEM(f *testing.F) {
	full := rsaPEM(f, modulus(2048, "1"), 65537)
	for _, s := range []string{
		full, bodyOf(full), strings.ReplaceAll(full, "\n", `\n`), strings.ReplaceAll(full, "\n", ""),
		rsaPEM(f, modulus(1024, "1"), 3), full + full, pemBegin, pemBegin + pemEnd, "", "-----", `\n`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pub, err := ParsePEM(text)
		if err != nil {
			if pub != nil {
				t.Fatal("a key and an error")
			}
			return
		}
		if err := checkRSA(pub); err != nil {
			t.Fatalf("unusable key: %v", err)
		}
		again, err := ParsePEM(pkix(t, pub))
		if err != nil || !again.Equal(pub) {
			t.Fatalf("does not survive a round trip: %v", err)
		}
	})
}
