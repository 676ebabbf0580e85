package caddytinybird

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// keySets holds the key sets of all configs of this process, so that a reload finds the keys it had.
var keySets = caddy.NewUsagePool()

// keySet is a key set with what belongs to the config that used it last: its logger and its storage.
type keySet struct {
	*jwks.Set

	log     atomic.Pointer[zap.Logger]
	storage atomic.Pointer[certmagic.Storage]
	url     string
	path    string
	doc     atomic.Pointer[[]byte] // what Save kept last, or what another set of this address had
}

// acquireKeySet returns the key set of an address. It never waits for the network.
func (c *Clerk) acquireKeySet(ctx caddy.Context, url string) (*jwks.Set, error) {
	o := jwks.Options{URL: url, Refresh: time.Duration(c.JWKSRefresh)}
	if c.Limits != nil {
		o.MaxMisses = c.Limits.BadKids
	}
	key := fmt.Sprintf("%s refresh=%s misses=%d", url, o.Refresh, o.MaxMisses)
	seed := documentOf(url)
	value, _, err := keySets.LoadOrNew(key, func() (caddy.Destructor, error) {
		return newKeySet(o, seed), nil
	})
	if err != nil {
		return nil, fmt.Errorf("key set of %s: %w", url, err)
	}
	c.acquired = append(c.acquired, key)
	s, ok := value.(*keySet)
	if !ok {
		return nil, fmt.Errorf("key set of %s is a %T", url, value)
	}
	storage := ctx.Storage()
	s.log.Store(ctx.Logger())
	s.storage.Store(&storage)
	s.Start()
	return s.Set, nil
}

func newKeySet(o jwks.Options, seed *[]byte) *keySet {
	digest := sha256.Sum256([]byte(o.URL))
	s := &keySet{url: o.URL, path: "clerk/jwks/" + hex.EncodeToString(digest[:16]) + ".json"}
	s.doc.Store(seed)
	o.Store = s
	o.Observe = s.observe
	s.Set = jwks.New(o)
	return s
}

// documentOf returns the keys that this process already has of an address, under whatever settings: a reload
// that changes a setting of a key set loses no key.
func documentOf(url string) *[]byte {
	var doc *[]byte
	keySets.Range(func(_, value any) bool {
		if s, ok := value.(*keySet); ok && s.url == url {
			doc = s.doc.Load()
		}
		return doc == nil
	})
	return doc
}

// Load returns the keys of an earlier config or an earlier process.
func (s *keySet) Load(ctx context.Context) ([]byte, error) {
	if doc := s.doc.Load(); doc != nil {
		return *doc, nil
	}
	doc, err := (*s.storage.Load()).Load(ctx, s.path)
	if err != nil {
		return nil, fmt.Errorf("caddy's storage: %w", err)
	}
	s.doc.Store(&doc)
	return doc, nil
}

// Save keeps the keys in Caddy's storage for a restart while Clerk cannot be reached.
func (s *keySet) Save(ctx context.Context, doc []byte) error {
	s.doc.Store(&doc)
	if err := (*s.storage.Load()).Store(ctx, s.path, doc); err != nil {
		return fmt.Errorf("caddy's storage: %w", err)
	}
	return nil
}

// observe tells the operator about each attempt to load the keys.
func (s *keySet) observe(e jwks.Event) {
	log := s.log.Load()
	if e.Err != nil {
		metrics.refreshed("failed")
		if c := log.Check(zap.WarnLevel, "keys of Clerk could not be loaded"); c != nil {
			c.Write(zap.String("url", e.URL), zap.String("source", e.Source), zap.Error(e.Err), zap.Duration("next_try", e.Next))
		}
		return
	}
	metrics.refreshed("ok")
	if e.Skipped > 0 {
		log.Warn("some of Clerk's keys were skipped; only RSA keys of at least 2048 bits for signatures are usable",
			zap.String("url", e.URL), zap.Int("skipped", e.Skipped), zap.Int("keys", e.Keys))
	}
	if c := log.Check(zap.DebugLevel, "keys of Clerk loaded"); c != nil {
		c.Write(zap.String("url", e.URL), zap.String("source", e.Source), zap.Int("keys", e.Keys), zap.Bool("changed", e.Changed))
	}
}

// Destruct ends the set's refreshing when no config uses it anymore.
func (s *keySet) Destruct() error {
	s.Close()
	return nil
}

// Interface guards.
var (
	_ caddy.Destructor = (*keySet)(nil)
	_ jwks.Store       = (*keySet)(nil)
)
