package jwks

import (
	"errors"
	"net/http"
	"testing"

	"github.com/MicahParks/jwkset"
)

// TestFetchOnce: one request, and then a set that knows its keys, and whether an unknown one is a verdict or an outage.
func TestFetchOnce(t *testing.T) {
	t.Parallel()
	i := newIssuer(doc(key("a", "1"), `{"kty":"EC","kid":"ec"}`))
	i.header = http.Header{"Date": {"Mon, 04 May 2026 12:30:00 GMT"}}
	f, err := Fetch(t.Context(), Options{URL: "https://clerk.example.com/jwks", Client: &http.Client{Transport: i}})
	if err != nil || len(f.Keys) != 1 || f.Skipped != 1 || f.Header.Get("Date") == "" {
		t.Fatalf("%+v %v", f, err)
	}
	if k, err := f.KeyRead(t.Context(), "a"); err != nil || k.Marshal().KID != "a" {
		t.Errorf("%v", err)
	}
	if _, ok := f.Peek("a"); !ok {
		t.Error("no key a")
	}
	if _, err := f.KeyRead(t.Context(), "b"); !errors.Is(err, jwkset.ErrKeyNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if all, err := f.KeyReadAll(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%d keys, %v", len(all), err)
	}
	if f.Refresh(t.Context()) || f.Generation() == 0 || len(i.times) != 1 {
		t.Errorf("%d requests", len(i.times))
	}
}

// TestFetchOnceFails: the set that comes with the error says of every key that it could not be had.
func TestFetchOnceFails(t *testing.T) {
	t.Parallel()
	i := newIssuer("{}")
	f, err := Fetch(t.Context(), Options{URL: "https://clerk.example.com/jwks", Client: &http.Client{Transport: i}})
	if err == nil || f == nil {
		t.Fatal("no error, or no set")
	}
	if _, err := f.KeyRead(t.Context(), "a"); !errors.Is(err, ErrNoKeys) {
		t.Errorf("%v", err)
	}
	if _, ok := f.Peek("a"); ok || len(i.times) != 1 {
		t.Errorf("%d requests", len(i.times))
	}
}
