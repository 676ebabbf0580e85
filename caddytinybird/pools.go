package caddytinybird

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
)

// What configs with the same settings use together is kept in usage pools, so that a reload finds it, and a config that is rejected
// takes nothing away.

// acquire returns the value of a pool under a key, made on first use, and what gives it back. A value ends when all who
// acquired it have given it back.
func acquire[T caddy.Destructor](pool *caddy.UsagePool, key string, create func() (T, error)) (value T, release func() error, err error) {
	v, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return create() })
	if err != nil {
		return value, nil, err //nolint:wrapcheck // it is create's
	}
	value, ok := v.(T)
	if !ok {
		return value, nil, fmt.Errorf("the pool holds a %T", v)
	}
	return value, func() error {
		if _, err := pool.Delete(key); err != nil {
			return fmt.Errorf("give back a %T: %w", value, err)
		}
		return nil
	}, nil
}
