//go:build !race

package caddytinybird

const poolForgets = 0
