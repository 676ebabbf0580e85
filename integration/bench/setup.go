package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// The config of both proxies, but for what they do with a request.
const configHead = `{
	admin {$ADMIN}
	persist_config off
	skip_install_trust
	auto_https off
	storage file_system {$HOME}
}
`

// plainSite and secureSite are how clients reach the site.
const (
	plainSite  = "http://:{$PORT} {\n\tbind 127.0.0.1\n%s\n}\n"
	secureSite = "https://:{$PORT} {\n\tbind 127.0.0.1\n\ttls {$CERT} {$CERT_KEY}\n%s\n}\n"
)

// trust makes either proxy trust the upstream's certificate and speak HTTP/2 with it.
const trust = `
	transport http {
		tls_trust_pool file {$CERT}
		versions 2
	}
`

// trust1 makes the edge trust it, and leaves the rest as it is.
const trust1 = `
	transport http {
		tls_trust_pool file {$CERT}
	}
`

// edgeUp1 is the name of the edge that asks Tinybird over HTTP/1.1 while the others do over HTTP/2.
const edgeUp1 = "edge, h1 up"

const bareDirective = `	reverse_proxy {
		to {$UPSTREAM}
%s
	}`

const edgeDirective = `	tinybird {
		clerk {
			publishable_key {env.CLERK_PUBLISHABLE_KEY}
			issuer {env.ISSUER}
			max_lifetime 24h
		}
		signing_key {env.TINYBIRD_SIGNING_KEY}
		upstream {$UPSTREAM}
		rate_limit 1000000
		pipe top_pages {
			fixed_param organization_id {clerk.org.id}
		}
		%s
	}`

// tenants is how many organizations the sessions belong to.
const tenants = 1000

// bench is what all comparisons share.
type bench struct {
	options

	home   string
	leave  func() // removes home
	stack  *devstack.Stack
	cert   tls.Certificate
	roots  *x509.CertPool
	tokens [][]byte // prepared requests, each of a session of its own
	plain  *upstream
	secure *upstream
}

// setup is a pair of proxies before an upstream.
type setup struct {
	protocol   string
	upstream   string
	look       *upstream
	bare, edge *rig.Process
	edge1      *rig.Process // the edge as it is by default, with HTTP/1.1 to Tinybird, if the others use HTTP/2; else nil
	dial       func(addr string) func(context.Context) (client, error)
}

func newBench(ctx context.Context, o options) (*bench, error) {
	b := &bench{options: o}
	var err error
	if b.home, b.binary, b.leave, err = rig.Workshop(ctx, "bench", o.binary); err != nil {
		return nil, err
	}
	if b.stack, err = devstack.Start(ctx, devstack.Options{Issuer: devstack.IssuerOptions{SessionLifetime: 12 * time.Hour}}); err != nil {
		b.leave()
		return nil, fmt.Errorf("stand-ins: %w", err)
	}
	return b, nil
}

func (b *bench) close() {
	_ = b.stack.Close()
	for _, u := range []*upstream{b.plain, b.secure} {
		if u != nil {
			u.close()
		}
	}
	b.leave()
}

// prepare makes what takes long: the sessions.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.cert, b.roots, err = rig.Certificate(b.home); err != nil {
		return err
	}
	if b.plain, err = startPlain(ctx); err != nil {
		return err
	}
	if b.secure, err = startTLS(ctx, b.cert); err != nil {
		return err
	}
	return b.signIn(max(2*b.cold, slices.Max(b.sessions)))
}

// signIn makes n sessions, of members of a thousand organizations.
func (b *bench) signIn(n int) error {
	b.tokens = make([][]byte, n)
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		fails error
	)
	for worker := range runtime.NumCPU() {
		wait.Go(func() {
			for i := worker; i < n; i += runtime.NumCPU() {
				token, err := b.stack.Issuer.Token("ada",
					devstack.Claim("sid", fmt.Sprintf("sess_%08d", i)),
					devstack.Claim("sub", fmt.Sprintf("user_%08d", i)),
					devstack.Claim("o", map[string]any{"id": fmt.Sprintf("org_%06d", i%tenants), "slg": "acme", "rol": "admin"}))
				if err != nil {
					mu.Lock()
					fails = errors.Join(fails, err)
					mu.Unlock()
					return
				}
				b.tokens[i] = prepare(token)
			}
		})
	}
	wait.Wait()
	return fails
}

func (b *bench) requests(n int) [][]byte { return b.tokens[:n] }

