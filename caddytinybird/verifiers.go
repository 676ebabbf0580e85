package caddytinybird

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
)

// verifiers holds one verifier for each set of settings, for all configs of this process: after a reload that changes none of
// them the sessions that were verified are still known. With any other setting, whatever it is, they are verified anew.
var verifiers = caddy.NewUsagePool()

type pooledVerifier struct{ *clerk.Verifier }

// Destruct ends the verifier when no config has its settings anymore.
func (v *pooledVerifier) Destruct() error {
	v.Close()
	return nil
}

// acquireVerifier takes the verifier of these settings. The key sets of the config have been acquired under the same settings,
// so they are the ones that the verifier has.
func (c *Clerk) acquireVerifier(config clerk.Config) error {
	key, err := c.fingerprint()
	if err != nil {
		return err
	}
	v, release, err := acquire(verifiers, key, func() (*pooledVerifier, error) {
		v, err := clerk.New(config)
		return &pooledVerifier{v}, err
	})
	if err != nil {
		return err
	}
	c.verifier, c.releaseVerifier = v.Verifier, release
	return nil
}

// fingerprint stands for all settings, as they are written and as they resolve. It is a digest, because a secret may be among them.
func (c *Clerk) fingerprint() (string, error) {
	jwtKey, err := resolveText("jwt_key", c.JWTKey)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal([]any{c, c.publishableKey, c.satellite, c.issuers, c.jwksURL, jwtKey, c.acquired, c.TokenFrom == nil})
	if err != nil {
		return "", fmt.Errorf("clerk: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(text)), nil
}

// Interface guard.
var _ caddy.Destructor = (*pooledVerifier)(nil)
