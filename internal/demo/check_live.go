package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// liveCase is a request, and what has to be told of it.
type liveCase struct {
	name           string
	user           string // "": nobody
	ask            question
	fixed          []string
	taken, dropped []string
	steps          []string
}

func liveCases(adminToken string) []liveCase {
	org := []string{"organization_id"}
	asked := []string{"identify", "authorize", "limit", "mint", "build", "forward"}
	id := devstack.GlobexID
	return []liveCase{
		{"another's id is told as dropped", "ada", get("/v0/pipes/top_pages.json?limit=3&organization_id=" + id), org, []string{"limit"}, org, asked},
		{
			"however it is spelled", "ada", get("/v0/pipes/top_pages.json?ORGANIZATION_ID=" + id + "&organization%5Fid=" + id + "&a.b=1"),
			org, nil, []string{"ORGANIZATION_ID", "organization_id", "_other"}, asked,
		},
		{
			"in the query and in the body", "cleo", post("/v0/pipes/my_activity.json?user_id=x&limit=2", `{"organization_id":"`+devstack.AcmeID+`"}`),
			[]string{"organization_id", "user_id"}, []string{"limit"}, []string{"user_id", "organization_id"}, asked,
		},
		{"a token is a name, and nothing more", "ada", get("/v0/pipes/top_pages.json?token=" + url.QueryEscape(adminToken)), org, nil, []string{"token"}, asked},
		{"nothing is made up", "ben", get("/v0/pipes/org_metrics.json"), org, nil, nil, asked},
		{"no organization", "dana", get("/v0/pipes/top_pages.json?limit=3"), nil, nil, nil, []string{"identify", "refuse"}},
		{"no session", "", get("/v0/pipes/top_pages.json?limit=3"), nil, nil, nil, []string{"refuse"}},
		{"a pipe that is not listed", "ada", get("/v0/pipes/leaky_report.json"), nil, nil, nil, []string{"identify", "refuse"}},
	}
}

// live compares what the live view tells of a request with what came back to the client and with what the API received.
func (c *checker) live(ctx context.Context) {
	for _, l := range liveCases(c.Stack.API.SigningKey()) {
		b, err := c.newcomer()
		if err == nil && l.user != "" {
			b, err = c.person(ctx, l.user)
		}
		if err != nil {
			c.step(l.name, "nothing", "nothing", err)
			continue
		}
		a, err := b.ask(ctx, l.ask)
		var d decision
		if err == nil {
			d, err = c.told(ctx, a)
		}
		if err == nil {
			err = l.judge(d, a, b.user)
		}
		c.step(l.name, c.redact(l.ask.String()), d, err)
	}
	c.liveLimit(ctx)
	c.liveShared(ctx)
}

// String is a decision as a line of the check.
func (d decision) String() string {
	return fmt.Sprintf("%s, fixed %v, taken %v, dropped %v, %.0f µs", d.Code, d.Fixed, d.Taken, d.Dropped, d.Total)
}

// told waits for what the live view says about the request with an answer, as a page does that was opened just now.
func (c *checker) told(ctx context.Context, a answer) (decision, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Origin+"/demo/decisions", http.NoBody)
	if err != nil {
		return decision{}, fmt.Errorf("open the live view: %w", err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return decision{}, fmt.Errorf("open the live view: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		return decision{}, fmt.Errorf("the live view answers %d %s", response.StatusCode, response.Header.Get("Content-Type"))
	}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		c.answers = append(c.answers, bytes.Clone(data))
		if bytes.Contains(data, []byte("eyJ")) {
			return decision{}, errors.New("a token is in the live view")
		}
		var d decision
		if err := json.Unmarshal(data, &d); err != nil {
			return d, fmt.Errorf("read the live view: %w", err)
		}
		if d.Trace == a.trace {
			return d, nil
		}
	}
	return decision{}, errors.New("the live view says nothing of it")
}

func (l liveCase) judge(d decision, a answer, u devstack.User) error {
	var org string
	if u.Organization != nil {
		org = u.Organization.ID
	}
	switch {
	case d.User != u.ID || d.Org != org:
		return fmt.Errorf("it is told of %q of %q", d.User, d.Org)
	case d.Status != a.status || d.Code != a.Code && (a.Code != "" || d.Code != "ok"):
		return fmt.Errorf("%d %s is told as %d %s", a.status, a.Code, d.Status, d.Code)
	case !slices.Equal(d.Fixed, l.fixed) || !slices.Equal(d.Taken, l.taken) || !slices.Equal(d.Dropped, l.dropped):
		return fmt.Errorf("want fixed %v, taken %v, dropped %v", l.fixed, l.taken, l.dropped)
	case a.received == nil && a.Code == "":
		return errors.New("the API has no record of it")
	}
	if err := d.left(a.header); err != nil {
		return err
	}
	if err := d.wentUp(a.received); err != nil {
		return err
	}
	return d.took(l.steps)
}

