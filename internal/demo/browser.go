package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// browser asks the edge as the page does: with the cookies it was given, or with a bearer token.
type browser struct {
	origin string
	client *http.Client
	api    *devstack.API
	user   devstack.User
	token  string
	keep   func(answer) // every answer, for a last look at all of them
}

// question is one request. Its target is the path and the query as they are sent.
type question struct {
	method, target, body string
	contentType          string // "": JSON, if there is a body
	header               http.Header
}

func (q question) String() string {
	if len(q.target) > 60 {
		q.target = q.target[:59] + "…"
	}
	if q.body != "" && len(q.body) < 60 {
		return q.method + " " + q.target + " " + q.body
	}
	return q.method + " " + q.target
}

func get(target string) question { return question{method: http.MethodGet, target: target} }

func post(target, body string) question {
	return question{method: http.MethodPost, target: target, body: body}
}

// answer is what came back, and what the API received for it: nil if nothing reached it.
type answer struct {
	status   int
	header   http.Header
	body     []byte
	received *devstack.Recorded
	trace    string // by which the request is found elsewhere

	Code string           `json:"code"`
	Rows int              `json:"rows"`
	Data []map[string]any `json:"data"`
}

func (a answer) String() string {
	switch {
	case a.Code != "":
		return fmt.Sprintf("%d %s", a.status, a.Code)
	case a.Data != nil && a.Rows == 1:
		return fmt.Sprintf("%d, 1 row", a.status)
	case a.Data != nil:
		return fmt.Sprintf("%d, %d rows", a.status, a.Rows)
	}
	return fmt.Sprintf("%d, %d bytes", a.status, len(a.body))
}

func newBrowser(origin string, api *devstack.API, keep func(answer)) (*browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("make a cookie jar: %w", err)
	}
	return &browser{
		origin: origin, api: api, keep: keep,
		client: &http.Client{
			Jar: jar, Timeout: 20 * time.Second, Transport: &http.Transport{},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// signIn signs somebody in and keeps the cookies.
func (b *browser) signIn(ctx context.Context, key string) (answer, error) {
	a, err := b.ask(ctx, post("/dev/sign-in", `{"user":"`+key+`"}`))
	if err != nil {
		return a, err
	}
	return a, b.adopt(a)
}

// refresh gets a new token for whoever is signed in, as Clerk's script does before the last one ends.
func (b *browser) refresh(ctx context.Context) error {
	a, err := b.ask(ctx, get("/dev/token"))
	if err != nil {
		return err
	}
	return b.adopt(a)
}

func (b *browser) adopt(a answer) error {
	var in struct {
		User  devstack.User `json:"user"`
		Token string        `json:"token"`
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("the issuer answered %d", a.status)
	}
	if err := json.Unmarshal(a.body, &in); err != nil {
		return fmt.Errorf("read the issuer's answer: %w", err)
	}
	b.user, b.token = in.User, in.Token
	return nil
}

// bearing is the same browser with a header instead of cookies.
func (b *browser) bearing(token string) *browser {
	other := *b
	client := *b.client
	client.Jar = nil
	other.client = &client
	other.token = token
	return &other
}

func (b *browser) ask(ctx context.Context, q question) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, q.method, b.origin+q.target, strings.NewReader(q.body))
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", q, err)
	}
	trace := randomHex(16)
	r.Header = http.Header{"Traceparent": {"00-" + trace + "-" + randomHex(8) + "-01"}, "User-Agent": {"caddy-tinybird-demo"}}
	if q.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if q.method == http.MethodPost {
		r.Header.Set("Origin", b.origin)
	}
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
	}
	if b.client.Jar == nil && b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	maps.Copy(r.Header, q.header)
	return b.send(r, trace)
}

func (b *browser) send(r *http.Request, trace string) (answer, error) {
	response, err := b.client.Do(r)
	if err != nil {
		return answer{}, fmt.Errorf("ask the edge: %w", err)
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode, header: response.Header, trace: trace}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		return a, fmt.Errorf("read the edge's answer: %w", err)
	}
	if strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		dec := json.NewDecoder(bytes.NewReader(a.body))
		dec.UseNumber()
		if err := dec.Decode(&a); err != nil {
			return a, fmt.Errorf("read the edge's JSON: %w", err)
		}
	}
	if got, ok := receivedFor(b.api, trace); ok {
		a.received = &got
	}
	b.keep(a)
	return a, nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	// It never fails.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}
