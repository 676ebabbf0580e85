package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// ErrFailed says that at least one step of a Check did not end as it must.
var ErrFailed = errors.New("the check failed")

// Target is what is checked: an edge, with the plain site that it guards, and the stand-ins that it works with.
type Target struct {
	Origin string
	Site   string
	Stack  *devstack.Stack
}

// Target is the demo as something to check.
func (d *Demo) Target() Target { return Target{Origin: d.Origin, Site: d.Site, Stack: d.Stack} }

// Check does over HTTP what the page lets one try, writes a line for each step (ok or FAIL, what was asked, what
// came), and returns ErrFailed if any step failed. The API's events must not change while it runs.
func Check(ctx context.Context, t Target, out io.Writer) error {
	c := &checker{Target: t, out: out, people: map[string]*browser{}}
	for _, part := range []struct {
		title string
		run   func(*checker, context.Context)
	}{
		{"Nobody is signed in", (*checker).signedOut},
		{"Everybody reads their own rows", (*checker).ownRows},
		{"Nobody reads another's", (*checker).tampering},
		{"Only what is configured exists", (*checker).unlisted},
		{"Six formats", (*checker).formats},
		{"The token that the edge mints", (*checker).minted},
		{"The limit", (*checker).limit},
		{"The live view tells what happened", (*checker).live},
		{"Clerk rotates its key, and is away", (*checker).keys},
		{"Tokens that are no session", (*checker).forged},
		{"A plain site behind clerk_auth", (*checker).site},
		{"What came back, all in all", (*checker).leaks},
	} {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the check was interrupted: %w", err)
		}
		c.printf("\n%s\n", part.title)
		part.run(c, ctx)
	}
	c.printf("\n%d steps, %d failed\n", c.steps, c.failed)
	if c.failed > 0 {
		return ErrFailed
	}
	return nil
}

// checker runs the steps and remembers who is signed in.
type checker struct {
	Target

	out           io.Writer
	people        map[string]*browser // by user key
	answers       [][]byte            // every answer of the edge, headers and body
	steps, failed int
}

// step writes the line of one step. What came may be any value that prints well.
func (c *checker) step(name string, asked, came any, err error) {
	c.steps++
	if err == nil {
		c.printf("  ok    %-44s %v → %v\n", name, asked, came)
		return
	}
	c.failed++
	c.printf("  FAIL  %-44s %v → %v\n        %s\n", name, asked, came, err)
}

func (c *checker) printf(format string, args ...any) {
	// A terminal that went away stops nothing.
	_, _ = fmt.Fprintf(c.out, format, args...)
}

// newcomer is a browser in which nobody is signed in.
func (c *checker) newcomer() (*browser, error) {
	return newBrowser(c.Origin, c.Stack.API, func(a answer) {
		if a.received == nil && a.Code == "" {
			return // the demo's own endpoints, which hand out sessions
		}
		c.record(a)
	})
}

// record keeps an answer for the last look at all of them.
func (c *checker) record(a answer) {
	var b bytes.Buffer
	_ = a.header.Write(&b)
	b.Write(a.body)
	c.answers = append(c.answers, b.Bytes())
}

// person is the browser of somebody who signed in before, with a fresh token.
func (c *checker) person(ctx context.Context, key string) (*browser, error) {
	b, ok := c.people[key]
	if !ok {
		return nil, fmt.Errorf("%s could not sign in", key)
	}
	if err := b.refresh(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// expect asks and writes a step that wants a status and a code.
func (c *checker) expect(ctx context.Context, b *browser, name string, q question, status int, code string) answer {
	a, err := b.ask(ctx, q)
	if err == nil {
		err = a.is(status, code)
	}
	c.step(name, q, a, err)
	return a
}

// is tells how an answer differs from a status and a code. A refusal must not have reached the API.
func (a answer) is(status int, code string) error {
	switch {
	case a.status != status || a.Code != code:
		return fmt.Errorf("want %d %s", status, code)
	case code != "" && a.received != nil:
		return errors.New("it was refused after Tinybird had been asked")
	case code != "" && a.header.Get("Cache-Control") != "private, no-store":
		return fmt.Errorf("a refusal may be cached: Cache-Control is %q", a.header.Get("Cache-Control"))
	}
	return nil
}
