package caddytinybird

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/assume"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/inspect"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// tokenFlags are the flags of one run.
type tokenFlags struct {
	assume.Session

	pipe string
	rps  int
	json bool
}

func tokenCommand() *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use: "token [--config <path> [--adapter <name>]] [--site <host>] [--pipe <pipe>] [--user <id>] [--org <id> [--org-slug <slug>] [--role <role>]] " +
			"[--plan <plan>] [--permission <permission>]... [--feature <feature>]... [--claim <path>=<value>]... [--session <id>] [--rps <n>] [--json]",
		Short:                 "Makes the Tinybird token that the edge would make for somebody",
		DisableFlagsInUseLine: true,
		Long: `
Makes a Tinybird token as the edge would for a session that you describe: for one
pipe, fixed to the values that the config takes from the session, under the same
name and rate. Where the edge would refuse, so does this, in the same words.

The token is written to stdout and nothing else is; what it is, and how to call
Tinybird with it, is written to stderr. It is a credential: whoever has it reads these
rows until it expires. Nobody is asked for anything, and no session is made at Clerk.

--pipe may be left out if the config lists one pipe. With a token_endpoint in the
config the token is then the one that it hands out, for all pipes of the session.

--role and --permission are written as Clerk shows them (org:admin,
org:reports:read), --plan and --feature with their scope (o:pro, u:beta). --claim
sets what {clerk.claims.<path>} reads; a list is written as JSON.

--rps says what a rate_limit with a placeholder amounts to for this session.

The exit status is 0 with a token, 1 when the edge would refuse, and 2 when that
could not be found out.`,
		Example: `  caddy tinybird token --config /etc/caddy/Caddyfile --pipe top_pages --user user_2abc --org org_2abc
  caddy tinybird token --pipe revenue_report --org org_2abc --role org:admin --plan o:pro --json
  caddy tinybird token --pipe team_activity --org org_2abc --claim team_id=sales`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	configFlags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.pipe, "pipe", "", "The pipe to read")
	fl.StringVar(&f.User, "user", "", "The user's id, such as user_2abc")
	fl.StringVar(&f.ID, "session", "", "The session's id, such as sess_2abc")
	fl.StringVar(&f.Org, "org", "", "The active organization's id, such as org_2abc")
	fl.StringVar(&f.Slug, "org-slug", "", "The organization's slug")
	fl.StringVar(&f.Role, "role", "", "The user's role in it, such as org:admin")
	fl.StringVar(&f.Plan, "plan", "", "The plan, such as o:pro or u:free")
	fl.StringArrayVar(&f.Permissions, "permission", nil, "A permission in the organization, such as org:reports:read")
	fl.StringArrayVar(&f.Features, "feature", nil, "A feature, such as o:reports or u:beta")
	fl.StringArrayVar(&f.Claims, "claim", nil, "A further claim: <path>=<value>")
	fl.IntVar(&f.rps, "rps", 0, "Requests a second, where rate_limit is a placeholder")
	fl.BoolVar(&f.json, "json", false, "Write the token, what it says and how to use it as JSON")
	return cmd
}

// mintedToken is what the command writes as JSON.
type mintedToken struct {
	Token     string          `json:"token"`
	Header    json.RawMessage `json:"header"`
	Claims    json.RawMessage `json:"claims"`
	ExpiresAt time.Time       `json:"expires_at"`
	URL       string          `json:"url"`
	Curl      string          `json:"curl"` // reads the token from the variable TOKEN

	pipes []string
	name  string
	rps   int
}

// refusedToken is what it writes when the edge would refuse.
type refusedToken struct {
	Refused *inspect.Refusal `json:"refused"`
}

// shownRefusal is a refusal as an operator may see it.
func shownRefusal(refusal *apierr.Error) *inspect.Refusal {
	if refusal == nil {
		return nil
	}
	r := &inspect.Refusal{Status: refusal.Status, Code: string(refusal.Code), Error: refusal.Message, Docs: refusal.Code.Help()}
	if refusal.Err != nil {
		r.Why = hideSecret(refusal.Err).Error()
	}
	return r
}

func (f *tokenFlags) run(cmd *cobra.Command) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	t, err := f.mint(ctx, cmd)
	if refusal := (*apierr.Error)(nil); errors.As(err, &refusal) {
		if err := f.writeRefusal(cmd, shownRefusal(refusal)); err != nil {
			return couldNotRun(cmd, err)
		}
		return findings(cmd)
	}
	if err == nil {
		err = f.write(cmd, t)
	}
	if err != nil {
		return couldNotRun(cmd, err)
	}
	return nil
}

func (f *tokenFlags) mint(ctx context.Context, cmd *cobra.Command) (*mintedToken, error) {
	id, err := f.Identity()
	if err != nil {
		return nil, err
	}
	config, err := loadConfig(cmd)
	if err != nil {
		return nil, err
	}
	sites, err := chosenSites(cmd, config, withTinybird)
	if err != nil {
		return nil, err
	}
	guest, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	s, b, err := f.site(guest, sites)
	if err != nil {
		return nil, err
	}
	if s.auth != nil {
		if refusal := unmet(s.auth.Require, id); refusal != nil {
			return nil, refusal
		}
	}
	return f.sign(s, b, id)
}

