package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Bounds of one answer of Tinybird's.
const (
	maxDefinition = 4 << 20
	maxRows       = 16 << 20
)

var (
	errNoPipe  = errors.New("there is no such pipe in the workspace")
	errTooBig  = errors.New("the answer is too large to look at")
	errToken   = errors.New("the signing key is refused by Tinybird: it has to be the workspace admin token of this workspace, and upstream the address of its region")
	errTimeout = errors.New("no answer from Tinybird in time; give it more with --timeout, or try again later")
)

// client asks Tinybird's API. No token is in its errors: they quote neither headers nor answers to a refused token.
type client struct {
	base      *url.URL
	transport http.RoundTripper
	timeout   time.Duration
	token     string // the workspace admin token

	pipes map[string]*Definition // nil values: known not to exist
}

// response is an answer within bounds.
type response struct {
	status int
	body   []byte
}

func (c *client) get(ctx context.Context, path string, query url.Values, token string, limit int64) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	u := *c.base
	u.Path += path
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return response{}, fmt.Errorf("ask Tinybird: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "application/json")
	res, err := c.transport.RoundTrip(r)
	if err != nil {
		return response{}, c.failed(ctx, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return response{}, c.failed(ctx, err)
	case int64(len(body)) > limit:
		return response{}, errTooBig
	}
	return response{res.StatusCode, body}, nil
}

func (c *client) failed(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errTimeout
	}
	return fmt.Errorf("ask Tinybird at %s: %w", c.base.Host, err)
}

// definition reads a pipe; errNoPipe when there is none of the name.
func (c *client) definition(ctx context.Context, name string) (*Definition, error) {
	if d, known := c.pipes[name]; known {
		if d == nil {
			return nil, errNoPipe
		}
		return d, nil
	}
	d, err := c.fetch(ctx, name)
	if err == nil || errors.Is(err, errNoPipe) {
		c.pipes[name] = d
	}
	return d, err
}

func (c *client) fetch(ctx context.Context, name string) (*Definition, error) {
	res, err := c.get(ctx, "/v0/pipes/"+url.PathEscape(name), nil, c.token, maxDefinition)
	if err != nil {
		return nil, fmt.Errorf("read the definition of %s: %w", name, err)
	}
	switch res.status {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, errToken
	case http.StatusNotFound:
		return nil, errNoPipe
	default:
		return nil, fmt.Errorf("read the definition of %s: Tinybird answers with status %d", name, res.status)
	}
	d, err := parseDefinition(res.body)
	if err != nil {
		return nil, fmt.Errorf("read the definition of %s: %w", name, err)
	}
	return d, nil
}

// parseDefinition reads the answer to GET /v0/pipes/<name> (https://www.tinybird.co/docs/api-reference/pipe-api). The endpoint is
// a node's id; pipes from before that was so named have it in published_version.
func parseDefinition(body []byte) (*Definition, error) {
	var said struct {
		Name      string  `json:"name"`
		Endpoint  *string `json:"endpoint"`
		Published *string `json:"published_version"`
		Nodes     []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
			SQL  string `json:"sql"`
			Type string `json:"node_type"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, errors.New("the answer is not the JSON of a pipe")
	}
	if said.Name == "" || len(said.Nodes) == 0 {
		return nil, errors.New("the answer holds no nodes")
	}
	d := &Definition{Name: said.Name}
	for _, n := range said.Nodes {
		d.Nodes = append(d.Nodes, Node{n.Name, n.SQL})
		published := func(id *string) bool { return id != nil && *id != "" && (*id == n.ID || *id == n.Name) }
		if published(said.Endpoint) || said.Endpoint == nil && (published(said.Published) || n.Type == "endpoint") {
			d.Endpoint = n.Name
		}
	}
	if d.Endpoint == "" && said.Endpoint != nil && *said.Endpoint != "" {
		return nil, errors.New("the answer names an endpoint that is none of its nodes")
	}
	return d, nil
}

// rows are what a pipe returned.
type rows struct {
	columns []string
	data    []map[string]any // numbers are json.Number
}

// column finds a column, in whatever letter case.
func (r *rows) column(name string) (string, bool) {
	i := slices.IndexFunc(r.columns, func(c string) bool { return strings.EqualFold(c, name) })
	if i < 0 {
		return "", false
	}
	return r.columns[i], true
}

func (c *client) read(ctx context.Context, pipe, token string, query url.Values) (*rows, int, error) {
	res, err := c.get(ctx, "/v0/pipes/"+pipe+".json", query, token, maxRows)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", pipe, err)
	}
	if res.status != http.StatusOK {
		return nil, res.status, nil
	}
	var said struct {
		Meta []struct {
			Name string `json:"name"`
		} `json:"meta"`
		Data []map[string]any `json:"data"`
	}
	dec := json.NewDecoder(bytes.NewReader(res.body))
	dec.UseNumber()
	if err := dec.Decode(&said); err != nil || said.Data == nil {
		return nil, res.status, fmt.Errorf("read %s: the answer is not the JSON of rows", pipe)
	}
	r := &rows{data: said.Data}
	for _, m := range said.Meta {
		r.columns = append(r.columns, m.Name)
	}
	return r, res.status, nil
}
