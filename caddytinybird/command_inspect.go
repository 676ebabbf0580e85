package caddytinybird

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/inspect"
)

// inspectFlags are the flags of one run.
type inspectFlags struct {
	offline, json bool
	timeout       time.Duration
}

func inspectCommand() *cobra.Command {
	var f inspectFlags
	cmd := &cobra.Command{
		Use:                   "inspect [<token>|@<file>|-] [--config <path> [--adapter <name>]] [--site <host>] [--offline] [--json] [--timeout <duration>]",
		Short:                 "Explains a token of Clerk's or Tinybird's, and why it is refused",
		DisableFlagsInUseLine: true,
		Long: `
Says in sentences what a token is: whom it speaks for, in which organization, when it
was issued and when it ends, who signed it. It knows session tokens, those of JWT
templates, machines, OAuth and API keys, Tinybird's static tokens and JWTs, and the
keys of both services.

The token is read from stdin, or from a file named after an @. As an argument it works
too, but then it stays in the history of the shell. What is usually copied along is
taken away: Authorization:, Bearer, the name of the cookie.

With a config (--config, or a Caddyfile in this directory) the signature is checked
against the keys of its Clerk instance and its signing key, and each site says whether
it accepts the token, for which pipes, and if not why: the code and the sentence that
the client gets, what the log says, and where to read on.

--offline does not fetch the keys, and cannot say then whether the signature is right.

Neither the token nor any other secret is written. The exit status is 0 when the token
was explained, 1 when it is nothing that is known here, and 2 when that could not be
found out.`,
		Example: `  pbpaste | caddy tinybird inspect --config /etc/caddy/Caddyfile
  caddy tinybird inspect @token.txt --json
  echo "$CLERK_SECRET_KEY" | caddy tinybird inspect --offline`,
		RunE: f.run,
	}
	configFlags(cmd)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return couldNotRun(cmd, errors.New("inspect explains one token at a time"))
		}
		return nil
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.offline, "offline", false, "Fetch no keys")
	fl.BoolVar(&f.json, "json", false, "Write the explanation as JSON")
	fl.DurationVar(&f.timeout, "timeout", defaultTimeout, "How long to wait for the keys of each issuer")
	return cmd
}

func (f *inspectFlags) run(cmd *cobra.Command, args []string) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	report, err := f.inspect(ctx, cmd, args)
	if err == nil && f.json {
		err = printJSON(cmd, report)
	} else if err == nil {
		err = report.WriteText(cmd.OutOrStdout())
	}
	switch {
	case err != nil:
		return couldNotRun(cmd, err)
	case report.Kind == inspect.KindUnknown:
		return findings(cmd)
	}
	return nil
}

func (f *inspectFlags) inspect(ctx context.Context, cmd *cobra.Command, args []string) (*inspect.Report, error) {
	if f.timeout <= 0 {
		return nil, errors.New("--timeout must be positive, such as 10s")
	}
	sites, err := f.sites(cmd)
	if err != nil {
		return nil, err
	}
	text, err := readToken(cmd, args)
	if err != nil {
		return nil, err
	}
	if len(sites) == 0 {
		return inspect.Explain(text, inspect.Known{Now: time.Now()})
	}
	guest, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	j := newJudge(guest, f)
	steps := newProgress(cmd.ErrOrStderr(), "inspect")
	defer steps.end()
	j.step = steps.step
	for i := range sites {
		j.prepare(&sites[i]) //nolint:contextcheck // it has the context that it was made with
	}
	report, err := inspect.Explain(text, j.known)
	if err != nil {
		return nil, err
	}
	for _, c := range j.courts {
		report.Sites = append(report.Sites, c.verdict(ctx, inspect.Trim(text)))
	}
	return report, nil
}

// sites are those of the config, none if there is no config. One that is there by chance need not be one of this plugin.
func (f *inspectFlags) sites(cmd *cobra.Command) ([]configuredSite, error) {
	named := cmd.Flags().Changed("config") || cmd.Flags().Changed("site")
	config, err := loadConfig(cmd)
	if errors.Is(err, errNoConfig) && !named {
		return nil, nil
	}
	var sites []configuredSite
	if err == nil {
		sites, err = chosenSites(cmd, config, nil)
	}
	if err != nil && !named {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "The Caddyfile in this directory is left aside: %v\n", hideSecret(err))
		return nil, nil
	}
	return sites, err
}

// readToken reads the token from where the argument says.
func readToken(cmd *cobra.Command, args []string) (string, error) {
	if len(args) == 0 || args[0] == "-" {
		return readInput(cmd)
	}
	if path, ok := strings.CutPrefix(args[0], "@"); ok {
		file, err := os.Open(path) //nolint:gosec // the operator names it
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		defer func() { _ = file.Close() }() // only read
		return readBounded(file)
	}
	_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "The token is in the history of the shell now, and others on this machine could see it. Give it on stdin, or as @file.")
	return args[0], nil
}

// readInput reads stdin. From somebody who types it is one line, which the terminal does not show.
func readInput(cmd *cobra.Command) (string, error) {
	in := cmd.InOrStdin()
	file, ok := in.(*os.File)
	if !ok || !isTerminal(file) {
		return readBounded(in)
	}
	_, _ = fmt.Fprint(cmd.ErrOrStderr(), "Paste the token and press Enter (it is not shown): ")
	line, err := term.ReadPassword(int(file.Fd()))
	_, _ = fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return string(line), nil
}

func readBounded(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, inspect.MaxSize+1))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return string(text), nil
}
