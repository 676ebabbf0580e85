package caddytinybird

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/preflight"
)

// defaultTimeout is how long a command waits for one answer.
const defaultTimeout = 10 * time.Second

// checkFlags are the flags of one run.
type checkFlags struct {
	offline, strict, json bool
	timeout               time.Duration
}

func checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:                   "check [--config <path> [--adapter <name>]] [--site <host>] [--offline] [--strict] [--json] [--timeout <duration>]",
		Short:                 "Finds out, before a deploy, what would not work",
		DisableFlagsInUseLine: true,
		Long: `
Loads the config as 'caddy validate' does, and then looks at what it depends on: the
keys by which Clerk signs, the secret key, the signing key, Tinybird's API by way of
the configured transport, each pipe and each data source that is listed, the store
of 'rate_limit redis', the clocks.
It says in a line for each what it found, and below those that need it what to do.

Clerk and Tinybird are only read from. Each pipe is read once, as a tenant that does
not exist; no rows are sent. The store is asked to count for a key of nobody's.

--offline asks nobody: it checks what can be seen in the config alone.

--strict counts warnings as failures.

The exit status is 0 when requests would be answered, 1 when something would not work,
and 2 when the check could not be made.`,
		Example: `  caddy tinybird check --config /etc/caddy/Caddyfile
  caddy tinybird check --config Caddyfile --offline --strict
  caddy tinybird check --config Caddyfile --site analytics.example.com --json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	configFlags(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&f.offline, "offline", false, "Ask nobody; check what the config alone shows")
	fl.BoolVar(&f.strict, "strict", false, "Warnings are failures")
	fl.BoolVar(&f.json, "json", false, "Write the report as JSON")
	fl.DurationVar(&f.timeout, "timeout", defaultTimeout, "How long to wait for each answer")
	return cmd
}

func (f *checkFlags) run(cmd *cobra.Command) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	report, err := f.check(ctx, cmd)
	if err == nil {
		report.Count(f.strict)
		err = f.write(cmd, report)
	}
	switch {
	case err != nil:
		return couldNotRun(cmd, err)
	case !report.OK:
		return findings(cmd)
	}
	return nil
}

func (f *checkFlags) write(cmd *cobra.Command, r *preflight.Report) error {
	if f.json {
		return printJSON(cmd, r)
	}
	return r.WriteText(cmd.OutOrStdout(), styleFor(cmd.OutOrStdout()))
}

func (f *checkFlags) check(ctx context.Context, cmd *cobra.Command) (*preflight.Report, error) {
	if f.timeout <= 0 {
		return nil, errors.New("--timeout must be positive, such as 10s")
	}
	report := &preflight.Report{Sites: []preflight.SiteReport{}}
	if err := readable(cmd); err != nil {
		return nil, err
	}
	config, err := loadConfig(cmd)
	if errors.Is(err, errNoConfig) {
		return nil, err
	}
	if err != nil {
		report.Checks = append(report.Checks, notLoaded(err))
		return report, nil
	}
	sites, err := chosenSites(cmd, config, nil)
	if err != nil {
		return nil, err
	}
	steps := newProgress(cmd.ErrOrStderr(), "check")
	defer steps.end()
	steps.step("the config")
	report.Checks = append(report.Checks, loads(config))
	checker := preflight.New(preflight.Options{Offline: f.offline, Timeout: f.timeout, Step: steps.step})
	for i := range sites {
		report.Sites = append(report.Sites, checkSite(ctx, checker, &sites[i]))
	}
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	return report, nil
}

// readable tells whether there is a config where the flags say: one that is not there is no finding about it.
func readable(cmd *cobra.Command) error {
	path, err := cmd.Flags().GetString("config")
	if err != nil || path == "" || path == "-" {
		return err //nolint:wrapcheck // a flag that is there has no error
	}
	f, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return fmt.Errorf("read the config: %w", err)
	}
	return f.Close() //nolint:wrapcheck // of a file that was only opened
}

// loads does what `caddy validate` does. Nobody is asked for keys: that is a check of its own.
func loads(config []byte) preflight.Check {
	c := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(config, c); err != nil {
		return notLoaded(err)
	}
	quieten(c)
	onlyLooking.Store(true)
	defer onlyLooking.Store(false)
	if err := caddy.Validate(c); err != nil {
		return notLoaded(err)
	}
	return preflight.Check{Check: preflight.CheckConfig, Status: preflight.Pass, Message: "loads"}
}

func notLoaded(err error) preflight.Check {
	err = hideSecret(err)
	text := err.Error()
	// Caddy names all the modules that the faulty one is in.
	if i := strings.LastIndex(text, "provision http.handlers."); i > 0 {
		text = text[i+len("provision "):]
	}
	return preflight.Check{Check: preflight.CheckConfig, Status: preflight.Fail, Message: text, Fix: "`caddy validate` says it at more length."}
}

// quieten keeps Caddy's own log to errors: what loading has to say about this plugin's settings is part of the report.
func quieten(c *caddy.Config) {
	if c.Logging == nil {
		c.Logging = new(caddy.Logging)
	}
	if c.Logging.Logs == nil {
		c.Logging.Logs = map[string]*caddy.CustomLog{}
	}
	if c.Logging.Logs[caddy.DefaultLoggerName] == nil {
		c.Logging.Logs[caddy.DefaultLoggerName] = new(caddy.CustomLog)
	}
	if log := c.Logging.Logs[caddy.DefaultLoggerName]; slices.Contains([]string{"", "DEBUG", "INFO", "WARN"}, strings.ToUpper(log.Level)) {
		log.Level = "ERROR"
	}
}

func checkSite(ctx context.Context, checker *preflight.Checker, s *configuredSite) preflight.SiteReport {
	guest, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	core, logged := observer.New(zap.WarnLevel)
	log := zap.New(core)
	site := preflight.Site{Hosts: s.hosts}
	var c *Clerk
	if c, site.ClerkErr = s.resolvedClerk(log); site.ClerkErr == nil {
		defer func() { _ = c.cleanup() }()
		site.Clerk, site.ClerkErr = c.preflight()
	}
	if s.handler != nil {
		site.Tinybird, site.TinybirdErr = s.preflight(guest, log)
	}
	for _, e := range logged.All() {
		fields := e.ContextMap()
		if setting, ok := fields["setting"].(string); ok && e.Message == literalSecret {
			site.Literal = append(site.Literal, setting)
			continue
		}
		site.Warnings = append(site.Warnings, e.Message)
	}
	site.ClerkErr, site.TinybirdErr = hideSecret(site.ClerkErr), hideSecret(site.TinybirdErr)
	if site.Tinybird != nil {
		// The checks have a deadline of their own.
		if t, ok := site.Tinybird.Transport.(*transport); ok {
			t.Transport.ResponseHeaderTimeout = 0
			defer t.Transport.CloseIdleConnections()
		}
	}
	return checker.Site(ctx, site)
}

// preflight is what there is to check about the settings, which are resolved.
func (c *Clerk) preflight() (*preflight.Clerk, error) {
	out := &preflight.Clerk{
		PublishableKey:    c.publishableKey,
		Instance:          c.instance,
		ProxyURL:          c.proxyURL,
		AuthorizedParties: c.AuthorizedParties,
		AZP:               c.AZP,
		ClockSkew:         preflight.DefaultSkew,
		SecretKey:         c.secretKey,
	}
	if c.ClockSkew != nil {
		out.ClockSkew = time.Duration(*c.ClockSkew)
	}
	if c.JWTKey != "" {
		text, err := resolveText("jwt_key", c.JWTKey)
		if err != nil {
			return nil, err
		}
		if out.Pinned, err = jwks.ParsePEM(text); err != nil {
			return nil, fmt.Errorf("jwt_key: %w", err)
		}
	}
	for _, issuer := range c.issuers {
		out.Issuers = append(out.Issuers, preflight.Issuer{URL: issuer, KeysURL: c.keysURL(issuer)})
	}
	backend, err := c.backendAPI()
	if err != nil {
		return nil, err
	}
	if backend != nil {
		out.Backend = backend
	}
	return out, nil
}

// preflight is what there is to check about what the handler serves.
func (s *configuredSite) preflight(ctx caddy.Context, log *zap.Logger) (*preflight.Tinybird, error) {
	b, err := s.workbench(ctx, log)
	if err != nil {
		return nil, err
	}
	if err := s.handler.provisionEvents(); err != nil {
		return nil, err
	}
	out := &preflight.Tinybird{Policy: b.policy, Key: b.key, WorkspaceID: b.workspace, Base: b.base, Transport: b.transport}
	if c := s.handler.RateLimitRedis; c != nil {
		if out.Store, err = c.preflight(log); err != nil {
			return nil, err
		}
	}
	if t := s.handler.Token; t != nil {
		out.TTL = time.Duration(t.TTL)
	}
	if s.handler.ingest != nil {
		out.Events = s.handler.ingest.Describe()
	}
	return out, nil
}
