package caddytinybird

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "tinybird",
		Usage: "<command>",
		Short: "Checks what the directive tinybird depends on",
		Long: `
Commands for people who run the directive tinybird. They read a config as
'caddy run' does and talk to Tinybird alone.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(auditCommand())
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return couldNotRun(cmd, fmt.Errorf("there is no command %q; `caddy help tinybird` lists them", args[0]))
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

// couldNotRun prints the error as Caddy's own commands do and makes Caddy end with status 2.
func couldNotRun(cmd *cobra.Command, err error) error {
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
		return exitCouldNotRun, hideSecret(err)
	})(cmd, nil)
}

// configFlags are those of every command that reads a config.
func configFlags(cmd *cobra.Command) {
	cmd.Flags().StringP("config", "c", "", "Configuration file; default: the Caddyfile in this directory")
	cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply")
	cmd.Flags().String("site", "", "Only the handlers that answer for this host")
	cmd.SilenceUsage = true
	cmd.SetFlagErrorFunc(couldNotRun)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return couldNotRun(cmd, fmt.Errorf("%s takes flags only, not %q", cmd.CommandPath(), args[0]))
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
		return nil, errors.New("there is no config: name one with --config, or run this where the Caddyfile is")
	}
	return caddy.RemoveMetaFields(config), nil
}
