package tbapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Definition is a pipe as its author wrote it.
type Definition struct {
	Name     string
	Nodes    []Node
	Endpoint string // the name of the node that is published; "" while none is
}

// Node is one step of a pipe.
type Node struct{ Name, SQL string }

// Node returns a node by its name.
func (d *Definition) Node(name string) (Node, bool) {
	i := slices.IndexFunc(d.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return d.Nodes[i], true
}

// Definition reads a pipe, each once; [ErrNoPipe] when there is none of the name.
func (c *Client) Definition(ctx context.Context, name string) (*Definition, error) {
	if d, known := c.pipes[name]; known {
		if d == nil {
			return nil, ErrNoPipe
		}
		return d, nil
	}
	d, err := c.fetch(ctx, name)
	if err == nil || errors.Is(err, ErrNoPipe) {
		if c.pipes == nil {
			c.pipes = map[string]*Definition{}
		}
		c.pipes[name] = d
	}
	return d, err
}

func (c *Client) fetch(ctx context.Context, name string) (*Definition, error) {
	what := "the definition of " + name
	body, err := c.asAdmin(ctx, "/v0/pipes/"+url.PathEscape(name), what, ErrNoPipe)
	if err != nil {
		return nil, err
	}
	d, err := parseDefinition(body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
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

// Rows are what a pipe returned.
type Rows struct {
	Columns []string
	Data    []map[string]any // numbers are json.Number
}

// Column finds a column, in whatever letter case.
func (r *Rows) Column(name string) (string, bool) {
	i := slices.IndexFunc(r.Columns, func(c string) bool { return strings.EqualFold(c, name) })
	if i < 0 {
		return "", false
	}
	return r.Columns[i], true
}

// Read asks a pipe for its rows with a token. The rows are nil for a status that is not 200, which is no error.
func (c *Client) Read(ctx context.Context, pipe, token string, query url.Values) (rows *Rows, status int, err error) {
	res, err := c.Get(ctx, "/v0/pipes/"+pipe+".json", query, token, MaxRows)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", pipe, err)
	}
	if res.Status != http.StatusOK {
		return nil, res.Status, nil
	}
	var said struct {
		Meta []struct {
			Name string `json:"name"`
		} `json:"meta"`
		Data []map[string]any `json:"data"`
	}
	dec := json.NewDecoder(bytes.NewReader(res.Body))
	dec.UseNumber()
	if err := dec.Decode(&said); err != nil || said.Data == nil {
		return nil, res.Status, fmt.Errorf("read %s: the answer is not the JSON of rows", pipe)
	}
	r := &Rows{Data: said.Data}
	for _, m := range said.Meta {
		r.Columns = append(r.Columns, m.Name)
	}
	return r, res.Status, nil
}
