package caddytinybird

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// Who writes the body of a refusal, and whether it may have Tinybird's own text.
const (
	errorsJSON  = "json"
	errorsCaddy = "caddy"

	upstreamErrorsHide = "hide"
	upstreamErrorsPass = "pass"
)

var (
	checkErrors         = oneOf("errors", errorsJSON, errorsCaddy)
	checkUpstreamErrors = oneOf("upstream_errors", upstreamErrorsHide, upstreamErrorsPass)
)

// errClientClosed is what Caddy logs for a client that went away before its answer was ready.
func errClientClosed() error { return caddyhttp.Error(499, errors.New("client closed the request")) }

// refusalOf returns err as a refusal. An error that is none is a fault of ours, and fails closed.
func refusalOf(err error) *apierr.Error {
	if err == nil {
		return nil
	}
	if refusal := (*apierr.Error)(nil); errors.As(err, &refusal) {
		return refusal
	}
	return apierr.New(http.StatusInternalServerError, apierr.Internal, "Something unexpected happened at the edge.").Wrap(err)
}

// refuse answers a refused request: with JSON, or by the site's handle_errors, to which the client's sentence is given and
// nothing of the cause. The placeholder gets the code either way.
func refuse(w http.ResponseWriter, r *http.Request, who, placeholder string, refusal *apierr.Error) error {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set(placeholder, string(refusal.Code))
	}
	if who == errorsCaddy {
		refusal.SetHeaders(w.Header())
		return caddyhttp.Error(refusal.Status, errors.New(refusal.Message))
	}
	// That the client is gone by now changes nothing.
	_ = refusal.Write(w)
	return nil
}
