// Package audit proves that pipes isolate tenants, as far as that can be proven from outside: it reads the pipes'
// definitions and shows that every way through their templates filters by the fixed parameters and requires them, and it
// reads the pipes with tokens like those of the edge, for tenants that do not exist and for some that do.
//
// What it cannot decide it reports as not proven. It is right about the SQL it accepts: an equality between a column and the
// parameter that nothing weakens, in each SELECT that returns rows of a data source, or around it.
package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tbapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// Tenant is a tenant that exists, by the values of its fixed parameters. Under the empty name is the value for pipes that
// have only one.
type Tenant map[string]string

// Options say what to audit.
type Options struct {
	Hosts       []string // for the report
	Base        *url.URL
	Transport   http.RoundTripper
	Key         tinybird.SigningKey
	WorkspaceID string
	Policy      *tinybird.Policy
	Notes       []string // for the report

	Tenants  []Tenant
	Columns  map[string]string // the column of a fixed parameter, where it is named otherwise; under "": of the only one
	Unproven bool              // what is not proven is no failure
	Timeout  time.Duration     // for each request; 0: 35s
	Progress func(pipe string, n, of int)
}

const defaultTimeout = 35 * time.Second

// Run audits all pipes of a policy. The error is of an audit that could not be made.
func Run(ctx context.Context, o Options) (SiteReport, error) {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	minter, err := tinybird.NewMinter(tinybird.MinterOptions{Key: o.Key.Bytes, WorkspaceID: o.WorkspaceID, TTL: 10 * time.Minute})
	if err != nil {
		return SiteReport{}, err
	}
	defer minter.Close()
	a := auditor{
		Options: o, minter: minter,
		client: &tbapi.Client{Base: o.Base, Transport: o.Transport, Timeout: o.Timeout, Token: string(o.Key.Bytes)},
	}
	r := SiteReport{Hosts: o.Hosts, Upstream: o.Base.String(), WorkspaceID: o.WorkspaceID, OK: true, Pipes: []PipeReport{}, Notes: o.Notes}
	if r.Hosts == nil {
		r.Hosts = []string{}
	}
	pipes := o.Policy.Describe()
	for i, p := range pipes {
		if o.Progress != nil {
			o.Progress(p.Name, i+1, len(pipes))
		}
		report, err := a.pipe(ctx, p)
		if err != nil {
			return SiteReport{}, fmt.Errorf("pipe %s: %w", p.Name, err)
		}
		r.Pipes = append(r.Pipes, report)
		r.OK = r.OK && report.OK
	}
	return r, nil
}

type auditor struct {
	Options

	client *tbapi.Client
	minter *tinybird.Minter
}

func (a *auditor) pipe(ctx context.Context, p tinybird.PipeInfo) (PipeReport, error) {
	r := PipeReport{Pipe: p.Name, OK: true, FixedParams: []string{}}
	for _, f := range p.Fixed {
		r.FixedParams = append(r.FixedParams, f.Name)
	}
	if len(p.Fixed) == 0 {
		r.Checks = []Check{{Check: checkDefinition, Status: Skip, Message: "unrestricted: the config lets every signed-in user read all of its rows"}}
		return r, nil
	}
	checks, err := a.checks(ctx, p, r.FixedParams)
	if err != nil {
		return PipeReport{}, err
	}
	r.Checks = checks
	for _, c := range checks {
		r.OK = r.OK && c.Status != Fail && (c.Status != Unproven || a.Unproven)
	}
	return r, nil
}

func (a *auditor) checks(ctx context.Context, p tinybird.PipeInfo, names []string) ([]Check, error) {
	d, err := a.client.Definition(ctx, p.Name)
	switch {
	case errors.Is(err, tbapi.ErrNoPipe):
		return []Check{failed(checkDefinition, CodeMissing, "", "the workspace has no pipe of this name")}, nil
	case err != nil:
		return nil, err
	case d.Endpoint == "":
		return []Check{failed(checkDefinition, CodeMissing, "", "the pipe is not published: it has no endpoint")}, nil
	}
	an := newAnalysis(ctx, d, names, a.client.Definition)
	checks := definitionChecks(an, names)
	if an.err != nil {
		return nil, an.err
	}
	dynamic, err := a.dynamic(ctx, p, an.openers())
	return append(checks, dynamic...), err
}

// definitionChecks is what the pipe's SQL shows about each fixed parameter.
func definitionChecks(an *analysis, names []string) []Check {
	var checks []Check
	for _, name := range names {
		whys := an.prove(name)
		if len(whys) == 0 {
			checks = append(checks, Check{Check: checkDefinition, Status: Pass, Param: name, Message: "every branch filters by " + name + " and requires it"})
		}
		for _, w := range whys {
			c := failed(checkDefinition, w.code, name, w.text)
			c.Node, c.Branch = w.node, w.branch
			if !w.certain() {
				c.Status = Unproven
			}
			checks = append(checks, c)
		}
	}
	return checks
}

func failed(check string, code Code, param, message string) Check {
	return Check{Check: check, Status: Fail, Code: code, Param: param, Message: message, Fix: strings.ReplaceAll(fixes[code], "%s", param)}
}

// mint makes a token as the edge does, for one pipe and some values.
func (a *auditor) mint(pipe string, fixed []tinybird.FixedValue) (string, error) {
	token, _, err := a.minter.Mint(&tinybird.Grant{Pipe: pipe, Format: "json", TokenName: "caddy-tinybird-audit", Fixed: fixed}, 0)
	return token, err
}

// nobody is a value that no tenant has.
func nobody(f tinybird.FixedInfo) any {
	var value any
	var err error
	switch f.Type {
	case tinybird.TypeNumber:
		// Small enough for the signed 64-bit integer, the double and the pipe's Int64 alike.
		var digits strings.Builder
		digits.WriteString("9")
		for _, c := range []byte(rand.Text()[:14]) {
			digits.WriteByte('0' + c%10)
		}
		value, err = tinybird.TypedValue(digits.String(), f.Type)
	case tinybird.TypeBoolean:
		value, err = tinybird.TypedValue("false", f.Type)
	default:
		value, err = tinybird.TypedValue("nobody_"+strings.ToLower(rand.Text()), tinybird.TypeString)
	}
	if err != nil { // the values above have their types
		return "nobody"
	}
	return value
}
