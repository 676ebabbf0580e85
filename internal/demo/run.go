package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/template"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// livePace is how often an event happens while somebody looks.
const livePace = 5 * time.Second

// Run starts the demo, tells what to open and what to try, and returns when ctx ends.
func Run(ctx context.Context, o Options, out io.Writer) error {
	o.LiveEvery = livePace
	d, err := Start(ctx, o)
	if err != nil {
		return err
	}
	if err := welcome(out, d); err != nil {
		return errors.Join(err, d.Close())
	}
	<-ctx.Done()
	return d.Close()
}

// RunCheck starts the demo on a free port, unless the options name one, and checks it.
func RunCheck(ctx context.Context, o Options, out io.Writer) error {
	if o.Listen == "" {
		o.Listen = loopback.String() + ":0"
	}
	d, err := Start(ctx, o)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "The edge answers at %s, on its own: %s\n", d.Origin, "Clerk and Tinybird are stand-ins.")
	return errors.Join(Check(ctx, d.Target(), out), d.Close())
}

var welcomeText = template.Must(template.New("welcome").Parse(`
caddy-tinybird: the demo is running.

  Open   {{.Origin}}

  Try    Sign in as Ada (Acme) and as Cleo (Globex): the same requests, other rows.
         Edit organization_id: your own rows come back.
         Send twelve at once: 429, and when to come back.
         Sign in as Dana, who has no organization: 403.
         Watch what the edge decides about each request, also about those from here.

  And    {{.Site}}
         Plain HTML behind clerk_auth: sign in, wait for a minute, reload, sign out.

  Or     curl -c jar -H 'Content-Type: application/json' -d '{"user":"ada"}' {{.Origin}}/dev/sign-in
         curl -b jar '{{.Origin}}/v0/pipes/top_pages.json?organization_id={{.Other}}'

  Edge      {{.Origin}}   Caddy with this plugin
  Clerk     {{.Issuer}}   a stand-in: key set, sessions
  Tinybird  {{.API}}   a stand-in: pipes over made-up events

  demo --print-config shows the Caddyfile; demo --check tries all of this by itself.
  Ctrl-C ends the demo and leaves nothing behind.
`))

func welcome(out io.Writer, d *Demo) error {
	err := welcomeText.Execute(out, map[string]string{
		"Origin": d.Origin, "Site": d.Site, "Issuer": d.Stack.IssuerURL, "API": d.Stack.APIURL, "Other": devstack.GlobexID,
	})
	if err != nil {
		return fmt.Errorf("say what to open: %w", err)
	}
	return nil
}
