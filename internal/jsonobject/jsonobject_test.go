package jsonobject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func all([]byte) (bool, error) { return true, nil }

func TestRewrite(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	notB := func(name []byte) (bool, error) {
		if string(name) == "stop" {
			return false, stop
		}
		return string(name) != "b", nil
	}
	for _, tt := range []struct {
		raw, want string
		err       error
	}{
		{`{"a":1,"b":2,"c":3}`, `{"a":1,"c":3}`, nil},
		{`{"b":1,"b":2,"a":3}`, `{"a":3}`, nil}, // what is left out may be named twice
		{`{"a":{"b":1}}`, `{"a":{"b":1}}`, nil},
		{`{"a":{"b":1,"b":1}}`, "", ErrDuplicate},
		{`{"b":{"c":1,"c":1}}`, "", ErrDuplicate},
		{`{"a":1,"\u0061":1}`, "", ErrDuplicate},
		{`{"a":1,"stop":1}`, "", stop},
		{`[1]`, "", ErrObject},
		{`{"a":1`, "", ErrSyntax},
		{"{\"a\":\"\xff\"}", "", ErrText},
		{`{"a":"\ud800"}`, "", ErrText},
		{`{"a":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + `}`, "", ErrDepth},
		{`{"a":[` + strings.Repeat(`{"x":0},`, MaxMembers) + `0]}`, "", ErrMembers},
	} {
		out, _, _, err := Rewrite([]byte("before "), []byte(tt.raw), notB)
		if !errors.Is(err, tt.err) || string(out) != "before "+tt.want {
			t.Errorf("%.60s: %.60q, %v", tt.raw, out, err)
		}
	}
}

// A doubled member is found among few and among many.
func TestDuplicateAmongMany(t *testing.T) {
	t.Parallel()
	for n := 1; n < 4*fewMembers; n++ {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"m%d":0,`, i)
		}
		if _, kept, _, err := Rewrite(nil, []byte("{"+b.String()+`"last":0}`), all); err != nil || kept != n+1 {
			t.Errorf("%d: %d, %v", n, kept, err)
		}
		for _, twice := range []int{0, n / 2, n - 1} {
			if _, _, _, err := Rewrite(nil, fmt.Appendf(nil, `{%s"m%d":0}`, b.String(), twice), all); !errors.Is(err, ErrDuplicate) {
				t.Errorf("%d of %d: %v", twice, n, err)
			}
		}
	}
}

// FuzzRewrite: what passes is read by encoding/json as before, is not longer, is on one line, and is a fixed point.
func FuzzRewrite(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,2.50,"\u0041",null,{"b":true}]}`, "{\"a\" :\n1e400}", `{"a":1,"a":2}`, `{"a":"\ud83d\ude00\ud800"}`, "{\"a\":\"\u2028<&>\x7f\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, _, _, err := Rewrite(nil, raw, all)
		if err != nil {
			return
		}
		if len(out) > len(raw) || bytes.ContainsAny(out, "\r\n") || !reflect.DeepEqual(decode(t, raw), decode(t, out)) {
			t.Fatalf("%q became %q", raw, out)
		}
		if again, _, _, err := Rewrite(nil, out, all); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q is no fixed point: %q, %v", out, again, err)
		}
	})
}

func decode(t *testing.T, doc []byte) (v map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q passes, but encoding/json refuses it: %v", doc, err)
	}
	return v
}
