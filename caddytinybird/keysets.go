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

// onlyLooking is set while a command loads a config to see whether it loads. Its key sets then ask nobody.
var onlyLooking atomic.Bool

// keySet is a key set with the configs that use it. Each brings its own logger and storage, and may be rejected after it
// was provisioned, so the set uses those of the newest one that is still there.
type keySet struct {
	*jwks.Set

	url  string
	path string
	seed []byte // what another set of this address had

	users users[keySetUser]
	told  throttle // about keys that could not be loaded
}

type keySetUser struct {
	log      *zap.Logger
	storage  certmagic.Storage
	notifier *notifier
}

// acquireKeySet returns the key set of an address. It never waits for the network.
func (c *Clerk) acquireKeySet(ctx caddy.Context, url string) (*jwks.Set, error) {
	o := jwks.Options{URL: url, Refresh: time.Duration(c.JWKSRefresh)}
	if c.Limits != nil {
		o.MaxMisses = c.Limits.BadKids
	}
	key := fmt.Sprintf("%s refresh=%s misses=%d", url, o.Refresh, o.MaxMisses)
	seed := documentOf(url)
	s, release, err := acquire(keySets, key, func() (*keySet, error) { return newKeySet(o, seed), nil })
	if err != nil {
		return nil, fmt.Errorf("key set of %s: %w", jwks.PrintableURL(url), err)
	}
	leave := s.use(keySetUser{log: ctx.Logger(), storage: ctx.Storage(), notifier: c.notifier})
	c.acquired = append(c.acquired, key)
	c.releaseKeySets = append(c.releaseKeySets, func() error {
		leave()
		return release()
	})
	if !onlyLooking.Load() {
		s.Start()
	}
	return s.Set, nil
}

func newKeySet(o jwks.Options, seed []byte) *keySet {
	digest := sha256.Sum256([]byte(o.URL))
	s := &keySet{url: o.URL, seed: seed, path: "clerk/jwks/" + hex.EncodeToString(digest[:16]) + ".json"}
	o.Store = s
	o.Observe = s.observe
	s.Set = jwks.New(o)
	return s
}

// documentOf returns the newest keys that this process already has of an address: a reload that changes a setting of a key set
// loses no key.
func documentOf(url string) []byte {
	if newest := newestOf(url); newest != nil {
		return newest.Document()
	}
	return nil
}

// newestOf returns the set with the newest keys of an address, under whatever settings, or nil.
func newestOf(url string) *keySet {
	var newest *keySet
	keySets.Range(func(_, value any) bool {
		s, ok := value.(*keySet)
		if ok && s.url == url && (newest == nil || s.newer(newest)) {
			newest = s
		}
		return true
	})
	return newest
}

// newer tells whether s is more likely to have the issuer's present keys than other. A set that closes is no older for it.
func (s *keySet) newer(other *keySet) bool {
	mine, theirs := s.Status(), other.Status()
	if fetched := mine.Source == jwks.SourceNetwork; fetched != (theirs.Source == jwks.SourceNetwork) {
		return fetched
	}
	return mine.Fetched.After(theirs.Fetched)
}

// use makes a config's logger and storage the ones in use. The storage gets the keys there are, because the set
// saves them by itself only when they change. What was saved while a config was there that leaves, as one that was rejected does, is saved
// again where the remaining one saves.
func (s *keySet) use(u keySetUser) (leave func()) {
	forget := s.users.use(u)
	s.Persist()
	return func() {
		forget()
		s.Persist()
	}
}

// Load returns the keys of an earlier config or an earlier process.
func (s *keySet) Load(ctx context.Context) ([]byte, error) {
	if s.seed != nil {
		return s.seed, nil
	}
	doc, err := s.users.newest().storage.Load(ctx, s.path)
	if err != nil {
		return nil, fmt.Errorf("caddy's storage: %w", err)
	}
	return doc, nil
}

// Save keeps the keys in Caddy's storage for a restart while Clerk cannot be reached. Sets of one address with different settings have
// one place there, in which the newest keys of them all stay: a set that has not met a rotation yet must not bring old ones back. The
// same holds for the sets of several edges that have one storage.
func (s *keySet) Save(ctx context.Context, doc []byte) error {
	storage := s.users.newest().storage
	for saved := s; ; {
		if newest := newestOf(s.url); newest != nil && newest.newer(saved) {
			saved, doc = newest, newest.Document()
		}
		if there, err := storage.Load(ctx, s.path); err == nil && s.outdated(doc, there) {
			return nil
		}
		if err := storage.Store(ctx, s.path, doc); err != nil {
			return fmt.Errorf("caddy's storage: %w", err)
		}
		if newest := newestOf(s.url); newest == nil || !newest.newer(saved) {
			return nil
		} // another set saved meanwhile, and this one may have come after it
	}
}

// outdated tells whether the keys in the storage are newer than those that are to be saved. What a clock that is ahead has written is not,
// or nothing could be saved for as long.
func (s *keySet) outdated(doc, there []byte) bool {
	at := s.SavedAt(there)
	return at.After(s.SavedAt(doc)) && !at.After(time.Now())
}

// observe tells the operator about each attempt to load the keys.
func (s *keySet) observe(e jwks.Event) {
	log := s.users.newest().log
	if e.Source == jwks.SourceNetwork { // else it is about Caddy's storage
		metrics.refreshed(e.Err)
	}
	if e.Err != nil {
		message := "keys of Clerk could not be loaded"
		if e.Source == jwks.SourceStore {
			message = "Caddy's storage failed for the keys of Clerk"
			metrics.unsaved.Inc()
		}
		if c := log.Check(zap.WarnLevel, message); c != nil {
			c.Write(zap.String("url", e.URL), zap.String("source", e.Source), zap.Error(e.Err), zap.Duration("next_try", e.Next))
		}
		s.tellFailed(e)
		return
	}
	if e.Skipped > 0 && e.SkippedChanged {
		log.Warn("some of Clerk's keys were skipped; only RSA keys of at least 2048 bits for signatures are usable",
			zap.String("url", e.URL), zap.Int("skipped", e.Skipped), zap.Int("keys", e.Keys))
	}
	if c := log.Check(zap.DebugLevel, "keys of Clerk loaded"); c != nil {
		c.Write(zap.String("url", e.URL), zap.String("source", e.Source), zap.Int("keys", e.Keys), zap.Bool("changed", e.Changed))
	}
}

// tellFailed emits the event of a fetch that failed.
func (s *keySet) tellFailed(e jwks.Event) {
	n := s.notifier()
	if n == nil || e.Source != jwks.SourceNetwork {
		return
	}
	now := time.Now()
	suppressed, ok := s.told.admit("", now)
	if !ok {
		return
	}
	st := s.Status()
	data := map[string]any{
		"url":              e.URL,
		"error":            e.Err.Error(),
		"failures":         st.Failures,
		"keys":             len(st.KIDs),
		"next_try_seconds": e.Next.Seconds(),
		"suppressed":       suppressed,
	}
	if !st.Fetched.IsZero() {
		data["age_seconds"] = now.Sub(st.Fetched).Seconds()
	}
	if !n.emit(eventRefreshFailed, data) {
		s.told.missed(suppressed)
	}
}

// notifier is that of the newest running config that wants to know, or nil.
func (s *keySet) notifier() *notifier {
	u, _ := s.users.find(func(u keySetUser) bool { return u.notifier.wants(eventRefreshFailed) })
	return u.notifier
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
