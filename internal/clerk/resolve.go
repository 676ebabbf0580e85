package clerk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
)

const (
	// maxHandshake is the longest handshake token that is read: it holds the session token twice.
	maxHandshake = 32 << 10
	// maxDirectives is how many cookies a handshake can set. Clerk sends less than ten.
	maxDirectives = 32
	// developmentSkew is forgiven to the clock of a developer's machine, once.
	developmentSkew = 24 * time.Hour
)

var (
	errForeign    = errors.New("it sets a cookie that is not one of Clerk's for this instance; the cookie was left out")
	errDirectives = fmt.Errorf("it sets more than %d cookies", maxDirectives)
	errAway       = errors.New("no answer from Clerk's Backend API")
	errHandshake  = errors.New("a handshake with Clerk was not accepted")
)

// resolve takes what a browser brings back from a handshake: the cookies to set, and with them the session. A
// handshake that cannot be accepted counts for nothing, and the browser's own cookies decide; only the notice tells. One that could not be
// judged, because Clerk or its keys are away, leaves that in r.unjudged: it counts if the own cookies are of no session.
func (s *Site) resolve(r *visit, c *session) (d decision, found bool) {
	if !s.handshake {
		return d, false
	}
	directives, f := s.bringsBack(r)
	if f == nil && directives == nil {
		return d, false
	}
	if f == nil {
		if d, f = s.adopt(r, c, directives); f == nil {
			return d, true
		}
	}
	if f.status == http.StatusServiceUnavailable {
		r.unjudged = f
	}
	d.notice = fmt.Errorf("%w: %w", errHandshake, errors.Join(f, f.cause))
	return d, false
}

// bringsBack returns the Set-Cookie fields of a handshake, nil if there is none. In production it can only come in a
// cookie and only with a document: a link, or a script on another site, must not bring one.
func (s *Site) bringsBack(r *visit) ([]string, *failure) {
	document := IsDocument(r.Request)
	if !document && !s.v.instance.Development {
		return nil, nil
	}
	plain := &s.v.cookies(r).plain
	nonce, token := plain[cookieNonce], plain[cookieHandshake]
	if s.v.instance.Development {
		if fromQuery := queryValue(r.at.RawQuery, handshakeNonce); fromQuery != "" {
			nonce = fromQuery
		}
		if fromQuery := queryValue(r.at.RawQuery, handshakeToken); fromQuery != "" {
			token = fromQuery
		}
	}
	switch {
	case nonce != "" && document && s.backend != nil:
		return s.redeem(r.Context(), nonce)
	case token != "":
		return s.readHandshake(r.Context(), token)
	default:
		return nil, nil
	}
}

// redeem asks Clerk what a nonce stands for.
func (s *Site) redeem(ctx context.Context, nonce string) ([]string, *failure) {
	got := s.exchanges.do(ctx, exchangeKey("nonce", nonce), "", func(ctx context.Context) exchanged {
		list, err := s.backend.HandshakePayload(ctx, nonce)
		if list == nil {
			list = []string{}
		}
		return exchanged{cookies: list, err: err}
	})
	switch {
	case got.err == nil:
		return got.cookies, nil
	case isAway(got.err):
		return nil, failAway.because(fmt.Errorf("%w: %w", errAway, got.err))
	default:
		return nil, failMalformed.because(got.err)
	}
}

// isAway reports whether Clerk did not answer, or not because of what the browser sent. Clerk's own refusals have a code (an answer without one
// is that of something in between), and those of some are about who asks.
func isAway(err error) bool {
	if errors.Is(err, errOften) {
		return false
	}
	e, ok := errors.AsType[*bapi.Error](err)
	if !ok || e.Status < http.StatusBadRequest || e.Status >= http.StatusInternalServerError || e.Code == "" {
		return true
	}
	return e.Status == http.StatusPaymentRequired || e.Status == http.StatusTooManyRequests || slices.Contains(ownFaults, e.Code)
}

// ownFaults are how Clerk refuses the secret key, which is the operator's to mend.
var ownFaults = []string{"clerk_key_invalid", "authentication_invalid", "authorization_invalid"}

