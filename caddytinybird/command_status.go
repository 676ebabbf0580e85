package caddytinybird

import (
	"fmt"
	"io"
	"net/http"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "status [--address <interface>] [--config <path> [--adapter <name>]]",
		Short:                 "Shows how the Caddy that runs here does, and whether one runs",
		DisableFlagsInUseLine: true,
		Long: `
Asks the admin endpoint of the running Caddy for GET /tinybird/status and prints the
answer, which is JSON: the keys of Clerk, the caches, the limits and
their stores. No secret is in it.

The admin endpoint is that of --address, else of the config, else Caddy's default,
localhost:2019. With "admin off" there is none to ask.

The exit status is 0 when Caddy answers, so this is a health check for a container
without a shell, and 1 when it does not. An outage of Clerk or Tinybird leaves it at
0: starting Caddy anew would mend neither.`,
		Example: `  caddy tinybird status
  caddy tinybird status --address unix//run/caddy/admin.sock`,
		RunE: runStatus,
	}
	configFlags(cmd)
	fl := cmd.Flags()
	fl.Lookup("config").Usage = "Configuration file that names the admin endpoint"
	_ = fl.MarkHidden("site") // there is such a flag; one process has one status
	fl.String("address", "", "The address of the admin endpoint, if not that of the config")
	return cmd
}

func runStatus(cmd *cobra.Command, _ []string) error {
	fl := caddycmd.Flags{FlagSet: cmd.Flags()}
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, fl.String("config"), fl.String("adapter"))
	if err != nil {
		return couldNotRun(cmd, err)
	}
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, "/tinybird/status", nil, nil)
	if err == nil {
		defer resp.Body.Close()
		var doc []byte
		if doc, err = io.ReadAll(resp.Body); err == nil {
			_, err = io.WriteString(cmd.OutOrStdout(), escapeCodes(string(doc)))
		}
	}
	if err != nil {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "No Caddy with caddy-tinybird answers at %s: %s\n", address, tinybird.Printable(err.Error()))
		return findings(cmd)
	}
	return nil
}