// left compares what is told of the limit with the headers of the answer.
func (d decision) left(h http.Header) error {
	told := ""
	if d.Remaining != nil {
		told = strconv.Itoa(*d.Remaining)
	}
	if got := h.Get("X-Ratelimit-Remaining"); got != told {
		return fmt.Errorf("%q requests are left, and %q are told", got, told)
	}
	return nil
}

// wentUp compares the names that are told with those that reached the API, and with those of the minted token.
func (d decision) wentUp(up *devstack.Recorded) error {
	if up == nil {
		return nil
	}
	query, err := url.ParseQuery(up.RawQuery)
	if err != nil {
		return fmt.Errorf("read what went up: %w", err)
	}
	body := map[string]any{}
	if len(up.Body) > 0 {
		if err := json.Unmarshal(up.Body, &body); err != nil {
			return fmt.Errorf("read what went up: %w", err)
		}
	}
	for name := range query {
		body[name] = nil
	}
	for name := range body {
		if !slices.Contains(d.Taken, name) {
			return fmt.Errorf("%s went up, and is not told as taken", name)
		}
	}
	if len(body) != len(d.Taken) {
		return fmt.Errorf("%v are told as taken, and %d names went up", d.Taken, len(body))
	}
	fixed := fixedParams(up.Claims)
	for _, name := range d.Fixed {
		if _, ok := fixed[name]; !ok {
			return fmt.Errorf("%s is told as fixed, and the token does not have it", name)
		}
	}
	if len(fixed) != len(d.Fixed) {
		return fmt.Errorf("the token fixes %d parameters, and %v are told", len(fixed), d.Fixed)
	}
	return nil
}

// took wants the steps, in this order, to make up all of the time.
func (d decision) took(steps []string) error {
	var got []string
	sum := 0.0
	dec := json.NewDecoder(bytes.NewReader(d.Steps))
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return fmt.Errorf("read the steps: %w", err)
		}
		switch v := token.(type) {
		case string:
			got = append(got, v)
		case float64:
			sum += v
		}
	}
	if !slices.Equal(got, steps) {
		return fmt.Errorf("want the steps %s, not %s", strings.Join(steps, " "), strings.Join(got, " "))
	}
	if d.Total <= 0 || sum < d.Total-1 || sum > d.Total+1 {
		return fmt.Errorf("the steps make %.1f µs of %.1f", sum, d.Total)
	}
	return nil
}

// liveLimit exceeds a limit and wants to be told so.
func (c *checker) liveLimit(ctx context.Context) {
	q := get("/v0/pipes/live_events.json?limit=1")
	var d decision
	var refused answer
	cleo, err := c.person(ctx, "cleo")
	if err == nil {
		refused, _, err = exceed(ctx, cleo, q)
	}
	if err == nil {
		d, err = c.told(ctx, refused)
	}
	switch {
	case err != nil:
	case d.Code != "rate_limited" || d.Remaining == nil || *d.Remaining != 0 || d.Rate == nil || *d.Rate != 2:
		err = errors.New("want rate_limited, and nothing left of 2 a second")
	case d.RetryAfter == nil || strconv.Itoa(*d.RetryAfter) != refused.header.Get("Retry-After"):
		err = errors.New("another Retry-After was sent")
	}
	c.step("over the limit nothing is left", q, d, err)
}

// liveShared asks the same twice. What is asked has to be new to the edge, so that the first answer is from Tinybird.
func (c *checker) liveShared(ctx context.Context) {
	q := get("/v0/pipes/sales_by_day.json?limit=" + strconv.Itoa(1000+time.Now().Nanosecond()))
	ada, err := c.person(ctx, "ada")
	if err != nil {
		c.step("Ada", "nothing", "nothing", err)
		return
	}
	for _, want := range []struct {
		name, cache string
		asked       bool
	}{{"a shared answer is new", "miss", true}, {"then it comes from memory", "hit", false}} {
		var d decision
		a, err := ada.ask(ctx, q)
		if err == nil {
			d, err = c.told(ctx, a)
		}
		if err == nil && (d.Cache != want.cache || (a.received != nil) != want.asked) {
			err = fmt.Errorf("want %s, and the API asked: %v", want.cache, want.asked)
		}
		c.step(want.name, q, d.Cache, err)
	}
}
