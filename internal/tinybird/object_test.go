package tinybird

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestBuildObject(t *testing.T) {
	t.Parallel()
	g := tenantGrant(t)
	tests := []struct {
		raw, want string // want empty: nothing is left
		dropped   int
	}{
		{`{}`, "", 0},
		{` { } `, "", 0},
		{`{"a":1}`, `{"a":1}`, 0},
		{"{ \"b\" : [ 1 , \"x\" , null , true, {} ] ,\n\"a\" : { \"token\" : 1 } }", `{"b":[1,"x",null,true,{}],"a":{"token":1}}`, 0},
		{`{"n":90071992547409931.0e-07,"z":-0}`, `{"n":90071992547409931.0e-07,"z":-0}`, 0},
		{`{"\u0061":"\u003c\u00e9\ud83d\ude00\/\u2028"}`, "{\"a\":\"<é😀/\u2028\"}", 0},
		{`{"a":"\"\\\b\f\n\r\t\u0000\u001f"}`, `{"a":"\"\\\b\f\n\r\t\u0000\u001f"}`, 0},
		{`{"a":1,"token":"x","b":2}`, `{"a":1,"b":2}`, 1},
		{`{"token":"x","a":1}`, `{"a":1}`, 1},
		{`{"token":{"deep":[1]},"q":"select 1"}`, "", 2},
		{`{"a-b":1,"":2,"a":3}`, `{"a":3}`, 2},
		{`{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, `{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, 0},
	}
	for _, tt := range tests {
		got, dropped, err := buildObject([]byte(tt.raw), g.lets)
		if err != nil || string(got) != tt.want || dropped != tt.dropped || (got == nil) != (tt.want == "") {
			t.Errorf("buildObject(%s) = %s, %d, %v; want %s, %d", tt.raw, got, dropped, err, tt.want, tt.dropped)
		}
	}
}

// P1 and P2: what two JSON parsers could read differently is refused as a whole.
func TestBuildObjectRefusesAmbiguity(t *testing.T) {
	t.Parallel()
	g := tenantGrant(t)
	for _, raw := range []string{
		"", " ", "null", "1", `"a"`, "[]", `[{"a":1}]`, "true", // no object
		`{"a":1}{"token":"x"}`, `{"a":1} x`, `{"a":1},`, "{\"a\":1}\x00", // something after it
		`{"a":1,}`, `{,}`, `{"a"}`, `{a:1}`, `{'a':1}`, `{"a":01}`, `{"a":+1}`, `{"a":NaN}`, `{"a":1 /*token*/}`, `{"a":"`, "{\"a\":\"\n\"}",
		"\xef\xbb\xbf{\"a\":1}",                                                        // a byte order mark
		`{"a":1,"a":2}`,                                                                // first or last wins?
		`{"a":1,"\u0061":2}`,                                                           // the same in another spelling
		`{"token":1,"token":2}`,                                                        // also in what is left out
		`{"a":{"b":1,"b":2}}`, `{"a":[{"b":1,"b":2}]}`, `{"token":{"b":1,"\u0062":2}}`, // deeper
		"{\"a\":\"\xff\"}", "{\"\xff\":1}", "{\"a\":\"\xc0\x80\"}", // broken UTF-8
		`{"a":"\ud800"}`, `{"a":"\udc00"}`, `{"a":"\ud800\u0041"}`, `{"a":"\ud800x"}`, `{"\ud83d":1}`, `{"a":"\\\ud800"}`, // half characters
		`{"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, // depth
		`{"token":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
		strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33),
		strings.Repeat("[", 100_000),
	} {
		if got, _, err := buildObject([]byte(raw), g.lets); err == nil || got != nil {
			t.Errorf("buildObject(%.60q) = %s, %v", raw, got, err)
		}
	}
	// Escaped backslashes are no escapes.
	if got, _, err := buildObject([]byte(`{"a":"\\ud800"}`), g.lets); err != nil || string(got) != `{"a":"\\ud800"}` {
		t.Errorf("got %s, %v", got, err)
	}
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, `{"token":"x","a":[1,2.50,"\u0041",null,{"b":true}]}`, `{"\u0074oken":1}`, `{"a":1,"a":2}`, `{"a":"\ud83d\ude00\ud800"}`,
		`{"TOKEN":1,"Q":2,"__TB__x":3,"organization_ID":4,"USER_ID":5,"to\u212aen":6}`, `[1]`, `{"a":1}x`, `{"a":{"b":{}}}`, "{\"a\":\"\u2028<&>\x7f\"}",
		`{"a":1e400,"b":-0.0}`,
	} {
		f.Add([]byte(seed))
	}
	g := tenantGrant(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, dropped, err := buildObject(raw, g.lets)
		theirs, ok := decodeObject(raw)
		if err != nil {
			return
		}
		if !ok {
			t.Fatalf("%q passes, but encoding/json refuses it", raw)
		}
		for name := range theirs {
			if !g.lets(name) {
				delete(theirs, name)
				dropped--
			}
		}
		if dropped != 0 {
			t.Fatalf("%q: the number of members left out is %d too high", raw, dropped)
		}
		if out == nil {
			if len(theirs) != 0 {
				t.Fatalf("%q: %d members are lost", raw, len(theirs))
			}
			return
		}
		ours, ok := decodeObject(out)
		if !ok || !reflect.DeepEqual(ours, theirs) {
			t.Fatalf("%q became %q", raw, out)
		}
		for name := range ours {
			if forbidden(name) || !validName(name) {
				t.Fatalf("%q lets %q through", raw, name)
			}
		}
		if len(out) > len(raw) {
			t.Fatalf("%q grew to %q", raw, out)
		}
		if again, n, err := buildObject(out, g.lets); err != nil || n != 0 || !bytes.Equal(again, out) {
			t.Fatalf("%q is no fixed point: %q, %d, %v", out, again, n, err)
		}
	})
}

// decodeObject is encoding/json's reading of an object, numbers with their digits.
func decodeObject(doc []byte) (map[string]any, bool) {
	if !json.Valid(doc) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var m map[string]any
	return m, d.Decode(&m) == nil && m != nil
}
