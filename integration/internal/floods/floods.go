// Package floods sends an edge what strangers can send in any number, and measures what that costs it and everybody else: floods of a
// fixed rate beside good traffic of a fixed rate, in turns, because a machine that is used up doubles any time.
package floods

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// Options are how much of it there is.
type Options struct {
	Binary  string
	Home    string        // an empty directory
	Rounds  int           // how many times the floods take turns
	Phase   time.Duration // how long each of them lasts
	Good    int           // good requests per second, all the time
	Rate    int           // requests of a flood per second
	Slow    int           // connections that send their header byte by byte
	Tenants int           // of the flood of tenants

	Config string // further global options
	Site   string // further directives of the site
	Env    []string

	Log   io.Writer                 // nil, or gets what Caddy writes
	Plant func(what, secret string) // nil, or told of everything that must not come to light
	Saw   func(where, text string)  // nil, or told of everything that comes out, but for the log
	Say   func(line string)         // nil, or told how it goes
}

const config = `{
	admin {$ADMIN}
	persist_config off
	skip_install_trust
	auto_https off
	storage file_system {$HOME}/storage
%s
}
http://:{$PORT} {
	bind 127.0.0.1
	%s
	tinybird {
		clerk {
			publishable_key {env.CLERK_PUBLISHABLE_KEY}
			issuer {env.ISSUER}
		}
		signing_key {env.TINYBIRD_SIGNING_KEY}
		upstream {env.UPSTREAM}
		rate_limit 10000
		pipe top_pages {
			fixed_param organization_id {clerk.org.id}
		}
	}
}
`

// run is one run.
type run struct {
	Options

	stack  *devstack.Stack
	edge   *rig.Process
	good   [][]byte // prepared requests
	long   []byte   // one with a token of 8 KiB
	token  string   // of a session, to make bad ones of
	failed atomic.Pointer[string]
	report Report
}

// Run floods an edge. What it did wrong is the error.
func Run(ctx context.Context, o Options) (*Report, error) {
	f := &run{Options: o}
	if f.Plant == nil {
		f.Plant = func(string, string) {}
	}
	if f.Saw == nil {
		f.Saw = func(string, string) {}
	}
	if f.Say == nil {
		f.Say = func(string) {}
	}
	defer func() {
		f.edge.Stop()
		if f.stack != nil {
			_ = f.stack.Close()
		}
	}()
	if err := f.start(ctx); err != nil {
		return nil, err
	}
	if err := f.rounds(ctx); err != nil {
		return nil, err
	}
	if f.Tenants > 0 {
		if err := f.tenants(ctx); err != nil {
			return nil, err
		}
	}
	if bad := f.failed.Load(); bad != nil {
		return nil, errors.New(*bad)
	}
	return &f.report, nil
}

const goodSessions = 100

func (f *run) start(ctx context.Context) error {
	var err error
	f.stack, err = devstack.Start(ctx, devstack.Options{
		Issuer: devstack.IssuerOptions{SessionLifetime: 12 * time.Hour},
		API: devstack.APIOptions{Pipes: []devstack.Pipe{{
			Name: "top_pages", ID: "t_top", Params: []devstack.Param{{Name: "organization_id", Type: devstack.TypeString, Required: true}}, Run: echo,
		}}},
	})
	if err != nil {
		return fmt.Errorf("stand-ins: %w", err)
	}
	f.edge, err = rig.Start(ctx, f.Binary, f.Home, "edge", fmt.Sprintf(config, f.Config, f.Site), append([]string{
		"UPSTREAM=" + f.stack.APIURL,
		"ISSUER=" + f.stack.IssuerURL,
		"CLERK_PUBLISHABLE_KEY=" + f.stack.Issuer.PublishableKey(),
		"TINYBIRD_SIGNING_KEY=" + f.stack.API.SigningKey(),
	}, f.Env...), f.Log)
	if err != nil {
		return err
	}
	f.Plant("the signing key", f.stack.API.SigningKey())
	for n := range goodSessions {
		token, err := f.session(n)
		if err != nil {
			return err
		}
		f.token = token
		f.good = append(f.good, request(token))
	}
	long, err := f.longSession()
	f.long = request(long)
	return err
}

// longSession is a token of organization 0 that is as long as it may be.
func (f *run) longSession() (string, error) {
	token, err := f.session(0, devstack.Claim("padding", ""))
	if err != nil {
		return "", err
	}
	return f.session(0, devstack.Claim("padding", strings.Repeat("x", base64.RawURLEncoding.DecodedLen(longest-len(token)))))
}

// longest is the default of token_size.
const longest = 8 << 10

// session is a token of a member of organization n.
func (f *run) session(n int, more ...devstack.TokenOption) (string, error) {
	token, err := f.stack.Issuer.Token("ada", append([]devstack.TokenOption{
		devstack.Claim("sid", fmt.Sprintf("sess_%06d", n)),
		devstack.Claim("o", map[string]any{"id": org(n), "slg": fmt.Sprintf("slug-%d", n), "rol": "admin"}),
	}, more...)...)
	if err == nil {
		f.Plant("a session token", token)
	}
	return token, err
}

func org(n int) string { return fmt.Sprintf("org_%06d", n) }

// echo answers with whose rows these are.
func echo(q devstack.Query) devstack.Result {
	res := devstack.Result{Columns: []devstack.Column{{Name: "organization_id", Type: "String"}}}
	for range 10 {
		res.Rows = append(res.Rows, []any{q.String("organization_id")})
	}
	return res
}

const target = "/v0/pipes/top_pages.json"

