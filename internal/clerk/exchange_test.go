package clerk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
)

// fakeBackend is Clerk's Backend API: it gives cookies, or an error.
type fakeBackend struct {
	cookies []string
	err     error
	takes   time.Duration
	calls   atomic.Int64
	refresh string // the only refresh token that is good; empty: all are
}

func (b *fakeBackend) HandshakePayload(context.Context, string) ([]string, error) {
	b.calls.Add(1)
	time.Sleep(b.takes) //nolint:forbidigo // the bubble's clock, which nothing waits for
	return b.cookies, b.err
}

func (b *fakeBackend) RefreshSession(ctx context.Context, r bapi.Refresh) ([]string, error) {
	if b.refresh != "" && r.RefreshToken != b.refresh {
		b.calls.Add(1)
		return nil, &bapi.Error{Status: http.StatusUnauthorized, Code: "refresh_token_invalid"}
	}
	return b.HandshakePayload(ctx, "")
}

// newTestSite returns a site of a production instance whose keys are at hand. Its clock stands still at testNow.
func newTestSite(t *testing.T, b *fakeBackend, now func() time.Time) *Site {
	t.Helper()
	v := newVerifier(t, Config{
		PublishableKey: testKey, Now: now,
		Issuers: []Issuer{{URL: testIssuer, Keys: newFakeKeys(t, testKid, &keyA().PublicKey)}},
	})
	s, err := NewSite(v, SiteConfig{Handshake: true, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func standing() time.Time { return testNow }

// visitWith is a request of a browser with these cookies, for a page or for something else.
func visitWith(t *testing.T, s *Site, dest string, cookies ...string) *Outcome {
	t.Helper()
	r := request(t, "https://app.example.com/", http.Header{"Cookie": {strings.Join(cookies, "; ")}, "Sec-Fetch-Dest": {dest}})
	return s.Authenticate(r, PublicURL(r, false))
}

// Attack: a handshake that is planted in a cookie takes effect by an image or a script of another site, which nobody sees.
func TestAttackHandshakeNeedsAPage(t *testing.T) {
	t.Parallel()
	cookie := "__session=" + goodToken(t)
	handshake := sign(t, keyA(), testHeader(nil), object{"handshake": []string{cookie}})
	for name, planted := range map[string]string{"token": handshakeToken + "=" + handshake, "nonce": handshakeNonce + "=n1"} {
		for _, dest := range []string{"empty", "image", "script", "Document", "object", "embed"} {
			b := &fakeBackend{cookies: []string{cookie}}
			o := visitWith(t, newTestSite(t, b, standing), dest, planted)
			if o.Status != SignedOut || len(o.Cookies) > 0 || b.calls.Load() != 0 {
				t.Errorf("%s for %s: %s with %d cookies, Clerk was asked %d times", name, dest, o.Status, len(o.Cookies), b.calls.Load())
			}
		}
		if o := visitWith(t, newTestSite(t, &fakeBackend{cookies: []string{cookie}}, standing), "document", planted); o.Status != SignedIn {
			t.Errorf("%s for a page: %s %s", name, o.Status, o.Reason)
		}
	}
}

// Attack: a cookie of a handshake that is more than one field of the answer's header, or another site's cookie.
func TestAttackDirectives(t *testing.T) {
	t.Parallel()
	good := "__session=" + goodToken(t) + "; Path=/"
	for _, bad := range []string{
		"__client_uat=1\r\nX-Evil: 1", "__client_uat=1\nX: 1", "__client_uat=\x00", "__client_uat=\x7f", "__client_uat=é",
		"session=1", "__Session=1", "__session_other=1", "__client=1", " __session=1", "",
	} {
		o := visitWith(t, newTestSite(t, &fakeBackend{cookies: []string{good, bad}}, standing), "document", handshakeNonce+"=n1")
		if o.Status != SignedIn || len(o.Cookies) != 1 || o.Cookies[0] != good || o.Notice == nil {
			t.Errorf("%q: %s with %q, %v", bad, o.Status, o.Cookies, o.Notice)
		}
	}
}

// Attack: one user's expired session is exchanged for the session of another, such as by mixing up answers.
func TestAttackRefreshGivesAnotherUser(t *testing.T) {
	t.Parallel()
	now := testNow.Unix()
	expired := sign(t, keyA(), testHeader(nil), testClaims(object{"iat": now - 120, "nbf": now - 130, "exp": now - 60}))
	cookies := []string{"__session=" + expired, "__client_uat=1", "__refresh" + testSuffix + "=r1"}
	for user, want := range map[string]string{"user_1": SignedIn, "user_2": SignedOut} {
		fresh := sign(t, keyA(), testHeader(nil), testClaims(object{"sub": user}))
		o := visitWith(t, newTestSite(t, &fakeBackend{cookies: []string{"__session=" + fresh}}, standing), "empty", cookies...)
		if o.Status != want || want == SignedOut && (len(o.Cookies) > 0 || o.Refusal.Code != apierr.TokenExpired) {
			t.Errorf("%s: %s, %q, %v", user, o.Status, o.Cookies, o.Refusal)
		}
	}
}

// Attack: made-up nonces, many at a time, use up what Clerk answers for the whole instance, so that the application's own backend
// gets nothing, or keep a Clerk that is in trouble there. They must not be asked about faster than what is promised, however they come.
func TestAttackFloodOfNonces(t *testing.T) {
	t.Parallel()
	for _, refusal := range []*bapi.Error{
		{Status: http.StatusNotFound, Code: "resource_not_found"},
		{Status: http.StatusTooManyRequests, Code: "too_many_requests"}, // which going on would only prolong
		{Status: http.StatusUnauthorized, Code: "clerk_key_invalid"},
		{Status: http.StatusInternalServerError},
		{Status: http.StatusServiceUnavailable},
		{Status: http.StatusFound},
		{Err: errors.New("connection refused")},
	} {
		t.Run(fmt.Sprint(refusal.Status), func(t *testing.T) { t.Parallel(); floodOfNonces(t, refusal) })
	}
}

func floodOfNonces(t *testing.T, refusal *bapi.Error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{err: refusal, takes: 100 * time.Millisecond}
		s := newTestSite(t, b, time.Now)
		start := time.Now()
		var all sync.WaitGroup
		for i := range 400 {
			all.Go(func() {
				for n := 0; time.Since(start) < 10*time.Second; n++ {
					nonce := fmt.Sprintf("n%d.%d", i, n)
					s.exchanges.do(t.Context(), exchangeKey("nonce", nonce), "", func(ctx context.Context) exchanged {
						list, err := b.HandshakePayload(ctx, nonce)
						return exchanged{cookies: list, err: err}
					})
					time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the bubble's clock
				}
			})
		}
		all.Wait()
		took := time.Since(start)
		if most := refusedBurst + int64(refusedRate*took.Seconds()) + 1; b.calls.Load() > most || b.calls.Load() < refusedBurst {
			t.Errorf("Clerk was asked %d times in %v, want at most %d", b.calls.Load(), took, most)
		}
		s.Close()
	})
}

// TestManyNoncesThatAreGood: a crowd that comes back from Clerk all at once is let in, each.
func TestManyNoncesThatAreGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{cookies: []string{"__client_uat=0"}, takes: 100 * time.Millisecond}
		s := newTestSite(t, b, time.Now)
		var all sync.WaitGroup
		for i := range 800 {
			all.Go(func() {
				list, f := s.redeem(t.Context(), strconv.Itoa(i))
				if f != nil || len(list) != 1 {
					t.Errorf("%d: %q, %v", i, list, f)
				}
			})
		}
		all.Wait()
		s.Close()
	})
}

