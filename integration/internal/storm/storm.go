// Package storm puts a whole edge under mixed traffic while everything around it goes wrong in turn: thousands of sessions of some
// hundred tenants ask the built binary, configs are loaded and rejected, keys are rotated, Clerk, Tinybird and Redis fail. Each answer is
// held against what that one request may be answered with.
package storm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// Options are how much of it there is.
type Options struct {
	Binary   string // a Caddy with this plugin
	Home     string // an empty directory
	Duration time.Duration
	Seed     uint64 // of what is asked and what goes wrong
	Rate     int    // requests per second
	Tenants  int
	Sessions int
	Clients  int // connections; every other one speaks HTTP/2

	// Timeout is how long the edge waits for Tinybird; 0 is two seconds. Where the stand-ins themselves can be slow, it is longer.
	Timeout time.Duration

	Config string   // further global options
	Env    []string // further variables of the process

	Log   io.Writer                 // nil, or gets what Caddy writes
	Plant func(what, secret string) // nil, or told of everything that must not come to light
	Saw   func(where, text string)  // nil, or told of everything that comes out, but for the log
	Say   func(line string)         // nil, or told how it goes
}

// storm is one run.
type storm struct {
	Options

	stack    *devstack.Stack
	redis    *miniredis.Miniredis
	edge     *rig.Process
	roots    *x509.CertPool
	sessions []*session
	weather  *weather
	ledger   *ledger
	watch    *logWatch
	report   Report
}

// Run runs a storm to its end. What the edge did wrong is in the report; the error is about the storm itself.
func Run(ctx context.Context, o Options) (*Report, error) {
	st := &storm{Options: o, weather: newWeather(), ledger: newLedger(), watch: &logWatch{next: o.Log}}
	if st.Timeout == 0 {
		st.Timeout = 2 * time.Second
	}
	if st.Plant == nil {
		st.Plant = func(string, string) {}
	}
	if st.Saw == nil {
		st.Saw = func(string, string) {}
	}
	if st.Say == nil {
		st.Say = func(string) {}
	}
	defer st.close()
	if err := st.start(ctx); err != nil {
		return nil, err
	}
	if err := st.rage(ctx); err != nil {
		return nil, err
	}
	return &st.report, nil
}

func (st *storm) close() {
	st.edge.Stop()
	if st.redis != nil {
		st.redis.Close()
	}
	if st.stack != nil {
		_ = st.stack.Close()
	}
}

const redisPassword = "planted-redis-password-5Tq8vXw2"

// start starts the stand-ins and the edge, and signs everybody in.
func (st *storm) start(ctx context.Context) error {
	var err error
	st.stack, err = devstack.Start(ctx, devstack.Options{
		Issuer: devstack.IssuerOptions{AppOrigin: appOrigin, Live: true},
		API:    devstack.APIOptions{Pipes: pipes(), Append: st.takeRows},
	})
	if err != nil {
		return fmt.Errorf("stand-ins: %w", err)
	}
	if st.redis, err = miniredis.Run(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	st.redis.RequireAuth(redisPassword)
	st.stack.API.Fail(st.atTinybird)
	st.stack.Issuer.Fail(st.weather.atIssuer)
	if _, st.roots, err = rig.Certificate(st.Home); err != nil {
		return err
	}
	st.signUp()
	env := append([]string{
		"OTEL_TRACES_EXPORTER=none",
		"CERT=" + filepath.Join(st.Home, "cert.pem"),
		"CERT_KEY=" + filepath.Join(st.Home, "key.pem"),
		"UPSTREAM=" + st.stack.APIURL,
		"ISSUER=" + st.stack.IssuerURL,
		"REDIS_URL=redis://:" + redisPassword + "@" + st.redis.Addr(),
		"CLERK_PUBLISHABLE_KEY=" + st.stack.Issuer.PublishableKey(),
		"CLERK_SECRET_KEY=" + st.stack.Issuer.SecretKey(),
		"TINYBIRD_SIGNING_KEY=" + st.stack.API.SigningKey(),
		"TINYBIRD_APPEND_TOKEN=" + st.stack.API.AppendToken(),
	}, st.Env...)
	for what, secret := range map[string]string{
		"the signing key": st.stack.API.SigningKey(), "the append token": st.stack.API.AppendToken(),
		"Clerk's secret key": st.stack.Issuer.SecretKey(), "Redis' password": redisPassword,
	} {
		st.Plant(what, secret)
	}
	st.edge, err = rig.Start(ctx, st.Binary, st.Home, "edge", st.generation(0), env, st.watch)
	return err
}

// rage is the storm itself: the load, what goes wrong, and the figures that are taken meanwhile.
func (st *storm) rage(ctx context.Context) error {
	if err := st.calm(ctx); err != nil {
		return err
	}
	before, err := st.edge.Goroutines(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	over, cancel := context.WithTimeout(ctx, st.Duration)
	defer cancel()
	var wait sync.WaitGroup
	errs := make(chan error, st.Clients+3)
	tick := time.NewTicker(time.Second / time.Duration(st.Rate))
	defer tick.Stop()
	for n := range st.Clients {
		wait.Go(func() { st.client(ctx, over, n, tick.C) })
	}
	wait.Go(func() { errs <- st.disturb(ctx, over) })
	wait.Go(func() { errs <- st.reload(ctx, over) })
	wait.Go(func() { errs <- st.sample(ctx, over) })
	wait.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	st.report.Elapsed = time.Since(begun)
	if err := st.calm(ctx); err != nil {
		st.ledger.wrong("in the end", 0, err.Error())
	}
	return st.settle(ctx, before)
}

func (st *storm) dial(ctx context.Context) (*rig.Conn, error) {
	return rig.Dial(ctx, st.edge.Addr, &tls.Config{RootCAs: st.roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
}

// client asks one thing after the other until it is over.
func (st *storm) client(ctx, over context.Context, n int, due <-chan time.Time) {
	rng := rand.New(rand.NewPCG(st.Seed, uint64(n))) //nolint:gosec // the same storm for the same seed
	var speaks speaker = &overHTTP1{st: st}
	if n%2 == 1 {
		speaks = newOverHTTP2(st.roots, st.edge.Addr)
	}
	defer speaks.close()
	for {
		select {
		case <-over.Done():
			return
		case <-due:
		}
		a, err := st.next(rng)
		if err != nil {
			st.ledger.wrong("the storm", 0, err.Error())
			return
		}
		began := time.Now()
		got, err := speaks.do(ctx, a)
		st.judge(a, got, err, began)
	}
}

// takeRows is Tinybird's data source: every row that comes must be stamped with the tenant of the request that it came by, once.
func (st *storm) takeRows(_ string, rows [][]byte) (stored, quarantined int, err error) {
	for _, row := range rows {
		st.ledger.stored(row)
	}
	return len(rows), 0, nil
}

// atTinybird looks at each request that goes up, and says what goes wrong with it.
func (st *storm) atTinybird(r *http.Request) *devstack.Fault {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token != st.stack.API.AppendToken() {
		st.Plant("a minted token", token)
	}
	id := attemptOf(r.URL.Query().Get("attempt"))
	st.ledger.upstream(id)
	f, name := st.weather.tinybirdFault(id)
	switch {
	case f == nil:
	case id == 0 && strings.HasPrefix(r.URL.Path, "/v0/pipes/shared."):
		if minted, err := rig.ReadMinted(token); err == nil {
			st.ledger.struckFetch(questionOf(minted.Name, r.URL.Query().Get("page")), name)
		}
	default:
		st.ledger.struck(id, name)
	}
	return f
}
