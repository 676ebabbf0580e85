package caddytinybird

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf16"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "tinybird",
		Usage: "<command>",
		Short: "Checks and explains what the directives tinybird and clerk_auth do",
		Long: `
Commands for people who run the directives tinybird and clerk_auth:

- check finds out, before a deploy, what would not work
- token makes the Tinybird token that the edge would make for somebody
- inspect explains a token of Clerk's or Tinybird's, and why it is refused
- audit proves that the pipes isolate tenants
- status shows how the Caddy that runs here does

They read a config as 'caddy run' does, and start nothing. The exit status is 0 when
all is well, 1 when something was found, and 2 when a command could not do its work.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(checkCommand(), tokenCommand(), inspectCommand(), auditCommand(), statusCommand())
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return couldNotRun(cmd, fmt.Errorf("there is no command %s; `caddy help tinybird` lists them", tinybird.Shown(args[0])))
				}
				return cmd.Help()
			}
		},
	})
}

// exitCouldNotRun is the status of a command that could not do its work, where 1 is that it did and found something.
const exitCouldNotRun = 2

// errFindings makes Caddy end with status 1. The report has said all there is, so nothing prints it.
var errFindings = errors.New("there are findings")

// findings ends a command with status 1.
func findings(cmd *cobra.Command) error {
	cmd.SilenceErrors = true
	return errFindings
}

// interruptible is the context of a command, which a signal ends.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// couldNotRun prints the error as Caddy's own commands do and makes Caddy end with status 2. On a terminal Caddy prints a message as it
// is, and this one may hold what others wrote, such as the names in a certificate.
func couldNotRun(cmd *cobra.Command, err error) error {
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
		return exitCouldNotRun, errors.New(tinybird.Printable(hideSecret(err).Error()))
	})(cmd, nil)
}

// configFlags are those of every command that reads a config.
func configFlags(cmd *cobra.Command) {
	cmd.Flags().StringP("config", "c", "", "Configuration file; default: the Caddyfile in this directory")
	cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply")
	cmd.Flags().String("site", "", "Only the handlers that answer for this host")
	_ = cmd.MarkFlagFilename("config") // there is such a flag
	cmd.SilenceUsage = true
	cmd.SetFlagErrorFunc(couldNotRun)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return couldNotRun(cmd, fmt.Errorf("%s takes flags only, not %s", cmd.CommandPath(), tinybird.Shown(args[0])))
		}
		return nil
	}
}

// loadConfig reads the config that the command's flags name, as `caddy validate` does. Nothing is started.
func loadConfig(cmd *cobra.Command) ([]byte, error) {
	fl := caddycmd.Flags{FlagSet: cmd.Flags()}
	config, _, _, err := caddycmd.LoadConfig(fl.String("config"), fl.String("adapter"))
	if err != nil {
		return nil, fmt.Errorf("load the config: %w", err)
	}
	if len(config) == 0 {
		return nil, errNoConfig
	}
	return caddy.RemoveMetaFields(config), nil
}

// errNoConfig is about a config that was not named and is not there.
var errNoConfig = errors.New("there is no config: name one with --config, or run this where the Caddyfile is")

// chosenSites are those sites of a config that the command's flags name.
func chosenSites(cmd *cobra.Command, config []byte, keep func([]configuredSite) ([]configuredSite, error)) ([]configuredSite, error) {
	sites, err := configuredSites(config)
	if err != nil {
		return nil, err
	}
	if keep != nil {
		if sites, err = keep(sites); err != nil {
			return nil, err
		}
	}
	host, err := cmd.Flags().GetString("site")
	if err != nil {
		return nil, fmt.Errorf("site: %w", err)
	}
	return chooseSites(sites, host)
}

// printJSON writes a report for programs.
func printJSON(cmd *cobra.Command, report any) error {
	var doc bytes.Buffer
	enc := json.NewEncoder(&doc)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(report)
	if err == nil {
		_, err = io.WriteString(cmd.OutOrStdout(), escapeCodes(doc.String()))
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// escapeCodes writes what could steer a terminal as JSON's escapes. In JSON that is the same text: encoding/json escapes only some of it.
func escapeCodes(doc string) string {
	var b strings.Builder
	for _, r := range doc {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}