// A secret key that Clerk refuses is the operator's to mend: it says nothing about the browser's session, also when Clerk is not asked
// any more.
func TestSecretKeyIsRefused(t *testing.T) {
	t.Parallel()
	now := testNow.Unix()
	expired := sign(t, keyA(), testHeader(nil), testClaims(object{"iat": now - 120, "nbf": now - 130, "exp": now - 60}))
	for _, code := range []string{"clerk_key_invalid", "authentication_invalid"} {
		b := &fakeBackend{err: &bapi.Error{Status: http.StatusUnauthorized, Code: code}}
		s := newTestSite(t, b, standing)
		for n := range 2 * refusedBurst {
			refresh := []string{"__session=" + expired, "__client_uat=1", "__refresh" + testSuffix + "=r" + strconv.Itoa(n)}
			o := visitWith(t, s, "empty", refresh...)
			if o.Status != SignedOut || o.Refusal.Code != apierr.ClerkUnavailable || o.Notice == nil || b.calls.Load() != int64(min(n+1, refusedBurst)) {
				t.Fatalf("%s, %d: %s, %v, %v, Clerk was asked %d times", code, n, o.Status, o.Refusal, o.Notice, b.calls.Load())
			}
		}
		if o := visitWith(t, s, "document", handshakeNonce+"=n1"); o.Refusal == nil || o.Refusal.Code != apierr.ClerkUnavailable {
			t.Errorf("%s for a nonce: %s, %v", code, o.Status, o.Refusal)
		}
	}
}

