package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// signedOut asks without a session.
func (c *checker) signedOut(ctx context.Context) {
	b, err := c.newcomer()
	if err != nil {
		c.step("a browser", "nothing", "nothing", err)
		return
	}
	page, err := b.ask(ctx, get("/"))
	if err == nil && (page.status != http.StatusOK || !strings.Contains(page.header.Get("Content-Security-Policy"), "default-src 'none'")) {
		err = errors.New("want 200 and a strict Content-Security-Policy")
	}
	c.step("the page is served", "GET /", page, err)

	q := get("/v0/pipes/top_pages.json")
	a, err := b.ask(ctx, q)
	if err == nil {
		err = a.is(http.StatusUnauthorized, "token_missing")
	}
	if challenge := a.header.Get("Www-Authenticate"); err == nil && challenge != "Bearer" {
		err = fmt.Errorf("want WWW-Authenticate: Bearer, not %q", challenge)
	}
	c.step("no session, no rows", q, a, err)
}

// ownRows signs everybody in and compares each pipe's rows with those that the API has of them.
func (c *checker) ownRows(ctx context.Context) {
	for _, u := range devstack.Users() {
		b, err := c.newcomer()
		if err != nil {
			c.step(u.Name+" opens a browser", "nothing", "nothing", err)
			continue
		}
		a, err := b.signIn(ctx, u.Key)
		came := "no organization"
		if o := u.Organization; o != nil {
			came = o.Name + ", " + o.Role
		}
		c.step(u.Name+" signs in", "POST /dev/sign-in", fmt.Sprintf("%d, %s", a.status, came), err)
		if err != nil {
			continue
		}
		c.people[u.Key] = b
		if u.Organization == nil {
			c.expect(ctx, b, u.Name+" has no organization, so no rows", get("/v0/pipes/top_pages.json"), http.StatusForbidden, "tenant_missing")
			c.expect(ctx, b, u.Name+" has no rows by asking for one", get("/v0/pipes/top_pages.json?organization_id="+devstack.AcmeID), http.StatusForbidden, "tenant_missing")
			continue
		}
		for _, v := range views() {
			c.reads(ctx, b, v)
		}
		c.reads(ctx, b.bearing(b.token), views()[0])
	}
}

// reads compares the rows of one pipe with what the user owns, exactly.
func (c *checker) reads(ctx context.Context, b *browser, v view) {
	q := get("/v0/pipes/" + v.pipe + ".json" + v.query)
	a, err := b.ask(ctx, q)
	if err == nil {
		err = a.is(http.StatusOK, "")
	}
	want := v.own(b.user, c.Stack.API.Rows())
	if err == nil {
		err = sameRows(v.rows(a), want)
	}
	name := b.user.Name + " reads " + v.pipe
	if b.client.Jar == nil {
		name += " by a header"
	}
	came := a.String()
	if err == nil {
		came += ", all of " + b.user.Organization.Name
	}
	c.step(name, q, came, err)
}

func sameRows(got, want []string) error {
	for _, row := range got {
		if !slices.Contains(want, row) {
			return fmt.Errorf("a row that is not the user's: %s", row)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("want %d rows, not %d", len(want), len(got))
	}
	return nil
}

// view is a pipe's columns as text, and the same out of the events that the API holds.
type view struct {
	pipe, query string
	columns     []string
	own         func(devstack.User, []devstack.Row) []string
}

func (v view) rows(a answer) []string {
	list := make([]string, 0, len(a.Data))
	for _, row := range a.Data {
		cells := make([]string, 0, len(v.columns))
		for _, name := range v.columns {
			cells = append(cells, fmt.Sprint(row[name]))
		}
		list = append(list, strings.Join(cells, " "))
	}
	return list
}

func views() []view {
	return []view{
		{"top_pages", "?limit=1000", []string{"path", "views"}, func(u devstack.User, all []devstack.Row) []string {
			return counted(all, func(r devstack.Row) (string, bool) { return r.Path, r.OrganizationID == u.Organization.ID })
		}},
		{"sales_by_day", "", []string{"day", "orders"}, func(u devstack.User, all []devstack.Row) []string {
			return counted(all, func(r devstack.Row) (string, bool) {
				return r.TS.UTC().Format(time.DateOnly), r.OrganizationID == u.Organization.ID && r.AmountCents > 0
			})
		}},
		{"live_events", "?limit=10000", []string{"ts", "user_id", "path"}, func(u devstack.User, all []devstack.Row) []string {
			return events(all, func(r devstack.Row) bool { return r.OrganizationID == u.Organization.ID })
		}},
		{"my_activity", "?limit=10000", []string{"ts", "path"}, func(u devstack.User, all []devstack.Row) []string {
			list := events(all, func(r devstack.Row) bool { return r.OrganizationID == u.Organization.ID && r.UserID == u.ID })
			for n := range list {
				list[n] = strings.Replace(list[n], " "+u.ID, "", 1)
			}
			return list
		}},
		{"team_activity", "", []string{"team_id", "user_id", "events"}, func(u devstack.User, all []devstack.Row) []string {
			return counted(all, func(r devstack.Row) (string, bool) {
				return r.TeamID + " " + r.UserID, r.OrganizationID == u.Organization.ID && slices.Contains(u.Teams, r.TeamID)
			})
		}},
	}
}

func counted(all []devstack.Row, key func(devstack.Row) (string, bool)) []string {
	counts := map[string]int{}
	for _, r := range all {
		if k, ok := key(r); ok {
			counts[k]++
		}
	}
	list := make([]string, 0, len(counts))
	for _, k := range slices.SortedFunc(maps.Keys(counts), cmp.Compare) {
		list = append(list, k+" "+strconv.Itoa(counts[k]))
	}
	return list
}

func events(all []devstack.Row, keep func(devstack.Row) bool) []string {
	var list []string
	for _, r := range all {
		if keep(r) {
			list = append(list, r.TS.UTC().Format(time.DateTime)+" "+r.UserID+" "+r.Path)
		}
	}
	return list
}
