package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// formats reads one pipe in each of the six.
func (c *checker) formats(ctx context.Context) {
	b, err := c.person(ctx, "ada")
	if err != nil {
		c.step("Ada", "nothing", "nothing", err)
		return
	}
	whole, err := b.ask(ctx, get("/v0/pipes/org_metrics.json"))
	if err != nil {
		c.step("json", "GET /v0/pipes/org_metrics.json", whole, err)
		return
	}
	rows := whole.Rows
	for _, f := range []struct {
		format, contentType string
		check               func(body []byte) error
	}{
		{"json", "application/json", func([]byte) error { return nil }},
		{"csv", "text/csv", func(body []byte) error { return lines(body, rows) }},
		{"csvwithnames", "text/csv", func(body []byte) error { return lines(body, rows+1) }},
		{"ndjson", "application/x-ndjson", func(body []byte) error { return lines(body, rows) }},
		{"parquet", "application/octet-stream", parquetFrame},
		{"prometheus", "text/plain", func(body []byte) error { return prometheusSamples(body, rows) }},
	} {
		q := get("/v0/pipes/org_metrics." + f.format)
		a, err := b.ask(ctx, q)
		contentType := a.header.Get("Content-Type")
		switch {
		case err != nil:
		case a.status != http.StatusOK:
			err = errors.New("want 200")
		case !strings.HasPrefix(contentType, f.contentType):
			err = fmt.Errorf("want Content-Type %s", f.contentType)
		default:
			err = f.check(a.body)
		}
		c.step(f.format, q, fmt.Sprintf("%s, %s", a, contentType), err)
	}
}

func lines(body []byte, want int) error {
	if got := bytes.Count(body, []byte("\n")); got != want {
		return fmt.Errorf("want %d lines, not %d", want, got)
	}
	return nil
}

// parquetFrame wants the four bytes that a Parquet file starts and ends with.
func parquetFrame(body []byte) error {
	if magic := []byte("PAR1"); len(body) < 12 || !bytes.HasPrefix(body, magic) || !bytes.HasSuffix(body, magic) {
		return errors.New("this is no Parquet file")
	}
	return nil
}

func prometheusSamples(body []byte, want int) error {
	got := 0
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			got++
		}
	}
	if got != want {
		return fmt.Errorf("want %d samples, not %d", want, got)
	}
	return nil
}