// Attack: a link to a development instance under a host of the site's wildcard that is none for the edge, so that the redirect which
// takes the handshake out of the address leads to the first part of its path.
func TestAttackHandshakeUnderAnOddHost(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, Config{
		PublishableKey: strings.Replace(testKey, "pk_live_", "pk_test_", 1), Now: standing,
		Issuers: []Issuer{{URL: testIssuer, Keys: newFakeKeys(t, testKid, &keyA().PublicKey)}},
	})
	s, err := NewSite(v, SiteConfig{Handshake: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	brought := sign(t, keyA(), testHeader(nil), object{"handshake": []string{"__session=" + goodToken(t)}})
	for host, location := range map[string]string{
		"app.example.com": "https://app.example.com/evil.example/x", "a!b.example.com": "", "a,b.example.com": "", "a~b.example.com": "", "": "",
	} {
		for _, dest := range []string{"document", "empty"} {
			r := request(t, "https://app.example.com/evil.example/x?__clerk_handshake="+brought, http.Header{"Sec-Fetch-Dest": {dest}})
			r.Host = host
			if o := s.Authenticate(r, PublicURL(r, false)); o.Status != SignedIn || o.Location != location {
				t.Errorf("%q, %s: %s, sent to %q", host, dest, o.Status, o.Location)
			}
		}
	}
}

// Attack: a handshake of any size.
func TestAttackHugeHandshake(t *testing.T) {
	t.Parallel()
	cookie := "__session=" + goodToken(t)
	for more, signedIn := range map[int]bool{22 << 10: true, 24 << 10: false} {
		handshake := sign(t, keyA(), testHeader(nil), object{"handshake": []string{cookie}, "more": strings.Repeat("x", more)})
		if (len(handshake) <= maxHandshake) != signedIn {
			t.Fatalf("the handshake has %d bytes", len(handshake))
		}
		o := visitWith(t, newTestSite(t, &fakeBackend{}, standing), "document", handshakeToken+"="+handshake)
		if (o.Status == SignedIn) != signedIn || (o.Notice == nil) != signedIn {
			t.Errorf("%d bytes: %s, %v", len(handshake), o.Status, o.Notice)
		}
	}
}

// Attack: parts of two exchanges that are the same text when they are joined, so that one gets what the other was given.
func TestAttackJoinedPartsOfExchanges(t *testing.T) {
	t.Parallel()
	seen := map[digest][]string{}
	for _, parts := range [][]string{
		{"refresh", "token", "r1", "https://a.example", "true"},
		{"refresh", "token", "r1https://a.example", "", "true"},
		{"refresh", "tokenr1", "", "https://a.example", "true"},
		{"refreshtoken", "r1", "https://a.example", "true"},
		{"refresh", "token", "r1", "https://a.exampletrue", ""},
		{"refresh", "token", "r1", "https://a.example", "true", ""},
	} {
		key := exchangeKey(parts...)
		if other, twice := seen[key]; twice {
			t.Errorf("%q is taken for %q", parts, other)
		}
		seen[key] = parts
	}
}

// Attack: a user whose session has run out shows it again and again, each time at another address of the site (Caddy does not look at
// the port of Host), so that no exchange is the one that was made before. What Clerk answers for the whole instance would be used up by
// one user, and what is remembered of others' exchanges pushed out.
func TestAttackFloodOfRefreshes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{cookies: []string{"__client_uat=0"}, takes: 100 * time.Millisecond}
		s := newTestSite(t, b, time.Now)
		now := time.Now().Unix()
		expired := sign(t, keyA(), testHeader(nil), testClaims(object{"iat": now - 120, "nbf": now - 130, "exp": now - 60}))
		cookies := "__session=" + expired + "; __client_uat=1; __refresh" + testSuffix + "=r1"
		ask := func(host string) *Outcome {
			r := request(t, "https://"+host+"/", http.Header{"Cookie": {cookies}, "Sec-Fetch-Dest": {"empty"}})
			return s.Authenticate(r, PublicURL(r, false))
		}
		start := time.Now()
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				for n := range 4 {
					if o := ask(fmt.Sprintf("app.example.com:%d", 1000+4*i+n)); o.Refusal == nil || o.Refusal.Code != apierr.TokenExpired {
						t.Errorf("%s, %v", o.Status, o.Refusal)
					}
					time.Sleep(3 * time.Second) //nolint:forbidigo // the bubble's clock
				}
			})
		}
		all.Wait()
		if most := sessionBurst + maxAsking + int64(sessionRate*time.Since(start).Seconds()); b.calls.Load() > most || b.calls.Load() < sessionBurst {
			t.Errorf("Clerk was asked %d times in %v, want %d to %d", b.calls.Load(), time.Since(start), sessionBurst, most)
		}
		s.Close()
	})
}

