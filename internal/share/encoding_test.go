package share

import (
	"net/http"
	"strings"
	"testing"
)

func TestEncodingFor(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]Encoding{
		"":                             Identity,
		"gzip":                         Gzip,
		"GZIP":                         Gzip,
		"x-gzip":                       Gzip,
		"gzip, deflate, br, zstd":      Gzip,
		"br;q=1.0, gzip;q=0.001":       Gzip,
		" br , gzip ; q=0.8 ":          Gzip,
		"*":                            Gzip,
		"*;q=0.5, identity":            Gzip,
		"br":                           Identity,
		"identity":                     Identity,
		"gzip;q=0":                     Identity,
		"gzip;q=0.000, *":              Identity,
		"gzip, gzip;q=0":               Identity,
		"gzip;q=2":                     Identity,
		"gzip;q=-1":                    Identity,
		"gzip;q=NaN":                   Identity,
		"gzip;q=":                      Identity,
		"gzip;level=9":                 Identity,
		"gzipped":                      Identity,
		"*;q=0, identity":              Identity,
		"br, identity;q=0":             "",
		"br, *;q=0":                    "",
		"identity;q=0, gzip;q=0":       "",
		"identity;q=0":                 "",
		"identity;q=0, gzip":           Gzip,
		"*;q=0, gzip":                  Gzip,
		"identity;q=0, identity, gzip": Gzip,
	} {
		got, ok := EncodingFor(http.Header{"Accept-Encoding": {field}})
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q %t, want %q", field, got, ok, want)
		}
	}
	if got, ok := EncodingFor(http.Header{"Accept-Encoding": {"br", "gzip"}}); got != Gzip || !ok {
		t.Errorf("on two lines: %q %t", got, ok)
	}
	if got, ok := EncodingFor(http.Header{}); got != Identity || !ok {
		t.Errorf("none: %q %t", got, ok)
	}
}

// FuzzEncodingFor: a client gets gzip only if it names it, or *, and what it does not refuse.
func FuzzEncodingFor(f *testing.F) {
	for _, seed := range []string{"", "gzip, deflate, br", "gzip;q=0, *;q=1", "identity;q=0", "*;q=0.5,,", ";q=1", "gzip;;q=1", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got, ok := EncodingFor(http.Header{"Accept-Encoding": {field}})
		lower := strings.ToLower(field)
		switch {
		case ok != (got == Gzip || got == Identity):
			t.Errorf("%q: %q %t", field, got, ok)
		case got == Gzip && !strings.Contains(lower, "gzip") && !strings.Contains(lower, "*"):
			t.Errorf("%q: gzip, which it does not name", field)
		case !ok && !strings.Contains(lower, ";"):
			t.Errorf("%q: refuses both without a weight", field)
		}
		// Whatever it says, a member of its own that refuses gzip holds.
		if refused, _ := EncodingFor(http.Header{"Accept-Encoding": {field, "gzip;q=0"}}); refused == Gzip {
			t.Errorf("%q: gzip, although it is refused", field)
		}
	})
}
