package inspect

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// secretOf is the part of a token without which it is worth nothing: the signature, or else all but what tells its kind.
func secretOf(token string) string {
	if parts := strings.Split(token, "."); len(parts) == 3 {
		return parts[2]
	}
	for _, prefix := range []string{"sk_live_", "sk_test_", "sk_", "whsec_", "mt_", "oat_", "ak_"} {
		if rest, ok := strings.CutPrefix(token, prefix); ok {
			return rest
		}
	}
	if strings.HasPrefix(token, "pk_") {
		return "" // public
	}
	return token
}

// FuzzExplain holds for every input that there is an explanation or an error, and that neither shows the input's secret.
func FuzzExplain(f *testing.F) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	seg := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for _, header := range []string{`{"alg":"RS256","kid":"ins_1","typ":"JWT"}`, `{"alg":"HS256"}`, `{"alg":"none"}`, `{"typ":"at+jwt"}`, `[]`, `{}`} {
		for _, claims := range []string{
			`{"sub":"user_1","sid":"sess_1","v":2,"o":{"id":"org_1","rol":"admin"},"fea":"o:a,u:b","exp":1}`,
			`{"sub":"user_1","sid":"sess_1","org_id":"org_1","org_permissions":["a",1],"exp":1e400,"nbf":"x"}`,
			`{"workspace_id":"w","name":"n","limits":{"rps":5},"scopes":[{"type":"PIPES:READ","resource":"p","fixed_params":{"a":[1,{"b":null}]}},7]}`,
			`{"sub":"user_1","sid":"sess_1","echo":"` + seg("signature-signature") + `"}`, `{"sub":"mch_1"}`, `{"handshake":[]}`, `{"a":"` + seg("signature-signature") + `"}`, `null`,
		} {
			f.Add(seg(header) + "." + seg(claims) + "." + seg("signature-signature"))
		}
	}
	for _, s := range []string{
		"", "Bearer x", "p." + seg(`{"u":"x","host":"local"}`) + ".sigsigsigsig", "p.e30.", "sk_live_abcdefghijkl", "pk_test_" + seg("clerk.example.com$"), "pk_live_!",
		"mt_abcdefghijkl", "oat_abcdefghijkl", "ak_abcdefghijkl", "whsec_abcdefghijkl", "a.b.c", "....", "eyJ.eyJ.eyJ", "Cookie: a=b; __session_x=eyJ", "'quoted'", "https://x/?token=abcdefghijkl",
	} {
		f.Add(s)
	}
	k := Known{
		Configured: true, Now: time.Unix(1_800_000_000, 0), Keys: []Key{{ID: "ins_1", Public: &key.PublicKey, From: "here"}},
		Secrets: []Secret{{Value: "p.configured-signing-key-0123456789", Name: "the signing key", Signs: true}},
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Explain(text, k)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := r.WriteText(&out); err != nil {
			t.Fatal(err)
		}
		doc, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == "" || r.What == "" {
			t.Errorf("no kind: %s", doc)
		}
		for _, written := range []string{out.String(), string(doc)} {
			if strings.Contains(written, "configured-signing-key") {
				t.Errorf("a secret of the config is shown")
			}
			if secret := secretOf(Trim(text)); len(secret) >= 12 && !inWords(secret) && strings.Contains(written, secret) {
				t.Errorf("the secret is shown: %q in\n%s", secret, written)
			}
		}
	})
}

// inWords reports whether a text is one that explanations of anything may hold, such as "claims of version": then it is no secret.
func inWords(secret string) bool {
	return strings.ContainsAny(secret, " ,:'") || strings.Trim(secret, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") == ""
}
