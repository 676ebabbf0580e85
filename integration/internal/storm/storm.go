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
	"slices"
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

// calm waits until everybody is served, with sessions of the latest key: what went wrong leaves nothing behind.
func (st *storm) calm(ctx context.Context) error {
	c, err := st.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { c.Close() }()
	deadline := time.Now().Add(rig.Patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n < min(20, len(st.sessions)); {
		s := st.sessions[n*len(st.sessions)/20%len(st.sessions)]
		s.forget()
		token, err := st.token(s)
		if err != nil {
			return err
		}
		got, keep, err := c.Do(raw(http.MethodGet, "/v0/pipes/rows.json?attempt=att_0", http.Header{"Authorization": {"Bearer " + token}}, ""))
		if !keep {
			c.Close()
			if c, err = st.dial(ctx); err != nil {
				return err
			}
		}
		if err == nil && got.Status == http.StatusOK && owned(s, got) == nil {
			n++
			continue
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not served although nothing is wrong: %d %s %w", s.org, got.Status, got.Body, err)
		}
		<-tick.C
	}
	return nil
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

// settle looks at what only the end can tell.
func (st *storm) settle(ctx context.Context, before int) error {
	for _, path := range []string{"/config/", "/metrics", "/debug/vars", "/debug/pprof/cmdline", "/reverse_proxy/upstreams", "/tinybird/status"} {
		_, text, err := st.edge.Ask(ctx, http.MethodGet, path, "", "")
		if err != nil {
			return err
		}
		st.Saw("admin "+path, text)
	}
	st.report.Fetches = st.stack.Issuer.Fetches()
	most := 5 + 2*int(st.report.Elapsed.Seconds()+rig.Patience.Seconds())/10
	if st.report.Fetches > most {
		st.ledger.wrong("fetches of keys", 0, fmt.Sprintf("%d, at most %d were expected", st.report.Fetches, most))
	}
	if err := st.idle(ctx, before); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rig.Patience)
	defer cancel()
	if err := st.edge.Terminate(ctx); err != nil {
		st.ledger.wrong("the end of the process", 0, err.Error())
	}
	st.ledger.close(st.watch)
	st.report.take(st.ledger)
	return nil
}

// idle waits until the goroutines are about as many as in the beginning.
func (st *storm) idle(ctx context.Context, before int) error {
	const slack = 30 // connections that are kept, to Redis and Tinybird
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(rig.Patience)
	for {
		n, err := st.edge.Goroutines(ctx)
		if err != nil {
			return err
		}
		st.report.GoroutinesBefore, st.report.GoroutinesAfter = before, n
		if n <= before+slack {
			return nil
		}
		if time.Now().After(deadline) {
			st.ledger.wrong("goroutines", 0, fmt.Sprintf("%d in the beginning, %d in the end", before, n))
			return nil
		}
		<-tick.C
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

// disturb lets one thing after the other go wrong, each for a while, in an order that the seed says.
func (st *storm) disturb(ctx, over context.Context) error {
	rng := rand.New(rand.NewPCG(st.Seed, 1<<32)) //nolint:gosec // see client
	all := st.disturbances()
	slot := max(st.Duration/200, min(3*time.Second, st.Duration/time.Duration(len(all)+2)))
	for {
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, d := range all {
			if !wait(over, slot/3) {
				return nil
			}
			if err := d.begin(ctx); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			wait(over, slot*2/3)
			if err := d.end(ctx); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			st.report.disturbed(d.name)
		}
	}
}

// reload loads a config again and again, and now and then one that is rejected.
func (st *storm) reload(ctx, over context.Context) error {
	every := min(2*time.Second, st.Duration/10)
	for n := 1; wait(over, every); n++ {
		if n%3 == 0 {
			bad := st.rejected()
			status, answer, err := st.edge.Load(ctx, bad[n/3%len(bad)])
			if err != nil {
				return err
			}
			st.Saw("a rejected config's error", answer)
			if status == http.StatusOK {
				st.ledger.wrong("reload", 0, "a config that should be rejected was accepted")
			}
			st.report.Rejected++
		}
		status, answer, err := st.edge.Load(ctx, st.generation(n))
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			st.ledger.wrong("reload", 0, answer)
		}
		st.report.Reloads++
	}
	return nil
}

// sample takes the figures that have to be flat.
func (st *storm) sample(ctx, over context.Context) error {
	for wait(over, max(time.Second, st.Duration/60)) {
		goroutines, err := st.edge.Goroutines(ctx)
		if err != nil {
			return err
		}
		heap, err := st.edge.Heap(ctx)
		if err != nil {
			return err
		}
		_, metrics, err := st.edge.Ask(ctx, http.MethodGet, "/metrics", "", "")
		if err != nil {
			return err
		}
		rss, _ := st.edge.RSS() // Linux only; shown, and nothing depends on it
		st.report.Samples = append(st.report.Samples, Sample{Goroutines: goroutines, Heap: heap, RSS: int(rss), Series: strings.Count(metrics, "\n")})
		st.Say(fmt.Sprintf("%d requests, %d wrong; heap %.1f MiB, resident %.0f MiB, %d goroutines",
			st.ledger.count(), st.ledger.wrongs(), mib(heap), mib(int(rss)), goroutines))
	}
	st.flat("goroutines", 64, func(s Sample) int { return s.Goroutines })
	st.flat("heap", 16<<20, func(s Sample) int { return s.Heap })
	st.flat("lines of metrics", 20, func(s Sample) int { return s.Series })
	return nil
}

// flat compares the last third with the second.
func (st *storm) flat(what string, slack int, figure func(Sample) int) {
	all := st.report.Samples
	if len(all) < 6 {
		return
	}
	second, last := middle(all[len(all)/3:len(all)*2/3], figure), middle(all[len(all)*2/3:], figure)
	st.report.Flat = append(st.report.Flat, Flat{What: what, Second: second, Last: last})
	if last > second+second/5+slack {
		st.ledger.wrong(what, 0, fmt.Sprintf("%d in the second third, %d in the last", second, last))
	}
}

func middle(samples []Sample, figure func(Sample) int) int {
	values := make([]int, 0, len(samples))
	for _, s := range samples {
		values = append(values, figure(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// wait waits for a while and says whether there is any left.
func wait(over context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-over.Done():
		return false
	case <-timer.C:
		return true
	}
}
