package jwks

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	pemBegin = "-----BEGIN PUBLIC KEY-----"
	pemEnd   = "-----END PUBLIC KEY-----"
	maxPEM   = 16 << 10
)

// ParsePEM reads an RSA public key as Clerk's dashboard shows it ("JWKS Public Key"): PEM of type PUBLIC KEY
// (RFC 7468), or only its base64 body. Environment variables and config files mangle line breaks, so there may be
// any, none, spaces or the two characters \n in their place. The key has 2048 to 8192 bits.
func ParsePEM(text string) (*rsa.PublicKey, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("the public key is longer than %d bytes", maxPEM)
	}
	text = strings.ReplaceAll(text, `\r`, "\n")
	text = strings.ReplaceAll(text, `\n`, "\n")
	body, err := unarmor(strings.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	body = strings.Join(strings.Fields(body), "")
	if body == "" {
		return nil, errors.New("the public key is empty")
	}
	der, err := base64.StdEncoding.Strict().DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("the public key is no base64: %w", err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("the public key is no SubjectPublicKeyInfo; copy the \"JWKS Public Key\" of the dashboard")
	}
	pub, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("the public key is no RSA key; only RS256 is supported")
	}
	if err := checkRSA(pub); err != nil {
		return nil, fmt.Errorf("the public key cannot be used: %w", err)
	}
	return pub, nil
}

// unarmor strips the PEM lines if there are any. No error quotes the text: somebody may have pasted a private key.
func unarmor(text string) (string, error) {
	if strings.Contains(text, "PRIVATE KEY-----") {
		return "", errors.New("this is a private key; the public key is needed, and this one should be replaced")
	}
	if !strings.Contains(text, "-----") {
		return text, nil
	}
	body, ok := strings.CutPrefix(text, pemBegin)
	if !ok {
		return "", fmt.Errorf("the public key must begin with %s", pemBegin)
	}
	if body, ok = strings.CutSuffix(body, pemEnd); !ok {
		return "", fmt.Errorf("the public key must end with %s", pemEnd)
	}
	if strings.Contains(body, "-----") {
		return "", errors.New("there is more than one PEM block; exactly one public key is needed")
	}
	return body, nil
}
