package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// limit exceeds the limit of one tenant, sees that it is no other's, and waits as long as it is told.
func (c *checker) limit(ctx context.Context) {
	cleo, err := c.person(ctx, "cleo")
	if err != nil {
		c.step("Cleo", "nothing", "nothing", err)
		return
	}
	ben, err := c.person(ctx, "ben")
	if err != nil {
		c.step("Ben", "nothing", "nothing", err)
		return
	}
	q := get("/v0/pipes/live_events.json?limit=1")
	refused, answered, err := exceed(ctx, cleo, q)
	c.step("Cleo asks until she is refused", q, fmt.Sprintf("%d answered, then %s", answered, refused), err)
	if err != nil {
		return
	}
	c.step("the refusal says when to come back", q, "Retry-After "+refused.header.Get("Retry-After"), limitHeaders(refused.header))

	c.expect(ctx, ben, "Ben of Acme is not affected", q, http.StatusOK, "")
	c.expect(ctx, cleo, "nor are Cleo's other pipes", get("/v0/pipes/top_pages.json?limit=1"), http.StatusOK, "")

	seconds, err := strconv.Atoi(refused.header.Get("Retry-After"))
	if err != nil {
		return // the step on the headers has said so
	}
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-ctx.Done():
		return
	}
	c.expect(ctx, cleo, "after Retry-After Cleo is answered", q, http.StatusOK, "")
}

// exceed asks until the answer is 429. Globex is allowed two a second, so a hundred are more than enough.
func exceed(ctx context.Context, b *browser, q question) (refused answer, answered int, err error) {
	for range 100 {
		refused, err = b.ask(ctx, q)
		if err != nil {
			return refused, answered, err
		}
		if refused.status != http.StatusOK {
			return refused, answered, refused.is(http.StatusTooManyRequests, "rate_limited")
		}
		answered++
	}
	return refused, answered, errors.New("a hundred requests were answered")
}

func limitHeaders(h http.Header) error {
	for _, name := range []string{"Retry-After", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"} {
		if n, err := strconv.Atoi(h.Get(name)); err != nil || n < 0 {
			return fmt.Errorf("%s is %q, not a whole number", name, h.Get(name))
		}
	}
	for _, name := range []string{"Ratelimit", "Ratelimit-Policy"} {
		if h.Get(name) == "" {
			return fmt.Errorf("%s is missing", name)
		}
	}
	if h.Get("Retry-After") == "0" || h.Get("X-Ratelimit-Remaining") != "0" {
		return errors.New("Retry-After must be positive, and nothing be left")
	}
	return nil
}
