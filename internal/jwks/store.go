package jwks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/MicahParks/jwkset"
)

// Store keeps one document across restarts, so that a restart during an outage of the issuer still verifies. Only
// public keys are given to it, but whoever can write to it decides who is let in.
type Store interface {
	// Load returns the document last saved. Nothing saved is no document, or fs.ErrNotExist.
	Load(ctx context.Context) ([]byte, error)
	// Save replaces the document.
	Save(ctx context.Context, doc []byte) error
}

const (
	saveTimeout = 10 * time.Second
	// loadTimeout leaves callers who wait for a first set time for the network.
	loadTimeout = time.Second
	// storeGrace is what a store gets to return after its context ended, before it is left behind.
	storeGrace = 250 * time.Millisecond
	// storedExtra is how much larger than the issuer's a stored document may be.
	storedExtra = 4 << 10
)

var errStoreBusy = errors.New("an earlier operation still hangs")

// stored is the document in the store: a JWK set of the usable keys, with two members more.
type stored struct {
	Source  string              `json:"source"`  // fingerprint of the URL
	Fetched time.Time           `json:"fetched"` // when the issuer answered
	Keys    []jwkset.JWKMarshal `json:"keys"`
}

// fingerprint ties a stored document to its issuer: keys of one must never be taken for those of another, even if
// two sets were given the same place in the store. It is a hash because a URL can hold a credential.
func (s *Set) fingerprint() string {
	sum := sha256.Sum256([]byte(s.o.URL))
	return hex.EncodeToString(sum[:])
}

// restore uses the keys in the store until the network answers.
func (s *Set) restore(ctx context.Context) {
	if s.o.Store == nil {
		return
	}
	lctx, cancel := context.WithTimeout(ctx, min(loadTimeout, s.o.MaxWait/2))
	defer cancel()
	doc, err := s.attend(lctx, s.o.Store.Load)
	if ctx.Err() != nil || errors.Is(err, fs.ErrNotExist) || (err == nil && len(doc) == 0) {
		return
	}
	r := result{source: SourceStore}
	if err == nil {
		r, err = s.parseStored(doc)
	}
	if err != nil {
		r.err = fmt.Errorf("load stored key set: %w", err)
	}
	changed := s.adopt(r)
	s.o.Observe(s.event(r, changed, 0))
}

func (s *Set) parseStored(doc []byte) (result, error) {
	r := result{source: SourceStore}
	if int64(len(doc)) > s.o.MaxBody+storedExtra {
		return r, fmt.Errorf("the document is larger than %d bytes", s.o.MaxBody)
	}
	var about struct {
		Source  string    `json:"source"`
		Fetched time.Time `json:"fetched"`
	}
	if err := json.Unmarshal(doc, &about); err != nil {
		return r, notASet(err)
	}
	if about.Source != s.fingerprint() {
		return r, errors.New("it was saved for another URL")
	}
	var err error
	r.fetched = about.Fetched
	r.keys, r.skipped, err = ParseSet(doc)
	return r, err
}

// Persist has the present keys saved again, in the background: the Store may be writing to another place now. It never
// waits.
func (s *Set) Persist() {
	select {
	case s.persist <- struct{}{}:
	default: // already asked for
	}
}

// Document returns the present keys as the store keeps them, or nil if there are none. Another set of the same URL
// takes it from its Store.Load.
func (s *Set) Document() []byte {
	sn := s.snap.Load()
	if sn == nil {
		return nil
	}
	doc, err := s.document(sn)
	if err != nil {
		return nil
	}
	return doc
}

// SavedAt returns when the issuer answered with the keys in a document from the store. It is the zero time if the document is not
// one that this set could use.
func (s *Set) SavedAt(doc []byte) time.Time {
	r, err := s.parseStored(doc)
	if err != nil {
		return time.Time{}
	}
	return r.fetched
}

func (s *Set) document(sn *snapshot) ([]byte, error) {
	d := stored{Source: s.fingerprint(), Fetched: sn.fetched, Keys: make([]jwkset.JWKMarshal, 0, len(sn.list))}
	for _, k := range sn.list {
		d.Keys = append(d.Keys, k.Marshal())
	}
	doc, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode the keys: %w", err)
	}
	return doc, nil
}

// save writes a key set to the store.
func (s *Set) save(ctx context.Context, sn *snapshot) result {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	doc, err := s.document(sn)
	if err == nil {
		_, err = s.attend(ctx, func(ctx context.Context) ([]byte, error) { return nil, s.o.Store.Save(ctx, doc) })
	}
	r := result{source: SourceStore}
	if err != nil {
		r.err = fmt.Errorf("save key set: %w", err)
	}
	return r
}

// attend runs a store operation and stops waiting for it soon after ctx has ended: a store that hangs and ignores
// its context must stop neither the refreshes nor Close. There is at most one such operation: the next waits for it, so
// that an old document cannot come after a newer one.
func (s *Set) attend(ctx context.Context, op func(context.Context) ([]byte, error)) ([]byte, error) {
	select {
	case s.storing <- struct{}{}:
	case <-ctx.Done():
		return nil, errStoreBusy
	}
	type outcome struct {
		doc []byte
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		doc, err := op(ctx)
		<-s.storing
		ended <- outcome{doc, err}
	}()
	select {
	case o := <-ended:
		return o.doc, o.err
	case <-ctx.Done():
	}
	grace := time.NewTimer(storeGrace)
	defer grace.Stop()
	select {
	case o := <-ended:
		return o.doc, o.err
	case <-grace.C:
		return nil, ctx.Err()
	}
}
