package clerk

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzParseToken: whatever is accepted has one spelling, and nobody but the holder of the key makes an
// identity.
func FuzzParseToken(f *testing.F) {
	good := goodToken(f)
	f.Add(good)
	f.Add(sign(f, keyA(), testHeader(object{"kid": object{"a": 1}}), `{"sub":"a","sub":"b"}`))
	f.Add(sign(f, keyB(), testHeader(nil), testClaims(object{"exp": -1})))
	f.Add("..")
	f.Add("bnVsbA.bnVsbA.AA")
	f.Add(strings.Repeat(".", 1000))
	f.Add(good + "==")
	f.Add("W10.e30.")
	v := newVerifier(f, Config{PublishableKey: testKey})
	f.Fuzz(func(t *testing.T, token string) {
		p, err := parse(token)
		if err == nil {
			segments := strings.Split(token, ".")
			if len(segments) != 3 {
				t.Fatalf("%d segments", len(segments))
			}
			for _, s := range segments {
				raw, err := base64.RawURLEncoding.DecodeString(s)
				if err != nil || base64.RawURLEncoding.EncodeToString(raw) != s {
					t.Fatalf("%q has another spelling", s)
				}
			}
			_ = p.otherKind()
			_ = p.headerFault()
			newIdentity(p.claims).Lookup("clerk.claims.a.b")
		}
		if _, err := v.Verify(t.Context(), token); err == nil && token != good {
			t.Fatalf("accepted %q", token)
		}
		uat := "; __client_uat=1; __client_uat" + testSuffix + "=1; __session" + testSuffix + "="
		r := request(t, "/", http.Header{"Cookie": {"__session=" + token + uat + token}})
		if id, err := v.Authenticate(r); err == nil && id.UserID != "user_1" {
			t.Fatalf("accepted %q", token)
		}
	})
}

// FuzzCookies compares with a reading of the same rules that is as plain as possible.
func FuzzCookies(f *testing.F) {
	f.Add("a=1; b=2", "a")
	f.Add(`__session="x"; __session=y`, "__session")
	f.Add("x=1%3B%20a%3D2; a=%zz", "a")
	f.Add(" \ta = %c3%a9;;=;a", "a")
	f.Fuzz(func(t *testing.T, header, name string) {
		want := ""
		pairs := strings.Split(header, ";")
		i := slices.IndexFunc(pairs, func(p string) bool {
			key, _, ok := strings.Cut(p, "=")
			return ok && strings.Trim(key, " \t") == name
		})
		if i >= 0 {
			_, value, _ := strings.Cut(pairs[i], "=")
			want = strings.Trim(value, " \t")
			if decoded, err := url.PathUnescape(want); err == nil && utf8.ValidString(decoded) {
				want = decoded
			}
			if !strings.Contains(strings.Trim(value, " \t"), "%") {
				want = strings.Trim(value, " \t")
			}
		}
		if got := cookie(http.Header{"Cookie": {header}}, name); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
		_ = parseClientUAT(header)
	})
}

// FuzzPublishableKey: an accepted key names a host that a URL can be built from, and none other.
func FuzzPublishableKey(f *testing.F) {
	f.Add(testKey)
	f.Add(testDevKey)
	f.Add("pk_live_YS5iJGMuZCQ=")
	f.Add("pk_live_!!!!")
	f.Add("pk_test_YS5iOjgwJA")
	f.Fuzz(func(t *testing.T, key string) {
		i, err := ParsePublishableKey(key)
		if err != nil {
			return
		}
		u, err := url.Parse(i.JWKSURL)
		if err != nil || u.Host != i.FrontendAPI || u.Path != "/.well-known/jwks.json" || u.User != nil || !strings.Contains(u.Host, ".") {
			t.Fatalf("%q: %+v, %v", key, i, err)
		}
		if len(i.CookieSuffix) != 8 || checkIssuer(i.Issuer) != nil || i.Development == strings.HasPrefix(key, "pk_live_") {
			t.Fatalf("%q: %+v", key, i)
		}
	})
}

// FuzzPermissions: nothing is granted that either reading of the token would refuse, and only of its own words.
func FuzzPermissions(f *testing.F) {
	f.Add("o:a,o:b", "read,manage", "1,3")
	f.Add("u:x,o:a", "read,manage", "0,3")
	f.Add("z:a,uo:b,c", "p, q", " 1, 36893488147419103233")
	f.Add("o:a", "read", "0x3")
	f.Fuzz(func(t *testing.T, fea, per, fpm string) {
		features, names := splitList(fea), splitList(per)
		for _, p := range permissions(fea, per, fpm) {
			granted := slices.ContainsFunc(features, func(f string) bool {
				scope, feature, ok := strings.Cut(f, ":")
				return ok && feature != "" && strings.Contains(scope, "o") && slices.ContainsFunc(names, func(name string) bool {
					return name != "" && p == "org:"+feature+":"+name
				})
			})
			if !granted {
				t.Fatalf("granted %q", p)
			}
		}
		if !strings.ContainsAny(fpm, "123456789") && len(permissions(fea, per, fpm)) > 0 {
			t.Fatal("granted without a bit")
		}
	})
}

// FuzzDecodeObject compares with encoding/json, which is laxer: what is accepted here is read the same there.
func FuzzDecodeObject(f *testing.F) {
	f.Add(`{"a":1,"b":[1,{"c":null}],"d":"x"}`)
	f.Add(`{"a":1,"a":2}`)
	f.Add(`null`)
	f.Add(`{"a":1e400}{}`)
	f.Fuzz(func(t *testing.T, doc string) {
		got, err := decodeObject([]byte(doc))
		if err != nil {
			return
		}
		if !json.Valid([]byte(doc)) {
			t.Fatal("accepted what is no JSON")
		}
		c := claims(got)
		for name := range c {
			if at, ok, f := c.seconds(name); ok && (f != nil || at > maxSeconds || at < -maxSeconds) {
				t.Fatalf("%s is %d", name, at)
			}
		}
		r := rules{maxLifetime: time.Hour}
		_ = r.check(c, testIssuer, testNow)
	})
}