// site is the one handler that is meant: the one that lists the pipe, if several are left.
func (f *tokenFlags) site(ctx caddy.Context, sites []configuredSite) (*configuredSite, *workbench, error) {
	var found *configuredSite
	var bench *workbench
	var hosts []string
	for i := range sites {
		b, err := sites[i].workbench(ctx, caddy.Log())
		if err != nil {
			return nil, nil, siteError(sites[i], err)
		}
		if f.pipe != "" && len(sites) > 1 && !b.policy.Listed(f.pipe) {
			continue
		}
		found, bench = &sites[i], &b
		hosts = append(hosts, sites[i].name())
	}
	switch {
	case found == nil:
		return nil, nil, apierr.NoEndpoint().Wrap(fmt.Errorf("no site of the config lists the pipe %s", tinybird.Shown(f.pipe)))
	case len(hosts) > 1:
		return nil, nil, fmt.Errorf("several sites could be meant; name one with --site: %s", strings.Join(hosts, "; "))
	}
	return found, bench, nil
}

// sign makes the token as the handler would.
func (f *tokenFlags) sign(s *configuredSite, b *workbench, id *clerk.Identity) (*mintedToken, error) {
	set, format, err := f.grants(s, b, id)
	if err != nil {
		return nil, err
	}
	out := &mintedToken{name: set.TokenName}
	if out.rps, err = f.rate(set.Rate); err != nil {
		return nil, err
	}
	o := tinybird.MinterOptions{Key: b.key.Bytes, WorkspaceID: b.workspace}
	if s.handler.Token != nil {
		o.TTL = time.Duration(s.handler.Token.TTL)
	}
	minter, err := tinybird.NewMinter(o)
	if err != nil {
		return nil, err
	}
	defer minter.Close()
	if out.Token, out.ExpiresAt, _, err = minter.MintAll(set, out.rps); err != nil {
		return nil, err
	}
	out.ExpiresAt = out.ExpiresAt.UTC()
	for _, g := range set.Grants {
		out.pipes = append(out.pipes, g.Pipe)
	}
	out.URL = b.base.String() + "/v0/pipes/" + out.pipes[0] + "." + format
	out.Curl = `curl -H "Authorization: Bearer $TOKEN" '` + out.URL + `'`
	parts := strings.Split(out.Token, ".")
	for i, into := range []*json.RawMessage{&out.Header, &out.Claims} {
		if *into, err = base64.RawURLEncoding.DecodeString(parts[i]); err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
	}
	return out, nil
}

// grants are what the token lets its holder read, and a format in which that may be asked for.
func (f *tokenFlags) grants(s *configuredSite, b *workbench, id *clerk.Identity) (*tinybird.GrantSet, string, error) {
	pipes := b.policy.Describe()
	name := f.pipe
	if name == "" && len(pipes) == 1 {
		name = pipes[0].Name
	}
	if name == "" {
		if s.handler.TokenEndpoint == "" {
			return nil, "", fmt.Errorf("which pipe? Name one with --pipe: %s", strings.Join(b.policy.Pipes(), ", "))
		}
		set, err := b.policy.AuthorizeAll(id)
		return set, "json", err
	}
	format := "json"
	if i := slices.IndexFunc(pipes, func(p tinybird.PipeInfo) bool { return p.Name == name }); i >= 0 && !slices.Contains(pipes[i].Formats, format) {
		format = pipes[i].Formats[0]
	}
	g, err := b.policy.Authorize(name, format, id)
	if err != nil {
		return nil, "", err
	}
	return &tinybird.GrantSet{TokenName: g.TokenName, Grants: []*tinybird.Grant{g}, Rate: g.Rate}, format, nil
}

// rate is the number of requests per second that the token has, 0 for no limit.
func (f *tokenFlags) rate(rate *tinybird.RateSpec) (int, error) {
	if rate == nil {
		return 0, nil
	}
	text := rate.RPS
	if hasPlaceholder(text) {
		if f.rps == 0 {
			return 0, fmt.Errorf("rate_limit is %s, which the site works out for each request; say with --rps what it is for this session", text)
		}
		text = strconv.Itoa(f.rps)
	}
	rps, err := tinybird.ParseRPS(text)
	if err != nil {
		return 0, fmt.Errorf("--rps: %w", err)
	}
	return rps, nil
}

func (f *tokenFlags) write(cmd *cobra.Command, t *mintedToken) error {
	if f.json {
		return printJSON(cmd, t)
	}
	rate := "without a rate limit"
	if t.rps > 0 {
		rate = fmt.Sprintf("at %d requests a second", t.rps)
	}
	text := fmt.Sprintf("A Tinybird token for %s, counted as %s, %s, until %s.\n"+
		"It is a credential: whoever has it reads these rows until then, with SQL of their own too.\nWith the token in the variable TOKEN:\n  %s\n",
		strings.Join(t.pipes, ", "), t.name, rate, t.ExpiresAt.Format("15:04:05 MST"), t.Curl)
	_, err := fmt.Fprint(cmd.ErrOrStderr(), text)
	if err == nil {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), t.Token)
	}
	if err != nil {
		return fmt.Errorf("write the token: %w", err)
	}
	return nil
}

func (f *tokenFlags) writeRefusal(cmd *cobra.Command, r *inspect.Refusal) error {
	if f.json {
		return printJSON(cmd, refusedToken{r})
	}
	text := fmt.Sprintf("The edge would refuse: %d %s: %s\n", r.Status, r.Code, r.Error)
	if r.Why != "" {
		text += "  Why: " + r.Why + "\n"
	}
	text += "  " + r.Docs + "\n"
	if _, err := fmt.Fprint(cmd.ErrOrStderr(), text); err != nil {
		return fmt.Errorf("write the refusal: %w", err)
	}
	return nil
}
