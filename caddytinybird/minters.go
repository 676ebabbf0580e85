package caddytinybird

import (
	"crypto/sha256"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// minters holds one minter for each way to sign, for all configs of this process: after a reload that changes nothing of it
// the minted tokens are still there. Whether a request may have one is decided anew each time, and a token says all
// that it was minted for, so no other policy can be served with it.
var minters = caddy.NewUsagePool()

type pooledMinter struct{ *tinybird.Minter }

// Destruct drops the tokens when no config signs in this way anymore.
func (m *pooledMinter) Destruct() error {
	m.Close()
	return nil
}

// acquireMinter takes the minter of these options. The pool knows it by a digest: a key in clear is kept in as few places as can be.
func (h *Handler) acquireMinter(o tinybird.MinterOptions) error {
	key := fmt.Sprintf("%x %s ttl=%d tokens=%d", sha256.Sum256(o.Key), o.WorkspaceID, o.TTL, o.MaxTokens)
	m, release, err := acquire(minters, key, func() (*pooledMinter, error) {
		m, err := tinybird.NewMinter(o)
		return &pooledMinter{m}, err
	})
	if err != nil {
		return err
	}
	h.minter = m
	h.held = append(h.held, release)
	return nil
}

// Interface guard.
var _ caddy.Destructor = (*pooledMinter)(nil)
