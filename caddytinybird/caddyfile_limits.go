package caddytinybird

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/sharedlimit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// redisWord is what makes a rate_limit one of a store.
const redisWord = "redis"

// parseTinybirdRate parses the two forms of rate_limit: a rate, and where it is counted. Each may be given once.
func parseTinybirdRate(p *handlerParser, d *caddyfile.Dispenser) error {
	at := d.Token()
	first := &p.rateLine
	parse := func() error { return parseRateLimit(&p.RateLimit, d) }
	if d.NextArg() {
		if d.Val() == redisWord {
			p.redisAt, first = at, &p.redisLine
			parse = func() error { return parseSharedLimit(&p.RateLimitRedis, d) }
		} else {
			d.Prev()
		}
	}
	if *first != 0 {
		return d.Errf("this form of rate_limit is given a second time (first in line %d); remove one of them", *first)
	}
	*first = at.Line
	return parse()
}

// parseSharedLimit parses the rest of `rate_limit redis <url> [{ ... }]`. Nothing of the address gets into an error.
func parseSharedLimit(limit **SharedLimit, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("rate_limit redis takes one address, not %d; write `rate_limit redis redis://host:6379`", len(args))
	}
	l := &SharedLimit{URL: args[0]}
	at := d.Token()
	address, err := sharedlimit.ParseURL(l.URL, nil)
	if err != nil {
		return errAt(at, "rate_limit redis: %w", err)
	}
	if err := parseBlock(d, l, sharedLimitOptions); err != nil {
		return err
	}
	if err := l.check(address); err != nil {
		return errAt(at, "rate_limit redis: %w", err)
	}
	*limit = l
	return nil
}

var sharedLimitOptions = map[string]option[SharedLimit]{
	"timeout": setDuration(func(l *SharedLimit) *caddy.Duration { return &l.Timeout }, checkStoreTimeout),
	"ca": {parse: func(l *SharedLimit, d *caddyfile.Dispenser) (err error) {
		l.CA, err = someArgs(d)
		return err
	}},
	"client_certificate": {parse: func(l *SharedLimit, d *caddyfile.Dispenser) error {
		args, err := someArgs(d)
		if err != nil {
			return err
		}
		if len(args) != 2 {
			return d.Errf("client_certificate takes the files of a certificate and of its key, not %d arguments", len(args))
		}
		l.ClientCertificate, l.ClientKey = args[0], args[1]
		return nil
	}},
}

func parseRateLimit(limit **RateLimit, d *caddyfile.Dispenser) error {
	args, err := someArgs(d)
	if err != nil {
		return err
	}
	l := RateLimit{RPS: args[0]}
	switch {
	case l.RPS == redisWord:
		return d.Err("rate_limit redis is for all pipes; move the line out of the pipe, into tinybird")
	case len(args) == 3 && args[1] == "burst":
		if l.Burst, err = strconv.Atoi(args[2]); err != nil || l.Burst < 1 {
			return d.Errf("burst %s is no whole number of at least 1; write `rate_limit 50 burst 100`", tinybird.Shown(args[2]))
		}
	case len(args) != 1:
		return d.Err("rate_limit takes a rate and at most a burst; write `rate_limit 50` or `rate_limit 50 burst 100`")
	}
	if err := checkRate(&l); err != nil {
		return d.WrapErr(err)
	}
	*limit = &l
	return nil
}

func parseConcurrency(bound *string, d *caddyfile.Dispenser) error {
	text, err := oneArg(d)
	if err != nil {
		return err
	}
	if text == "" {
		return d.Err("concurrency is empty; write how many requests of a tenant may be under way, as in `concurrency 20`, or remove it")
	}
	if err := checkConcurrency(text); err != nil {
		return d.WrapErr(err)
	}
	*bound = text
	return nil
}
