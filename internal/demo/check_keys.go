package demo

import (
	"context"
	"errors"
	"net/http"
	"strconv"
)

// keys rotates Clerk's key and takes the key server down.
func (c *checker) keys(ctx context.Context) {
	b, err := c.person(ctx, "ada")
	if err != nil {
		c.step("Ada", "nothing", "nothing", err)
		return
	}
	q := get("/v0/pipes/top_pages.json?limit=1")
	old := b.token
	before := c.Stack.Issuer.Fetches()
	rotated, err := b.ask(ctx, post("/dev/rotate", `{}`))
	if err == nil && rotated.status != http.StatusOK {
		err = errors.New("want 200")
	}
	c.step("Clerk signs with a new key", "POST /dev/rotate", rotated.status, err)
	if err := b.refresh(ctx); err != nil {
		c.step("Ada's token is refreshed", "GET /dev/token", "nothing", err)
		return
	}
	c.expect(ctx, b, "Ada's new token is taken at once", q, http.StatusOK, "")
	fetches := c.Stack.Issuer.Fetches() - before
	err = nil
	if fetches != 1 {
		err = errors.New("want one fetch of the keys")
	}
	c.step("it cost one fetch of the keys", q, strconv.Itoa(fetches), err)
	c.expect(ctx, b.bearing(old), "the old key's token is not taken", q, http.StatusUnauthorized, "token_invalid")

	c.Stack.Issuer.SetDown(true)
	defer c.Stack.Issuer.SetDown(false)
	c.expect(ctx, b, "the key server is down, Ada is not out", q, http.StatusOK, "")
	if err := b.refresh(ctx); err != nil {
		c.step("Ada's token is refreshed", "GET /dev/token", "nothing", err)
		return
	}
	c.expect(ctx, b, "nor with a token of this minute", q, http.StatusOK, "")
	none, err := c.newcomer()
	if err == nil {
		c.expect(ctx, none, "nobody else gets in", q, http.StatusUnauthorized, "token_missing")
	}
}
