package caddytinybird

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// tokenPipe stands for the token endpoint where metrics and logs name a pipe.
const tokenPipe = "_token"

// clientToken is the answer of the token endpoint.
type clientToken struct {
	// A Tinybird token for the pipes that were asked for and that the user may read, each fixed to the user's own values.
	Token string `json:"token"`

	// When it expires, in UTC (RFC 3339).
	ExpiresAt time.Time `json:"expires_at"`

	// The base URL of Tinybird's API, which takes the token.
	API string `json:"api"`
}

// serveToken hands a signed-in client a Tinybird token of its own. It is for clients that have to call Tinybird themselves: no
// filter or log of the edge stands between them, and of the limits only Tinybird's.
func (h *Handler) serveToken(w http.ResponseWriter, r *http.Request, x *exchange) error {
	x.pipe = tokenPipe
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return apierr.New(http.StatusMethodNotAllowed, apierr.MethodNotAllowed, "A token is fetched with GET or POST.").
			With("Allow", "GET, POST")
	}
	var err error
	if x.identity, err = h.identify(r, x.visitor); err != nil {
		return err
	}
	x.step(stepIdentify)
	pipe, err := askedPipe(r)
	if err != nil {
		return err
	}
	set, err := h.readable(pipe, x)
	if err != nil {
		return err
	}
	x.step(stepAuthorize)
	if _, err := h.limit(w, r, x, tokenPipe, &set.Asking); err != nil {
		return err
	}
	x.step(stepLimit)
	rps := 0
	if set.Rate != nil {
		if rps, err = allowedRate(r, set.Rate); err != nil {
			return err
		}
	}
	token, expires, cached, err := h.minter.MintAll(set, rps)
	if err != nil {
		return cannotMint(err)
	}
	x.minted(cached)
	return writeJSON(w, http.StatusOK, clientToken{Token: token, ExpiresAt: expires.UTC(), API: h.api})
}

// askedPipe is the one pipe that a token is asked for with ?pipe=, or "" for all. Nothing else in the query means anything here.
func askedPipe(r *http.Request) (string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	pipes, asked := query["pipe"]
	if err != nil || len(pipes) > 1 || asked && pipes[0] == "" {
		return "", apierr.New(http.StatusBadRequest, apierr.BadQuery, "The query is not understood. A token for one pipe is asked for with ?pipe=<name>.").Wrap(err)
	}
	return query.Get("pipe"), nil
}

// readable is what a token for the pipe, or without one for all that share the tenant's rate, may read. A token has one name and one
// rate at Tinybird. So that its holder has no second rate for a pipe beside the one here, it has the name and the rate that
// the tokens have which are minted for requests through the edge.
func (h *Handler) readable(pipe string, x *exchange) (*tinybird.GrantSet, error) {
	if pipe == "" {
		return h.policy.AuthorizeAll(x.identity)
	}
	return h.policy.AuthorizeAlone(pipe, x.identity)
}

// writeJSON answers with an answer of the edge's own, which is for one client.
func writeJSON(w http.ResponseWriter, status int, answer any) error {
	body, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", privateNoStore)
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// That the client is gone by now changes nothing.
	_, _ = w.Write(body)
	return nil
}

func cannotMint(err error) error {
	return apierr.New(http.StatusInternalServerError, apierr.Internal, "The edge could not make a token for Tinybird.").Wrap(err)
}

// provisionTokenEndpoint settles what the token endpoint answers.
func (h *Handler) provisionTokenEndpoint(base *url.URL) error {
	h.api = base.String()
	if h.TokenEndpoint == "" {
		return nil
	}
	if len(h.Pipes) == 0 {
		return errors.New("token_endpoint without a pipe has no token to give; add `pipe <name> { ... }` or remove it")
	}
	return checkTokenEndpoint(h.TokenEndpoint)
}

// checkTokenEndpoint accepts a path that no client can spell in two ways, and that means nothing else here.
func checkTokenEndpoint(endpoint string) error {
	if !strings.HasPrefix(endpoint, "/") || endpoint == "/" || path.Clean(endpoint) != endpoint {
		return fmt.Errorf("token_endpoint %s is no path; write one such as /tinybird/token", tinybird.Shown(endpoint))
	}
	for segment := range strings.SplitSeq(endpoint[1:], "/") {
		if strings.Trim(segment, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~") != "" {
			return fmt.Errorf("token_endpoint %s has an unusual path; use letters, digits and - . _ ~ between single slashes", tinybird.Shown(endpoint))
		}
	}
	if _, _, pipe := tinybird.ParsePath(endpoint); pipe || strings.HasPrefix(endpoint, "/v0/") || new(ingest.Policy).Serves(endpoint) {
		return fmt.Errorf("token_endpoint %s is where pipes are read and rows are sent; choose another path, such as /tinybird/token", tinybird.Shown(endpoint))
	}
	return nil
}