// start starts both proxies and sees that they do what they should.
func (b *bench) start(ctx context.Context, protocol string) (*setup, error) {
	s := &setup{protocol: protocol}
	site, with := plainSite, ""
	var address string
	switch protocol {
	case "http/1.1":
		s.look, address = b.plain, "http://"+b.plain.addr
		s.dial = dialPlain
	case "h2":
		s.look, address = b.secure, "https://"+b.secure.addr
		site, with = secureSite, trust
		s.dial = func(addr string) func(context.Context) (client, error) {
			return dialSecure(addr, &tls.Config{RootCAs: b.roots, MinVersion: tls.VersionTLS12})
		}
	default:
		return nil, fmt.Errorf("the protocol %q is not known: want http/1.1 or h2", protocol)
	}
	s.upstream = s.look.addr
	env := []string{
		"UPSTREAM=" + address,
		"CERT=" + filepath.Join(b.home, "cert.pem"),
		"CERT_KEY=" + filepath.Join(b.home, "key.pem"),
		"ISSUER=" + b.stack.IssuerURL,
		"CLERK_PUBLISHABLE_KEY=" + b.stack.Issuer.PublishableKey(),
		"TINYBIRD_SIGNING_KEY=" + b.stack.API.SigningKey(),
	}
	var err error
	if s.bare, err = rig.Start(ctx, b.binary, b.home, "bare", configHead+fmt.Sprintf(site, fmt.Sprintf(bareDirective, with)), env, nil); err != nil {
		return nil, err
	}
	if s.edge, err = rig.Start(ctx, b.binary, b.home, "edge", configHead+fmt.Sprintf(site, fmt.Sprintf(edgeDirective, with)), env, nil); err != nil {
		s.stop()
		return nil, err
	}
	proxies := []*rig.Process{s.edge}
	if protocol == "h2" {
		if s.edge1, err = rig.Start(ctx, b.binary, b.home, "edge1", configHead+fmt.Sprintf(site, fmt.Sprintf(edgeDirective, trust1)), env, nil); err != nil {
			s.stop()
			return nil, err
		}
		proxies = append(proxies, s.edge1)
	}
	for _, p := range proxies {
		if err := b.gate(ctx, s, p.Addr); err != nil {
			s.stop()
			return nil, fmt.Errorf("before any timing: %w", err)
		}
	}
	return s, nil
}

func (s *setup) stop() {
	for _, p := range []*rig.Process{s.bare, s.edge, s.edge1} {
		if p != nil {
			p.Stop()
		}
	}
}

// gate sees that the edge really does its work: it lets a session through with a token for that session's tenant and no
// other, and turns away one that is forged.
func (b *bench) gate(ctx context.Context, s *setup, addr string) error {
	s.look.look.Store(true)
	defer s.look.look.Store(false)
	for _, n := range []int{0, min(1, len(b.tokens)-1)} {
		c, err := s.dial(addr)(ctx)
		if err != nil {
			return err
		}
		err = c.do(b.tokens[n])
		c.close()
		if err != nil {
			return err
		}
		authorization := s.look.seen.Load()
		if authorization == nil {
			return errors.New("the upstream saw no request")
		}
		if err := checkMinted(*authorization, fmt.Sprintf("org_%06d", n)); err != nil {
			return err
		}
	}
	_, session := split(b.tokens[0])
	c, err := s.dial(addr)(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if c.do(prepare(strings.TrimPrefix(session, "Bearer ")[:len(session)-40]+strings.Repeat("A", 33))) == nil {
		return errors.New("a forged session was let through")
	}
	return nil
}

// checkMinted looks for the tenant in a minted token.
func checkMinted(authorization, organization string) error {
	claims, err := rig.ReadMinted(strings.TrimPrefix(authorization, "Bearer "))
	if err != nil {
		return fmt.Errorf("what the upstream got: %w", err)
	}
	if claims.Name != organization || len(claims.Scopes) != 1 || claims.Scopes[0].Fixed["organization_id"] != organization {
		return fmt.Errorf("a token for %+v, want %s", claims, organization)
	}
	return nil
}

// warm sends every request once, so that nothing is new in what is measured.
func (b *bench) warm(ctx context.Context, s *setup, c contender, requests [][]byte) error {
	if len(requests) < b.connections*50 {
		_, err := load(ctx, b.connections, s.dial(c.addr), &source{requests: requests, deadline: time.Now().Add(time.Second)})
		return err
	}
	_, err := load(ctx, b.connections, s.dial(c.addr), &source{requests: requests, once: true})
	return err
}

func (b *bench) measure(ctx context.Context, s *setup, c contender, requests [][]byte) (measurement, error) {
	var before time.Duration
	var err error
	if c.process != nil {
		if before, err = c.process.CPU(); err != nil {
			return measurement{}, err
		}
	}
	start := time.Now()
	took, err := load(ctx, b.connections, s.dial(c.addr), &source{requests: requests, once: c.once, deadline: start.Add(b.duration)})
	if err != nil {
		return measurement{}, err
	}
	m := measured(took, time.Since(start))
	if c.process == nil {
		return m, nil
	}
	after, err := c.process.CPU()
	if err != nil {
		return measurement{}, err
	}
	m.cpu = after - before
	m.rss, err = c.process.RSS()
	return m, err
}

// profileEdge takes a CPU profile of the edge under load, if one is asked for.
func (b *bench) profileEdge(ctx context.Context, s *setup, requests [][]byte) error {
	if b.profile == "" {
		return nil
	}
	const seconds = 5
	done := make(chan error, 1)
	go func() {
		_, err := load(ctx, b.connections, s.dial(s.edge.Addr), &source{requests: requests, deadline: time.Now().Add((seconds + 1) * time.Second)})
		done <- err
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.edge.Admin, seconds), http.NoBody)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return errors.Join(os.WriteFile(b.profile, raw, 0o600), <-done)
}
