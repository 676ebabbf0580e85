package preflight

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/audit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tbapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// workspace is the Tinybird workspace of a site, and what was asked of it.
type workspace struct {
	*Tinybird

	api    *tbapi.Client
	minter *tinybird.Minter
	tokens *tbapi.StaticTokens // nil until they were listed
	probed map[string]answer   // by pipe
}

// answer is what a pipe answers to a token as the edge makes it.
type answer struct {
	status int
	err    error
}

// refused reports whether Tinybird took the token for none of its own.
func (a answer) refused() bool {
	return a.status == http.StatusUnauthorized || a.status == http.StatusForbidden
}

const (
	fixSigningKey = "It has to be the token named `workspace admin token` (`admin token` in Classic and Local) of that workspace, " +
		"not the one named `admin` with an e-mail address; and upstream the address of its region."
	fixReach   = "Check `upstream` (or the region of the signing key), `transport`, and that this machine reaches that address."
	fixAgain   = "Try again, and give it more time with --timeout if that is what it needs."
	fixLimited = "A limit of the workspace's plan, or of a token, is used up. Try again later; Tinybird shows what was used."
	fixPublish = "Correct the name, publish the pipe as an endpoint, or take it out of the config."
)

// tinybird checks what a site serves.
func (r *run) tinybird(ctx context.Context, t *Tinybird) {
	r.signingKey(t)
	minter, err := tinybird.NewMinter(tinybird.MinterOptions{Key: t.Key.Bytes, WorkspaceID: t.WorkspaceID, TTL: t.TTL, Now: r.o.Now})
	if err != nil {
		r.fail(CheckSigningKey, "", err.Error(), "")
		return
	}
	defer minter.Close()
	w := &workspace{
		Tinybird: t, minter: minter, probed: map[string]answer{},
		api: &tbapi.Client{Base: t.Base, Transport: t.Transport, Timeout: r.o.Timeout, Token: string(t.Key.Bytes)},
	}
	pipes := t.Policy.Describe()
	why := offline
	if r.o.Offline {
		r.skip(CheckUpstream, t.Base.Host, why)
	} else if why = "not asked, because of the above"; r.reach(ctx, w) && r.mintedToken(ctx, w, pipes) {
		why = ""
	}
	for _, p := range pipes {
		if why != "" {
			r.skip(CheckPipe, p.Name, why)
			continue
		}
		r.o.Step("the pipe " + p.Name)
		r.pipe(ctx, w, p)
	}
	for _, e := range t.Events {
		r.events(ctx, w, e, why)
	}
}

func (r *run) signingKey(t *Tinybird) {
	at := "at " + t.Base.String()
	if t.Key.Host != "" {
		at = "in the region " + t.Key.Host + ", " + at
	}
	r.pass(CheckSigningKey, "", "for the workspace "+t.WorkspaceID+" "+at)
}

// reach asks for what needs no token, so that none is sent to a place that is not Tinybird's.
func (r *run) reach(ctx context.Context, w *workspace) bool {
	r.o.Step("Tinybird at " + w.Base.Host)
	start := r.o.Now()
	res, err := w.api.Get(ctx, "/v0/regions", nil, "", 0)
	if err != nil {
		r.fail(CheckUpstream, w.Base.Host, err.Error(), fixReach)
		return false
	}
	if res.Status >= http.StatusInternalServerError || res.Status >= 300 && res.Status < 400 {
		r.fail(CheckUpstream, w.Base.Host, fmt.Sprintf("it answers with status %d", res.Status), fixReach)
		return false
	}
	r.pass(CheckUpstream, w.Base.Host, "answers")
	ttl := w.TTL
	if ttl == 0 {
		ttl = tinybird.DefaultTTL
	}
	// A token is used until a third of its life is left.
	r.clock(w.Base.Host, res.Header, start, r.o.Now(), r.skew, ttl/3)
	return true
}

// mintedToken finds out whether Tinybird takes tokens that the signing key signs: for a tenant that does not exist, it reads the
// first pipe that has one.
func (r *run) mintedToken(ctx context.Context, w *workspace, pipes []tinybird.PipeInfo) bool {
	if len(pipes) == 0 {
		return true
	}
	probe := pipes[0]
	for _, p := range pipes {
		if _, random := audit.Strangers(p); random {
			probe = p
			break
		}
	}
	a := w.ask(ctx, probe)
	switch {
	case a.err != nil:
		r.fail(CheckMintedToken, "", a.err.Error(), fixReach)
		return false
	case a.refused():
		r.fail(CheckMintedToken, "", fmt.Sprintf("Tinybird refuses a token that the signing key signs (%d)%s", a.status, w.aboutKey(ctx)), fixSigningKey)
		return false
	case a.status >= http.StatusInternalServerError:
		r.fail(CheckMintedToken, "", fmt.Sprintf("Tinybird answers with status %d", a.status), "Try again later.")
		return false
	}
	text := "Tinybird accepts a token that the signing key signs"
	if a.status == http.StatusTooManyRequests {
		text += "; it answered 429, because a limit is used up"
	}
	r.pass(CheckMintedToken, "", text)
	return true
}

