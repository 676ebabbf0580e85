package caddytinybird

import (
	"fmt"
	"slices"
	"sync"

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

// users are the configs that use a pooled value, each with what it brings along, such as its logger. A config may be rejected after it was
// provisioned, so it is the newest one still there whose logger counts.
type users[T any] struct {
	mu  sync.Mutex
	all []*user[T]
}

type user[T any] struct {
	brought T
	left    bool
}

// use adds a config, and returns what forgets it again. The last one stays when it leaves, for what happens until its requests have
// ended, and gives way to the next.
func (u *users[T]) use(brought T) (leave func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := &user[T]{brought: brought}
	u.all = append(slices.DeleteFunc(u.all, func(o *user[T]) bool { return o.left }), one)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		one.left = true
		if len(u.all) > 1 {
			u.all = slices.DeleteFunc(u.all, func(o *user[T]) bool { return o == one })
		}
	}
}

// newest is what the newest config brought.
func (u *users[T]) newest() T {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.all[len(u.all)-1].brought
}

// find is what the newest of those configs brought that fit.
func (u *users[T]) find(fits func(T) bool) (brought T, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, o := range slices.Backward(u.all) {
		if fits(o.brought) {
			return o.brought, true
		}
	}
	return brought, false
}
