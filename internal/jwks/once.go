package jwks

import (
	"context"
	"net/http"

	"github.com/MicahParks/jwkset"
)

// Fetched is a key set as its issuer published it at one moment. It never changes. It is for commands, which look once, and
// can stand where a Set does.
type Fetched struct {
	jwkset.Storage

	Keys    []jwkset.JWK // the usable ones, in the order of the document
	Skipped int          // keys that cannot be used
	Header  http.Header  // of the answer

	err error // why there are no keys
}

// Fetch gets a key set once, as a Set does. With its error comes a key set too, one that has no keys and says so.
func Fetch(ctx context.Context, o Options) (*Fetched, error) {
	s := New(o)
	defer s.Close()
	r := s.fetch(ctx)
	if r.err != nil {
		return Absent(r.err), r.err
	}
	f := &Fetched{Storage: jwkset.NewMemoryStorage(), Keys: r.keys, Skipped: r.skipped, Header: r.header}
	if err := f.KeyReplaceAll(ctx, r.keys); err != nil {
		return Absent(err), err
	}
	return f, nil
}

// Absent is a key set that could not be had, for a reason.
func Absent(why error) *Fetched { return &Fetched{Storage: jwkset.NewMemoryStorage(), err: why} }

// KeyRead returns the key with the given id. It waits for nothing. The error is [ErrNoKeys] for a set that could not be had.
func (f *Fetched) KeyRead(_ context.Context, kid string) (jwkset.JWK, error) {
	if k, ok := f.Peek(kid); ok {
		return k, nil
	}
	if f.err != nil {
		return jwkset.JWK{}, ErrNoKeys
	}
	return jwkset.JWK{}, notFound(kid)
}

// Peek looks a key up.
func (f *Fetched) Peek(kid string) (jwkset.JWK, bool) {
	for _, k := range f.Keys {
		if k.Marshal().KID == kid {
			return k, true
		}
	}
	return jwkset.JWK{}, false
}

// Refresh does nothing: the set never changes.
func (*Fetched) Refresh(context.Context) bool { return false }

// Generation is always the same.
func (*Fetched) Generation() uint64 { return 1 }
