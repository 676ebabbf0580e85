package tbapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Datasource is a data source of the workspace.
type Datasource struct {
	Name    string
	Columns []string // none if Tinybird did not say
}

// Datasource reads what there is to know of a data source; [ErrNoDatasource] when there is none of the name.
func (c *Client) Datasource(ctx context.Context, name string) (Datasource, error) {
	what := "the data source " + name
	body, err := c.asAdmin(ctx, "/v0/datasources/"+url.PathEscape(name), what, ErrNoDatasource)
	if err != nil {
		return Datasource{}, err
	}
	var said struct {
		Name    string `json:"name"`
		Columns []struct {
			Name string `json:"name"`
		} `json:"columns"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Name == "" {
		return Datasource{}, fmt.Errorf("read %s: the answer is not the JSON of a data source", what)
	}
	d := Datasource{Name: said.Name}
	for _, column := range said.Columns {
		d.Columns = append(d.Columns, column.Name)
	}
	return d, nil
}

// Scope is one thing that a static token may do.
type Scope struct {
	Type     string `json:"type"` // such as DATASOURCES:APPEND
	Resource string `json:"resource"`
}

// String returns the scope as Tinybird's documents write it: TYPE:resource.
func (s Scope) String() string { return strings.TrimSuffix(s.Type+":"+s.Resource, ":") }

// StaticToken is what the workspace says of one of its static tokens. The token itself is not part of it.
type StaticToken struct {
	Name   string
	Scopes []Scope
}

// StaticTokens are the static tokens of the workspace. It is a list of secrets, of which nothing is shown but what is looked for.
type StaticTokens struct{ list []listedToken }

type listedToken struct {
	Name   string  `json:"name"`
	Token  string  `json:"token"`
	Scopes []Scope `json:"scopes"`
}

// Tokens lists the static tokens (https://www.tinybird.co/docs/api-reference/token-api).
func (c *Client) Tokens(ctx context.Context) (*StaticTokens, error) {
	body, err := c.asAdmin(ctx, "/v0/tokens", "the workspace's tokens", nil)
	if err != nil {
		return nil, err
	}
	var said struct {
		Tokens []listedToken `json:"tokens"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Tokens == nil {
		return nil, errors.New("read the workspace's tokens: the answer is not the JSON of a list of tokens")
	}
	return &StaticTokens{said.Tokens}, nil
}

// Find returns what is known of a token.
func (t *StaticTokens) Find(token string) (StaticToken, bool) {
	i := slices.IndexFunc(t.list, func(l listedToken) bool { return l.Token == token && token != "" })
	if i < 0 {
		return StaticToken{}, false
	}
	return StaticToken{t.list[i].Name, t.list[i].Scopes}, true
}
