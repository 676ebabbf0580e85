// Command floods sends the built binary floods of what strangers can send, beside good traffic, and prints what each costs. It exits
// with an error if good traffic was not served, or if one of the bounds that docs/benchmarks.md states did not hold.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/floods"
	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

func main() { os.Exit(rig.Main("floods", run)) }

func run(ctx context.Context, w io.Writer, args []string) error {
	var o floods.Options
	flags := flag.NewFlagSet("floods", flag.ContinueOnError)
	flags.IntVar(&o.Rounds, "rounds", 7, "how many times the floods take turns")
	flags.DurationVar(&o.Phase, "phase", 2*time.Second, "how long each of them lasts in a round")
	flags.IntVar(&o.Good, "good", 100, "good requests per second, all the time")
	flags.IntVar(&o.Rate, "rate", 400, "requests of a flood per second: few enough that no core is used up")
	flags.IntVar(&o.Slow, "slow", 500, "connections that send their header byte by byte")
	flags.IntVar(&o.Tenants, "tenants", 100_000, "tenants that come at once in the end; 0 leaves them out")
	flags.StringVar(&o.Binary, "binary", "", "a Caddy with this plugin; default: build it")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	if o.Rounds < 1 || o.Phase <= 0 || o.Good < 1 || o.Rate < 1 || o.Slow < 1 || o.Tenants < 0 {
		return errors.New("rounds, phase, good, rate and slow must be positive")
	}
	var (
		leave func()
		err   error
	)
	if o.Home, o.Binary, leave, err = rig.Workshop(ctx, "floods", o.Binary); err != nil {
		return err
	}
	defer leave()
	o.Say = func(line string) { _, _ = fmt.Fprintln(w, line) }
	o.Say(fmt.Sprintf("%d rounds of %s, %d good requests per second beside floods of %d, %s", o.Rounds, o.Phase, o.Good, o.Rate, rig.Machine()))
	report, err := floods.Run(ctx, o)
	if err != nil {
		return err
	}
	o.Say(report.String())
	if broken := report.Bounds(); len(broken) > 0 {
		return errors.New(strings.Join(broken, "; "))
	}
	return nil
}
