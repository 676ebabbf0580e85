// Package preflight finds out, before a config is deployed, what would not work once it runs: it asks Clerk for the keys and Tinybird
// for the pipes, as the edge would, and reports what comes back in words that say what to do. It only reads: nothing is changed at
// either service.
package preflight

import (
	"context"
	"crypto/rsa"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// Site is one handler of a config, as far as it could be made sense of.
type Site struct {
	Hosts []string

	Clerk    *Clerk // nil: there is an error, or nothing says whose sessions are accepted
	ClerkErr error

	Tinybird    *Tinybird // nil: there is an error, or the site has no `tinybird`
	TinybirdErr error

	Literal  []string // settings whose secret stands in the config itself
	Warnings []string // of the settings
}

// Clerk is whose sessions a site accepts.
type Clerk struct {
	PublishableKey    string // empty: none
	Instance          clerk.Instance
	ProxyURL          string // of the Frontend API
	Issuers           []Issuer
	Pinned            *rsa.PublicKey // jwt_key; nil: the keys are fetched
	AuthorizedParties []string       // the origins that may have obtained a session
	AZP               string         // "", "strict", "if_present" or "off"
	ClockSkew         time.Duration

	SecretKey string      // empty: none. A secret: only its kind is looked at
	Backend   interface { // who knows whether the secret key is good; nil without one
		KeyIDs(ctx context.Context) ([]string, error)
	}
}

// Issuer is an issuer of sessions.
type Issuer struct{ URL, KeysURL string }

// Tinybird is what a site serves.
type Tinybird struct {
	Policy      *tinybird.Policy
	Key         tinybird.SigningKey
	WorkspaceID string
	Base        *url.URL
	Transport   http.RoundTripper
	TTL         time.Duration // of minted tokens; 0: the default
	Events      []ingest.SourceInfo
	Store       *Store // nil: there is no `rate_limit redis`
}

// Options say how to look.
type Options struct {
	Offline bool             // nobody is asked
	Timeout time.Duration    // of each call
	Now     func() time.Time // nil: time.Now
	Step    func(what string)
}

// Checker checks the sites of one config, and asks each issuer once.
type Checker struct {
	o    Options
	keys map[string]fetched
}

type fetched struct {
	keys        *jwks.Fetched
	err         error
	start, stop time.Time
}

// New returns a checker.
func New(o Options) *Checker {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	return &Checker{o: o, keys: map[string]fetched{}}
}

// Site checks one site. It ends early when ctx does, and then says so where it stopped.
func (c *Checker) Site(ctx context.Context, s Site) SiteReport {
	r := run{Checker: c, report: SiteReport{Hosts: s.Hosts}, skew: DefaultSkew}
	if s.Clerk != nil {
		r.skew = s.Clerk.ClockSkew
	}
	if r.report.Hosts == nil {
		r.report.Hosts = []string{}
	}
	switch {
	case s.ClerkErr != nil:
		r.fail(CheckSettings, "clerk", s.ClerkErr.Error(), "")
	case s.Clerk != nil:
		r.clerk(ctx, s.Clerk)
	}
	switch {
	case s.TinybirdErr != nil:
		r.fail(CheckSettings, "tinybird", s.TinybirdErr.Error(), "")
	case s.Tinybird != nil:
		r.tinybird(ctx, s.Tinybird)
		r.store(ctx, s.Tinybird.Store)
	}
	for _, setting := range s.Literal {
		r.warn(CheckLiteralSecret, setting, "the secret stands in the config itself, where the admin endpoint and the saved config show it",
			"Write {env.NAME} or {file.PATH}. {$NAME} is put into the config by Caddy, and is no better.")
	}
	for _, text := range s.Warnings {
		r.warn(CheckSettings, "", text, "")
	}
	return r.report
}

// run is one site under way.
type run struct {
	*Checker

	report SiteReport
	skew   time.Duration // that is accepted
	onTime bool          // an issuer's clock and this machine's agree
}

// DefaultSkew is how far clocks may differ where nothing else is set.
const DefaultSkew = 5 * time.Second

func (r *run) add(check, subject string, status Status, message, fix string) {
	r.report.Checks = append(r.report.Checks, Check{Check: check, Subject: subject, Status: status, Message: message, Fix: fix})
}

func (r *run) pass(check, subject, message string) { r.add(check, subject, Pass, message, "") }

func (r *run) skip(check, subject, message string) { r.add(check, subject, Skip, message, "") }

func (r *run) warn(check, subject, message, fix string) { r.add(check, subject, Warn, message, fix) }

func (r *run) fail(check, subject, message, fix string) { r.add(check, subject, Fail, message, fix) }

const (
	// offline is why something was not looked at.
	offline  = "not asked (--offline)"
	fixClock = "Set the clock, by NTP."
)

// clockOffset is how far the clock of a server is ahead of this machine's at the least, given when it was asked and when it answered. A
// Date has whole seconds, and may be as old as the Age of what a cache kept; nothing is said of what lies within. ok is false if there is
// no Date.
func clockOffset(header http.Header, start, stop time.Time) (ahead time.Duration, ok bool) {
	at, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0, false
	}
	latest := at.Add(time.Second)
	if age, err := strconv.ParseUint(header.Get("Age"), 10, 31); err == nil {
		latest = latest.Add(time.Duration(age) * time.Second)
	}
	switch {
	case at.After(stop):
		return at.Sub(stop), true
	case latest.Before(start):
		return latest.Sub(start), true
	default:
		return 0, true
	}
}

// clock compares a server's clock with this machine's. dead is how far this machine may be behind before nothing works at all; 0: the
// server is an issuer of sessions, and its clock the one that decides about them.
func (r *run) clock(who string, header http.Header, start, stop time.Time, skew, dead time.Duration) {
	ahead, ok := clockOffset(header, start, stop)
	if !ok {
		return
	}
	off := ahead.Abs()
	behind, refused := "behind", "sessions that were just made are refused as not yet valid"
	if ahead < 0 {
		behind, refused = "ahead of", "sessions are refused before they have expired"
	}
	unit := time.Second
	if off < 10*time.Second {
		unit = 10 * time.Millisecond
	}
	said := fmt.Sprintf("this machine is %s %s %s", off.Round(unit), behind, who)
	accepted := ", and " + skew.String() + " are accepted (clock_skew)"
	switch {
	case dead > 0 && ahead > dead:
		r.fail(CheckClock, who, said+", so that the tokens it makes have expired when they arrive", fixClock)
	case off > skew && dead > 0 && r.onTime:
		r.warn(CheckClock, who, said+", though it agrees with those who sign sessions", fixClock)
	case off > skew:
		r.fail(CheckClock, who, said+accepted+": "+refused, fixClock)
	case off >= time.Second:
		r.warn(CheckClock, who, said+accepted, fixClock)
	default:
		r.pass(CheckClock, who, "agrees within 1s")
	}
	r.onTime = r.onTime || dead == 0 && off <= skew
}

// list names things in a sentence.
func list(names []string) string { return strings.Join(names, ", ") }
