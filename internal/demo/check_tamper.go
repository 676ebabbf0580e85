package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// attempt is a try at rows of somebody else. It ends with one's own rows, or with a refusal.
type attempt struct {
	name   string
	ask    question
	status int // 0: answered with one's own rows
	code   string
}

// tampering tries, as Ada of Acme, to read what is Globex's.
func (c *checker) tampering(ctx context.Context) {
	b, err := c.person(ctx, "ada")
	if err != nil {
		c.step("Ada", "nothing", "nothing", err)
		return
	}
	for _, base := range []string{"top_pages", "my_activity", "team_activity"} {
		honest := "/v0/pipes/" + base + ".json"
		own, err := b.ask(ctx, get(honest))
		if err == nil {
			err = own.is(http.StatusOK, "")
		}
		c.step("the honest answer of "+base, "GET "+honest, own, err)
		if err != nil {
			return
		}
		for _, t := range attempts(base, honest, c.Stack.API.SigningKey()) {
			a, err := b.ask(ctx, t.ask)
			if err == nil {
				err = t.judge(a, own, b.user)
			}
			c.step(t.name, c.redact(t.ask.String()), a, err)
		}
	}
}

// redact keeps the signing key, which one attempt sends along, out of the lines.
func (c *checker) redact(line string) string {
	for _, key := range []string{c.Stack.API.SigningKey(), url.QueryEscape(c.Stack.API.SigningKey())} {
		line = strings.ReplaceAll(line, key, "<the admin token>")
		if n := strings.Index(line, key[:20]); n >= 0 {
			line = line[:n] + "<the admin token>"
		}
	}
	return line
}

// judge wants a refusal, or the very rows of the honest answer by way of a request in which nothing of the other
// tenant is left.
func (t attempt) judge(a, own answer, u devstack.User) error {
	if t.status != 0 {
		return a.is(t.status, t.code)
	}
	if err := a.is(http.StatusOK, ""); err != nil {
		return err
	}
	if !reflect.DeepEqual(a.Data, own.Data) {
		return errors.New("these are not the rows of the honest answer")
	}
	up := a.received
	if up == nil {
		return errors.New("the API has no record of it")
	}
	if len(up.Tokens) != 1 || up.TokenFrom != "header" || up.Claims == nil {
		return fmt.Errorf("want one minted token in the header, not %d (%s)", len(up.Tokens), up.TokenFrom)
	}
	for name, values := range up.Header {
		if strings.Contains(strings.Join(values, " "), devstack.GlobexID) || name == "Cookie" {
			return fmt.Errorf("header %s went up", name)
		}
	}
	if sent := up.Path + "?" + up.RawQuery + string(up.Body); strings.Contains(sent, devstack.GlobexID) || strings.Contains(strings.ToLower(sent), "token") {
		return fmt.Errorf("this went up: %s", sent)
	}
	if fixed := fixedParams(up.Claims); fixed["organization_id"] != u.Organization.ID {
		return fmt.Errorf("the minted token is for %v", fixed["organization_id"])
	}
	return nil
}

func attempts(pipe, path, adminToken string) []attempt {
	switch pipe {
	case "my_activity":
		cleo, _ := devstack.UserByKey("cleo")
		return []attempt{
			{name: "another user's id", ask: get(path + "?user_id=" + cleo.ID)},
			{name: "another user's id in the body", ask: post(path, `{"user_id":"`+cleo.ID+`"}`)},
		}
	case "team_activity":
		return []attempt{{name: "another team's id", ask: get(path + "?team_id=team_ops&organization_id=" + devstack.GlobexID)}}
	}
	return append(queryAttempts(path, adminToken), bodyAttempts(path, adminToken)...)
}

