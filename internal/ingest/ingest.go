// Package ingest decides which rows a client may send to Tinybird, and writes them anew with the tenant's mark on them.
package ingest

// Policy is the data sources that may be written to, and with what.
type Policy struct{}

// Serves tells whether rows are taken at the path.
func (p *Policy) Serves(path string) bool { return path == "/v0/events" }
