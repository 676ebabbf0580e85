package bapi

import (
	"net/http"
	"slices"
	"testing"
)

// TestKeyIDs: the call changes nothing at Clerk, and answers of another form are errors.
func TestKeyIDs(t *testing.T) {
	t.Parallel()
	for body, want := range map[string][]string{
		`{"keys":[{"kid":"ins_1","kty":"RSA"},{"kty":"RSA"},{"kid":"ins_2"}]}`: {"ins_1", "ins_2"},
		`{"keys":[]}`:         {},
		`{"keys":["marker"]}`: nil,
		`{"keys":{}}`:         nil,
		`{"object":"marker"}`: nil,
		`[]`:                  nil,
		`{"keys":[{"kid":"a"`: nil,
	} {
		srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Path != "/v1/jwks" || r.Header.Get("Authorization") != "Bearer "+secretKey {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			write(http.StatusOK, body)(w, r)
		})
		got, err := newClient(t, Options{URL: srv.URL}).KeyIDs(t.Context())
		if want == nil {
			wantError(t, err)
			continue
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v %v", body, got, err)
		}
	}
	srv := serve(t, write(http.StatusUnauthorized, `{"errors":[{"code":"clerk_key_invalid"}]}`))
	_, err := newClient(t, Options{URL: srv.URL}).KeyIDs(t.Context())
	if e := wantError(t, err); e.Status != http.StatusUnauthorized || e.Code != "clerk_key_invalid" {
		t.Errorf("%v", e)
	}
}
