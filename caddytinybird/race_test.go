//go:build race

package caddytinybird

// Under the race detector a sync.Pool forgets some of what it is given.
const poolForgets = 6
