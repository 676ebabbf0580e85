package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/demo"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "demo",
		Usage: "[--listen <address>] [--container] [--check] [--print-config]",
		Short: "Shows caddy-tinybird on this machine, without an account",
		Long: `
Starts a Clerk-shaped issuer, a Tinybird-shaped API and, between them, Caddy with
this plugin, all on loopback, and serves a page on which you sign in as somebody, see
the charts of their organization, and try to read another one. On a port of its own
is a plain HTML site, which clerk_auth guards.

--listen is the loopback address of the edge. Default: 127.0.0.1:8080 when nobody
has it, else a free port. The plain site has one of the ports after it.

--container is for a container whose ports 8080, 8081 and 8082 are published, on
127.0.0.1 and under the same numbers: those of the edge, the site and the issuer.
They are then reached from outside the container, where anybody can sign in as
anybody.

--check does by itself what the page lets you try, prints a line for each step, and
exits with a status other than 0 if one fails.

--print-config prints the Caddyfile that the demo runs with, and ends.

Nothing is kept: keys are made for one run, and no file is left behind.`,
		Flags: demoFlags(),
		Func:  runDemo,
	})
}

func demoFlags() *flag.FlagSet {
	fs := flag.NewFlagSet("demo", flag.ExitOnError)
	fs.String("listen", "", "The loopback address of the edge, such as 127.0.0.1:9000")
	fs.Bool("container", false, "Let in what a container's published ports bring")
	fs.Bool("check", false, "Try everything, print a line for each step, and end")
	fs.Bool("print-config", false, "Print the Caddyfile and end")
	return fs
}

func runDemo(fs caddycmd.Flags) (int, error) {
	if fs.NArg() > 0 {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("demo takes flags only, not %q", fs.Arg(0))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)

	o := demo.Options{Listen: fs.String("listen"), Container: fs.Bool("container")}
	var err error
	switch {
	case fs.Bool("print-config"):
		err = printConfig(ctx, o)
	case fs.Bool("check"):
		err = demo.RunCheck(ctx, o, os.Stdout)
	default:
		err = demo.Run(ctx, o, os.Stdout)
	}
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	return caddy.ExitCodeSuccess, nil
}

func printConfig(ctx context.Context, o demo.Options) error {
	text, err := demo.Config(ctx, o)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(os.Stdout, text); err != nil {
		return fmt.Errorf("print the config: %w", err)
	}
	return nil
}