// request is a request in bytes.
func request(token string) []byte {
	return []byte("GET " + target + " HTTP/1.1\r\nHost: edge.test\r\nUser-Agent: floods\r\nAuthorization: Bearer " + token + "\r\n\r\n")
}

// failf keeps the first thing that the edge did wrong.
func (f *run) failf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.failed.CompareAndSwap(nil, &text)
}

// accepted says what is wrong with an answer to a good request: it must be the tenant's.
func (f *run) accepted(n int, got rig.Answer) {
	f.Saw("an answer's body", string(got.Body))
	if got.Status != http.StatusOK || strings.Count(string(got.Body), org(n)) != 10 {
		f.failf("good traffic was answered with %d %.200s", got.Status, got.Body)
	}
}

// refused says what is wrong with an answer to a bad one.
func (f *run) refused(got rig.Answer) {
	f.Saw("an answer's body", string(got.Body))
	if got.Status != http.StatusUnauthorized || !strings.Contains(string(got.Body), `"token_invalid"`) {
		f.failf("a flood was answered with %d %.200s", got.Status, got.Body)
	}
}

// goodTraffic is a hundred warm sessions in turn.
func (f *run) goodTraffic() traffic {
	return traffic{
		next:  func(n int) []byte { return f.good[n%goodSessions] },
		check: func(n int, got rig.Answer) { f.accepted(n%goodSessions, got) },
	}
}

// The floods, by what they are called in the report.
const (
	alone        = "good traffic alone"
	accepted     = "accepted requests"
	acceptedLong = "accepted requests of 8 KiB"
	slow         = "slow headers, per byte"
)

// floods are what is measured in turns. The first three are what the others are held against: each against an accepted request that is as
// long, because reading one is the server's work, whatever is in it.
func (f *run) floods() []flood {
	token := func(name, like string, forge func() string) flood {
		return flood{name: name, like: like, traffic: traffic{
			next: func(int) []byte {
				token := forge()
				if len(strings.Trim(token, ".")) > 100 {
					f.Plant("a refused token", token)
				}
				return request(token)
			},
			check: func(_ int, got rig.Answer) { f.refused(got) },
		}}
	}
	return []flood{
		{name: alone},
		{name: accepted, like: accepted, traffic: f.goodTraffic()},
		{name: acceptedLong, like: acceptedLong, traffic: traffic{
			next:  func(int) []byte { return f.long },
			check: func(_ int, got rig.Answer) { f.accepted(0, got) },
		}},
		token("wrong signatures", accepted, func() string { return rig.Tampered(f.token) }),
		token("unknown key ids", accepted, func() string { return rig.OtherKid(f.token) }),
		token("tokens of 8 KiB", acceptedLong, func() string { return rig.Padded(f.token, longest) }),
		token("tokens over 8 KiB", acceptedLong, func() string { return strings.Repeat("A", 9000) }),
		token("tokens of 8,000 dots", acceptedLong, func() string { return strings.Repeat(".", 8000) }),
		{name: slow, like: accepted, slow: f.Slow},
	}
}

// rounds lets the floods take turns.
func (f *run) rounds(ctx context.Context) error {
	all := f.floods()
	if _, err := f.phase(ctx, flood{name: "to warm up", traffic: f.goodTraffic()}, f.Phase); err != nil {
		return err
	}
	heap, err := f.edge.Heap(ctx)
	if err != nil {
		return err
	}
	began, before := time.Now(), f.stack.Issuer.Fetches()
	for round := range f.Rounds {
		f.Say(fmt.Sprintf("round %d of %d", round+1, f.Rounds))
		for _, one := range slices.Concat(all[round%len(all):], all[:round%len(all)]) {
			m, err := f.phase(ctx, one, f.Phase)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			if m.cost, err = f.cost(ctx, one); err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			f.report.add(one.name, m)
		}
	}
	f.report.order = all
	f.report.Elapsed, f.report.Fetches = time.Since(began), f.stack.Issuer.Fetches()-before
	after, err := f.edge.Heap(ctx)
	f.report.HeapBefore, f.report.HeapAfter = heap, after
	return err
}

// cost is the CPU time in µs that the edge takes for a request of a flood that comes as fast as it is answered, and nothing beside it: what a
// request costs at a low rate is mostly the waking up for it. Of slow connections, which have no such rate, it is not known: 0.
func (f *run) cost(ctx context.Context, one flood) (float64, error) {
	if one.next == nil {
		return 0, nil
	}
	before, err := f.edge.CPU()
	if err != nil {
		return 0, err
	}
	over, cancel := context.WithTimeout(ctx, f.Phase)
	defer cancel()
	got := f.send(over, one.traffic, 0)
	after, err := f.edge.CPU()
	return (after - before).Seconds() * 1e6 / float64(max(1, got.requests)), err
}

// phase sends good traffic and one flood for a while, and measures the edge.
func (f *run) phase(ctx context.Context, one flood, d time.Duration) (measurement, error) {
	goodTraffic := f.goodTraffic()
	before, err := f.edge.CPU()
	if err != nil {
		return measurement{}, err
	}
	began := time.Now()
	over, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	flooded := make(chan sent, 1)
	go func() {
		switch {
		case one.slow > 0:
			flooded <- f.drip(over, one.slow)
		case one.next != nil:
			flooded <- f.send(over, one.traffic, f.Rate)
		default:
			flooded <- sent{}
		}
	}()
	good := f.send(over, goodTraffic, f.Good)
	bad := <-flooded
	after, err := f.edge.CPU()
	if err != nil {
		return measurement{}, err
	}
	m := measurement{good: good, flood: bad, elapsed: time.Since(began), cpu: after - before}
	rss, err := f.edge.RSS()
	m.rss = int(rss)
	return m, err
}
