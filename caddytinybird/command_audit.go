package caddytinybird

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/audit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// auditFlags are the flags of one run.
type auditFlags struct {
	tenants, columns []string
	json, unproven   bool
	timeout          time.Duration
}

func auditCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:                   "audit [--config <path> [--adapter <name>]] [--site <host>] [--tenant <value>]... [--tenant-column <name>]... [--json] [--allow-unproven] [--timeout <duration>]",
		Short:                 "Proves that the listed pipes isolate tenants",
		DisableFlagsInUseLine: true,
		Long: `
Looks at every pipe that the config lists. From its definition at Tinybird: each
way through its SQL filters by the fixed parameters, and requires them. From its
answers: a tenant that does not exist reads no rows, and a call without the
parameters is refused.

--tenant names a tenant that exists, by the value of the fixed parameter, or as
name=value,name=value for pipes that have several. Its rows are then looked at:
where the parameter's column is returned, all have to be its own.

--tenant-column names that column where it is called otherwise: a name, or
parameter=column. Both may be given more than once.

--allow-unproven accepts SQL that the audit does not understand. What it refutes
stays a failure.

The exit status is 0 when all pipes are isolated, 1 when one is not or that could
not be proven, and 2 when the audit could not be made. Only Tinybird is asked.`,
		Example: `  caddy tinybird audit --config /etc/caddy/Caddyfile
  caddy tinybird audit --config Caddyfile --tenant org_2abc --tenant org_2def
  caddy tinybird audit --config Caddyfile --site analytics.example.com --json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	configFlags(cmd)
	fl := cmd.Flags()
	fl.StringArrayVar(&f.tenants, "tenant", nil, "A tenant that exists: <value>, or <name>=<value>,...")
	fl.StringArrayVar(&f.columns, "tenant-column", nil, "The column of a fixed parameter: <column>, or <name>=<column>")
	fl.BoolVar(&f.json, "json", false, "Write the report as JSON")
	fl.BoolVar(&f.unproven, "allow-unproven", false, "What cannot be proven is no failure")
	fl.DurationVar(&f.timeout, "timeout", 0, "How long to wait for each of Tinybird's answers; default: 35s")
	return cmd
}

func (f *auditFlags) run(cmd *cobra.Command) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	report, err := f.audit(ctx, cmd)
	if err == nil {
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

func (f *auditFlags) audit(ctx context.Context, cmd *cobra.Command) (*audit.Report, error) {
	o, err := f.options()
	if err != nil {
		return nil, err
	}
	steps := newProgress(cmd.ErrOrStderr(), "audit")
	defer steps.end()
	o.Progress = func(pipe string, n, of int) { steps.step(fmt.Sprintf("%s (%d of %d)", pipe, n, of)) }
	config, err := loadConfig(cmd)
	if err != nil {
		return nil, err
	}
	sites, err := chosenSites(cmd, config, withTinybird)
	if err != nil {
		return nil, err
	}
	report := new(audit.Report)
	for _, s := range sites {
		r, err := auditSite(ctx, s, o)
		if err != nil {
			return nil, siteError(s, err)
		}
		report.Add(r)
	}
	return report, nil
}

func siteError(s configuredSite, err error) error {
	if len(s.hosts) == 0 {
		return err
	}
	return fmt.Errorf("%s: %w", strings.Join(s.hosts, ", "), err)
}

func auditSite(ctx context.Context, s configuredSite, o audit.Options) (audit.SiteReport, error) {
	guest, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	b, err := s.workbench(guest, caddy.Log())
	if err != nil {
		return audit.SiteReport{}, err
	}
	// The audit has a deadline of its own.
	b.transport.Transport.ResponseHeaderTimeout = 0
	defer b.transport.Transport.CloseIdleConnections()
	o.Hosts, o.Policy, o.Key, o.WorkspaceID, o.Base, o.Transport = s.hosts, b.policy, b.key, b.workspace, b.base, b.transport
	o.Notes = s.handler.besidePipes()
	return audit.Run(ctx, o)
}

// besidePipes says what the handler has that the audit does not look at.
func (h *Handler) besidePipes() []string {
	var notes []string
	for i := range h.Events {
		var fields []string
		for _, f := range h.Events[i].Stamp {
			fields = append(fields, f.Name)
		}
		notes = append(notes, fmt.Sprintf("events %s: rows are stamped with %s, whatever their sender says; whether pipes read them by it is seen above, if they are listed.",
			strings.Join(h.Events[i].Datasources, " "), strings.Join(fields, ", ")))
	}
	if h.TokenEndpoint != "" {
		notes = append(notes, fmt.Sprintf("token_endpoint %s: its tokens are fixed as those of the edge are, so what is proven above holds for them; "+
			"their holders ask Tinybird past `params`, `formats` and the edge's own limit, and with SQL over what the pipes return.", h.TokenEndpoint))
	}
	return notes
}

// options are what the flags say about the audit.
func (f *auditFlags) options() (audit.Options, error) {
	o := audit.Options{Columns: map[string]string{}, Unproven: f.unproven, Timeout: f.timeout}
	if f.timeout < 0 {
		return o, errors.New("--timeout must be positive, such as 60s")
	}
	for _, text := range f.tenants {
		t, err := parseTenant(text)
		if err != nil {
			return o, err
		}
		o.Tenants = append(o.Tenants, t)
	}
	for _, text := range f.columns {
		name, column, ok := strings.Cut(text, "=")
		if !ok {
			name, column = "", text
		}
		if column == "" {
			return o, fmt.Errorf("--tenant-column %s names no column; write <column>, or <parameter>=<column>", tinybird.Shown(text))
		}
		o.Columns[name] = column
	}
	return o, nil
}

// parseTenant reads a value, or pairs. A value may hold a = as long as what is before it is no name.
func parseTenant(text string) (audit.Tenant, error) {
	if text == "" {
		return nil, errors.New("an empty --tenant names nobody; write the value of the fixed parameter, or <name>=<value>")
	}
	name, _, ok := strings.Cut(text, "=")
	if !ok || tinybird.CheckName(name) != nil {
		return audit.Tenant{"": text}, nil
	}
	t := audit.Tenant{}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || value == "" || tinybird.CheckName(name) != nil {
			return nil, fmt.Errorf("--tenant %s: %s is no <name>=<value>", tinybird.Shown(text), tinybird.Shown(pair))
		}
		t[name] = value
	}
	return t, nil
}

func (f *auditFlags) write(cmd *cobra.Command, r *audit.Report) error {
	if f.json {
		return printJSON(cmd, r)
	}
	return r.WriteText(cmd.OutOrStdout())
}
