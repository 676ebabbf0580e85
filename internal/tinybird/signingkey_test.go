package tinybird

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// staticToken is a token in the form of Tinybird's static ones.
func staticToken(payload string) string {
	return "p." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl"
}

func TestParseSigningKey(t *testing.T) {
	t.Parallel()
	const u = testWorkspace
	tests := []struct {
		name, key, workspace, host string
	}{
		{"all said", staticToken(`{"u":"` + u + `","id":"x","host":"us_east"}`), u, "us_east"},
		{"no host", staticToken(`{"u":"` + u + `"}`), u, ""},
		{"no workspace", staticToken(`{"host":"local"}`), "", "local"},
		{"other case", staticToken(`{"U":"` + u + `","HOST":"local"}`), "", ""},
		{"workspace is no UUID", staticToken(`{"u":"admin","host":"local"}`), "", "local"},
		{"workspace is no text", staticToken(`{"u":{"a":1},"host":["local"]}`), "", ""},
		{"host that would break a line", staticToken(`{"u":"` + u + `","host":"a\nb"}`), u, ""},
		{"padded", strings.Replace(staticToken(`{"u":"`+u+`"}`), ".c2ln", "==.c2ln", 1), u, ""},
		{"not JSON", "p." + base64.RawURLEncoding.EncodeToString([]byte("nothing")) + ".c2lnbmF0dXJlc2lnbmF0dXJl", "", ""},
		{"not base64", "p.????????.c2lnbmF0dXJlc2lnbmF0dXJl", "", ""},
		{"another prefix", "x" + staticToken(`{"u":"`+u+`"}`), "", ""},
		{"no signature", strings.Join(strings.SplitAfter(staticToken(`{"u":"`+u+`"}`), ".")[:2], ""), "", ""},
		{"four parts", staticToken(`{"u":"`+u+`"}`) + ".x", "", ""},
		{"opaque", "0123456789abcdef0123456789abcdef", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k, err := ParseSigningKey(tt.key)
			if err != nil {
				t.Fatal(err)
			}
			if string(k.Bytes) != tt.key || k.WorkspaceID != tt.workspace || k.Host != tt.host {
				t.Errorf("workspace %q, host %q", k.WorkspaceID, k.Host)
			}
		})
	}
}

func TestParseSigningKeyRefuses(t *testing.T) {
	t.Parallel()
	const s = "Zxcvbnmasdfghjkl"
	for key, want := range map[string]string{
		"":                              "is empty",
		s:                               "shorter than 32", // the app of an open issue signed with "admin"
		s + s[:15]:                      "shorter than 32",
		"{env.TINYBIRD_" + s + s + "}":  "placeholder that was not filled in",
		"<your signing key" + s + s:     "placeholder that was not filled in",
		"${" + s + s + "}":              "placeholder that was not filled in",
		s + " " + s + s:                 "spaces",
		s + s + s + "\n":                "line breaks",
		"\t" + s + s:                    "spaces",
		s + s + "\x00":                  "characters that no token has",
		s + s + "é":                     "characters that no token has",
		strings.Repeat(s, 8<<10/16) + s: "longer than 8192",
	} {
		k, err := ParseSigningKey(key)
		if err == nil || k.Bytes != nil {
			t.Errorf("%q passes", key)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "signing_key") {
			t.Errorf("%q: error %q does not hold %q", key, err, want)
		}
		if strings.Contains(err.Error(), "xcvb") || strings.Contains(err.Error(), "env.") {
			t.Errorf("the error holds the key: %v", err)
		}
	}
	if _, err := ParseSigningKey(s + s); err != nil {
		t.Errorf("32 characters: %v", err)
	}
}

// P4: a signing key that ends up in a log, an error or a document prints as a note.
func TestP4SigningKeyDoesNotPrint(t *testing.T) {
	t.Parallel()
	k, err := ParseSigningKey(testKey)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	holder := struct {
		K *SigningKey
		V SigningKey
	}{&k, k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
		fmt.Fprintf(&out, verb+verb+verb+"\n", k, &k, holder)
	}
	if err := json.NewEncoder(&out).Encode(holder); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", k, "pointer", &k, "holder", holder)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", k, "pointer", &k, "holder", holder)
	fmt.Fprint(&out, fmt.Errorf("wrapped: %v", k))
	text := out.String()
	for _, leak := range []string{
		"p.ey", "eyJ1", "c2ln", fmt.Sprintf("%x", testKey)[:16], fmt.Sprintf("%v", []byte(testKey))[1:20],
		base64.StdEncoding.EncodeToString([]byte(testKey))[:16],
	} {
		if strings.Contains(text, leak) {
			t.Errorf("%q is printed in:\n%s", leak, text)
		}
	}
}

func TestCheckWorkspaceID(t *testing.T) {
	t.Parallel()
	for _, ok := range []string{testWorkspace, strings.ToUpper(testWorkspace)} {
		if err := CheckWorkspaceID(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "x", testWorkspace + "0", testWorkspace[1:], "g" + testWorkspace[1:], strings.ReplaceAll(testWorkspace, "-", "0"),
		"{" + testWorkspace[1:35] + "}",
	} {
		if CheckWorkspaceID(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func FuzzSigningKey(f *testing.F) {
	for _, seed := range []string{
		"", testKey, staticToken(`{"u":"` + testWorkspace + `","host":"local"}`), "admin", "{env.X}", "p..", "p.e30.x",
		staticToken(`{"u":1}`), staticToken(`[]`), staticToken(`null`), strings.Repeat("a", 32), strings.Repeat(" ", 40),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		k, err := ParseSigningKey(key)
		if err != nil {
			// Eight characters of the key in a row would be no accident.
			for i := 0; i+8 <= len(key) && i < 100; i++ {
				if part := key[i : i+8]; strings.Contains(err.Error(), part) && !strings.Contains(allKeyErrors, part) {
					t.Fatalf("the error %q holds %q of the key", err, part)
				}
			}
			if k.Bytes != nil || k.WorkspaceID != "" || k.Host != "" {
				t.Fatal("a refused key says something")
			}
			return
		}
		if string(k.Bytes) != key || len(key) < minSecret || len(key) > maxSecret || strings.ContainsAny(key, "{}<> \t\r\n\x00") {
			t.Fatalf("%q passes", key)
		}
		if k.WorkspaceID != "" && CheckWorkspaceID(k.WorkspaceID) != nil {
			t.Fatalf("workspace %q", k.WorkspaceID)
		}
		if strings.ContainsAny(k.Host, "/:@ \n") {
			t.Fatalf("host %q", k.Host)
		}
		if text := fmt.Sprintf("%v %+v %#v %s %x", k, &k, k, k, k); strings.ReplaceAll(strings.ReplaceAll(text, redacted, ""), " ", "") != "" {
			t.Fatalf("printed as %q", text)
		}
	})
}

// allKeyErrors are the texts of all errors about keys, which a key may happen to share words with.
var allKeyErrors = func() string {
	var b strings.Builder
	for _, key := range []string{"", "a", "{", " ", strings.Repeat("a", maxSecret+1)} {
		fmt.Fprintln(&b, checkSecret(key))
	}
	return b.String()
}()