// Attack: who has found an expired token of somebody's session, such as in a log, but no refresh token, shows it again and again, so that
// its owner's session is not renewed.
func TestAttackRefusedRefreshesOfAnothersSession(t *testing.T) {
	t.Parallel()
	now := testNow.Unix()
	expired := sign(t, keyA(), testHeader(nil), testClaims(object{"iat": now - 120, "nbf": now - 130, "exp": now - 60}))
	b := &fakeBackend{cookies: []string{"__session=" + goodToken(t)}, refresh: "r1"}
	s := newTestSite(t, b, standing)
	show := func(refresh string) *Outcome {
		return visitWith(t, s, "empty", "__session="+expired, "__client_uat=1", "__refresh"+testSuffix+"="+refresh)
	}
	for n := range int64(2 * sessionBurst) {
		if o := show(fmt.Sprintf("guess%d", n)); o.Status != SignedOut || b.calls.Load() != n+1 {
			t.Fatalf("%d: %s, Clerk was asked %d times", n, o.Status, b.calls.Load())
		}
	}
	if o := show("r1"); o.Status != SignedIn {
		t.Errorf("the owner: %s %s", o.Status, o.Reason)
	}
}

// TestManyWithOneExpiredSession: all that a page loads at once shows one session, which is renewed once for each site that it is shown to.
func TestManyWithOneExpiredSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{takes: 100 * time.Millisecond}
		s := newTestSite(t, b, time.Now)
		now := time.Now().Unix()
		claims := func(more object) string { return sign(t, keyA(), testHeader(nil), testClaims(more)) }
		expired := claims(object{"iat": now - 120, "nbf": now - 130, "exp": now - 60})
		b.cookies = []string{"__session=" + claims(object{"iat": now, "nbf": now - 10, "exp": now + 60})}
		var all sync.WaitGroup
		for i := range 400 {
			all.Go(func() {
				r := request(t, fmt.Sprintf("https://app%d.example.com/", i%5), http.Header{
					"Cookie": {"__session=" + expired + "; __client_uat=1; __refresh" + testSuffix + "=r1"}, "Sec-Fetch-Dest": {"empty"},
				})
				if o := s.Authenticate(r, PublicURL(r, false)); o.Status != SignedIn {
					t.Errorf("%s %s", o.Status, o.Reason)
				}
			})
		}
		all.Wait()
		if b.calls.Load() != 5 {
			t.Errorf("Clerk was asked %d times", b.calls.Load())
		}
		s.Close()
	})
}
