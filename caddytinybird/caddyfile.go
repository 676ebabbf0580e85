package caddytinybird

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("tinybird", parseTinybird)
	httpcaddyfile.RegisterDirectiveOrder("tinybird", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterGlobalOption("clerk", parseGlobalClerk)
}

func parseTinybird(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	err := handler.UnmarshalCaddyfile(h.Dispenser)
	return handler, err
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	tinybird [<matcher>] {
//		clerk           <publishable_key> | { ... }   # as the global option clerk
//		signing_key     <token>
//		workspace_id    <uuid>
//		upstream        <url>
//		token {
//			name <text>
//			ttl  <duration>
//		}
//		rate_limit      <rps> [burst <n>]
//		concurrency     <n>
//		rate_limit      redis <url> {
//			timeout            <duration>
//			ca                 <file>...
//			client_certificate <certificate> <key>
//		}
//		fixed_param     <name> <value> [string|number|boolean]
//		pipe <name>... {
//			fixed_param  <name> <value> [string|number|boolean]
//			require      role|permission|feature|plan <value>...
//			params       <name>...
//			formats      <format>...
//			rate_limit   <rps> [burst <n>]
//			cache        <ttl>
//			concurrency  <n>
//			unrestricted
//		}
//		cors            <origin>...
//		token_endpoint  <path>
//		accept_template_tokens
//		events <datasource>... {
//			append_token <token>
//			stamp        <field> <value> [string|number|boolean]
//		}
//		errors          json | caddy
//		upstream_errors hide | pass
//		transport http { ... }
//		limits {
//			tokens    <n>
//			counters  <n>
//			url_size  <bytes>
//			body_size <bytes>
//			events_size <bytes>
//			cache_entries    <n>
//			cache_size       <bytes>
//			cache_entry_size <bytes>
//		}
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := noArgs(d); err != nil {
		return err
	}
	directive := d.Token()
	p := handlerParser{Handler: h}
	if err := parseBlock(d, &p, handlerOptions); err != nil {
		return err
	}
	return p.check(directive)
}

// handlerParser is the handler with the places of its pipes, for errors that only the whole block shows.
type handlerParser struct {
	*Handler

	pipes  []pipeParser
	events []eventsParser

	rateLine, redisLine int // where the forms of rate_limit are; 0: nowhere
	redisAt             caddyfile.Token
}

type pipeParser struct {
	Pipe

	at caddyfile.Token
}

var handlerOptions = map[string]option[handlerParser]{
	"clerk": {parse: func(p *handlerParser, d *caddyfile.Dispenser) error {
		p.Clerk = new(Clerk)
		return p.Clerk.unmarshal(d)
	}},
	"signing_key":  setSecret("signing_key", func(p *handlerParser) *string { return &p.SigningKey }),
	"workspace_id": setText(func(p *handlerParser) *string { return &p.WorkspaceID }, tinybird.CheckWorkspaceID),
	"upstream":     setText(func(p *handlerParser) *string { return &p.Upstream }, checkUpstream),
	"token":        {parse: parseToken},
	"rate_limit":   {parse: parseTinybirdRate, repeated: true},
	"concurrency":  {parse: func(p *handlerParser, d *caddyfile.Dispenser) error { return parseConcurrency(&p.Concurrency, d) }},
	"fixed_param":  {parse: func(p *handlerParser, d *caddyfile.Dispenser) error { return parseFixedParam(&p.FixedParams, d) }, repeated: true},
	"pipe":         {parse: parsePipe, repeated: true},
	"cors": {parse: func(p *handlerParser, d *caddyfile.Dispenser) (err error) {
		p.CORS, err = checkedArgs(d, checkCORS)
		return err
	}},
	"token_endpoint":         setText(func(p *handlerParser) *string { return &p.TokenEndpoint }, checkTokenEndpoint),
	"accept_template_tokens": setFlag(func(p *handlerParser) *bool { return &p.AcceptTemplateTokens }),
	"events":                 {parse: parseEvents, repeated: true},
	"errors":                 setText(func(p *handlerParser) *string { return &p.Errors }, checkErrors),
	"upstream_errors":        setText(func(p *handlerParser) *string { return &p.UpstreamErrors }, checkUpstreamErrors),
	"transport":              {parse: parseTransport},
	"limits": {parse: func(p *handlerParser, d *caddyfile.Dispenser) error {
		if err := noArgs(d); err != nil {
			return err
		}
		p.Limits = new(Limits)
		if err := parseBlock(d, p.Limits, limitsOptions); err != nil {
			return err
		}
		if err := p.Limits.checkCache(); err != nil {
			return d.WrapErr(err)
		}
		return nil
	}},
}

var limitsOptions = map[string]option[Limits]{
	"tokens":      setCount(func(l *Limits) *int { return &l.Tokens }),
	"counters":    setCount(func(l *Limits) *int { return &l.Counters }),
	"url_size":    setCount(func(l *Limits) *int { return &l.URLSize }),
	"body_size":   setCount(func(l *Limits) *int64 { return &l.BodySize }),
	"events_size": setCount(func(l *Limits) *int64 { return &l.EventsSize }),

	"cache_entries":    setCount(func(l *Limits) *int { return &l.CacheEntries }),
	"cache_size":       setCount(func(l *Limits) *int64 { return &l.CacheSize }),
	"cache_entry_size": setCount(func(l *Limits) *int64 { return &l.CacheEntrySize }),
}

var tokenOptions = map[string]option[Token]{
	"name": setText(func(t *Token) *string { return &t.Name }, nil),
	"ttl":  setDuration(func(t *Token) *caddy.Duration { return &t.TTL }, checkTTL),
}

var pipeOptions = map[string]option[pipeParser]{
	"fixed_param": {parse: func(p *pipeParser, d *caddyfile.Dispenser) error { return parseFixedParam(&p.FixedParams, d) }, repeated: true},
	"require":     {parse: parseRequire, repeated: true},
	"params": {parse: func(p *pipeParser, d *caddyfile.Dispenser) (err error) {
		p.Params, err = checkedArgs(d, tinybird.CheckName)
		return err
	}},
	"formats": {parse: func(p *pipeParser, d *caddyfile.Dispenser) (err error) {
		p.Formats, err = checkedArgs(d, func(format string) error { return tinybird.CheckFormats([]string{format}) })
		return err
	}},
	"rate_limit":   {parse: func(p *pipeParser, d *caddyfile.Dispenser) error { return parseRateLimit(&p.RateLimit, d) }},
	"cache":        setDuration(func(p *pipeParser) *caddy.Duration { return &p.Cache }, checkCache),
	"concurrency":  {parse: func(p *pipeParser, d *caddyfile.Dispenser) error { return parseConcurrency(&p.Concurrency, d) }},
	"unrestricted": setFlag(func(p *pipeParser) *bool { return &p.Unrestricted }),
}

func parseToken(p *handlerParser, d *caddyfile.Dispenser) error {
	if err := noArgs(d); err != nil {
		return err
	}
	p.Token = new(Token)
	at := d.Token()
	if err := parseBlock(d, p.Token, tokenOptions); err != nil {
		return err
	}
	if err := checkTemplate(p.Token.Name); err != nil {
		return errAt(at, "token name: %w", err)
	}
	return nil
}

func parsePipe(p *handlerParser, d *caddyfile.Dispenser) error {
	pipe := pipeParser{at: d.Token()}
	pipe.Names = d.RemainingArgs()
	if len(pipe.Names) == 0 {
		return d.Err("pipe takes at least one name")
	}
	for _, name := range pipe.Names {
		if err := tinybird.CheckName(name); err != nil {
			return d.WrapErr(err)
		}
	}
	if err := parseBlock(d, &pipe, pipeOptions); err != nil {
		return err
	}
	p.pipes = append(p.pipes, pipe)
	p.Pipes = append(p.Pipes, pipe.Pipe)
	return nil
}

// check holds the rules that only the whole block shows, and names the line of what breaks them.
func (p *handlerParser) check(directive caddyfile.Token) error {
	if p.SigningKey == "" {
		return errAt(directive, "%w", errNoSigningKey)
	}
	if len(p.pipes) == 0 && len(p.events) == 0 {
		return errAt(directive, "%w", errNothingServed)
	}
	if p.RateLimitRedis != nil && !p.hasRate() {
		return errAt(p.redisAt, "%w", errNothingShared)
	}
	if err := p.checkEvents(); err != nil {
		return err
	}
	listed := make(map[string]int)
	for _, pipe := range p.pipes {
		for _, name := range pipe.Names {
			if line, ok := listed[name]; ok {
				return errAt(pipe.at, "pipe %s is listed twice (first in line %d); keep one of them", name, line)
			}
			listed[name] = pipe.at.Line
		}
		if err := p.checkPipe(pipe.Pipe); err != nil {
			return errAt(pipe.at, "%w", err)
		}
	}
	return nil
}

// checkPipe holds the rules between a pipe's settings and the shared ones, by making a policy of it alone.
func (p *handlerParser) checkPipe(pipe Pipe) error {
	c := tinybird.PolicyConfig{CheckPlaceholder: checkPlaceholder}
	if p.Clerk != nil {
		c.Credentials = p.Clerk.queryNames()
	}
	own, err := pipe.policyConfig(asWritten)
	if err != nil {
		return err
	}
	c.Pipes = []tinybird.PipeConfig{own}
	if c.FixedParams, err = policyParams("fixed_param", p.FixedParams, asWritten); err != nil {
		return err
	}
	_, err = tinybird.NewPolicy(c)
	return err
}

func parseFixedParam(params *[]FixedParam, d *caddyfile.Dispenser) error {
	return parseValue(params, d, "fixed_param", "name", func(p tinybird.FixedParam) error { return tinybird.CheckFixedParam(p, checkPlaceholder) })
}

// parseValue parses a name, a value and perhaps a type, and adds them to the list. The word is the subdirective, and the noun what
// it calls its first argument.
func parseValue(list *[]FixedParam, d *caddyfile.Dispenser, word, noun string, check func(tinybird.FixedParam) error) error {
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	if len(args) < 2 || len(args) > 3 {
		return d.Errf("%s takes a %s, a value and at most a type, not %d arguments; write `%[1]s organization_id {clerk.org.id}`", word, noun, len(args))
	}
	p := FixedParam{Name: args[0], Value: args[1]}
	if len(args) == 3 {
		p.Type = args[2]
	}
	for _, earlier := range *list {
		if strings.EqualFold(earlier.Name, p.Name) {
			return d.Errf("%s %s is given twice; keep one of them", word, p.Name)
		}
	}
	if err := check(tinybird.FixedParam{Name: p.Name, Value: p.Value, Type: tinybird.ParamType(p.Type)}); err != nil {
		return d.WrapErr(err)
	}
	*list = append(*list, p)
	return nil
}

func parseRequire(p *pipeParser, d *caddyfile.Dispenser) error {
	return parseRequirement(&p.Require, d, func(q Requirement) error { return tinybird.CheckRequirement(tinybird.Requirement(q)) })
}

func parseRequirement(list *[]Requirement, d *caddyfile.Dispenser, check func(Requirement) error) error {
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	q := Requirement{Kind: args[0], Values: args[1:]}
	if err := check(q); err != nil {
		return d.WrapErr(err)
	}
	*list = append(*list, q)
	return nil
}

func parseTransport(p *handlerParser, d *caddyfile.Dispenser) error {
	if !d.NextArg() || d.Val() != "http" {
		return d.Err("transport takes the word http and a block, as in reverse_proxy")
	}
	module, err := caddyfile.UnmarshalModule(d, transportModule)
	if err != nil {
		return err
	}
	p.TransportRaw = caddyconfig.JSONModuleObject(module, "protocol", "http", nil)
	return nil
}

// setCount is the option of one whole number of at least 1.
func setCount[T any, N int | int64](field func(*T) *N) option[T] {
	return option[T]{parse: func(target *T, d *caddyfile.Dispenser) error {
		name := d.Val()
		text, err := oneArg(d)
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 1 {
			return d.Errf("%s %s is no whole number of at least 1", name, tinybird.Shown(text))
		}
		*field(target) = N(n)
		return nil
	}}
}

func checkedArgs(d *caddyfile.Dispenser, check func(string) error) ([]string, error) {
	args, err := someArgs(d)
	if err != nil {
		return nil, err
	}
	for _, arg := range args {
		if err := check(arg); err != nil {
			return nil, d.WrapErr(err)
		}
	}
	return args, nil
}

// ifSet checks a setting of JSON, which no parser has looked at, unless it is left out.
func ifSet(text string, check func(string) error) error {
	if text == "" {
		return nil
	}
	return check(text)
}

func oneOf(setting string, words ...string) func(string) error {
	return func(text string) error {
		if slices.Contains(words, text) {
			return nil
		}
		return errors.New(setting + " " + tinybird.Shown(text) + " is not known; use one of: " + strings.Join(words, ", "))
	}
}

// checkPlaceholder accepts the placeholders of an identity, and those that are resolved when the config loads.
// Every other placeholder is refused: a client could choose what it stands for.
func checkPlaceholder(name string) error {
	if strings.HasPrefix(name, "env.") || strings.HasPrefix(name, "file.") {
		return nil
	}
	return clerk.CheckPlaceholder(name)
}

func checkTemplate(text string) error {
	_, err := tinybird.ParseTemplate(text, checkPlaceholder)
	return err
}

func checkTTL(ttl caddy.Duration) error {
	if time.Duration(ttl) > tinybird.MaxTTL {
		return fmt.Errorf("ttl %s is too long; use at most %s", time.Duration(ttl), tinybird.MaxTTL)
	}
	return atLeast("ttl", time.Second)(ttl)
}

func checkUpstream(raw string) error {
	_, err := tinybird.ParseUpstream(raw)
	return err
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Handler)(nil)