func queryAttempts(path, adminToken string) []attempt {
	id := devstack.GlobexID
	return []attempt{
		{name: "organization_id in the query", ask: get(path + "?organization_id=" + id)},
		{name: "twice, one's own first", ask: get(path + "?organization_id=" + devstack.AcmeID + "&organization_id=" + id)},
		{name: "in capitals", ask: get(path + "?ORGANIZATION_ID=" + id)},
		{name: "with an escaped letter", ask: get(path + "?organization%5Fid=" + id)},
		{name: "as an array", ask: get(path + "?organization_id[]=" + id)},
		{name: "behind a semicolon", ask: get(path + "?a=1;organization_id=" + id), status: http.StatusBadRequest, code: "bad_query"},
		{name: "with the admin token in the query", ask: get(path + "?token=" + url.QueryEscape(adminToken) + "&organization_id=" + id)},
		{name: "with TOKEN in capitals", ask: get(path + "?TOKEN=" + url.QueryEscape(adminToken))},
		{name: "with SQL in the query", ask: get(path + "?q=SELECT+*+FROM+events")},
		{name: "with a pipeline of one's own", ask: get(path + "?pipeline=leaky_report&__tb__semver=1.0.0")},
		{name: "with a GET's body", ask: question{method: http.MethodGet, target: path, body: `{"organization_id":"` + id + `"}`}},
		{name: "with a second Authorization", ask: question{
			method: http.MethodGet, target: path, header: http.Header{"Authorization": {"Bearer a.b.c", "Bearer " + adminToken}},
		}, status: http.StatusBadRequest, code: "bad_request"},
	}
}

func bodyAttempts(path, adminToken string) []attempt {
	id := devstack.GlobexID
	return []attempt{
		{name: "organization_id in the body", ask: post(path, `{"organization_id":"`+id+`"}`)},
		{name: "in the body, in capitals", ask: post(path, `{"Organization_ID":"`+id+`"}`)},
		{name: "in the body, with an escaped letter", ask: post(path, `{"organization\u005fid":"`+id+`"}`)},
		{name: "in the query and in the body", ask: post(path+"?organization_id="+id, `{"organization_id":"`+id+`"}`)},
		{name: "in the body, twice", ask: post(path, `{"limit":5,"limit":6}`), status: http.StatusBadRequest, code: "bad_body"},
		{name: "the admin token in the body", ask: post(path, `{"token":"`+adminToken+`","q":"SELECT 1"}`)},
		{name: "SQL as the body", ask: question{
			method: http.MethodPost, target: path, body: "SELECT * FROM _", contentType: "text/plain",
		}, status: http.StatusUnsupportedMediaType, code: "unsupported_body"},
		{name: "SQL called JSON", ask: post(path, "SELECT * FROM _"), status: http.StatusBadRequest, code: "bad_body"},
		{name: "a form as the body", ask: question{
			method: http.MethodPost, target: path, body: "organization_id=" + id, contentType: "application/x-www-form-urlencoded",
		}, status: http.StatusUnsupportedMediaType, code: "unsupported_body"},
	}
}

// unlisted asks for what the config does not name.
func (c *checker) unlisted(ctx context.Context) {
	b, err := c.person(ctx, "ada")
	if err != nil {
		c.step("Ada", "nothing", "nothing", err)
		return
	}
	for _, t := range []struct{ name, target string }{
		{"a pipe that Tinybird has", "/v0/pipes/leaky_report.json"},
		{"a pipe that nobody has", "/v0/pipes/no_such_pipe.json"},
		{"a listed pipe by its id", "/v0/pipes/t_top0pages.json"},
		{"a listed pipe, escaped", "/v0/pipes/top%5Fpages.json"},
		{"a way out of the folder", "/v0/pipes/top_pages.json/../../sql?q=SELECT+1"},
		{"the same, escaped", "/v0/pipes/%2e%2e%2fsql?q=SELECT+1"},
		{"a format that is none", "/v0/pipes/top_pages.xml"},
		{"the list of pipes", "/v0/pipes"},
		{"SQL", "/v0/sql?q=SELECT+1"},
		{"the tokens", "/v0/tokens"},
	} {
		c.expect(ctx, b, t.name, get(t.target), http.StatusNotFound, "not_found")
	}
	q := question{method: http.MethodDelete, target: "/v0/pipes/top_pages.json"}
	c.expect(ctx, b, "another method", q, http.StatusMethodNotAllowed, "method_not_allowed")
}
