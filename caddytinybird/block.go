package caddytinybird

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// option parses one subdirective into a T. It is called with the cursor on the subdirective's name.
type option[T any] struct {
	parse    func(target *T, d *caddyfile.Dispenser) error
	repeated bool // may be given more than once
}

// parseBlock parses the block that follows the cursor. Unknown and repeated subdirectives are errors, because
// a typo that is silently accepted disables what the operator meant to configure.
func parseBlock[T any](d *caddyfile.Dispenser, target *T, options map[string]option[T]) error {
	seen := make(map[string]int)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		o, ok := options[name]
		if !ok {
			return d.Errf("unknown subdirective %s; the ones known here are: %s", tinybird.Shown(name), strings.Join(names(options), ", "))
		}
		if line, ok := seen[name]; ok && !o.repeated {
			return d.Errf("%s is given a second time (first in line %d); remove one of them", name, line)
		}
		seen[name] = d.Line()
		if err := o.parse(target, d); err != nil {
			if secret.Looks(err.Error()) {
				return d.Errf("%s: %w", name, errMisplaced)
			}
			return err
		}
	}
	return nil
}

// within makes an option of a part the option of the whole.
func within[T, U any](o option[T], part func(*U) *T) option[U] {
	return option[U]{repeated: o.repeated, parse: func(whole *U, d *caddyfile.Dispenser) error { return o.parse(part(whole), d) }}
}

func names[T any](options map[string]option[T]) []string {
	known := make([]string, 0, len(options))
	for name := range options {
		known = append(known, name)
	}
	slices.Sort(known)
	return known
}

// setText is the option of one text.
func setText[T any](field func(*T) *string, check func(string) error) option[T] {
	return option[T]{parse: func(target *T, d *caddyfile.Dispenser) error {
		text, err := oneArg(d)
		if err != nil {
			return err
		}
		if check != nil && !hasPlaceholder(text) {
			if err := check(text); err != nil {
				return d.WrapErr(err)
			}
		}
		*field(target) = text
		return nil
	}}
}

// setSecret is the option of one secret.
func setSecret[T any](name string, field func(*T) *string) option[T] {
	return option[T]{parse: func(target *T, d *caddyfile.Dispenser) error {
		text, err := oneArg(d)
		if err != nil {
			return err
		}
		if err := checkSecretText(name)(text); err != nil {
			return d.WrapErr(err)
		}
		*field(target) = text
		return nil
	}}
}

// setDuration is the option of one duration.
func setDuration[T any](field func(*T) *caddy.Duration, check func(caddy.Duration) error) option[T] {
	return option[T]{parse: func(target *T, d *caddyfile.Dispenser) error {
		name := d.Val()
		text, err := oneArg(d)
		if err != nil {
			return err
		}
		parsed, err := caddy.ParseDuration(text)
		if err != nil {
			return d.Errf("%s %s is no duration; write it as 5s, 10m or 1h", name, tinybird.Shown(text))
		}
		if err := check(caddy.Duration(parsed)); err != nil {
			return d.WrapErr(err)
		}
		*field(target) = caddy.Duration(parsed)
		return nil
	}}
}

// setFlag is the option without arguments.
func setFlag[T any](field func(*T) *bool) option[T] {
	return option[T]{parse: func(target *T, d *caddyfile.Dispenser) error {
		if err := noArgs(d); err != nil {
			return err
		}
		*field(target) = true
		return noBlock(d)
	}}
}

// oneArg returns the one argument of a subdirective that has no block.
func oneArg(d *caddyfile.Dispenser) (string, error) {
	name := d.Val()
	args := d.RemainingArgs()
	if len(args) != 1 {
		return "", d.Errf("%s takes exactly one argument, not %d", name, len(args))
	}
	return args[0], noBlock(d)
}

// someArgs returns the arguments of a subdirective that has at least one and no block.
func someArgs(d *caddyfile.Dispenser) ([]string, error) {
	name := d.Val()
	args := d.RemainingArgs()
	if len(args) == 0 {
		return nil, d.Errf("%s takes at least one argument", name)
	}
	return args, noBlock(d)
}

func noArgs(d *caddyfile.Dispenser) error {
	name := d.Val()
	if args := d.RemainingArgs(); len(args) != 0 {
		return d.Errf("%s takes no argument, not %s", name, tinybird.Shown(strings.Join(args, " ")))
	}
	return nil
}

// noBlock refuses a block after a subdirective that has none.
func noBlock(d *caddyfile.Dispenser) error {
	line := d.Line()
	if !d.Next() {
		return nil
	}
	if d.Val() == "{" && d.Line() == line {
		return d.Err("a block is not expected here; remove the braces")
	}
	d.Prev()
	return nil
}

// errAt is an error about a place that was parsed before.
func errAt(t caddyfile.Token, format string, args ...any) error {
	return fmt.Errorf(format+", at %s:%d", append(args, t.File, t.Line)...) //nolint:err113 // the text is the whole error
}

// hasPlaceholder reports whether a value is known only when the config loads.
func hasPlaceholder(text string) bool { return strings.Contains(text, "{") }
