package clerk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
)

// The headers of a browser's request that Clerk is told when it refreshes a session: what its list of devices shows.
var refreshHeaders = []string{"User-Agent", "Accept-Language", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform"}

var errRefresh = errors.New("a session could not be refreshed")

// refresh exchanges an expired session token, whose signature is right, and the browser's refresh token for a new
// session token. Where that fails the reason says why, in the SDK's words, and a handshake is the next thing to try.
func (s *Site) refresh(r *visit, c candidate, refreshToken string) decision {
	d := out(signedOut, failExpired)
	expired, err := c.parsed.body.object()
	if err != nil {
		d.reason = "expired-session-token-decode-failed"
		return d
	}
	before := claims(expired)
	sid, _ := before.text("sid")
	if sid == "" {
		d.reason = "expired-session-token-missing-sid-claim"
		return d
	}
	suffixed := s.v.readSession(s.v.cookies(r)).suffixed
	ask := bapi.Refresh{
		SessionID: sid, ExpiredToken: c.raw, RefreshToken: refreshToken,
		Origin: origin(r.at), Suffixed: suffixed,
		Headers: map[string][]string{"x-forwarded-for": {s.clientIP(r.Request)}},
	}
	for _, name := range refreshHeaders {
		if values := r.Header.Values(name); len(values) > 0 {
			ask.Headers[strings.ToLower(name)] = values
		}
	}
	got := s.exchanges.do(r.Context(), exchangeKey("refresh", c.raw, refreshToken, ask.Origin, strconv.FormatBool(suffixed)), sid, func(ctx context.Context) exchanged {
		list, err := s.backend.RefreshSession(ctx, ask)
		return exchanged{cookies: list, err: err}
	})
	if got.err != nil {
		d.reason, d.notice = refreshReason(got.err), fmt.Errorf("%w: %w", errRefresh, got.err)
		if isAway(got.err) {
			d.failure = failAway.because(fmt.Errorf("%w: %w", errAway, got.err))
		} else {
			d.notice = nil // the browser's own doing, and frequent
		}
		return d
	}
	return s.refreshed(r, got.cookies, before)
}

// refreshed judges the session that came of a refresh. It has to be the one that was refreshed.
func (s *Site) refreshed(r *visit, directives []string, before claims) decision {
	d := out(signedOut, failExpired)
	if len(directives) == 0 {
		d.reason = "unexpected-sdk-error"
		return d
	}
	kept, token, notice := s.accept(directives)
	id, f := s.v.judge(r.Context(), s.v.candidate(token))
	if f != nil {
		d.reason, d.notice = "invalid-session-token", fmt.Errorf("%w: %w", errRefresh, f)
		if f.status == http.StatusServiceUnavailable { // the keys are away: that says nothing about the session
			d.failure, d.notice = f, nil
		}
		return d
	}
	if sub, _ := before.text("sub"); id.UserID != sub {
		d.reason, d.notice = "invalid-session-token", fmt.Errorf("%w: it came back with another user's", errRefresh)
		return d
	}
	return decision{state: signedIn, identity: id, token: token, cookies: kept, notice: notice}
}

func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

var errorCode = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

func refreshReason(err error) string {
	e, ok := errors.AsType[*bapi.Error](err)
	switch {
	case errors.Is(err, errOften):
		return "too-often"
	case !ok, e.Status == 0, e.Code == "unexpected_error":
		return "fetch-error"
	case errorCode.MatchString(e.Code):
		return e.Code
	default:
		return "unexpected-bapi-error"
	}
}

// exchanged is what Clerk gave for a credential that can be used once.
type exchanged struct {
	cookies []string
	err     error
}

const (
	maxExchanges = 2000
	// exchangeLife is how long an exchange is remembered: the requests of one page come within seconds, and all but
	// the first hold the old credential.
	exchangeLife = 30 * time.Second
	// awayLife is how long Clerk is not asked again about a credential after it could not be reached.
	awayLife = 2 * time.Second
)

// Credentials for which Clerk grants nothing cost no more than this: what it answers is limited for the whole instance, and the
// application's own backend asks it, too.
const (
	refusedRate  = 5 // a second
	refusedBurst = 50
	// maxAsking is how many credentials Clerk is asked about at a time. There are fewer than may be refused at once, so that
	// none waits for the others as long as nothing is refused.
	maxAsking = 32
	// askingWait is how long an exchange may take, with the wait for its turn, and turnWait how long that may be: Clerk must not be asked
	// for what there is no time left to hear.
	askingWait = 3 * time.Second
	turnWait   = 2500 * time.Millisecond
)

// One session costs no more than this, whatever is shown with it: each site and each of its expired tokens is an exchange of its own,
// and Clerk refuses none of them.
const (
	sessionRate  = 1 // a second
	sessionBurst = 10
)

var (
	errTooMany = errors.New("too many credentials were refused by Clerk just now, or it failed, so it is not asked about more")
	errCrowd   = errors.New("too many wait for Clerk's answers already")
	errOften   = errors.New("the session is renewed too often")
)

// exchanges makes each exchange once, however many requests ask for it, and remembers the outcome for a while.
type exchanges struct {
	now     func() time.Time
	flight  singleflight.Group
	done    *otter.Cache[digest, exchanged]
	refused *rate.Limiter
	asking  chan struct{} // holds one element for each question under way

	sessions *otter.Cache[digest, *rate.Limiter]
}

func newExchanges(now func() time.Time) (*exchanges, error) {
	done, err := otter.New(&otter.Options[digest, exchanged]{
		MaximumSize: maxExchanges,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[digest, exchanged]) time.Duration {
			if e.Value.err != nil && isAway(e.Value.err) {
				return awayLife
			}
			return exchangeLife
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("exchange cache: %w", err)
	}
	sessions, err := otter.New(&otter.Options[digest, *rate.Limiter]{
		MaximumSize:      maxExchanges,
		ExpiryCalculator: otter.ExpiryAccessing[digest, *rate.Limiter](exchangeLife), // after which it would be full again
	})
	if err != nil {
		return nil, fmt.Errorf("exchange cache: %w", err)
	}
	return &exchanges{
		now: now, done: done, refused: rate.NewLimiter(refusedRate, refusedBurst), asking: make(chan struct{}, maxAsking), sessions: sessions,
	}, nil
}

func (e *exchanges) close() {
	e.done.StopAllGoroutines()
	e.sessions.StopAllGoroutines()
}

// do makes the exchange, which is of a session if that is not empty. It goes on when ctx is cancelled: others may wait for it, and what
// Clerk has granted is not granted again.
func (e *exchanges) do(ctx context.Context, key digest, session string, ask func(context.Context) exchanged) exchanged {
	if got, ok := e.done.GetIfPresent(key); ok {
		return got
	}
	value, _, _ := e.flight.Do(string(key[:]), func() (any, error) {
		if got, ok := e.done.GetIfPresent(key); ok { // made since the look-up
			return got, nil
		}
		got, asked := e.ask(context.WithoutCancel(ctx), e.spent(session), ask)
		if asked {
			e.done.Set(key, got)
		}
		return got, nil
	})
	got, ok := value.(exchanged)
	if !ok {
		return exchanged{err: errors.New("no answer")}
	}
	return got
}

// spent counts the exchanges of a session that Clerk has granted. What is of none has a count of its own.
func (e *exchanges) spent(session string) *rate.Limiter {
	l, ok := (*rate.Limiter)(nil), false
	if session != "" {
		l, ok = e.sessions.ComputeIfAbsent(exchangeKey(session), func() (*rate.Limiter, bool) { return rate.NewLimiter(sessionRate, sessionBurst), false })
	}
	if !ok {
		return rate.NewLimiter(sessionRate, sessionBurst)
	}
	return l
}

// ask makes the exchange unless too much was refused. All that is under way counts as if it will be: those that ask at the
// same time would each find room for one more otherwise.
func (e *exchanges) ask(ctx context.Context, spent *rate.Limiter, ask func(context.Context) exchanged) (got exchanged, asked bool) {
	ctx, cancel := context.WithTimeout(ctx, askingWait)
	defer cancel()
	late := time.NewTimer(turnWait)
	defer late.Stop()
	select {
	case e.asking <- struct{}{}:
	case <-late.C:
		return exchanged{err: errCrowd}, false
	}
	defer func() { <-e.asking }()
	if spent.TokensAt(e.now()) < 1 {
		return exchanged{err: errOften}, false
	}
	if e.refused.TokensAt(e.now()) < float64(len(e.asking)) {
		return exchanged{err: errTooMany}, false
	}
	if got = ask(ctx); got.err == nil {
		spent.ReserveN(e.now(), 1) // also if there is none left, because others of it were under way
	} else {
		// Whatever the reason: to go on asking a Clerk that is in trouble would prolong it. Not the session's, or whoever found an
		// expired token of it could keep its owner from renewing it.
		e.refused.AllowN(e.now(), 1)
	}
	return got, true
}

// exchangeKey tells exchanges apart. Each part is hashed with its length, so that none can reach into the next.
func exchangeKey(parts ...string) digest {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(p))))
		_, _ = h.Write([]byte(p))
	}
	return digest(h.Sum(nil))
}
