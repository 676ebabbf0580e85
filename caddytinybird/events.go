package caddytinybird

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// eventsPipe stands for the rows that clients send, where logs and metrics name a pipe.
const eventsPipe = "_events"

// serveEvents follows the rows of one request from the token to Tinybird's answer. Nothing of the client's request goes
// up but the rows, each written anew.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request, x *exchange) error {
	x.pipe = eventsPipe
	if r.Method != http.MethodPost {
		return apierr.New(http.StatusMethodNotAllowed, apierr.MethodNotAllowed, "Rows are sent with POST.").With("Allow", "POST")
	}
	if err := tinybird.CheckNoUpgrade(r.Header); err != nil {
		return err
	}
	if mayBeReplayed(r) {
		return apierr.New(http.StatusTooEarly, apierr.TooEarly, "Rows are not taken before the connection is set up. Send them again.")
	}
	var err error
	if x.identity, err = h.identify(r, x.visitor); err != nil {
		return err
	}
	if err := h.checkForgery(r); err != nil {
		return err
	}
	target, err := h.ingest.Target(r.URL.EscapedPath(), r.URL.RawQuery, h.requests.MaxURL)
	if err != nil {
		return err
	}
	x.step(stepIdentify)
	h.built(x, target.Dropped)
	grant, err := h.ingest.Authorize(target.Datasource, x.identity)
	if err != nil {
		return err
	}
	x.step(stepAuthorize)
	place, err := h.limitEvents(w, r, x)
	if err != nil {
		return err
	}
	defer place.Leave()
	x.step(stepLimit)
	patience := h.hurry(r, cmp.Or(h.eventsSize(), ingest.DefaultMaxBody))
	body, err := ingest.Open(r, h.eventsSize())
	if err != nil {
		return err
	}
	result, err := grant.Send(body, func(batch []byte) (forward.Receipt, error) {
		if x.outcome.Duration != 0 {
			h.of(eventsPipe).answered(x.outcome.UpstreamStatus, x.outcome.Duration)
		}
		resume := patience.pause() // how long Tinybird takes is not up to the client
		defer resume()
		receipt, outcome, err := h.forwarder.Append(r.Context(), w.Header(), forward.Batch{
			Datasource: grant.Datasource, Wait: target.Wait, Rows: batch, Client: r.Header, Token: grant.Token,
		})
		x.outcome = outcome
		return receipt, err
	})
	metrics.rows(result)
	if err != nil {
		return err
	}
	return writeJSON(w, result.Status, taken{result.Successful, result.Quarantined})
}

// limitEvents counts the request for its tenant, apart from those that read. Its place among those that are under way is taken
// before the first row is read: to be refused when a part of the rows was taken would be worse than to wait for a
// slow client.
func (h *Handler) limitEvents(w http.ResponseWriter, r *http.Request, x *exchange) (ratelimit.Place, error) {
	c, err := h.policy.CountEvents(x.identity)
	if err != nil {
		return ratelimit.Place{}, err
	}
	if _, err := h.limit(w, r, x, eventsPipe, &c); err != nil {
		return ratelimit.Place{}, err
	}
	most, err := allowedPlaces(r, &c)
	if err != nil {
		return ratelimit.Place{}, err
	}
	return h.enter(w.Header(), eventsPipe, c.Gate, most)
}

func (h *Handler) eventsSize() int64 {
	if h.Limits == nil {
		return 0
	}
	return h.Limits.EventsSize
}

// taken is the answer for all batches together, as Tinybird gives it for each.
type taken struct {
	Successful  int `json:"successful_rows"`
	Quarantined int `json:"quarantined_rows"`
}

// provisionEvents compiles which data sources may be written to, with which stamps.
func (h *Handler) provisionEvents() error {
	if len(h.Events) == 0 {
		return nil
	}
	c := ingest.Config{CheckPlaceholder: clerk.CheckPlaceholder, MaxBody: h.eventsSize()}
	for i := range h.Events {
		e := &h.Events[i]
		if e.AppendToken == "" {
			return errNoAppendToken(e.Datasources)
		}
		token, err := resolveSecret(h.log, "append_token", e.AppendToken)
		if err != nil {
			return err
		}
		source, err := e.sourceConfig(resolveTemplate)
		if err != nil {
			return err
		}
		source.Token = token
		c.Sources = append(c.Sources, source)
	}
	policy, err := ingest.NewPolicy(c)
	h.ingest = policy
	return err
}

func errNoAppendToken(datasources []string) error {
	return fmt.Errorf("events %s: append_token is missing; add `append_token {env.NAME}` with a static token that may append to the data source",
		tinybird.Shown(strings.Join(datasources, " ")))
}

// sourceConfig is the data sources as the policy knows them, without their token.
func (e *Events) sourceConfig(resolve func(setting, text string) (string, error)) (ingest.SourceConfig, error) {
	stamps, err := policyParams("stamp", e.Stamp, resolve)
	return ingest.SourceConfig{Names: e.Datasources, Stamps: stamps}, err
}

// eventsParser is a block with its place, for errors that only all blocks show.
type eventsParser struct {
	Events

	at caddyfile.Token
}

var eventsOptions = map[string]option[Events]{
	"append_token": setSecret("append_token", func(e *Events) *string { return &e.AppendToken }),
	"stamp":        {parse: parseStamp, repeated: true},
}

func parseEvents(p *handlerParser, d *caddyfile.Dispenser) error {
	e := eventsParser{at: d.Token()}
	e.Datasources = d.RemainingArgs()
	if len(e.Datasources) == 0 {
		return d.Err("events takes at least one data source")
	}
	for _, name := range e.Datasources {
		if err := tinybird.CheckName(name); err != nil {
			return d.WrapErr(err)
		}
	}
	if err := parseBlock(d, &e.Events, eventsOptions); err != nil {
		return err
	}
	p.events = append(p.events, e)
	p.Events = append(p.Events, e.Events)
	return nil
}

func parseStamp(e *Events, d *caddyfile.Dispenser) error {
	return parseValue(&e.Stamp, d, "stamp", "field", func(p tinybird.FixedParam) error { return ingest.CheckStamp(p, checkPlaceholder) })
}

// checkEvents holds the rules that only all blocks show, and names the line of what breaks them.
func (p *handlerParser) checkEvents() error {
	c := ingest.Config{CheckPlaceholder: checkPlaceholder}
	for i := range p.events {
		e := &p.events[i]
		if e.AppendToken == "" {
			return errAt(e.at, "%w", errNoAppendToken(e.Datasources))
		}
		source, err := e.sourceConfig(asWritten)
		if err != nil {
			return errAt(e.at, "%w", err)
		}
		c.Sources = append(c.Sources, source)
		if _, err := ingest.NewPolicy(c); err != nil {
			return errAt(e.at, "%w", err)
		}
	}
	return nil
}

// errNothingServed is about a config that lists nothing to read or to write.
var errNothingServed = errors.New("no pipe is listed, so nothing could be read; add `pipe <name> { ... }`, or `events <datasource> { ... }` for rows that clients send")
