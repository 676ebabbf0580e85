// Command storm runs the built binary through mixed traffic while everything around it goes wrong in turn, and prints how each kind of
// request ended. It exits with an error if one answer was wrong or lost. See docs/operations.md for what came out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/storm"
)

func main() { os.Exit(rig.Main("storm", run)) }

func run(ctx context.Context, w io.Writer, args []string) error {
	var o storm.Options
	flags := flag.NewFlagSet("storm", flag.ContinueOnError)
	flags.DurationVar(&o.Duration, "duration", 10*time.Minute, "how long it lasts")
	flags.Uint64Var(&o.Seed, "seed", 1, "decides what is asked and what goes wrong")
	flags.IntVar(&o.Rate, "rate", 500, "requests per second")
	flags.IntVar(&o.Tenants, "tenants", 300, "organizations")
	flags.IntVar(&o.Sessions, "sessions", 5000, "sessions of their members")
	flags.IntVar(&o.Clients, "clients", 48, "connections; every other one speaks HTTP/2")
	flags.StringVar(&o.Binary, "binary", "", "a Caddy with this plugin; default: build it")
	log := flags.String("log", "", "write Caddy's log to this file; it is some gigabytes in ten minutes")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	if o.Duration <= 0 || o.Rate < 1 || o.Tenants < 2 || o.Sessions < o.Tenants || o.Clients < 2 {
		return errors.New("want a positive duration and rate, two tenants and clients at least, and a session for each tenant")
	}
	var (
		leave func()
		err   error
	)
	if o.Home, o.Binary, leave, err = rig.Workshop(ctx, "storm", o.Binary); err != nil {
		return err
	}
	defer leave()
	if *log != "" {
		f, err := os.Create(*log)
		if err != nil {
			return fmt.Errorf("the log: %w", err)
		}
		defer func() { _ = f.Close() }()
		o.Log = f
	}
	o.Say = func(line string) { _, _ = fmt.Fprintln(w, line) }
	o.Say(fmt.Sprintf("%s, %d requests per second, %d sessions of %d tenants, seed %d, %s", o.Duration, o.Rate, o.Sessions, o.Tenants, o.Seed, rig.Machine()))
	report, err := storm.Run(ctx, o)
	if err != nil {
		return err
	}
	o.Say(report.String())
	if report.Wrongs > 0 {
		return fmt.Errorf("%d wrong, see above", report.Wrongs)
	}
	return nil
}