// aboutKey says what the workspace's list of tokens tells of the signing key, if it can be read with it.
func (w *workspace) aboutKey(ctx context.Context) string {
	tokens, err := w.list(ctx)
	if err != nil {
		return ", and the signing key itself"
	}
	found, ok := tokens.Find(string(w.Key.Bytes))
	if !ok {
		return ""
	}
	return fmt.Sprintf("; it is the token named %q", found.Name)
}

// list lists the workspace's static tokens, once.
func (w *workspace) list(ctx context.Context) (*tbapi.StaticTokens, error) {
	if w.tokens != nil {
		return w.tokens, nil
	}
	tokens, err := w.api.Tokens(ctx)
	if err == nil {
		w.tokens = tokens
	}
	return tokens, err
}

// ask reads a pipe for a tenant that does not exist, with a token as the edge makes it. What comes back is not looked at, but for its
// status: an answer to a refused token repeats the token.
func (w *workspace) ask(ctx context.Context, p tinybird.PipeInfo) answer {
	if a, ok := w.probed[p.Name]; ok {
		return a
	}
	fixed, _ := audit.Strangers(p)
	format := "json"
	if len(p.Formats) > 0 {
		format = p.Formats[0]
	}
	token, _, err := w.minter.Mint(&tinybird.Grant{Pipe: p.Name, Format: format, TokenName: "caddy-tinybird-check", Fixed: fixed}, 0)
	var res tbapi.Response
	if err == nil {
		res, err = w.api.Get(ctx, "/v0/pipes/"+p.Name+"."+format, nil, token, 0)
	}
	a := answer{res.Status, err}
	w.probed[p.Name] = a
	return a
}

// pipe checks that a pipe is there, is an endpoint, uses what it is fixed to, and answers.
func (r *run) pipe(ctx context.Context, w *workspace, p tinybird.PipeInfo) {
	fixed := make([]string, 0, len(p.Fixed))
	for _, f := range p.Fixed {
		fixed = append(fixed, f.Name)
	}
	use, ok := r.definition(ctx, w, p.Name, fixed)
	if !ok {
		return
	}
	text := "is an endpoint, and uses " + list(fixed)
	if len(fixed) == 0 {
		text = "is an endpoint, and unrestricted: every signed-in user reads all of its rows"
	}
	switch a := w.ask(ctx, p); {
	case a.err != nil:
		r.fail(CheckPipe, p.Name, a.err.Error(), fixAgain)
	case a.status == http.StatusOK:
		r.pass(CheckPipe, p.Name, text)
	case a.status == http.StatusBadRequest && len(use.Required) > 0:
		r.pass(CheckPipe, p.Name, text+"; a client has to send "+list(use.Required))
	case a.status == http.StatusBadRequest:
		r.warn(CheckPipe, p.Name, "Tinybird answers 400 to a call with the fixed parameters alone",
			"If the pipe wants a number or a boolean, say so: `fixed_param <name> <value> number`. If it wants parameters of the client, that is as it should be.")
	case a.refused():
		r.fail(CheckPipe, p.Name, fmt.Sprintf("Tinybird refuses a token for it (%d)", a.status), "Look at it in Tinybird: it may belong to another workspace that is shared with this one.")
	case a.status == http.StatusNotFound:
		r.fail(CheckPipe, p.Name, "Tinybird answers 404", fixPublish)
	case a.status == http.StatusTooManyRequests:
		r.warn(CheckPipe, p.Name, tbapi.ErrLimited.Error(), fixLimited)
	case a.status == http.StatusRequestTimeout:
		r.warn(CheckPipe, p.Name, "Tinybird answers with status 408", "Try again later; a query that takes too long has to be made faster.")
	default:
		r.fail(CheckPipe, p.Name, fmt.Sprintf("Tinybird answers with status %d", a.status), "Try again later, and look at the pipe in Tinybird.")
	}
}

// fixAsking is what to do when Tinybird could not be asked.
func fixAsking(err error) string {
	if errors.Is(err, tbapi.ErrLimited) {
		return fixLimited
	}
	return fixAgain
}

// definition looks at how the pipe is written.
func (r *run) definition(ctx context.Context, w *workspace, name string, fixed []string) (use audit.Use, ok bool) {
	d, err := w.api.Definition(ctx, name)
	switch {
	case errors.Is(err, tbapi.ErrNoPipe):
		r.fail(CheckPipe, name, "the workspace has no pipe of this name", fixPublish)
		return use, false
	case errors.Is(err, tbapi.ErrToken):
		r.warn(CheckPipe, name, "its definition cannot be read with the signing key", fixSigningKey)
		return use, false
	case err != nil:
		r.fail(CheckPipe, name, err.Error(), fixAsking(err))
		return use, false
	case d.Endpoint == "":
		r.fail(CheckPipe, name, "it is not published: it has no endpoint", fixPublish)
		return use, false
	}
	if use, err = audit.UseOf(ctx, d, fixed, w.api.Definition); err != nil {
		r.fail(CheckPipe, name, err.Error(), fixAsking(err))
		return use, false
	}
	if len(use.Unused) > 0 {
		// It is worse than a pipe that is not there: it shows everybody's rows.
		r.fail(CheckPipe, name, "its SQL makes no use of "+list(use.Unused)+", so every tenant reads the rows of all",
			"Filter by it: WHERE <column> = {{String("+use.Unused[0]+", required=True)}}. `caddy tinybird audit` looks closer.")
		return use, false
	}
	return use, true
}
