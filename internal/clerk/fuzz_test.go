package clerk

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
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
			_ = headerFault(p.header)
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

// FuzzTemplate holds that nothing but a token that the key signed is a template's, and that what such a token says of itself
// decides about no key: a session's token is never one.
func FuzzTemplate(f *testing.F) {
	key := []byte(strings.Repeat("k", 64))
	mac := func(header, claims any) string {
		input := segment(f, header) + "." + segment(f, claims)
		sig, err := jwt.SigningMethodHS256.Sign(input, key)
		if err != nil {
			f.Fatal(err)
		}
		return input + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
	good := mac(object{"alg": "HS256", "typ": "JWT"}, testClaims(nil))
	f.Add(good)
	f.Add(mac(object{"alg": "HS256"}, `{"sub":"user_1","sub":"user_2"}`))
	f.Add(mac(object{"alg": "RS256"}, testClaims(nil)))
	f.Add(mac(object{"alg": "HS256", "crit": []string{"exp"}}, testClaims(nil)))
	f.Add(mac(object{"alg": "HS256"}, testClaims(object{"iss": "https://elsewhere.example"})))
	f.Add(sign(f, keyA(), testHeader(object{"alg": "HS256"}), testClaims(nil)))
	f.Add(goodToken(f))
	f.Add(strings.Replace(good, ".", "..", 1))
	v := newVerifier(f, Config{PublishableKey: testKey})
	f.Fuzz(func(t *testing.T, token string) {
		r := request(t, "/", http.Header{"Authorization": {"Bearer " + token}})
		id, claims, err := v.Template(r, key)
		if err != nil && (id != nil || claims != nil) {
			t.Fatalf("%q: refused, with claims", token)
		}
		if claims == nil {
			return
		}
		if shown, _, _ := strings.Cut(token, " "); strings.TrimRight(shown, "\t") != good || id.UserID != "user_1" || id.Claims != nil {
			t.Fatalf("accepted %q", token)
		}
	})
}

// FuzzCookies compares with a reading of the same rules that is as plain as possible.
func FuzzCookies(f *testing.F) {
	f.Add("a=1; __session=2", testSuffix[1:])
	f.Add(`__session="x"; __session=y; __session_x=z`, "x")
	f.Add("x=1%3B%20__session%3D2; __refresh=%zz", "")
	f.Add(" \t__client_uat = %c3%a9;;=;__client_uat", "")
	f.Add("__refresh__refresh=1", "_refresh")
	f.Fuzz(func(t *testing.T, header, suffix string) {
		if len(header) > maxCookies {
			return
		}
		want := func(name string) string {
			for pair := range strings.SplitSeq(header, ";") {
				key, value, ok := strings.Cut(pair, "=")
				if !ok || strings.Trim(key, " \t") != name {
					continue
				}
				value = strings.Trim(value, " \t")
				if decoded, err := url.PathUnescape(value); err == nil && utf8.ValidString(decoded) && strings.Contains(value, "%") {
					return decoded
				}
				return value
			}
			return ""
		}
		got := readCookies(http.Header{"Cookie": {header}}, suffix)
		for i, name := range cookieNames {
			if got.plain[i] != want(name) {
				t.Fatalf("%s is %q, want %q", name, got.plain[i], want(name))
			}
			if own := name + "_" + suffix; suffix != "" && got.own[i] != want(own) {
				t.Fatalf("%s is %q, want %q", own, got.own[i], want(own))
			}
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
	f.Add(` [ {"a":[]} , -0.5e+1 , "\u00e9\n\ud800" , true ]`)
	f.Add("{\"\\u0061\" :\t{ } ,\"b\":[ [ ] ,{\"\":\"]}\\\"\"}]\r\n}")
	f.Add(`7`)
	f.Add(``)
	f.Fuzz(func(t *testing.T, doc string) {
		got, err := decodeObject([]byte(doc))
		if err != nil {
			return
		}
		d := json.NewDecoder(strings.NewReader(doc))
		d.UseNumber()
		var want any
		if d.Decode(&want) != nil || !json.Valid([]byte(doc)) {
			t.Fatal("accepted what is no JSON")
		}
		if object, ok := want.(map[string]any); ok && !reflect.DeepEqual(got, object) || !ok && got != nil {
			t.Fatalf("read as %v, want %v", got, want)
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

// FuzzScan compares with the strict decoder: what that accepts is accepted and read the same, so that no token
// is judged by one reading and used by another.
func FuzzScan(f *testing.F) {
	f.Add(`{"iss":"https://clerk.example.com","sub":"user_1","iat":1767225600,"exp":1.5e9,"o":{"iss":"x"}}`)
	f.Add(` { "\u0069ss" : [ ] , "i\u0073\u0053" : { "iss" : "]}\"" } , "exp" : null } `)
	f.Add(`{"iss":1,"i\u0073s":2}`)
	f.Add(`{"sub\n":true,"sub":"\ud800\\","":false,"iat":-0}`)
	f.Add("{\"iss\":{},\"sub\":[[{}],\"[\"],\"iat\"\t:\r\ntrue}")
	f.Add(strings.Repeat("[", 65) + strings.Repeat("]", 65))
	f.Add(`[{"iss":1}]`)
	f.Add(`"iss"`)
	f.Add(`{"iss`)
	f.Add("")
	f.Fuzz(func(t *testing.T, doc string) {
		d, err := newDocument([]byte(doc))
		var found map[string]any
		if err == nil {
			found, err = d.scan(claimNames)
		}
		strict, strictErr := decodeObject([]byte(doc))
		if strictErr != nil {
			return
		}
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		for _, name := range claimNames {
			want, there := strict[name]
			switch want.(type) {
			case map[string]any, []any:
				want = composite{}
			}
			if got, ok := found[name]; ok != there || got != want {
				t.Fatalf("%s is %#v (%v), want %#v (%v)", name, got, ok, want, there)
			}
		}
	})
}
