// Package tbapi asks Tinybird's API what an operator wants to know about a workspace: how its pipes are defined, what they
// answer, which data sources and static tokens there are. It only reads. It is for commands; the edge itself asks by
// package forward.
package tbapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
)

// Bounds of one answer of Tinybird's, in bytes.
const (
	MaxDefinition = 4 << 20
	MaxRows       = 16 << 20
)

// What can be wrong with an answer.
var (
	ErrNoPipe       = errors.New("there is no such pipe in the workspace")
	ErrNoDatasource = errors.New("there is no such data source in the workspace")
	ErrTooBig       = errors.New("the answer is too large to look at")
	ErrToken        = errors.New("the signing key is refused by Tinybird: it has to be the workspace admin token of this workspace, and upstream the address of its region")
	ErrLimited      = errors.New("status 429 from Tinybird")
	ErrTimeout      = errors.New("no answer from Tinybird in time; give it more with --timeout, or try again later")
)

// Client asks Tinybird's API. No token is in its errors: they quote neither headers nor answers to a refused token.
type Client struct {
	Base      *url.URL
	Transport http.RoundTripper
	Timeout   time.Duration // of one call, up to the last byte
	Token     string        // the workspace admin token

	pipes map[string]*Definition // nil values: known not to exist
}

// Response is an answer within bounds.
type Response struct {
	Status int
	Body   []byte
	Header http.Header
}

// Get asks for a path. Of the answer's body no more than limit is read, and more is [ErrTooBig]; with a limit of 0 it is not
// looked at. An empty token sends none.
func (c *Client) Get(ctx context.Context, path string, query url.Values, token string, limit int64) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	u := *c.Base
	u.Path += path
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return Response{}, fmt.Errorf("ask Tinybird: %w", err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("Accept", "application/json")
	res, err := c.Transport.RoundTrip(r)
	if err != nil {
		return Response{}, c.failed(ctx, err, token)
	}
	defer res.Body.Close()
	if limit == 0 {
		return Response{Status: res.StatusCode, Header: res.Header}, nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return Response{}, c.failed(ctx, err, token)
	case int64(len(body)) > limit:
		return Response{}, ErrTooBig
	}
	return Response{res.StatusCode, body, res.Header}, nil
}

// errEcho takes the place of an error that quotes what came for an answer, such as an echo of the request.
var errEcho = errors.New("no HTTP came back, but something that holds a token")

func (c *Client) failed(ctx context.Context, err error, token string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ErrTimeout
	}
	if secret.Holds(err.Error(), token) {
		err = errEcho
	}
	return fmt.Errorf("ask Tinybird at %s: %w", c.Base.Host, err)
}

// asAdmin asks with the workspace admin token for a document of the workspace. none is the error for one that does not exist.
func (c *Client) asAdmin(ctx context.Context, path, what string, none error) ([]byte, error) {
	res, err := c.Get(ctx, path, nil, c.Token, MaxDefinition)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	switch res.Status {
	case http.StatusOK:
		return res.Body, nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, ErrToken
	case http.StatusTooManyRequests:
		return nil, fmt.Errorf("read %s: %w", what, ErrLimited)
	case http.StatusNotFound:
		if none != nil {
			return nil, none
		}
	}
	return nil, fmt.Errorf("read %s: Tinybird answers with status %d", what, res.Status)
}
