package caddytinybird

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/sharedlimit"
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
