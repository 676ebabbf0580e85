package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// site visits the plain site: as nobody, as Ada, past the end of her tokens, and after signing out.
func (c *checker) site(ctx context.Context) {
	b, err := c.newcomer()
	if err != nil {
		c.step("a browser", "nothing", "nothing", err)
		return
	}
	b.keep = c.record
	v := &visitor{browser: b, site: c.Site, issuer: c.Stack.Issuer}
	c.staysOutside(ctx, v)
	if c.entersSite(ctx, v) {
		c.isHerselfOnly(ctx, v)
		c.outlivesToken(ctx, v)
		c.leavesSite(ctx, v)
	}
}

// The pages, pictures and requests of the steps.
const (
	sitePage    = "/minute.html?from=a+link"
	sitePicture = "/way.svg"
)

func (c *checker) staysOutside(ctx context.Context, v *visitor) {
	p, err := v.load(ctx, http.MethodGet, c.Site+sitePage, "")
	want := c.Stack.IssuerURL + "/sign-in?redirect_url=" + url.QueryEscape(c.Site+sitePage)
	if err == nil && (p.status != http.StatusFound || p.header.Get("Location") != want) {
		err = fmt.Errorf("want 302 to %s", want)
	}
	c.step("nobody is sent to sign in", "GET "+sitePage, p, err)

	for _, path := range []string{"/", "/style.css", sitePicture} {
		p, err := v.fetch(ctx, path, nil)
		c.refused("nobody fetches, and is told so", path, p, err, "token_missing")
	}
	p, err = v.fetch(ctx, "/", posingAs("ada"))
	c.refused("nor by a header of one's own", "/", p, err, "token_missing")
}

// posingAs are headers by which Caddy tells a backend who somebody is, as a client would forge them: some of them, and one more.
func posingAs(key string) http.Header {
	u, _ := devstack.UserByKey(key)
	return http.Header{"X-Clerk-User-Id": {u.ID}, "X_Clerk_User_Id": {u.ID}, "x-clerk-User-ID": {u.ID}, "X-Clerk-Admin-Id": {u.ID}}
}

func (c *checker) entersSite(ctx context.Context, v *visitor) bool {
	portal, err := v.open(ctx, c.Site+sitePage)
	if err == nil && (portal.status != http.StatusOK || withoutQuery(portal.at) != c.Stack.IssuerURL+"/sign-in") {
		err = fmt.Errorf("want Clerk's sign-in page, not %s", withoutQuery(portal.at))
	}
	c.step("Clerk's sign-in page", "GET "+sitePage, portal, err)

	p, err := v.submit(ctx, c.Stack.IssuerURL+"/sign-in", url.Values{"user": {"ada"}, "redirect_url": {c.Site + sitePage}})
	if err == nil && (p.status != http.StatusOK || p.at != c.Site+sitePage) {
		err = errors.New("want the page that was asked for")
	}
	c.step("Ada signs in, and is where she wanted to be", "POST /sign-in", p, err)
	return err == nil
}

func (c *checker) isHerselfOnly(ctx context.Context, v *visitor) {
	p, err := v.open(ctx, c.Site+"/")
	c.step("the page names Ada", "GET /", p, c.names(p, err, "ada"))

	p, err = v.fetch(ctx, "/", posingAs("cleo"))
	c.step("and no other that a header names", "GET /", p, c.names(p, err, "ada"))

	token, err := c.Stack.Issuer.Token("ada", devstack.AZP("https://elsewhere.example"))
	if err == nil {
		p, err = v.fetch(ctx, "/", http.Header{"Authorization": {"Bearer " + token}})
	}
	c.refused("Ada's session at another site is none here", "/", p, err, "token_wrong_party")
}

// names looks for a user in the page, and for all others.
func (*checker) names(p page, err error, key string) error {
	if err != nil {
		return err
	}
	for _, u := range devstack.Users() {
		if strings.Contains(string(p.body), u.ID) != (u.Key == key) {
			return fmt.Errorf("the page is not %s's: it is wrong about %s", key, u.Name)
		}
	}
	return nil
}

func (c *checker) outlivesToken(ctx context.Context, v *visitor) {
	for _, ask := range []struct {
		name string
		page func() (page, error)
	}{
		{"her token expires, a picture still loads", func() (page, error) { return v.fetch(ctx, sitePicture, nil) }},
		{"it expires again, a page still loads", func() (page, error) { return v.open(ctx, c.Site+sitePage) }},
	} {
		before := c.Stack.Issuer.Refreshes()
		err := v.age("ada")
		var p page
		if err == nil {
			p, err = ask.page()
		}
		if err == nil {
			err = p.is(http.StatusOK, "")
		}
		if n := c.Stack.Issuer.Refreshes() - before; err == nil && n != 1 {
			err = fmt.Errorf("want one refresh at Clerk, not %d", n)
		}
		c.step(ask.name, "GET "+strings.TrimPrefix(p.at, c.Site), p, err)
	}
}

func (c *checker) leavesSite(ctx context.Context, v *visitor) {
	p, err := v.open(ctx, c.Site+"/sign-out")
	if err == nil && p.status != http.StatusOK {
		err = errors.New("want Clerk's account page")
	}
	c.step("Ada's account at Clerk", "GET /sign-out", p, err)
	if err != nil {
		return
	}
	p, err = v.press(ctx, p)
	if err == nil && (p.status != http.StatusOK || withoutQuery(p.at) != c.Stack.IssuerURL+"/sign-in") {
		err = errors.New("want Clerk's sign-in page")
	}
	c.step("she signs out, and is asked to sign in", "POST to Clerk", p, err)
	p, err = v.fetch(ctx, sitePicture, nil)
	c.refused("nothing is served any more", sitePicture, p, err, "token_missing")
}

func (c *checker) refused(name, path string, p page, err error, code string) {
	if err == nil {
		err = p.is(http.StatusUnauthorized, code)
	}
	c.step(name, "GET "+path, p, err)
}
