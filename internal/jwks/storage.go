package jwks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
)

// The part of jwkset.Storage that a verifier does not need, so that a Set can stand wherever the library wants one.
var _ jwkset.Storage = (*Set)(nil)

var errReadOnly = errors.New("the key set follows its issuer and cannot be written to")

// KeyReadAll returns all keys, in the order of the document. While nothing is loaded it waits as KeyRead does.
func (s *Set) KeyReadAll(ctx context.Context) ([]jwkset.JWK, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.MaxWait, errWaited)
	defer cancel()
	if err := s.awaitFirst(ctx); err != nil {
		return nil, err
	}
	return slices.Clone(s.snap.Load().list), nil
}

// KeyDelete always fails: the set is its issuer's.
func (*Set) KeyDelete(context.Context, string) (bool, error) { return false, errReadOnly }

// KeyReplaceAll always fails: the set is its issuer's.
func (*Set) KeyReplaceAll(context.Context, []jwkset.JWK) error { return errReadOnly }

// KeyWrite always fails: the set is its issuer's.
func (*Set) KeyWrite(context.Context, jwkset.JWK) error { return errReadOnly }

// marshal lets the library's own storage marshal a copy of the set.
func marshal[T any](ctx context.Context, s *Set, f func(*jwkset.MemoryJWKSet) (T, error)) (v T, err error) {
	keys, err := s.KeyReadAll(ctx)
	if err != nil {
		return v, err
	}
	m := jwkset.NewMemoryStorage()
	if err := m.KeyReplaceAll(ctx, keys); err != nil {
		return v, fmt.Errorf("copy key set: %w", err)
	}
	if v, err = f(m); err != nil {
		return v, fmt.Errorf("marshal key set: %w", err)
	}
	return v, nil
}

// JSON returns the set as a JWK set document. There are only public keys in it.
func (s *Set) JSON(ctx context.Context) (json.RawMessage, error) {
	return marshal(ctx, s, func(m *jwkset.MemoryJWKSet) (json.RawMessage, error) {
		return m.JSON(ctx)
	})
}

// JSONPublic is JSON.
func (s *Set) JSONPublic(ctx context.Context) (json.RawMessage, error) { return s.JSON(ctx) }

// JSONPrivate is JSON: the set has no private keys.
func (s *Set) JSONPrivate(ctx context.Context) (json.RawMessage, error) { return s.JSON(ctx) }

// JSONWithOptions is JSON with the library's options.
func (s *Set) JSONWithOptions(
	ctx context.Context, mo jwkset.JWKMarshalOptions, vo jwkset.JWKValidateOptions,
) (json.RawMessage, error) {
	return marshal(ctx, s, func(m *jwkset.MemoryJWKSet) (json.RawMessage, error) {
		return m.JSONWithOptions(ctx, mo, vo)
	})
}

// Marshal returns the set in the library's form.
func (s *Set) Marshal(ctx context.Context) (jwkset.JWKSMarshal, error) {
	return marshal(ctx, s, func(m *jwkset.MemoryJWKSet) (jwkset.JWKSMarshal, error) {
		return m.Marshal(ctx)
	})
}

// MarshalWithOptions is Marshal with the library's options.
func (s *Set) MarshalWithOptions(
	ctx context.Context, mo jwkset.JWKMarshalOptions, vo jwkset.JWKValidateOptions,
) (jwkset.JWKSMarshal, error) {
	return marshal(ctx, s, func(m *jwkset.MemoryJWKSet) (jwkset.JWKSMarshal, error) {
		return m.MarshalWithOptions(ctx, mo, vo)
	})
}
