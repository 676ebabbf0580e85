// Package demo shows the whole product on one machine without an account: a Clerk-shaped issuer and a Tinybird-shaped
// API, Caddy with this plugin between them, a page that signs people in, asks the edge and
// tries to get around it, and a plain site behind clerk_auth. [Check] does the same by itself.
//
// Everything listens on loopback only and anybody who reaches it can sign in as anybody. The keys are made for
// one run.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// Options configures a Demo.
type Options struct {
	// Listen is the loopback address of the edge, such as "127.0.0.1:9000" or ":9000". "" is port 8080 of 127.0.0.1
	// when that is free, else a free port.
	Listen string

	// Container is for a demo whose ports are published: the edge's is 8080 unless Listen says otherwise, the plain site and
	// the issuer have the two after it, and all three are also reached at the machine's other addresses.
	Container bool

	// LiveEvery lets a new event happen each time so much has passed; 0 leaves the events as they are.
	LiveEvery time.Duration
}

// Demo is a running demo.
type Demo struct {
	// Origin is where the edge answers: what to open in a browser.
	Origin string
	// Site is the origin of the plain site, which the edge serves, too.
	Site string
	// Caddyfile is the config that the edge runs with.
	Caddyfile string
	// Stack has the issuer and the API.
	Stack *devstack.Stack

	app       *http.Server
	serving   sync.WaitGroup
	home      string // the directory of all files
	edge      *edge
	decisions *decisions
	relays    []*relay
}

// Start starts the issuer, the API, the page and the edge. The edge is Caddy itself, of which a process
// has one: only one Demo can run at a time.
func Start(ctx context.Context, o Options) (*Demo, error) {
	d, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	d.edge, err = startEdge(d.Caddyfile, map[string]string{
		"CLERK_PUBLISHABLE_KEY": d.Stack.Issuer.PublishableKey(),
		"CLERK_SECRET_KEY":      d.Stack.Issuer.SecretKey(),
		"TINYBIRD_SIGNING_KEY":  d.Stack.API.SigningKey(),
	})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if o.Container {
		outside, err := outsideAddresses()
		if err == nil {
			err = d.letIn(ctx, outside)
		}
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// Config returns the Caddyfile that Start would run now. Nothing of it keeps listening.
func Config(ctx context.Context, o Options) (string, error) {
	d, err := prepare(ctx, o)
	if err != nil {
		return "", err
	}
	return d.Caddyfile, d.Close()
}

// prepare starts all but the edge.
func prepare(ctx context.Context, o Options) (*Demo, error) {
	if o.Container && o.Listen == "" {
		o.Listen = containerListen
	}
	address, err := listenAddress(ctx, o.Listen)
	if err != nil {
		return nil, err
	}
	issuerPort, err := o.issuerPort(address)
	if err != nil {
		return nil, err
	}
	d := &Demo{Origin: "http://" + address.String(), decisions: newDecisions()}
	d.Stack, err = devstack.Start(ctx, devstack.Options{
		Issuer:     devstack.IssuerOptions{AppOrigin: d.Origin, Live: true},
		IssuerAddr: netip.AddrPortFrom(siteHost(address), issuerPort).String(),
		API:        devstack.APIOptions{LiveEvery: o.LiveEvery},
	})
	if err != nil {
		return nil, fmt.Errorf("start the issuer and the API: %w", err)
	}
	if err := d.configure(ctx, address); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// configure makes the files, starts what serves the page, and writes the config.
func (d *Demo) configure(ctx context.Context, address netip.AddrPort) (err error) {
	if d.home, err = os.MkdirTemp("", "caddy-tinybird-demo-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	root := filepath.Join(d.home, "site")
	if err := writeSite(root); err != nil {
		return err
	}
	told, err := d.decisions.listen(ctx)
	if err != nil {
		return err
	}
	app, err := d.serveApp(ctx, address.String())
	if err != nil {
		return err
	}
	site, err := siteAddress(ctx, address)
	if err != nil {
		return err
	}
	d.Site = "http://" + site.String()
	d.Stack.Issuer.AddSiteOrigin(d.Site)
	d.Caddyfile, err = caddyfileText(places{
		Origin:   d.Origin,
		Bind:     address.Addr().String(),
		Port:     address.Port(),
		Site:     d.Site,
		SiteBind: site.Addr().String(),
		SitePort: site.Port(),
		Root:     root,
		Storage:  filepath.Join(d.home, "storage"),
		Issuer:   d.Stack.IssuerURL,
		Upstream: d.Stack.APIURL,
		App:      app,

		Decisions: told,
	})
	return err
}

// serveApp serves the page on a free port and returns its address.
func (d *Demo) serveApp(ctx context.Context, host string) (string, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for the page: %w", err)
	}
	d.app = &http.Server{Handler: newApp(d, host), ReadHeaderTimeout: 10 * time.Second}
	d.serving.Go(func() {
		// Serve returns only after Close, and then with http.ErrServerClosed.
		_ = d.app.Serve(ln)
	})
	return ln.Addr().String(), nil
}

// Close ends everything and removes what was written.
func (d *Demo) Close() error {
	var errs []error
	for _, r := range d.relays {
		errs = append(errs, r.Close())
	}
	d.decisions.end() // or the edge would wait for those who look
	if d.edge != nil {
		errs = append(errs, d.edge.stop())
	}
	if d.app != nil {
		errs = append(errs, d.app.Close())
	}
	errs = append(errs, d.decisions.close())
	d.serving.Wait()
	errs = append(errs, d.Stack.Close())
	if d.home != "" {
		errs = append(errs, os.RemoveAll(d.home))
	}
	return errors.Join(errs...)
}