// readHandshake verifies a handshake token: its signature by the instance's key, and that it is not a token of another
// kind. Its dates do not matter, as they do not for the SDK: the session inside has its own.
func (s *Site) readHandshake(ctx context.Context, token string) ([]string, *failure) {
	if len(token) > maxHandshake {
		return nil, failTooLarge
	}
	p, err := parse(token)
	if err != nil {
		return nil, failMalformed.because(err)
	}
	if p.otherKind() {
		return nil, failType
	}
	signed, f := withKey(ctx, s.issuer, p, func(k signer) (claims, *failure) { return p.open(k) })
	if f != nil {
		return nil, f
	}
	list, _ := signed["handshake"].([]any)
	directives := []string{}
	for _, one := range list {
		if text, ok := one.(string); ok {
			directives = append(directives, text)
		}
	}
	return directives, nil
}

// adopt judges the session in the directives as if the browser had sent it.
func (s *Site) adopt(r *visit, c *session, directives []string) (decision, *failure) {
	kept, token, notice := s.accept(directives)
	if errors.Is(notice, errDirectives) {
		return decision{}, failMalformed.because(notice)
	}
	d := decision{token: token, cookies: kept, notice: notice}
	if s.v.instance.Development && r.at.Host != "" {
		d.location = without(r.at, handshakeToken, handshakeNonce, "__clerk_help", devBrowser)
	}
	if token == "" {
		d.failure, d.reason = failNoToken, reasonTokenMissing
		return d, nil
	}
	inside := s.v.candidate(token)
	id, f := s.v.judge(r.Context(), inside)
	if f != nil && s.v.instance.Development && f.isOfTime() {
		id, f = s.v.judgeSkewed(r.Context(), inside, developmentSkew)
	}
	switch f {
	case nil:
		d.state, d.identity = signedIn, id
		d.replaced = s.replaced(r, c, id)
		return d, nil
	case failPend:
		d.failure, d.reason = f, f.reason
		return d, nil
	default:
		return decision{}, f
	}
}

// replaced is the user of the session that the browser had, if it was a valid one of somebody else.
func (s *Site) replaced(r *visit, c *session, id *Identity) *Identity {
	if c.token == "" || c.clientUAT == 0 {
		return nil
	}
	before, f := s.v.judge(r.Context(), c.candidate)
	if f != nil || before.UserID == id.UserID {
		return nil
	}
	return before
}

// accept picks the directives for Clerk's own cookies of this instance, and the token of the session from the last one
// that has it. It never changes a directive.
func (s *Site) accept(directives []string) (kept []string, token string, notice error) {
	if len(directives) > maxDirectives {
		return nil, "", errDirectives
	}
	for _, text := range directives {
		pair, _, _ := strings.Cut(text, ";")
		name, value, _ := strings.Cut(pair, "=")
		i := s.v.instance.cookie(name)
		if i < 0 || !isFieldValue(text) {
			notice = errForeign
			continue
		}
		kept = append(kept, text)
		if i == cookieSession {
			token = value
		}
	}
	return kept, token, notice
}

// cookie is which of Clerk's cookies has the name, plain or with the instance's suffix; -1 for none.
func (i Instance) cookie(name string) int {
	if bare, own := strings.CutSuffix(name, "_"+i.CookieSuffix); own && i.CookieSuffix != "" {
		name = bare
	}
	return slices.Index(cookieNames[:], name)
}

// isFieldValue reports whether the text can be the value of a header field as it is.
func isFieldValue(text string) bool {
	for _, c := range []byte(text) {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// judgeSkewed is judge with another idea of how far the clocks may differ. Nothing of it is remembered.
func (v *Verifier) judgeSkewed(ctx context.Context, c candidate, skew time.Duration) (*Identity, *failure) {
	i := v.choose(c.parsed.claims)
	return withKey(ctx, i, c.parsed, func(k signer) (*Identity, *failure) {
		signed, f := c.parsed.open(k)
		if f != nil {
			return nil, f
		}
		rules := v.rules
		rules.skew = skew
		if f := rules.check(signed, i.url, v.now()); f != nil {
			return nil, f
		}
		if f := v.checkSession(c.parsed, signed); f != nil {
			return nil, f
		}
		return newIdentity(signed), nil
	})
}
