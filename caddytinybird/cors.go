package caddytinybird

import "net/http"

// corsPolicy lets pages of other sites call a handler.
type corsPolicy struct{}

// answers tells the browser what pages of other sites may do, and reports whether that was all it asked.
func (c *corsPolicy) answers(http.ResponseWriter, *http.Request) bool { return false }
